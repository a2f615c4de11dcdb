use std::path::Path;

use super::*;

fn policy(text: &str) -> Result<crate::policy::Snapshot, Report> {
    let source = Source::embedded("policy.toml", text, Path::new("."));
    load_policy(&source, &Overrides::default(), PolicyContext::default())
}

#[test]
fn the_shipped_files_load() {
    let overrides = Overrides::default();
    let sidecar = load_sidecar(&Source::embedded("sidecar.toml", embedded::SIDECAR, Path::new("/x")), &overrides);
    sidecar.unwrap_or_else(|report| panic!("{report}"));
    let executor = load_executor(&Source::embedded("executor.toml", embedded::EXECUTOR, Path::new("/x")), &overrides);
    executor.unwrap_or_else(|report| panic!("{report}"));
    let snapshot = policy(embedded::POLICY).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(snapshot.servers.len(), 1);
    assert_eq!(snapshot.servers[0].per_minute, 30);
    assert_eq!(snapshot.servers[0].limits.max_payload_bytes, 128 * 1024);
    let up = Overrides::default().with_builtin(embedded::UP_OVERRIDES);
    let source = Source::embedded("policy.toml", embedded::POLICY, Path::new("."));
    let up = load_policy(&source, &up, PolicyContext::default()).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(up.domain.models_allow.len(), 13);
    assert!(!loosened(&snapshot, &up).is_empty());
    assert!(loosened(&snapshot, &snapshot).is_empty());
}

/// Decision F2. What `up` and an operator lay over a file must not repair one that was cut short, either.
#[test]
fn every_prefix_of_the_shipped_policy_is_refused() {
    let whole = embedded::POLICY.trim_end().as_bytes();
    let tables = ["enable=true", "mode={api=true, internal=true}", "security.deny_tools=[]", "servers=[]", "end={}"];
    let up = Overrides {
        set: tables.iter().map(|pair| parse_set(pair).expect("a pair")).collect(),
        ..Overrides::default().with_builtin(embedded::UP_OVERRIDES)
    };
    for length in 0..whole.len() {
        let source = Source::from_bytes(Path::new("policy.toml"), whole[..length].to_vec());
        let refused = |overrides: &Overrides| {
            let loaded = source.clone().and_then(|source| load_policy(&source, overrides, PolicyContext::default()));
            assert!(loaded.is_err(), "accepted after {length} bytes");
        };
        refused(&Overrides::default());
        if whole[length] == b'\n' {
            refused(&up);
        }
    }
}

#[test]
fn the_presets_load_and_are_refused_when_cut_short() {
    let served = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf").join(name);
        let text = std::fs::read_to_string(&path).expect("it is there");
        let snapshot = policy(&text).unwrap_or_else(|report| panic!("{name}: {report}"));
        assert_eq!(snapshot.domain.models_allow.len(), 13, "{name}");
        let whole = text.trim_end();
        for (length, _) in whole.match_indices('\n') {
            assert!(policy(&whole[..length]).is_err(), "{name}: accepted after {length} bytes");
        }
        (snapshot.routes.api, snapshot.routes.manager)
    };
    assert_eq!(served("policy-manager-only.toml"), (false, true));
    assert_eq!(served("policy-api-only.toml"), (true, false));
    assert_eq!(served("policy-hybrid.toml"), (true, true));
}

#[test]
fn what_cannot_be_meant_of_the_manager_is_told() {
    let load = |table: &str| {
        let text = embedded::POLICY.replace("[trace]", &format!("[manager]\n{table}\n\n[trace]"));
        let source = Source::embedded("policy.toml", &text, Path::new("."));
        let upstreams = ["executor".to_owned()];
        load_policy(&source, &Overrides::default(), PolicyContext { upstreams: Some(&upstreams), ..Default::default() })
    };
    assert!(load("sources = []").expect("valid").manager.sources.is_empty());
    assert_eq!(
        load("sources = [\"database\"]").expect("valid").manager,
        crate::policy::ManagerPolicy { sources: vec![crate::policy::IdentitySource::Database], ..Default::default() }
    );
    for (table, expected) in [
        ("sources = [\"sessions\"]", "there is no identity source \"sessions\""),
        ("sources = [\"database\", \"database\"]", "names \"database\" twice"),
        ("sources = [\"database\"]\nupstream = \"other\"", "names no upstream of sidecar.toml: \"other\""),
        ("cookie = \"a b\"", "is no name of a cookie"),
        ("cookie = \"\"", "is no name of a cookie"),
        ("access_permission = \"a-b\"", "is no name of a permission"),
        ("cache_seconds = 11", "out of range: 11"),
        ("session_minutes = 0", "out of range: 0"),
        ("session_dir = \"x\"", "session_dir"),
    ] {
        let report = load(table).expect_err(table).render();
        assert!(report.contains(expected), "{expected} in {report}");
    }
}

#[test]
fn what_cannot_be_meant_of_sessions_is_told() {
    let load = |key: &str, value: &str| {
        let environment = [("R".to_owned(), "redis://localhost".to_owned()), ("S".to_owned(), "http://x".to_owned())];
        let overrides = Overrides { environment: environment.into(), ..Overrides::default() };
        let text =
            embedded::EXECUTOR.replace("[database]", &format!("[executor.manager]\n{key} = {value:?}\n\n[database]"));
        load_executor(&Source::embedded("executor.toml", &text, Path::new("/x")), &overrides)
    };
    assert_eq!(load("utc_offset", "-05:30").expect("valid").sessions.utc_offset_s, -19_800);
    assert_eq!(load("session_dir", "s").expect("valid").sessions.directory.as_deref(), Some(Path::new("/x/s")));
    assert!(load("redis_url_env", "R").expect("valid").sessions.redis.is_some());
    let page = load("auth_request_url", "http://[::1]:81/who?a=b").expect("valid").sessions.auth_request;
    let page = page.expect("is given");
    assert_eq!((page.host.as_str(), page.port, page.target.as_str()), ("::1", 81, "/who?a=b"));
    for (key, value) in [
        ("utc_offset", "2"),
        ("utc_offset", "+2:00"),
        ("utc_offset", "+15:00"),
        ("utc_offset", "+00:60"),
        ("utc_offset", "é0:00"),
        ("session_prefix", "../"),
        ("redis_url", "redis://localhost"),
        ("redis_url_env", "S"),
        ("redis_url_env", "T"),
        ("auth_request_url", "https://site/who"),
        ("auth_request_url", "http://user:word@site/who"),
        ("auth_request_url", "/who"),
        ("auth_request_url", "site"),
        ("auth_request_header", "X Y"),
    ] {
        assert!(load(key, value).is_err(), "{key} = {value:?}");
    }
}

#[test]
fn all_problems_are_found_at_once_and_placed() {
    let bad = embedded::POLICY
        .replace("per_minute = 60", "per_minte = 60")
        .replace("\"local\"      #", "\"locl\"      #")
        .replace("max_depth = 6", "max_depth = 0")
        .replace("require_exp = true", "require_exp = \"yes\"")
        .replace("\"evo.model.*\"]", "\"evo model\"]");
    let report = policy(&bad).expect_err("five mistakes");
    let text = report.render();
    for expected in [
        "did you mean `per_minute`?",
        "did you mean \"local\"?",
        "`domain.content.max_depth` is out of range: 0",
        "`auth.require_exp` must be true or false, not a string",
        "`servers[0].allow_tools[1]`",
    ] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    assert!(!text.contains("is missing"), "one slip is one problem: {text}");
    assert!(report.problems.iter().all(|problem| problem.line > 0 && problem.column > 0));
}

#[test]
fn an_override_goes_to_its_file_and_a_stray_one_is_a_problem() {
    let source = Source::embedded("policy.toml", embedded::POLICY, Path::new("."));
    let set = |key: &str, value: &str| Overrides { set: vec![(key.into(), value.into())], ..Overrides::default() };
    let load = |overrides: &Overrides| load_policy(&source, overrides, PolicyContext::default());
    let snapshot = load(&set("servers.content.rate_limit.per_minute", "7")).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(snapshot.servers[0].per_minute, 7);
    assert!(load(&set("listen.http", "[]")).is_ok(), "belongs to sidecar.toml");
    let report = load(&set("rate_limt.enabled", "true")).expect_err("unknown");
    assert_eq!(report.problems[0].file, "--set rate_limt.enabled");
}

#[test]
fn a_watch_sees_writes_and_symlink_swaps() {
    let dir = tempfile::tempdir().expect("directory");
    for name in ["a", "b"] {
        std::fs::create_dir(dir.path().join(name)).expect("directory");
        std::fs::write(dir.path().join(name).join("policy.toml"), name).expect("file");
    }
    let link = |to: &str, at: &str| std::os::unix::fs::symlink(to, dir.path().join(at)).expect("link");
    link("a", "..data");
    link("..data/policy.toml", "policy.toml");
    let (sender, receiver) = std::sync::mpsc::channel();
    let _watch = watch(&dir.path().join("policy.toml"), move |bytes| drop(sender.send(bytes))).expect("watch");
    link("b", "..new");
    std::fs::rename(dir.path().join("..new"), dir.path().join("..data")).expect("rename");
    let wait = std::time::Duration::from_secs(5);
    assert_eq!(receiver.recv_timeout(wait).expect("swap"), b"b");
}

/// emcp.md 5: a tool has one server, and names that start with `evo.` belong to the core.
#[test]
fn a_tool_has_one_server() {
    let server = |keys: &str| {
        let base =
            "\n[[servers]]\nupstream = \"executor\"\nsecurity = { deny_tools = [] }\nrate_limit = { per_minute = 1 }\n";
        let text = embedded::POLICY.trim_end().strip_suffix("[end]").expect("ends so").to_owned();
        policy(&format!("{text}{base}{keys}\n[end]\n"))
    };
    let good = [
        r#"handle = "b"
           enabled = false
           transport = "web"
           kind = "content"
           allow_tools = ["evo.*"]"#,
        r#"handle = "b"
           enabled = true
           transport = "local"
           kind = "content"
           allow_tools = ["evo.*"]"#,
        r#"handle = "b"
           enabled = true
           transport = "web"
           kind = "content"
           allow_tools = ["evo.other.*"]"#,
        r#"handle = "b"
           enabled = true
           transport = "web"
           kind = "mcp"
           tool_names = ["vendor.find"]
           allow_tools = ["vendor.*"]"#,
        r#"handle = "b"
           enabled = true
           transport = "web"
           kind = "mcp"
           tool_names = ["vendor.find"]

           [[servers]]
           handle = "c"
           enabled = true
           transport = "local"
           kind = "mcp"
           upstream = "executor"
           deny_tools = []
           tool_names = ["vendor.find"]"#,
    ];
    for keys in good {
        server(keys).unwrap_or_else(|report| panic!("{keys}\n{report}"));
    }
    let bad = [
        (
            r#"handle = "b"
               enabled = true
               transport = "web"
               kind = "content"
               allow_tools = ["evo.model.*", "evo.content.get"]"#,
            "some tools are claimed already by the server at policy.toml:",
        ),
        (
            r#"handle = "b"
               enabled = true
               transport = "web"
               kind = "content"
               tool_names = ["evo.content.get"]"#,
            "some tools are claimed already by the server at policy.toml:",
        ),
        (
            r#"handle = "b"
               enabled = true
               transport = "web"
               kind = "mcp"
               tool_names = ["evo.mine"]"#,
            "names that start with evo. belong to kind \"content\"",
        ),
        (
            r#"handle = "b"
               enabled = true
               transport = "web"
               kind = "mcp"
               allow_tools = ["evo.model.*"]"#,
            "names that start with evo. belong to kind \"content\"",
        ),
        (
            r#"handle = "b"
               enabled = true
               transport = "web"
               kind = "mcp"
               tool_names = ["vendor.find"]

               [[servers]]
               handle = "c"
               enabled = true
               transport = "web"
               kind = "mcp"
               upstream = "executor"
               deny_tools = []
               tool_names = ["vendor.find"]"#,
            "the tool \"vendor.find\" is claimed already at policy.toml:",
        ),
        (
            r#"handle = "content"
               enabled = true
               transport = "web"
               kind = "mcp""#,
            "the handle \"content\" is taken at policy.toml:",
        ),
        (
            r#"handle = ""
               enabled = true
               transport = "web"
               kind = "mcp""#,
            "\"\" cannot be a handle",
        ),
        (
            r#"handle = "b"
               enabled = true
               transport = "stdio"
               kind = "mcp""#,
            "`servers[1].transport` has no value \"stdio\"",
        ),
    ];
    for (keys, expected) in bad {
        let report = server(keys).err().unwrap_or_else(|| panic!("{keys} was accepted"));
        assert_eq!(report.problems.len(), 1, "{report}");
        assert!(report.problems[0].message.contains(expected), "{report}");
    }
}
