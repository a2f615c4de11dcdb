//! Arguments that mean harm, or too much: whatever stands in whichever argument of whichever tool, it is a value or it
//! is refused, on every engine alike, and never an error of the database.

use serde_json::{Value, json};

use crate::data::FIRST;
use crate::site::{Site, agreed, agreed_ids, everywhere};

const SEARCH: &str = "evo.content.search";
const LIST: &str = "evo.model.list";

/// What one engine or another takes for more than a letter.
const HOSTILE: [&str; 36] = [
    "' OR '1'='1",
    "'; DROP TABLE evo_site_content; --",
    "\" OR 1=1 --",
    "` OR 1=1 -- ",
    "') OR pg_sleep(9) IS NULL --",
    "id) UNION SELECT password FROM evo_users --",
    "price' UNION SELECT 1",
    "1/**/OR/**/1",
    "/*!50000 OR 1=1 */",
    "# x",
    "%",
    "_",
    "\\",
    "\\'",
    "\\u0027",
    "''",
    "?",
    "$1",
    "$$x$$",
    ":id",
    "@@version",
    "{p}",
    "E'\\x27'",
    "0x27",
    "a\u{0}b",
    "\u{0}",
    "x\ny\r\t",
    "\u{feff}id",
    "\u{202e}di",
    "ｉｄ",
    "＇ OR 1",
    "e\u{301}\u{301}\u{301}",
    "👩‍👩‍👧‍👦",
    "\u{10ffff}\u{fffd}",
    "[a-z]*.+?(x|y){9}^$",
    "İıſKßﬁǅ",
];

/// A call of each tool in which every argument is set.
fn whole(tool: &str) -> Value {
    let place = json!({"id": 3, "limit": 9, "offset": 0, "with_tvs": ["price"]});
    let with = |extra: Value| {
        let mut call = place.clone();
        call.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
        call
    };
    match tool {
        SEARCH => json!({
            "parent": 0, "depth": 6, "published": true, "deleted": false, "template": 1, "hidemenu": false,
            "order_by": "id", "order_dir": "asc", "order_by_date": "asc", "limit": 9, "offset": 0,
            "with_tvs": ["price"],
            "tv_filters": [{"tv": "price", "op": "=", "value": "7", "cast": "SIGNED", "use_default": true}],
            "tv_order": [{"tv": "price", "dir": "asc", "cast": "SIGNED", "use_default": true}],
            "tags_data": {"tv_id": 1, "tags": ["new"]},
        }),
        "evo.content.get" => json!({"id": 3, "with_tvs": ["price"]}),
        "evo.content.root_tree" | "evo.content.descendants" | "evo.content.ancestors" => with(json!({"depth": 6})),
        "evo.content.children_range" | "evo.content.siblings_range" => with(json!({"from": 0, "to": 9})),
        LIST => json!({
            "model": "SiteSnippet", "limit": 9, "offset": 0, "order_by": "id", "order_dir": "asc",
            "filters": {"where": [{"field": "name", "op": "=", "value": "blue"}]},
        }),
        "evo.model.get" => json!({"model": "SiteSnippet", "id": 1}),
        _ => place,
    }
}

/// Where the schema has what a type is wanted for, as JSON pointers into [`whole`].
fn places(schema: &Value, kind: &str, path: &str, found: &mut Vec<String>) {
    let is = |wanted: &str| {
        let kinds = &schema["type"];
        kinds == wanted || kinds.as_array().is_some_and(|kinds| kinds.contains(&json!(wanted)))
    };
    // What has no type takes texts, too.
    if is(kind) || (kind == "string" && schema["type"].is_null()) {
        found.push(path.to_owned());
    }
    if is("array") {
        places(&schema["items"], kind, &format!("{path}/0"), found);
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        places(property, kind, &format!("{path}/{name}"), found);
    }
}

/// Each tool, and where it has arguments of a type.
async fn published(site: &Site, kind: &str) -> Vec<(String, Vec<String>)> {
    let answer = site.ask("tools/list", &json!({})).await;
    let tools = answer["result"]["tools"].as_array().expect("a list");
    assert_eq!(tools.len(), 14);
    let tool = |tool: &Value| {
        let mut found = Vec::new();
        places(&tool["inputSchema"], kind, "", &mut found);
        let name = tool["name"].as_str().expect("a name").to_owned();
        for path in &found {
            assert!(whole(&name).pointer(path).is_some(), "{name}: {path} is never set");
        }
        (name, found)
    };
    tools.iter().map(tool).collect()
}

fn set(tool: &str, path: &str, value: &Value) -> Value {
    let mut call = whole(tool);
    *call.pointer_mut(path).expect("it is there") = value.clone();
    // A cast keeps texts out of the value.
    if path.starts_with("/tv_filters/0/") && path != "/tv_filters/0/cast" {
        call["tv_filters"][0]["cast"] = Value::Null;
    }
    call
}

/// The start of a call, for messages.
fn start(call: &Value) -> String {
    call.to_string().chars().take(300).collect()
}

/// All that a caller can see, to tell whether anything changed.
async fn seen(sites: &[Site]) -> Vec<Value> {
    let mut seen = vec![agreed(sites, SEARCH, &json!({"limit": 100, "with_tvs": ["word"]})).await.expect("valid")];
    for model in &mcp_sidecar::store::model::MODELS {
        seen.push(agreed(sites, LIST, &json!({"model": model.name, "limit": 100})).await.expect("valid"));
    }
    seen
}

#[tokio::test]
async fn every_text_of_every_tool_is_a_value_everywhere() {
    let sites = everywhere("hostile").await;
    let before = seen(&sites).await;
    let mut asked = 0;
    for (tool, paths) in published(&sites[0], "string").await {
        agreed(&sites, &tool, &whole(&tool)).await.unwrap_or_else(|text| panic!("{tool}: {text}"));
        for path in &paths {
            for hostile in HOSTILE {
                let call = set(&tool, path, &json!(hostile));
                let answer = agreed(&sites, &tool, &call).await;
                asked += 1;
                // Only what is compared with may be any text; and some are names like others.
                let plain = hostile.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
                let name = path == "/with_tvs/0" && plain;
                let value = name || path.ends_with("/value") || path.ends_with("/tags/0");
                if let (false, Ok(answer)) = (value, &answer) {
                    panic!("{tool} took {path}: {}: {answer}", start(&call));
                }
                if let Err(text) = answer {
                    assert!(text.len() < 400 && !text.contains(char::is_control), "{}: {text}", start(&call));
                }
            }
        }
    }
    assert!(asked > 900, "{asked}");
    let conditions =
        [(SEARCH, "/tv_filters/0/op", "/tv_filters/0/value"), (LIST, "/filters/where/0/op", "/filters/where/0/value")];
    for (tool, op_at, value_at) in conditions {
        for op in ["!=", ">", ">=", "<", "<=", "in", "not_in", "like", "like-l", "like-r"] {
            for hostile in HOSTILE {
                let mut call = set(tool, value_at, &json!(hostile));
                *call.pointer_mut(op_at).expect("it is there") = json!(op);
                agreed(&sites, tool, &call).await.ok();
                if op.ends_with("in") {
                    *call.pointer_mut(value_at).expect("it is there") = json!([hostile, 1, true, hostile]);
                    agreed(&sites, tool, &call).await.ok();
                }
            }
        }
    }
    assert_eq!(seen(&sites).await, before, "nothing was written");
}

#[tokio::test]
async fn every_number_of_every_tool_is_read_the_same_everywhere() {
    let sites = everywhere("numbers").await;
    let edges = [2_147_483_647_i64, 2_147_483_648, 4_294_967_295, 4_294_967_296, 9_007_199_254_740_991];
    let good = edges.iter().flat_map(|edge| [json!(edge), json!(edge.to_string())]).chain([
        json!("9223372036854775807"),
        json!(4.0),
        json!(" 4\n"),
        json!("+4"),
    ]);
    let good: Vec<Value> = good.collect();
    let wrong = [
        json!(-1),
        json!("-1"),
        json!("-9223372036854775808"),
        json!(1.5),
        json!(-0.5),
        json!(1e300),
        json!(true),
        json!(false),
        json!("1.0"),
        json!("1e3"),
        json!("0x10"),
        json!("９"),
        json!("9223372036854775808"),
        json!("9".repeat(1000)),
        json!({}),
        json!([4]),
    ];
    let mut capped = 0;
    for (tool, paths) in published(&sites[0], "integer").await {
        for path in &paths {
            // Below a parent that is wanted in vain there is nothing; each of the others is a number of its own.
            let name = path.rsplit('/').next().expect("a name");
            let cap = match name {
                "limit" => Some(100_i64),
                "offset" => Some(5000),
                "depth" => Some(6),
                _ => None,
            };
            for value in &good {
                let mut call = set(&tool, path, value);
                if name == "from" {
                    call["to"] = Value::Null;
                }
                let answer = agreed(&sites, &tool, &call).await;
                let small = value.as_str().map_or(value == 4.0, |text| text.contains('4') && text.len() < 4);
                assert_eq!(answer.is_ok(), cap.is_none() || small, "{tool}: {}: {answer:?}", start(&call));
            }
            for value in &wrong {
                let call = set(&tool, path, value);
                assert!(agreed(&sites, &tool, &call).await.is_err(), "{tool}: {}", start(&call));
            }
            if let Some(cap) = cap {
                capped += 1;
                for (value, valid) in [(cap, true), (cap + 1, false), (cap * 1_000_000, false)] {
                    let call = set(&tool, path, &json!(value));
                    assert_eq!(agreed(&sites, &tool, &call).await.is_ok(), valid, "{tool}: {}", start(&call));
                }
                let nulled = agreed(&sites, &tool, &set(&tool, path, &Value::Null)).await;
                assert_eq!(nulled.is_ok(), name != "limit", "{tool} {name}: {nulled:?}");
            }
        }
    }
    assert_eq!(capped, 2 * 12 + 4);
}

#[tokio::test]
async fn numbers_that_models_are_filtered_by_are_compared_the_same_everywhere() {
    let sites = everywhere("compared").await;
    let values = [
        json!(0),
        json!(-1),
        json!(2_147_483_648_i64),
        json!("-9223372036854775808"),
        json!("9223372036854775807"),
        json!("9223372036854775808"),
        json!(true),
        json!(1.5),
        json!(1e300),
        json!("1abc"),
        json!(""),
        json!(" 2 "),
        json!([1, "2", -3]),
        json!("1,,2 , 99999999999"),
        Value::Null,
    ];
    for model in &mcp_sidecar::store::model::MODELS {
        for (turn, (field, _)) in model.fields.iter().enumerate() {
            for (at, value) in values.iter().enumerate() {
                // Each field with each value and, over the fields, each operator with each value.
                let ops = ["=", "!=", "<", ">=", "in", "not_in", "like"];
                for op in [ops[(at + turn) % 7], ops[(at + turn + 3) % 7]] {
                    let filters = json!({"where": [{"field": field, "op": op, "value": value}]});
                    agreed(&sites, LIST, &json!({"model": model.name, "limit": 9, "filters": filters})).await.ok();
                }
            }
        }
    }
}

#[tokio::test]
async fn ids_that_are_missing_or_deleted_find_nothing_that_is_not_theirs() {
    let sites = everywhere("gone").await;
    // A deleted leaf, a deleted root, one that never was, and what no column can hold.
    for id in [9, 10, 999_999, (1_i64 << 53) - 1] {
        for name in ["siblings", "neighbors", "prev_siblings", "next_siblings", "siblings_range"] {
            let call = json!({"id": id, "from": 0, "limit": 100});
            let found = agreed_ids(&sites, &format!("evo.content.{name}"), &call).await;
            assert_eq!(found, [0; 0], "{name} of {id}");
        }
        let item = agreed(&sites, "evo.content.get", &json!({"id": id, "with_tvs": ["price:d"]})).await;
        assert_eq!(item.expect("valid")["item"], Value::Null, "{id}");
        // What is below a deleted document, and above it, is there.
        let below = if id == 10 { vec![11] } else { Vec::new() };
        let above = if id == 9 { vec![2] } else { Vec::new() };
        let call = json!({"id": id, "from": 0, "depth": 6, "limit": 100});
        for (name, expected) in
            [("children", &below), ("children_range", &below), ("descendants", &below), ("ancestors", &above)]
        {
            assert_eq!(agreed_ids(&sites, &format!("evo.content.{name}"), &call).await, *expected, "{name} of {id}");
        }
        let search = json!({"parent": id, "limit": 100});
        assert_eq!(agreed_ids(&sites, SEARCH, &search).await, below, "search below {id}");
        let tree = agreed_ids(&sites, "evo.content.root_tree", &json!({"depth": 6, "limit": 100})).await;
        assert!(!tree.contains(&11), "below a deleted root");
        for model in &mcp_sidecar::store::model::MODELS {
            if id > 100 {
                let item = agreed(&sites, "evo.model.get", &json!({"model": model.name, "id": id})).await;
                assert_eq!(item.expect("valid")["item"], Value::Null, "{} {id}", model.name);
            }
        }
    }
}

/// Forty more variables, each with values at some documents.
fn variables() -> String {
    let names: Vec<String> = (0..40).map(|at| format!("({}, 'many{at}', 'd{at}')", 1000 + at)).collect();
    let values: Vec<String> = (0..40)
        .flat_map(|at| (3..8).map(move |id| (at, id)))
        .enumerate()
        .map(|(row, (at, id))| format!("({}, {}, {id}, '{}')", 5000 + row, 1000 + at, at % 7))
        .collect();
    format!(
        "INSERT INTO evo_site_tmplvars (id, name, default_text) VALUES {}; \
         INSERT INTO evo_site_tmplvar_contentvalues (id, tmplvarid, contentid, value) VALUES {};",
        names.join(", "),
        values.join(", ")
    )
}

#[tokio::test]
async fn the_most_that_one_call_may_ask_for_is_answered_everywhere() {
    let (mariadb, postgres) = (
        crate::server::shared(crate::server::Kind::MariaDb).await,
        crate::server::shared(crate::server::Kind::Postgres).await,
    );
    let lite = crate::site::script(mcp_sidecar::store::Dialect::Sqlite) + &variables();
    let mut sites = vec![crate::site::sqlite_script(&lite).await];
    for (server, name) in [(&mariadb, "mariadb"), (&postgres, "postgres")] {
        sites.push(crate::site::filled(server, "most", name, "").await);
        server.run("most", &variables()).await;
    }
    // Twenty filters and twenty terms, each of a variable of its own, and a hundred to be shown.
    let filters = |op: &str, value: Value| -> Vec<Value> {
        (0..20).map(|at| json!({"tv": format!("many{at}"), "op": op, "value": value, "use_default": true})).collect()
    };
    let order: Vec<Value> = (20..40).map(|at| json!({"tv": format!("many{at}"), "cast": "SIGNED"})).collect();
    let shown: Vec<String> =
        (0..40).map(|at| format!("many{at}:d")).chain((0..60).map(|at| format!("no{at}"))).collect();
    for (op, value) in [("!=", json!("x")), ("not_in", json!((0..200).map(|at| at * 1000 + 77).collect::<Vec<_>>()))] {
        let call = json!({
            "parent": 2, "limit": 100, "with_tvs": shown, "tv_filters": filters(op, value), "tv_order": order,
            "tags_data": null,
        });
        let found = agreed(&sites, SEARCH, &call).await.unwrap_or_else(|text| panic!("{text}"));
        let ids: Vec<i64> =
            found["items"].as_array().expect("a list").iter().filter_map(|d| d["id"].as_i64()).collect();
        // A document without values is lowest.
        assert_eq!(ids, [8, 3, 4, 5, 6, 7], "{op}");
        assert_eq!(found["items"][0]["tvs"]["many3"], "d3");
        assert_eq!(found["items"][1]["tvs"].as_object().map(serde_json::Map::len), Some(100));
    }
    let tags: Vec<String> = (0..200).map(|at| format!("tag {at}")).collect();
    agreed(&sites, SEARCH, &json!({"limit": 9, "tags_data": {"tv_id": 1, "tags": tags}})).await.expect("valid");
    for count in [21, 2000] {
        let many = vec![json!({"tv": "many0", "op": "null"}); count];
        for name in ["tv_filters", "tv_order"] {
            let mut call = json!({"limit": 1});
            call[name] = json!(many);
            let refusal = agreed(&sites, SEARCH, &call).await.expect_err("too many");
            assert_eq!(refusal, format!("The {name} field must not have more than 20 entries."));
        }
    }
}

#[tokio::test]
async fn a_long_list_of_variables_is_answered_or_refused_everywhere() {
    let sites = everywhere("long_list").await;
    let size = 200 * 1024;
    let repeated = |entry: &str| vec![entry.to_owned(); size / entry.len()];
    let several: Vec<String> = (0..size / 8).map(|at| format!("v{at}")).collect();
    for (list, valid) in [
        (vec!["x".repeat(size)], true),
        (vec!["'".repeat(size)], false),
        (vec!["ж".repeat(size / 2)], false),
        (vec![format!("{}:d", "-".repeat(size))], true),
        (vec![":d".repeat(size / 2)], false),
        (vec![" ".repeat(size)], true),
        (repeated("price"), true),
        (repeated("price:d"), true),
        (repeated("a b"), false),
        (several, false),
    ] {
        for tool in ["search", "get", "root_tree", "descendants", "siblings_range"] {
            let call = json!({"id": FIRST, "from": 0, "limit": 3, "with_tvs": list});
            let answer = agreed(&sites, &format!("evo.content.{tool}"), &call).await;
            assert_eq!(answer.is_ok(), valid, "{tool}: {}: {answer:?}", start(&json!(list)));
            let text = answer.err().unwrap_or_default();
            assert!(text.len() < 400, "{text}");
        }
    }
}

#[tokio::test]
async fn the_longest_texts_to_look_for_are_looked_for_everywhere() {
    let sites = everywhere("longest").await;
    let most = 10_000;
    for needle in [
        "a".repeat(most),
        "ж".repeat(most / 2),
        format!("{}ж", "a".repeat(most - 2)),
        "ȿ".repeat(most / 2),
        "*".repeat(most - 2) + "ж",
        "(".repeat(most - 2) + "ж",
        "[".repeat(most - 2) + "ж",
        "\\".repeat(most - 2) + "ж",
        "!".repeat(most),
        "%".repeat(most),
        "_".repeat(most),
        "_".repeat(most - 2) + "ж",
        "日".repeat(most / 3),
    ] {
        for op in ["like", "like-l", "like-r"] {
            let filter = json!([{"tv": "word", "op": op, "value": needle}]);
            let found = agreed_ids(&sites, SEARCH, &json!({"limit": 9, "tv_filters": filter})).await;
            assert_eq!(found.is_empty(), !needle.starts_with("%%"), "{op} {}", start(&json!(needle)));
            let filters = json!({"where": [{"field": "name", "op": op, "value": needle}]});
            let call = json!({"model": "SiteSnippet", "limit": 9, "filters": filters});
            assert_eq!(agreed_ids(&sites, LIST, &call).await, [0; 0]);
        }
        let over = json!([{"tv": "word", "op": "like", "value": format!("{needle}{}", "x".repeat(10))}]);
        assert!(agreed(&sites, SEARCH, &json!({"limit": 9, "tv_filters": over})).await.is_err());
    }
}
