//! What `explain` says is what the proxy does: a few hundred generated requests, decided by both.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jsonwebtoken::Algorithm;
use mcp_sidecar::auth::{Refusal, Verifier, bearer};
use mcp_sidecar::cli::explain::{Explanation, explain};
use mcp_sidecar::config::{Overrides, PolicyContext, Source, load_policy};
use mcp_sidecar::policy::{Credential, Snapshot};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Map, Value, json};

use crate::harness::{Client, Request, Token, Upstream, eventually, now, unsigned};
use crate::part::{Files, Part, SECRET, SOON, program};

/// `EXPLAIN_CASES`, else enough to meet every rule below.
fn cases() -> usize {
    std::env::var("EXPLAIN_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(1000)
}

/// One in so many cases is asked of the command as well; the rest of the function that it calls.
const ASK_COMMAND: usize = 40;

struct Case {
    server: &'static str,
    /// The header's whole value.
    authorization: Option<String>,
    body: Vec<u8>,
}

/// Mostly the first, which is the good one: a case should not fail at everything at once.
fn oddly<'a, T>(random: &mut SmallRng, of: &'a [T]) -> &'a T {
    if random.random_range(0..5) > 0 { &of[0] } else { one(random, of) }
}

/// One of so many oddities, at times; mostly none of them.
fn odd(random: &mut SmallRng, count: u32) -> u32 {
    if random.random_range(0..5) > 0 { count } else { random.random_range(0..count) }
}

fn one<'a, T>(random: &mut SmallRng, of: &'a [T]) -> &'a T {
    &of[random.random_range(0..of.len())]
}

/// A policy with something of everything.
fn policy(files: &Files, upstream: &Upstream) {
    crate::drain::before(files, upstream);
    for (from, to) in [
        ("upstream = \"executor\" ", "upstream = \"raw\" "),
        ("per_minute = 30 }", "per_minute = 1000000 }"),
        ("per_minute = 60 ", "per_minute = 1000000 "),
        ("failures_per_minute = 30", "failures_per_minute = 0"),
        ("deny_sub = []", "deny_sub = [\"banned\"]"),
        ("deny_jti = []", "deny_jti = [\"gone\"]"),
        ("allow_servers = [\"*\"]", "allow_servers = [\"content\", \"raw\", \"narrow\", \"no*\"]"),
        ("[security]\nallow", "[security]\n\nallow"),
        (
            "deny_tools = []\nenable_write_tools",
            "deny_tools = [\"raw.danger.*\", \"evo.model.get\"]\nenable_write_tools",
        ),
    ] {
        files.edit("policy.toml", from, to);
    }
    let more = "[[servers]]\nhandle = \"narrow\"\nenabled = true\ntransport = \"web\"\nkind = \"mcp\"\nupstream = \"raw\"\n\
                allow_tools = [\"raw.one\"]\nallow_resources = [\"file:///a/*\"]\nallow_prompts = [\"hello.*\"]\n\
                deny_tools = []\nlimits = { max_payload_kb = 1 }\nrate_limit = { per_minute = 1000000 }\n\
                scope_map = { \"narrow:use\" = [\"tools/*\", \"ping\"], \"mcp:read\" = \"*\" }\n\n\
                [[servers]]\nhandle = \"hidden\"\nenabled = true\ntransport = \"web\"\nkind = \"mcp\"\nupstream = \"raw\"\n\
                allow_tools = [\"raw.*\"]\ndeny_tools = []\n\n\
                [[servers]]\nhandle = \"off\"\nenabled = false\ntransport = \"web\"\nkind = \"mcp\"\nupstream = \"raw\"\n\
                allow_tools = [\"raw.*\"]\ndeny_tools = []\n\n[end]\n";
    files.edit("policy.toml", "[end]\n", more);
}

fn authorization(random: &mut SmallRng) -> Option<String> {
    let scopes: [Value; 9] = [
        json!(["mcp:read", "mcp:call", "narrow:use"]),
        json!(["mcp:read", "mcp:call"]),
        json!(["*"]),
        json!(["mcp:call"]),
        json!("mcp:read, mcp:call"),
        json!(["mcp:admin"]),
        json!(["MCP:CALL"]),
        json!([]),
        json!({"mcp:call": true}),
    ];
    let sub = oddly(random, &["alice", "bob", "", "banned", " banned ", "Banned", "\u{e9}ve", "x\ny"]);
    let mut token = Token::of(sub).claim("scopes", oddly(random, &scopes).clone());
    match odd(random, 13) {
        0 => token = token.claim("exp", now() - 1),
        1 => token = token.without("exp"),
        2 => token = token.claim("exp", "soon"),
        3 => token = token.claim("nbf", now() + 600),
        4 => token = token.claim("jti", "gone"),
        5 => token = token.claim("sub", json!(["alice"])),
        6 => return None,
        7 => return Some(format!("Bearer {}", unsigned(&token))),
        8 => return Some(format!("Bearer {}", token.sign_with(Algorithm::HS256, "another-secret-of-32-bytes-012345"))),
        9 => return Some(format!("Bearer {}", token.sign_with(Algorithm::HS512, SECRET))),
        10 => return Some(format!("Basic {}", token.sign())),
        11 => return Some(format!("Bearer {}x", token.sign())),
        12 => return Some(format!("bearer   {}", token.sign())),
        _ => {}
    }
    Some(format!("Bearer {}", token.sign()))
}

fn request(random: &mut SmallRng) -> Value {
    const METHODS: [&str; 19] = [
        "tools/call",
        "tools/call",
        "tools/call",
        "tools/call",
        "tools/call",
        "tools/list",
        "ping",
        "initialize",
        "resources/read",
        "resources/list",
        "prompts/get",
        "prompts/get",
        "notifications/initialized",
        "completion/complete",
        "server/discover",
        "admin/reset",
        "Tools/Call",
        "tools/call ",
        "",
    ];
    let long = "n".repeat(129);
    let just = format!("raw.{}", "n".repeat(124));
    let names = [
        "evo.content.search",
        "evo.model.get",
        "evo.model.list",
        "evo.write.page",
        "raw.echo",
        "raw.one",
        "raw.secret",
        "raw.danger.zone",
        "raw.Secret",
        "RAW.echo",
        "raw.secret ",
        " raw.echo",
        "raw.se cret",
        "raw.\u{0}echo",
        "raw.\u{441}ecret",
        "evo.content.*",
        "*",
        "",
        ".",
        "hello.world",
        "other",
        &long,
        &just,
    ];
    let uris = ["file:///a/b", "file:///a/../b", "file:///b", "file:///a/%2e%2e/b", "", "file:///a/\u{7}"];
    let ids = [
        json!(1),
        json!("a"),
        json!(null),
        json!(1.5),
        json!([1]),
        json!("i".repeat(300)),
        json!(9_007_199_254_740_992_u64),
    ];
    let mut request = Map::from_iter([("jsonrpc".to_owned(), json!("2.0"))]);
    match odd(random, 2) {
        0 => {}
        1 => drop(request.insert("id".to_owned(), one(random, &ids).clone())),
        _ => drop(request.insert("id".to_owned(), json!(7))),
    }
    let method = *one(random, &METHODS);
    request.insert("method".to_owned(), json!(method));
    let arguments = oddly(random, &[json!({}), json!({"limit": 3}), json!([1]), json!("text"), json!(null)]).clone();
    let plain = [
        "evo.content.search",
        "evo.model.list",
        "evo.model.get",
        "raw.echo",
        "raw.one",
        "raw.secret",
        "raw.danger.zone",
        "hello.world",
    ];
    let name = if random.random() { *one(random, &plain) } else { *one(random, &names) };
    let mut params = json!({"name": name, "arguments": arguments});
    if method.starts_with("resources/") {
        params = json!({"uri": one(random, &uris)});
    }
    match odd(random, 6) {
        0 => drop(params.as_object_mut().expect("an object").remove("name")),
        1 => params["name"] = json!(5),
        2 => params = json!([1, 2]),
        3 => params = json!("text"),
        4 => drop(params.as_object_mut().expect("an object").remove("arguments")),
        5 => params["arguments"] = json!({"text": "x".repeat(1200)}),
        _ => {}
    }
    if random.random_range(0..20) > 0 {
        request.insert("params".to_owned(), params);
    }
    match odd(random, 5) {
        0 => drop(request.insert("jsonrpc".to_owned(), json!("1.0"))),
        1 => drop(request.insert("method".to_owned(), json!(5))),
        2 => drop(request.remove("method")),
        _ => {}
    }
    Value::Object(request)
}

fn body(random: &mut SmallRng) -> Vec<u8> {
    let text = request(random).to_string();
    let bytes = text.clone().into_bytes();
    match odd(random, 14) {
        0 => Vec::new(),
        1 => bytes[..random.random_range(0..bytes.len())].to_vec(),
        2 => [b"\xef\xbb\xbf".as_slice(), &bytes].concat(),
        3 => [&bytes, b" {}".as_slice()].concat(),
        4 => format!("[{text}]").into_bytes(),
        5 => text.replacen('{', "{\"method\":\"ping\",", 1).into_bytes(),
        6 => text.replacen('{', "{\"Method\":\"ping\",", 1).into_bytes(),
        7 => text.replacen('{', "{\"x\":\"\\ud800\",", 1).into_bytes(),
        8 => text.replacen('{', "{\"x\":1e999,", 1).into_bytes(),
        9 => text.replacen('{', &format!("{{\"x\":{}{},", "[".repeat(70), "]".repeat(70)), 1).into_bytes(),
        10 => [&bytes[..1], b"\"x\":\"\xff\",".as_slice(), &bytes[1..]].concat(),
        11 => format!(" \n{text}\t").into_bytes(),
        12 => {
            let mut changed = bytes;
            let at = random.random_range(0..changed.len());
            changed[at] = random.random();
            changed
        }
        13 => text.replacen('{', &format!("{{\"x\":\"{}\",", "x".repeat(300 * 1024)), 1).into_bytes(),
        _ => bytes,
    }
}

fn generate(random: &mut SmallRng) -> Case {
    let servers = ["content", "content", "raw", "raw", "raw", "narrow", "narrow", "hidden", "off", "nobody", "Raw"];
    let server = servers[random.random_range(0..servers.len())];
    Case { server, authorization: authorization(random), body: body(random) }
}

fn snapshot(files: &Files) -> Snapshot {
    let source = Source::read(&files.path("policy.toml")).expect("is there");
    let environment = BTreeMap::from([("SAPI_JWT_SECRET".to_owned(), SECRET.to_owned())]);
    let overrides = Overrides { environment, ..Overrides::default() };
    let context = PolicyContext { revision: 1, ..PolicyContext::default() };
    load_policy(&source, &overrides, context).unwrap_or_else(|report| panic!("{}", report.render()))
}

fn explained(snapshot: &Snapshot, verifier: &Verifier, case: &Case) -> Explanation {
    let token = bearer(case.authorization.as_ref().map(|header| header.as_bytes()));
    let verified = token.map_err(Refusal::from).and_then(|token| verifier.verify(snapshot, token, now() * 1000));
    let principal = verified.as_ref().map(|verified| &verified.principal);
    let credential = principal.map_or_else(Refusal::credential, Credential::Principal);
    explain(snapshot, case.server, credential, &case.body)
}

/// What the command prints about the case; `None` where it has no token to be given.
fn printed(files: &Files, case: &Case) -> Option<Value> {
    let token = bearer(case.authorization.as_ref().map(|header| header.as_bytes())).ok()?;
    std::fs::write(files.path("token"), token).expect("is written");
    std::fs::write(files.path("body"), &case.body).expect("is written");
    let mut command = program();
    command.args(["explain", "--json", "--server", case.server, "--policy"]).arg(files.path("policy.toml"));
    command.arg("--token-file").arg(files.path("token")).arg("--body").arg(files.path("body"));
    let output = command.output().expect("the binary runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).expect("JSON"))
}

#[test]
fn it_says_what_the_running_proxy_does() {
    let seed = std::env::var("EXPLAIN_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_251_121_u64);
    println!("EXPLAIN_SEED={seed} EXPLAIN_CASES={}", cases());
    let mut random = SmallRng::seed_from_u64(seed);
    let upstream = Upstream::mcp();
    let files = Files::shipped();
    policy(&files, &upstream);
    let proxy = Part::ready(files.service("proxy"));
    let mcp = proxy.address("listening");
    let (snapshot, verifier) = (snapshot(&files), Verifier::new(16));

    let mut expected = Vec::new();
    for index in 0..cases() {
        let case = generate(&mut random);
        let explanation = explained(&snapshot, &verifier, &case);
        let context = || format!("case {index}: {} {:?}", case.server, String::from_utf8_lossy(&case.body));
        if index % ASK_COMMAND == 0
            && let Some(printed) = printed(&files, &case)
        {
            assert_eq!(printed, serde_json::to_value(&explanation).expect("serialises"), "{}", context());
        }
        let mut request = Request::new("POST", &format!("/api/v1/mcp/{}", case.server))
            .header("Content-Type", "application/json")
            .header("X-Request-Id", &format!("case-{index}"))
            .header("Connection", "close")
            .body(case.body.clone());
        if let Some(value) = &case.authorization {
            request = request.header("Authorization", value);
        }
        let mut client = Client::connect(mcp);
        client.send(&request.bytes());
        // A body that is refused unread may still be on its way when the connection is closed.
        if let Some(head) = client.try_head() {
            let mut answer = head;
            while let Some(part) = client.part(SOON) {
                answer.body.extend_from_slice(&part);
            }
            match explanation.status {
                None => assert!([200, 202].contains(&answer.status), "{}: {}", context(), answer.text()),
                Some(status) => {
                    assert_eq!(answer.status, status, "{}: {}", context(), answer.text());
                    assert_eq!(answer.code().as_deref(), explanation.deny_code, "{}: {}", context(), answer.text());
                }
            }
        } else {
            assert_eq!(explanation.deny_code, Some("payload_too_large"), "{}", context());
        }
        expected.push((index, explanation, context()));
    }
    compare(&files, &expected);
    let allowed = expected.iter().filter(|(_, explanation, _)| explanation.decision == "allow").count();
    assert_eq!(upstream.count(), allowed, "what reached the upstream");
    println!("{allowed} of {} allowed", expected.len());
}

/// Such denials are aggregated: not each has its own line.
fn aggregated(explanation: &Explanation) -> bool {
    let charged_to_nobody = matches!(explanation.deny_code, Some("rate_limited" | "scope_denied" | "forbidden"));
    charged_to_nobody || explanation.rule == "auth.token" || explanation.rule.starts_with("auth.deny_")
}

/// Holds the audit log against the explanations.
fn compare(files: &Files, expected: &[(usize, Explanation, String)]) {
    let known: Vec<String> = expected
        .iter()
        .filter(|(_, explanation, _)| !aggregated(explanation))
        .map(|(index, ..)| format!("case-{index}"))
        .collect();
    let audit: HashMap<String, Value> = eventually("every decision that is told apart has its line", SOON, || {
        let id = |record: &Value| record["client_request_id"].as_str().map(str::to_owned);
        let by_id: HashMap<_, _> =
            files.audit().into_iter().filter_map(|record| Some((id(&record)?, record))).collect();
        known.iter().all(|id| by_id.contains_key(id)).then_some(by_id)
    });
    let mut codes = BTreeSet::new();
    let mut rules = BTreeSet::new();
    for (index, explanation, context) in expected {
        codes.insert(explanation.deny_code.unwrap_or(explanation.decision));
        rules.insert(explanation.rule.as_str());
        let Some(record) = audit.get(&format!("case-{index}")) else {
            // They are told once per caller and second.
            assert!(aggregated(explanation), "no line for {context}");
            continue;
        };
        let decision = if explanation.decision == "allow" { "allow" } else { "deny" };
        assert_eq!(record["decision"], decision, "{context}: {record}");
        assert_eq!(record.get("deny_code").and_then(Value::as_str), explanation.deny_code, "{context}: {record}");
        assert_eq!(record["rule"], explanation.rule, "{context}: {record}");
        assert_eq!(record["method"], explanation.method, "{context}: {record}");
    }
    println!("codes met: {codes:?}\nrules met: {rules:?}");
    for code in [
        "allow",
        "unauthenticated",
        "scope_denied",
        "tool_denied",
        "prompt_denied",
        "resource_denied",
        "server_denied",
        "server_not_found",
        "name_invalid",
        "name_missing",
        "uri_invalid",
        "bad_arguments",
        "payload_too_large",
        "not_json",
        "duplicate_key",
        "method_not_found",
    ] {
        assert!(codes.contains(code), "the generator never met {code}: {codes:?}");
    }
    for rule in
        ["servers[0].allow_tools[0]", "servers[1].deny_tools[0]", "security.deny_tools[0]", "servers[1].allow_tools"]
    {
        assert!(rules.contains(rule), "the generator never met {rule}: {rules:?}");
    }
}
