//! `docs/CONFIG.md` against the loader: its examples load, its tables name every key and no other, and what bad files
//! get to read stays as it is. `UPDATE=1` rewrites the expected reports in `tests/cfg`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use mcp_sidecar::config::{
    Effective, Overrides, PolicyContext, Report, Source, embedded, inspect_executor, inspect_policy, inspect_sidecar,
};

const FILES: [(&str, &str); 3] =
    [("policy", embedded::POLICY), ("sidecar", embedded::SIDECAR), ("executor", embedded::EXECUTOR)];

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn manual() -> String {
    std::fs::read_to_string(here("docs/CONFIG.md")).expect("docs/CONFIG.md")
}

fn shipped(kind: &str) -> &'static str {
    FILES.iter().find(|(name, _)| *name == kind).unwrap_or_else(|| panic!("no file of kind {kind:?}")).1
}

/// Loads a text as `{kind}.toml`, with variables such as the examples name.
fn load(kind: &str, name: &str, text: &str, set: Vec<(String, String)>) -> (Result<(), Report>, Vec<Effective>) {
    let key = "k".repeat(32);
    let environment = [
        ("EXECUTOR_KEY", key.as_str()),
        ("QUEUE_KEY", &key),
        ("REDIS_URL", "redis://redis.internal:6379"),
        ("SAPI_JWT_SECRET", &key),
        ("SITE_DATABASE_PASSWORD", "word"),
        ("SEARCH_AUTHORIZATION", "Bearer word"),
    ];
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let overrides = Overrides { environment, set, ..Overrides::default() };
    let source = Source::embedded(name, text, Path::new("/nowhere"));
    match kind {
        "policy" => {
            let upstreams = ["executor".to_owned(), "search".to_owned()];
            let context = PolicyContext { upstreams: Some(&upstreams), ..PolicyContext::default() };
            let (result, effective) = inspect_policy(&source, &overrides, context);
            (result.map(drop), effective)
        }
        "sidecar" => {
            let (result, effective) = inspect_sidecar(&source, &overrides);
            (result.map(drop), effective)
        }
        "executor" => {
            let (result, effective) = inspect_executor(&source, &overrides);
            (result.map(drop), effective)
        }
        other => panic!("no file of kind {other:?}"),
    }
}

/// The leaves of a table as key paths with their values as TOML.
fn leaves(prefix: &str, table: &toml::Table, out: &mut Vec<(String, String)>) {
    for (key, value) in table {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            toml::Value::Table(inner) if !inner.is_empty() => leaves(&path, inner, out),
            value => out.push((path, value.to_string())),
        }
    }
}

/// An example: the kind of file, whether it is laid over the shipped one, its text.
fn examples(manual: &str) -> Vec<(String, bool, String)> {
    let mut found = Vec::new();
    let mut lines = manual.lines().peekable();
    let mut comment = None;
    while let Some(line) = lines.next() {
        if let Some(rest) = line.strip_prefix("<!-- file: ") {
            let rest = rest.strip_suffix(" -->").expect("the comment ends on its line");
            let (file, over) =
                rest.split_once(", over the shipped one").map_or((rest, false), |(file, _)| (file, true));
            comment = Some((file.strip_suffix(".toml").expect("a TOML file").to_owned(), over));
        } else if line == "```toml" {
            let (kind, over) = comment.take().expect("a comment with the file's name stands before every example");
            let text: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            found.push((kind, over, text.join("\n") + "\n"));
        } else {
            assert!(!line.starts_with("```"), "an example of another kind: {line}");
        }
    }
    found
}

/// What the manual's tables list for a file, with `NAME` and `servers.` as they stand there.
fn documented(manual: &str, kind: &str) -> BTreeSet<String> {
    let heading = format!("## {kind}.toml\n");
    let start = manual.find(&heading).unwrap_or_else(|| panic!("no chapter {heading}")) + heading.len();
    let chapter = manual[start..].split("\n## ").next().unwrap_or("");
    let mut keys = BTreeSet::new();
    for row in chapter.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        assert_eq!(cells.len(), 5, "key, type, unit, default, effect: {row}");
        let mut parent = String::new();
        for word in cells[0].trim().split(", ") {
            let word = word.trim_matches('`');
            if let Some((before, _)) = word.rsplit_once('.') {
                parent = format!("{before}.");
                assert!(keys.insert(word.to_owned()), "{word} is listed twice");
            } else {
                assert!(keys.insert(format!("{parent}{word}")), "{word} is listed twice");
            }
        }
    }
    keys
}

/// A key path as the manual writes it.
fn generic(key: &str) -> String {
    let key = key.split('"').next().unwrap_or(key).trim_end_matches('.');
    let mut parts: Vec<&str> = key.split('.').collect();
    if parts[0].starts_with("servers[") {
        parts[0] = "servers";
    }
    if parts[0] == "upstreams" && parts.len() > 1 {
        parts[1] = "NAME";
    }
    // What these tables hold is described in one row.
    for group in [&["servers", "limits"][..], &["servers", "stream"], &["upstreams", "NAME", "headers"]] {
        if parts.starts_with(group) {
            parts.truncate(group.len());
        }
    }
    if let Some(at) = parts.iter().position(|part| *part == "scope_map") {
        parts.truncate(at + 1);
    }
    parts.join(".")
}

#[test]
fn every_example_of_the_manual_loads() {
    let mut kinds = BTreeSet::new();
    // Of the page on dispatch, what a file's name stands before.
    let page = std::fs::read_to_string(here("docs/DISPATCH.md")).expect("docs/DISPATCH.md");
    let files = page.split("<!-- file: ").skip(1).map(|part| part.split("\n```\n").next().unwrap_or(""));
    let dispatch: String = files.map(|part| format!("<!-- file: {part}\n```\n")).collect();
    assert_eq!(examples(&dispatch).len(), 2);
    for (kind, over, text) in examples(&manual()).into_iter().chain(examples(&dispatch)) {
        let table: toml::Table = text.parse().unwrap_or_else(|error| panic!("{error}\n{text}"));
        let (result, _) = if over {
            let mut set = Vec::new();
            leaves("", &table, &mut set);
            load(&kind, &format!("{kind}.toml"), shipped(&kind), set)
        } else {
            load(&kind, &format!("{kind}.toml"), &text, Vec::new())
        };
        result.unwrap_or_else(|report| panic!("{report}\n\nin the example\n{text}"));
        kinds.insert(kind);
    }
    assert_eq!(kinds.len(), FILES.len(), "an example for every file");
}

#[test]
fn every_key_that_is_read_is_in_the_manual() {
    let manual = manual();
    for (kind, text) in FILES {
        let known = documented(&manual, kind);
        let mut seen: BTreeSet<String> = BTreeSet::new();
        let complete = examples(&manual).into_iter().filter(|(of, over, _)| of == kind && !over);
        for text in complete.map(|(_, _, text)| text).chain([text.to_owned()]) {
            let (result, effective) = load(kind, kind, &text, Vec::new());
            result.unwrap_or_else(|report| panic!("{report}"));
            seen.extend(effective.iter().map(|value| generic(&value.key)));
            let mut written = Vec::new();
            leaves("", &text.parse().expect("it has just been loaded"), &mut written);
            seen.extend(written.iter().filter(|(key, _)| key != "servers").map(|(key, _)| generic(key)));
        }
        let missing: Vec<&String> = seen.difference(&known).collect();
        assert!(missing.is_empty(), "docs/CONFIG.md lacks, for {kind}.toml: {missing:?}");
    }
}

#[test]
fn every_key_of_the_manual_is_read() {
    let manual = manual();
    for (kind, text) in FILES {
        for key in documented(&manual, kind) {
            // No key takes a date: who reads the key says so, and nobody else does.
            let path = key.replace(".NAME.", ".executor.").replace("servers.", "servers.content.");
            let shown = path.replace("servers.content.", "servers[0].");
            // Only one way of giving a URL is read, so the shipped one makes room for the others.
            let other_way = key.ends_with(".url_env") || key.ends_with(".url_file");
            let kept = text.lines().filter(|line| !other_way || !line.starts_with("url = "));
            let text = kept.collect::<Vec<_>>().join("\n");
            let (result, _) = load(kind, kind, &text, vec![(path, "2001-02-03".to_owned())]);
            let report = result.err().unwrap_or_else(|| panic!("{kind}.toml takes a date for {key}")).render();
            // A URL may be given in three ways: the wrong type of one reads as none at all.
            let read = ["must be ", "is missing"].iter().any(|what| report.contains(&format!("`{shown}` {what}")));
            assert!(read && !report.contains("unknown key"), "{kind}.toml does not read {key}:\n{report}");
        }
    }
}

#[test]
fn bad_files_get_the_expected_reports() {
    let update = std::env::var_os("UPDATE").is_some();
    let mut files: Vec<PathBuf> = std::fs::read_dir(here("tests/cfg"))
        .expect("tests/cfg")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    assert!(files.len() >= 10, "{files:?}");
    let mut wrong = Vec::new();
    for path in files {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a UTF-8 name").to_owned();
        let kind = name.split('-').next().unwrap_or("");
        let text = std::fs::read_to_string(&path).expect("a readable file");
        let (result, _) = load(kind, &name, &text, Vec::new());
        let rendered = result.err().unwrap_or_else(|| panic!("{name} was accepted")).render();
        assert!(!rendered.contains("hunter2"), "{name}: a secret is shown\n{rendered}");
        let expected = path.with_extension("txt");
        if update {
            std::fs::write(&expected, &rendered).expect("a writable file");
        } else if std::fs::read_to_string(&expected).unwrap_or_default() != rendered {
            wrong.push(format!("{name}:\n{rendered}"));
        }
    }
    assert!(wrong.is_empty(), "other reports than in tests/cfg (UPDATE=1 rewrites them)\n\n{}", wrong.join("\n"));
}

/// A slip of an operator's hand: kind of file, what is written in the shipped one, what they wrote instead.
const MISTAKES: &[(&str, &str, &str, &str)] = &[
    ("a comma is missing", "policy", r#""evo.content.*", "evo.model.*""#, r#""evo.content.*" "evo.model.*""#),
    ("a bracket is missing", "policy", "[rate_limit]", "[rate_limit"),
    ("a quote is missing", "policy", r#"header = "X-Trace-Id""#, r#"header = "X-Trace-Id"#),
    ("no quotes at all", "policy", r#"mode = "sapi_jwt""#, "mode = sapi_jwt"),
    ("YAML's colon", "policy", "enable = true", "enable: true"),
    ("Python's True", "policy", "enable = true", "enable = True"),
    ("yes for true", "policy", "enable = true", r#"enable = "yes""#),
    ("a number in quotes", "policy", "per_minute = 60 ", r#"per_minute = "60""#),
    ("a number with its unit", "policy", "max_payload_kb = 256", "max_payload_kb = 256KB"),
    ("a number of another unit", "policy", "max_payload_kb = 256", "max_payload_kb = 268435456"),
    ("a fraction", "policy", "max_stream_mb = 64", "max_stream_mb = 0.5"),
    ("a negative number", "policy", "max_offset = 5000\n\n", "max_offset = -1\n\n"),
    ("a number beyond everything", "policy", "max_headers = 100", "max_headers = 99999999999999999999"),
    ("a key twice", "policy", "replicas = 1 ", "replicas = 1\nreplicas = 2 "),
    ("a table twice", "policy", "[trace]", "[stream]\nenabled = true\n\n[trace]"),
    ("a misspelt table", "policy", "[security]", "[securtiy]"),
    ("a misspelt key", "policy", "deny_sub = []", "denysub = []"),
    ("a key of another table", "policy", "[logging]", "[logging]\nenable_write_tools = false"),
    ("a key of a server at the top", "policy", "enable = true", "enable = true\nallow_tools = []"),
    ("a table of another file", "policy", "[trace]", "[listen]\nhttp = []\n\n[trace]"),
    ("one word for a list", "policy", r#"allow_servers = ["*"]"#, r#"allow_servers = "*""#),
    ("one server in single brackets", "policy", "[[servers]]", "[servers]"),
    (
        "a handle twice",
        "policy",
        "[[servers]]",
        "[[servers]]\nhandle = \"content\"\ntransport = \"local\"\nkind = \"content\"\ndeny_tools = []\n\n[[servers]]",
    ),
    ("a handle that is a path", "policy", r#"handle = "content""#, r#"handle = "mcp/content""#),
    ("a misspelt upstream", "policy", r#"upstream = "executor""#, r#"upstream = "exectuor""#),
    (
        "a tool claimed twice",
        "policy",
        "[[servers]]",
        "[[servers]]\nhandle = \"a\"\nenabled = true\ntransport = \"web\"\nkind = \"mcp\"\nupstream = \"search\"\ntool_names = [\"find\", \"find\", \"evo.find\"]\ndeny_tools = []\n\n[[servers]]",
    ),
    ("deny_tools in both spellings", "policy", "allow_prompts = []", "allow_prompts = []\ndeny_tools = []"),
    ("header limits of one server", "policy", "max_payload_kb = 128", "max_payload_kb = 128, max_headers = 9"),
    ("a regular expression", "policy", r#""evo.model.*""#, r#""^evo\\.model\\..*$""#),
    ("a comma inside a pattern", "policy", r#""evo.model.*""#, r#""evo.model.*,evo.x""#),
    (
        "eMCP's own tables",
        "policy",
        "[trace]",
        "[queue]\ndriver = \"stask\"\n\n[idempotency]\nttl_seconds = 60\n\n[acl]\npermission = \"emcp\"\ndispatch_permission = \"d\"\n\n[actor]\nmode = \"service\"\nservice_username = \"MCP\"\n\n[trace]",
    ),
    (
        "eMCP's keys of a server",
        "policy",
        "allow_prompts = []",
        "allow_prompts = []\nclass = \"Evo\"\nroute = \"/mcp\"\nauth = \"sapi_jwt\"\nscopes = []",
    ),
    ("acl for security", "policy", "[trace]", "[acl]\nallow_servers = []\n\n[trace]"),
    ("a path in a prefix", "policy", r#"base = "api""#, r#"base = "/api/""#),
    ("an origin with a path", "policy", "allow_origins = []", r#"allow_origins = ["https://a.example/"]"#),
    ("a port alone", "sidecar", r#""127.0.0.1:8087""#, r#"":8087""#),
    ("a name to listen on", "sidecar", r#""127.0.0.1:8087""#, r#""localhost:8087""#),
    ("nowhere to listen", "sidecar", r#"["127.0.0.1:8087"]"#, "[]"),
    ("one port for two", "sidecar", r#""127.0.0.1:9087""#, r#""0.0.0.0:8087""#),
    ("a time without a unit", "sidecar", r#"header = "5s""#, "header = 5"),
    ("a time in seconds, in words", "sidecar", r#"header = "5s""#, r#"header = "5 seconds""#),
    (
        "url and url_env",
        "sidecar",
        "[audit]",
        "[redis]\nurl = \"redis://:hunter2@r\"\nurl_env = \"REDIS_URL\"\n\n[audit]",
    ),
    (
        "Sentinel",
        "sidecar",
        "[audit]",
        "[redis]\nurl = \"redis+sentinel://:hunter2@a:26379,b:26379/mymaster\"\n\n[audit]",
    ),
    ("a Cluster", "sidecar", "[audit]", "[redis]\nurl = \"redis://:hunter2@a:7000,b:7001\"\n\n[audit]"),
    ("no scheme", "sidecar", "[audit]", "[redis]\nurl = \"localhost:6379\"\n\n[audit]"),
    ("a variable that is not set", "sidecar", "[audit]", "[redis]\nurl_env = \"REDIS_ULR\"\n\n[audit]"),
    (
        "a CMS behind TLS",
        "sidecar",
        "[upstreams.executor]",
        "[cms]\nurl = \"https://cms.example\"\n\n[upstreams.executor]",
    ),
    (
        "a CMS that is this proxy",
        "sidecar",
        "[upstreams.executor]",
        "[cms]\nurl = \"http://localhost:8087\"\n\n[upstreams.executor]",
    ),
    ("an upstream by host and port", "sidecar", r#"socket = "run/executor.sock""#, r#"url = "executor:8090""#),
    (
        "an upstream with a password",
        "sidecar",
        "identity = true ",
        "\n[upstreams.far]\nurl = \"https://me:hunter2@far.example\"\n#",
    ),
    (
        "one upstream twice",
        "sidecar",
        "identity = true ",
        "identity = true\n[upstreams.again]\nsocket = \"run/executor.sock\"\npath = \"/mcp/{server}\"\n#",
    ),
    ("the control socket as upstream", "sidecar", r#"socket = "run/executor.sock""#, r#"socket = "run/control.sock""#),
    (
        "a header that is ours",
        "sidecar",
        "identity = true ",
        "headers = { Host = \"a\", X-Key = { value = \"b\" } }\n#",
    ),
    ("a secret in the policy", "policy", "deny_sub = []", "secret = \"hunter2hunter2\"\ndeny_sub = []"),
    ("a key in the file", "sidecar", "identity = true ", "identity = true\nkey = \"hunter2hunter2\"\n#"),
    ("a slip beside a password", "sidecar", "[listen]", "redis = { url = \"hunter2\", timeout = 3 }\n\n[listen]"),
    (
        "a slip on a password's line",
        "sidecar",
        "[upstreams.executor]",
        "[redis]\nurl = \"redis://:hunter2@r:6379\n\n[upstreams.executor]",
    ),
    ("an engine that PHP calls so", "executor", r#""sqlite://emcp.sqlite""#, r#""pgsql://root:hunter2@localhost/evo""#),
    ("a path for a URL", "executor", r#""sqlite://emcp.sqlite""#, r#""emcp.sqlite""#),
    ("a queue worker", "executor", "[database]", "[queue_worker]\nthreads = 1\n\n[database]"),
    ("a table of the proxy", "executor", "[database]", "[redis]\nurl_env = \"REDIS_URL\"\n\n[database]"),
];

#[test]
fn what_operators_get_wrong_is_told_in_their_words() {
    let mut all = String::new();
    for (name, kind, right, wrong) in MISTAKES {
        let text = shipped(kind);
        assert!(text.contains(right), "{name}: {kind}.toml holds no {right:?}");
        let (result, _) = load(kind, &format!("{kind}.toml"), &text.replacen(right, wrong, 1), Vec::new());
        let rendered = result.err().unwrap_or_else(|| panic!("{name} was accepted")).render();
        all.push_str(&format!("=== {name} ===\n{rendered}\n"));
    }
    assert!(!all.contains("hunter2"), "a secret is shown\n{all}");
    let expected = here("tests/cfg/mistakes.txt");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&expected, &all).expect("a writable file");
    }
    let expected = std::fs::read_to_string(&expected).unwrap_or_default();
    assert!(all == expected, "other reports than in tests/cfg/mistakes.txt (UPDATE=1 rewrites it)\n\n{all}");
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 400, ..Default::default() })]

    /// Whatever a hand or a broken disk does to a file: an answer, whose places lie inside the file.
    #[test]
    fn any_text_gets_an_answer(
        file in 0..FILES.len(),
        at in 0.0..1.0,
        gone in 0_usize..40,
        put in r#"[\[\]{}=.,:"'#a-z0-9_\n \\éß-]{0,12}|\[\[servers\]\]|\[end\]"#,
    ) {
        let (kind, shipped) = FILES[file];
        let mut text = shipped.to_owned();
        let index = |share: f64, text: &str| {
            let at = (share * text.len() as f64) as usize;
            (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
        };
        let from = index(at, &text);
        let to = (from + gone..=text.len()).find(|to| text.is_char_boundary(*to)).unwrap_or(text.len());
        text.replace_range(from..to, &put);
        if let (Err(report), _) = load(kind, kind, &text, Vec::new()) {
            let lines = text.lines().count().max(1) + 1;
            assert!(!report.problems.is_empty() && !report.render().is_empty());
            assert!(report.problems.iter().all(|problem| problem.line as usize <= lines));
        }
    }
}
