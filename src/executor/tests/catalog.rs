//! Resources and prompts, from samples that these tests alone register; and that none are shipped.

use std::collections::BTreeSet;
use std::path::Path;

use rmcp::model::{GetPromptResult, ListPromptsResult, ListResourcesResult, PromptMessage, ReadResourceResult, Role};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{sample_prompt, sample_resource, *};
use crate::executor::pipeline::Plan;
use crate::executor::prompts::{Argument, Prompt};
use crate::executor::registry::SHIPPED;
use crate::executor::resources::{Contents, Resource};
use crate::store::{Page, content};

const CONTACT: Resource = Resource {
    uri: "evo://contact",
    name: "contact",
    title: "Контакти",
    description: "Whom to ask.",
    mime_type: "text/markdown",
    contents: |_| Contents::Text("# Контакти\n".to_owned()),
};
/// What this site does not keep.
const TAGGED: Resource = Resource {
    uri: "evo://tagged",
    contents: |_| {
        let query = |tables: &_, wanted: &_, page| content::children(tables, 0, None, wanted, page);
        let mut plan = Plan::documents(Some(Page { limit: 1, offset: 0 }), Vec::new(), query);
        plan.tags = true;
        Contents::Rows(plan)
    },
    ..CONTACT
};
const PRIVATE: Resource = Resource { uri: "site://private", ..CONTACT };
const HELLO: Prompt = Prompt {
    name: "evo.prompt.hello",
    title: "Hello",
    description: "Greets.",
    arguments: &[],
    messages: |_, _| Ok(vec![PromptMessage::new_text(Role::Assistant, "Hello")]),
};
const DANGEROUS: Prompt = Prompt { name: "dangerous", ..HELLO };
const SAMPLES: Catalog = Catalog {
    resources: &[sample_resource::RESOURCE, CONTACT, TAGGED, PRIVATE],
    prompts: &[sample_prompt::PROMPT, HELLO, DANGEROUS],
};

async fn samples(catalog: Catalog) -> Site {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("site.sqlite");
    demo::create(&path, 0).await.unwrap();
    let site = site_with(directory, &path, catalog);
    let mut policy = snapshot();
    let server = Arc::make_mut(&mut policy.servers[0]);
    server.allow_resources = patterns(&["evo://*"]);
    server.allow_prompts = patterns(&["evo.prompt.*"]);
    site.policy.store(Arc::new(policy));
    site
}

async fn ask(site: &Site, method: &str, params: Value) -> Value {
    site.json(&json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string()).await
}

/// The library's own client type finds everything in an answer, and nothing that it does not know.
fn known<T: DeserializeOwned + Serialize>(answer: &Value) -> Value {
    let read: T = serde_json::from_value(answer["result"].clone()).unwrap();
    assert_eq!(serde_json::to_value(read).unwrap(), answer["result"]);
    answer["result"].clone()
}

#[tokio::test]
async fn resources_that_are_allowed_are_listed_and_read() {
    let site = samples(SAMPLES).await;
    let list = known::<ListResourcesResult>(&ask(&site, "resources/list", json!({})).await);
    let uris: Vec<_> = list["resources"].as_array().unwrap().iter().map(|each| each["uri"].clone()).collect();
    assert_eq!(uris, ["evo://sample", "evo://contact", "evo://tagged"], "not what the policy denies");
    let expected = json!({
        "uri": "evo://contact", "name": "contact", "title": "Контакти", "description": "Whom to ask.",
        "mimeType": "text/markdown",
    });
    assert_eq!(list["resources"][1], expected);
    assert_eq!(site.pool.statements(), 0);

    let text = known::<ReadResourceResult>(&ask(&site, "resources/read", json!({"uri": "evo://contact"})).await);
    let contents = json!([{"uri": "evo://contact", "mimeType": "text/markdown", "text": "# Контакти\n"}]);
    assert_eq!(text, json!({"contents": contents}));

    let rows = known::<ReadResourceResult>(&ask(&site, "resources/read", json!({"uri": "evo://sample"})).await);
    assert_eq!(rows["contents"][0]["mimeType"], "application/json");
    let rows: Value = serde_json::from_str(rows["contents"][0]["text"].as_str().unwrap()).unwrap();
    let ids: Vec<_> = rows["items"].as_array().unwrap().iter().map(|item| item["id"].clone()).collect();
    assert_eq!(ids, [1, 2, 12], "as they stand in the menu");
    let same = site.tool("evo.content.get", json!({"id": 2})).await;
    assert_eq!(rows["items"][1], same["structuredContent"]["item"]);
    assert_eq!(rows["meta"], json!({"limit": 100, "offset": 0, "count": 3, "toolsetVersion": "1.0"}));
}

#[tokio::test]
async fn prompts_that_are_allowed_are_listed_and_given() {
    let site = samples(SAMPLES).await;
    let list = known::<ListPromptsResult>(&ask(&site, "prompts/list", json!({})).await);
    let expected = json!({"prompts": [
        {
            "name": "evo.prompt.sample", "title": "Sample", "description": "Sums a document up.",
            "arguments": [
                {"name": "id", "description": "The document.", "required": true},
                {
                    "name": "language", "description": "What to write in; the document's own if absent.",
                    "required": false,
                },
            ],
        },
        {"name": "evo.prompt.hello", "title": "Hello", "description": "Greets.", "arguments": []},
    ]});
    assert_eq!(list, expected, "not what the policy denies");

    let hello = known::<GetPromptResult>(&ask(&site, "prompts/get", json!({"name": "evo.prompt.hello"})).await);
    let messages = json!([{"role": "assistant", "content": {"type": "text", "text": "Hello"}}]);
    assert_eq!(hello, json!({"description": "Greets.", "messages": messages}));

    let given = async |arguments: Value| {
        let answer = ask(&site, "prompts/get", json!({"name": "evo.prompt.sample", "arguments": arguments})).await;
        match answer.get("error") {
            Some(error) => Err(error.clone()),
            None => Ok(answer["result"]["messages"][0]["content"]["text"].as_str().unwrap().to_owned()),
        }
    };
    let text = |language| format!("Read document 2 with the tool evo.content.get, and sum it up in {language}.");
    for (arguments, language) in [
        (json!({"id": "2"}), "its own language"),
        (json!({"id": " 2 ", "language": "Українська", "unknown": [1]}), "Українська"),
        (json!({"id": "2", "language": null}), "its own language"),
    ] {
        assert_eq!(given(arguments.clone()).await, Ok(text(language)), "{arguments}");
    }
    for (arguments, messages) in [
        (json!({}), json!(["The id field is required."])),
        (json!({"id": " "}), json!(["The id field is required."])),
        (
            json!({"id": null, "language": 7}),
            json!(["The id field is required.", "The language field must be a string."]),
        ),
        (json!({"id": 2}), json!(["The id field must be a string."])),
        (json!({"id": {"a": 1}}), json!(["The id field must be a string."])),
        (json!({"id": "0"}), json!(["The id field must be at least 1."])),
    ] {
        let whole: Vec<_> = messages.as_array().unwrap().iter().map(|each| each.as_str().unwrap()).collect();
        let error = json!({"code": -32602, "message": whole.join(" "), "data": {"messages": messages}});
        assert_eq!(given(arguments.clone()).await, Err(error), "{arguments}");
    }
    for arguments in [json!([]), json!("id"), Value::Null] {
        let error = given(arguments.clone()).await.unwrap_err();
        assert_eq!(error["code"], -32602, "{arguments}");
    }
    let bare = ask(&site, "prompts/get", json!({"name": "evo.prompt.sample"})).await;
    assert_eq!(bare["error"]["message"], "The id field is required.");
}

#[tokio::test]
async fn what_the_policy_denies_is_refused_and_what_is_missing_not_found() {
    let site = samples(SAMPLES).await;
    let read = |uri: &str| ("resources/read", json!({"uri": uri}));
    let get = |name: &str| ("prompts/get", json!({"name": name}));
    for ((method, params), code) in [(read("site://private"), "resource_denied"), (get("dangerous"), "prompt_denied")] {
        for id in ["", r#""id":null,"#, r#""id":1,"#] {
            let body = format!(r#"{{"jsonrpc":"2.0",{id}"method":"{method}","params":{params}}}"#);
            let response = site.send(&body, false).await;
            assert_eq!(response.status(), StatusCode::FORBIDDEN, "{body}");
            let bytes = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap()["error"]["code"], code, "{body}");
        }
    }
    let table = [
        (read("evo://nothing"), -32002),
        (read("EVO://contact"), -32002),
        (read("evo://contact "), -32002),
        (read(""), -32002),
        (("resources/read", json!({"uri": 7})), -32002),
        (("resources/read", json!({})), -32002),
        (read("evo://tagged"), -32002),
        (get("evo.prompt.nothing"), -32602),
        (get("evo.prompt.hello "), -32602),
        (("prompts/get", json!({"name": ["evo.prompt.hello"]})), -32602),
        (("prompts/get", json!({})), -32602),
    ];
    for ((method, params), code) in table {
        let answer = ask(&site, method, params.clone()).await;
        assert_eq!((&answer["error"]["code"], answer["error"].get("data")), (&json!(code), None), "{method} {params}");
    }
    // Without an id nothing runs.
    let silent = r#"{"jsonrpc":"2.0","method":"resources/read","params":{"uri":"evo://sample"}}"#;
    let before = site.pool.statements();
    assert_eq!(site.send(silent, false).await.status(), StatusCode::ACCEPTED);
    assert_eq!(site.pool.statements(), before);
}

#[tokio::test]
async fn a_resource_of_a_site_that_is_down_says_so_in_general_words() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("missing.sqlite");
    let site = site_with(directory, &path, SAMPLES);
    let mut policy = snapshot();
    Arc::make_mut(&mut policy.servers[0]).allow_resources = patterns(&["evo://*"]);
    site.policy.store(Arc::new(policy));
    let answer = ask(&site, "resources/read", json!({"uri": "evo://sample"})).await;
    assert_eq!(answer["error"], json!({"code": -32603, "message": "Internal error"}));
    assert!(ask(&site, "resources/read", json!({"uri": "evo://contact"})).await["error"].is_null());
}

#[tokio::test]
async fn their_lists_come_in_pages_as_the_tools_do() {
    let leaked = |text: String| -> &'static str { text.leak() };
    let resources = (0..17).map(|at| Resource { uri: leaked(format!("evo://{at}")), ..CONTACT }).collect::<Vec<_>>();
    let prompts = (0..17).map(|at| Prompt { name: leaked(format!("evo.prompt.{at}")), ..HELLO }).collect::<Vec<_>>();
    let site = samples(Catalog { resources: resources.leak(), prompts: prompts.leak() }).await;
    for (method, member, key) in [("resources/list", "resources", "uri"), ("prompts/list", "prompts", "name")] {
        for (per_page, expected) in [(json!(null), vec![15, 2]), (json!(10), vec![10, 7]), (json!(99), vec![17])] {
            let (mut pages, mut names, mut cursor) = (Vec::new(), BTreeSet::new(), Value::Null);
            loop {
                let mut result =
                    ask(&site, method, json!({"per_page": per_page, "cursor": cursor})).await["result"].take();
                let page = result[member].as_array().unwrap();
                pages.push(page.len());
                names.extend(page.iter().map(|each| each[key].as_str().unwrap().to_owned()));
                cursor = result["nextCursor"].take();
                if cursor.is_null() {
                    break;
                }
            }
            assert_eq!((pages, names.len()), (expected, 17), "{method} {per_page}");
        }
    }
}

#[tokio::test]
async fn none_is_shipped_whatever_the_policy_allows() {
    let site = samples(SHIPPED).await;
    for (method, params, expected) in [
        ("resources/list", json!({}), json!({"result": {"resources": []}})),
        ("prompts/list", json!({}), json!({"result": {"prompts": []}})),
        (
            "resources/read",
            json!({"uri": "evo://1"}),
            json!({"error": {"code": -32002, "message": "Resource not found"}}),
        ),
        (
            "prompts/get",
            json!({"name": "evo.prompt.x"}),
            json!({"error": {"code": -32602, "message": "Prompt not found"}}),
        ),
    ] {
        let mut answer = ask(&site, method, params).await;
        answer.as_object_mut().unwrap().retain(|member, _| member == "result" || member == "error");
        assert_eq!(answer, expected, "{method}");
    }
}

/// Addresses and names that the proxy lets through, each once.
#[test]
fn what_is_registered_can_be_reached() {
    for catalog in [SHIPPED, SAMPLES] {
        let (mut uris, mut names) = (BTreeSet::new(), BTreeSet::new());
        for resource in catalog.resources {
            let uri = resource.uri;
            assert!(uris.insert(uri), "{uri} is registered twice");
            assert!(uri.contains("://") && !uri.contains(char::is_control) && !uri.contains("/."), "{uri}");
        }
        for prompt in catalog.prompts {
            let name = prompt.name;
            assert!(names.insert(name), "{name} is registered twice");
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_./:-".contains(&byte);
            assert!((1..=128).contains(&name.len()) && name.bytes().all(plain), "{name}");
            let arguments: BTreeSet<_> = prompt.arguments.iter().map(|argument: &Argument| argument.name).collect();
            assert_eq!(arguments.len(), prompt.arguments.len(), "{name} declares an argument twice");
        }
    }
}

#[test]
fn every_file_is_registered() {
    let files = |room: &str, constant: &str| -> usize {
        let room = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/executor").join(room);
        let texts = std::fs::read_dir(room).unwrap().map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
        texts.filter(|text| text.contains(constant)).count()
    };
    assert_eq!(files("resources", "const RESOURCE: Resource"), SHIPPED.resources.len(), "a line in registry.rs");
    assert_eq!(files("prompts", "const PROMPT: Prompt"), SHIPPED.prompts.len(), "a line in registry.rs");
}
