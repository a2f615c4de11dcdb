//! `check --connect` as an operator runs it: the real binary before small servers, a real redis-server and a real
//! executor. What it finds, what it says to do about it, and its exit code.

use std::cell::{Cell, RefCell};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[path = "it/harness/port.rs"]
mod port;
#[expect(dead_code, reason = "shared with the tests of limits, which use all of it")]
#[path = "limits/server.rs"]
mod server;

use port::vacant;
use server::RedisServer;

const KEY: &str = "0123456789abcdef0123456789abcdef";
const INITIALIZED: &str = r#"{"jsonrpc":"2.0","id":"check","result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"little","version":"1"}}}"#;

/// A request as a server read it: its first line, its head in lower case, its body.
struct Request {
    line: String,
    head: String,
    body: String,
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

fn page() -> String {
    answer("404 Not Found", "Content-Type: text/html\r\n", "<h1>Not found</h1>")
}

fn json(body: &str) -> String {
    answer("200 OK", "Content-Type: application/json\r\n", body)
}

/// An HTTP server on a free port; no more connections are taken once it is dropped.
struct Server {
    address: SocketAddr,
    over: Arc<AtomicBool>,
}

impl Server {
    fn start(script: impl Fn(&Request) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("is bound");
        let over = Arc::new(AtomicBool::new(false));
        let (stop, script) = (Arc::clone(&over), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(stream), script) = (stream, Arc::clone(&script)) else { continue };
                std::thread::spawn(move || converse(stream, &*script));
            }
        });
        Self { address, over }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn converse(stream: TcpStream, script: &(dyn Fn(&Request) -> String + Send + Sync)) {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap_or(0) == 0 {
            return;
        }
    }
    let line = head.lines().next().unwrap_or("").to_owned();
    let head = head.to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    let request = Request { line, head, body: String::from_utf8_lossy(&body).into_owned() };
    let _ = reader.get_mut().write_all(script(&request).as_bytes());
}

/// The files of one test.
struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(dir.path().join("conf")).expect("is made");
        Self { dir }
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join("conf").join(name), text).expect("is written");
    }

    /// A sidecar.toml with these tables besides the required ones.
    fn sidecar(&self, tables: &str) {
        let listen = "[listen]\nhttp = [\"127.0.0.1:0\"]\n";
        let upstreams = if tables.contains("[upstreams") { "" } else { "[upstreams]\n" };
        self.write("sidecar.toml", &format!("{listen}[audit]\ndir = \"logs\"\n{upstreams}{tables}"));
    }

    fn policy(&self) {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/policy.toml"));
        self.write("policy.toml", &text.expect("the shipped policy"));
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-sidecar"));
        command.args(arguments).current_dir(self.dir.path()).env("EXECUTOR_KEY", KEY).env("OTHER_KEY", "x".repeat(32));
        command.env("SAPI_JWT_SECRET", KEY).env("SEARCH", "Bearer hunter2").stdin(Stdio::null());
        command
    }

    /// The exit code and everything printed.
    fn check(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.command(&[&["check"], arguments].concat()).output().expect("the binary runs");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().expect("it exits"), String::from_utf8(text).expect("UTF-8"))
    }

    fn connect(&self) -> (i32, String) {
        let begun = Instant::now();
        let (code, text) = self.check(&["--connect"]);
        assert!(begun.elapsed() < Duration::from_secs(30), "it is bounded");
        assert!(!text.contains("hunter2"), "a secret is shown\n{text}");
        (code, text)
    }
}

/// The line about a key, and the fix below it.
fn about<'a>(text: &'a str, state: &str, key: &str) -> (&'a str, &'a str) {
    let mut lines = text.lines();
    let line = lines.by_ref().find(|line| line.split_whitespace().take(2).eq([state, key]));
    let line = line.unwrap_or_else(|| panic!("no line `{state} {key}` in\n{text}"));
    (line, lines.next().unwrap_or("").trim())
}

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn what_answers_as_it_should_is_ok() {
    let (files, redis) = (Files::new(), RedisServer::start());
    let executor = with_executor(&files, "socket = \"executor.sock\"");
    let foreign = Server::start(|request| match request.line.as_str() {
        "POST /search/mcp HTTP/1.1" if request.head.contains("authorization: bearer hunter2") => {
            let session = "Content-Type: text/event-stream\r\nMCP-Session-Id: s\r\n";
            answer("200 OK", session, &format!(": hello\n\ndata: {INITIALIZED}\n\n"))
        }
        "DELETE /search/mcp HTTP/1.1" if request.head.contains("mcp-session-id: s") => answer("200 OK", "", ""),
        _ => page(),
    });
    let cms = Server::start(|_| page());
    files.policy();
    files.sidecar(&format!(
        "[cms]\nurl = \"http://{}\"\n[upstreams.executor]\nsocket = \"executor.sock\"\npath = \"/mcp/{{server}}\"\n\
         identity = true\n[upstreams.search]\nurl = \"http://{}/search/mcp\"\n\
         headers = {{ Authorization = {{ value_env = \"SEARCH\" }} }}\n[redis]\nurl = \"{}\"\ntimeout_ms = 5000\n",
        cms.address,
        foreign.address,
        redis.url()
    ));
    let (code, text) = files.connect();
    assert_eq!(code, 0, "{text}");
    assert!(about(&text, "ok", "upstreams.executor").0.contains("speaks MCP 2025-11-25"), "{text}");
    assert!(about(&text, "ok", "upstreams.search").0.contains("\"little\""), "{text}");
    assert!(about(&text, "warn", "upstreams.search").0.contains("no enabled server"), "{text}");
    assert!(about(&text, "ok", "redis").0.contains("runs the limits' script"), "{text}");
    assert!(about(&text, "ok", "database").0.contains("evo_"), "{text}");
    assert!(text.contains("does not answer MCP by itself"), "{text}");
    drop(executor);
}

/// Writes executor.toml with a demo site and runs the executor.
fn with_executor(files: &Files, listen: &str) -> Process {
    let site = files.dir.path().join("conf/site.sqlite");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(mcp_sidecar::app::demo_site(&site, 0)).expect("the demo site");
    files.policy();
    files.write("executor.toml", &format!("[executor]\n{listen}\n[database]\nurl = \"sqlite://site.sqlite\"\n"));
    let mut command = files.command(&["executor", "--config", "conf/executor.toml", "--policy", "conf/policy.toml"]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary runs");
    let process = Process(child);
    let socket = files.dir.path().join("conf/executor.sock");
    let address = listen.split('"').nth(1).expect("a place");
    until("the executor listens", || {
        std::os::unix::net::UnixStream::connect(&socket).is_ok() || TcpStream::connect(address).is_ok()
    });
    process
}

#[test]
fn a_key_that_differs_is_told_from_a_server_that_is_missing() {
    let files = Files::new();
    let port = vacant().port();
    let listen = format!("listen = \"127.0.0.1:{port}\"\nkey_env = \"EXECUTOR_KEY\"");
    let _executor = with_executor(&files, &listen);
    let sidecar = |path: &str, key: &str| {
        let url = format!("http://127.0.0.1:{port}{path}");
        files.sidecar(&format!("[upstreams.executor]\nurl = \"{url}\"\nidentity = true\nkey_env = \"{key}\"\n"));
        files.connect()
    };
    let (code, text) = sidecar("/mcp/{server}", "EXECUTOR_KEY");
    assert_eq!(code, 0, "{text}");
    let (code, text) = sidecar("/mcp/{server}", "OTHER_KEY");
    let (line, fix) = about(&text, "failed", "upstreams.executor");
    assert!(code == 1 && line.contains("refuses our identity (HTTP 401)") && fix.contains("same key"), "{text}");
    let (code, text) = sidecar("/elsewhere", "EXECUTOR_KEY");
    let (line, fix) = about(&text, "failed", "upstreams.executor");
    assert!(code == 1 && line.contains("HTTP 404") && fix.contains("/mcp/{server}"), "{text}");
}

#[test]
fn a_cms_that_answers_mcp_fails_in_whatever_spelling_it_does() {
    let emcp = |status: &str, code: &str| {
        let body = format!(r#"{{"error":{{"code":"{code}","message":"m","trace_id":"t"}}}}"#);
        answer(status, "Content-Type: application/json\r\n", &body)
    };
    type Script = Box<dyn Fn(&Request) -> String + Send + Sync>;
    let target = |request: &Request| request.line.split(' ').nth(1).unwrap_or("").to_owned();
    let cases: Vec<(&str, Script, &str, bool)> = vec![
        (
            "the plain route",
            Box::new(move |r| {
                if target(r) == "/api/v1/mcp/content" { emcp("401 Unauthorized", "unauthenticated") } else { page() }
            }),
            "POST /api/v1/mcp/content (HTTP 401, eMCP's error `unauthenticated`)",
            false,
        ),
        (
            "path info",
            Box::new(move |r| if target(r) == "/index.php/api/v1/mcp/content" { json(INITIALIZED) } else { page() }),
            "POST /index.php/api/v1/mcp/content (HTTP 200, JSON-RPC)",
            false,
        ),
        (
            "an encoded letter",
            Box::new(move |r| if target(r) == "/api/v1/%6dcp/content" { json(INITIALIZED) } else { page() }),
            "POST /api/v1/%6dcp/content",
            false,
        ),
        (
            "two slashes",
            Box::new(move |r| if target(r) == "//emcp/content" { json(INITIALIZED) } else { page() }),
            "POST //emcp/content",
            false,
        ),
        (
            "q in the query",
            Box::new(move |r| if target(r) == "/?q=api/v1/mcp/content" { json(INITIALIZED) } else { page() }),
            "POST /?q=api/v1/mcp/content",
            false,
        ),
        (
            "q in a form",
            Box::new(move |r| match r.body == "q=api/v1/mcp/content" {
                true => emcp("415 Unsupported Media Type", "unsupported_media_type"),
                false => page(),
            }),
            "POST /index.php with the form q=api/v1/mcp/content",
            true,
        ),
        (
            "a session",
            Box::new(move |r| match target(r) == "/api/v1/mcp/content/" {
                true => answer("202 Accepted", "MCP-Session-Id: s\r\n", ""),
                false => page(),
            }),
            "POST /api/v1/mcp/content/ (HTTP 202, MCP-Session-Id)",
            false,
        ),
        (
            "another method",
            Box::new(move |r| match r.line.starts_with("GET /api/v1/mcp/content ") {
                true => answer("405 Method Not Allowed", "Allow: POST\r\n", ""),
                false => page(),
            }),
            "GET /api/v1/mcp/content (HTTP 405",
            false,
        ),
    ];
    for (name, script, expected, open) in cases {
        let (files, cms) = (Files::new(), Server::start(script));
        files.policy();
        // The shipped policy names an upstream that this test has no need of.
        files.sidecar(&format!("[cms]\nurl = \"http://{}\"\n[upstreams.executor]\nsocket = \"none\"\n", cms.address));
        let (code, text) = files.connect();
        assert_eq!(code, 1, "{name}: {text}");
        let (line, fix) = about(&text, "failed", "cms");
        assert!(line.contains("answers MCP by itself") && line.contains(expected), "{name}: {text}");
        assert_eq!(line.contains("CLIENTS REACH THIS"), open, "{name}: {text}");
        assert!(fix.contains("switch MCP off"), "{name}: {text}");
    }
}

#[test]
fn pages_that_ask_everybody_for_a_password_are_no_mcp() {
    let files = Files::new();
    let cms = Server::start(|_| answer("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n", "who?"));
    files.policy();
    files.sidecar(&format!("[cms]\nurl = \"http://{}\"\n[upstreams.executor]\nsocket = \"none\"\n", cms.address));
    let (_, text) = files.connect();
    assert!(text.contains("does not answer MCP by itself"), "{text}");
}

#[test]
fn what_is_down_or_strange_says_why() {
    let files = Files::new();
    let strange = Server::start(|_| page());
    let denying = Server::start(|_| answer("401 Unauthorized", "", ""));
    let noise = Server::start(|_| "220 smtp.example ESMTP\r\n".to_owned());
    let down = vacant().port();
    files.write("executor.toml", "[executor]\nsocket = \"e.sock\"\n[database]\nurl = \"sqlite://absent.sqlite\"\n");
    files.sidecar(&format!(
        "[cms]\nurl = \"http://127.0.0.1:{down}\"\n[redis]\nurl = \"redis://127.0.0.1:{down}\"\n\
         [upstreams.socket]\nsocket = \"none.sock\"\nidentity = true\n[upstreams.down]\nurl = \"http://127.0.0.1:{down}\"\n\
         [upstreams.strange]\nurl = \"http://{}\"\n[upstreams.denying]\nurl = \"http://{}\"\n\
         [upstreams.noise]\nurl = \"http://{}\"\n[upstreams.tls]\nurl = \"https://localhost:{}\"\n\
         [upstreams.name]\nurl = \"http://no-such-host.invalid:1\"\n",
        strange.address,
        denying.address,
        noise.address,
        strange.address.port(),
    ));
    let (code, text) = files.connect();
    assert_eq!(code, 1, "{text}");
    for (key, expected, fix) in [
        ("cms", "Connection refused", "start it"),
        ("redis", "Connection refused", "start it"),
        ("database", "cannot be used", "check database.url"),
        ("upstreams.socket", "No such file", "start it"),
        ("upstreams.down", "Connection refused", "start it"),
        ("upstreams.strange", "has no MCP at /mcp (HTTP 404)", "correct upstreams.strange.path"),
        ("upstreams.denying", "refuses us (HTTP 401)", "value_env"),
        ("upstreams.noise", "does not speak HTTP/1.1", "check the address"),
        ("upstreams.tls", "TLS fails", "certificate"),
        ("upstreams.name", "the name cannot be resolved", "resolver"),
    ] {
        let (line, said) = about(&text, "failed", key);
        assert!(line.contains(expected) && said.contains(fix), "{key}: {text}");
    }
    assert!(text.contains("not there  conf/policy.toml"), "{text}");
}

#[test]
fn a_database_that_is_not_the_sites_or_not_there_is_told_apart() {
    let files = Files::new();
    let down = vacant().port();
    files.write("site.sqlite", "");
    files.sidecar("[upstreams]\n");
    for (database, expected, fix) in [
        ("url = \"sqlite://site.sqlite\"\nprefix = \"own_\"".to_owned(), "own_site_content", "check database.prefix"),
        (
            format!("url = \"postgres://user@127.0.0.1:{down}/site\"\nacquire_timeout_ms = 200"),
            "cannot be used",
            "user and password",
        ),
        (
            format!("url = \"mysql://user@127.0.0.1:{down}/site\"\nacquire_timeout_ms = 200"),
            "cannot be used",
            "user and password",
        ),
    ] {
        files.write("executor.toml", &format!("[executor]\nsocket = \"e.sock\"\n[database]\n{database}\n"));
        let (code, text) = files.connect();
        assert_eq!(code, 1, "{text}");
        let (line, said) = about(&text, "failed", "database");
        assert!(line.contains(expected) && said.contains(fix), "{database}: {text}");
    }
}

#[test]
fn a_queue_that_cannot_be_reached_is_told() {
    let files = Files::new();
    let site = files.dir.path().join("conf/site.sqlite");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(mcp_sidecar::app::demo_site(&site, 0)).expect("the demo site");
    let shipped = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/policy.toml"));
    let shipped = shipped.expect("the shipped policy");
    let policy = |queue: &str| {
        files.write("policy.toml", &shipped.replace("\n[end]", &format!("\n[queue]\n{queue}\n\n[end]")));
    };
    let executor = |queue: &str| {
        let text = "[executor]\nsocket = \"e.sock\"\n[database]\nurl = \"sqlite://site.sqlite\"\n";
        let rest = "key_env = \"OTHER_KEY\"\naudit = { dir = \"runs\" }\n";
        let table = if queue.is_empty() { String::new() } else { format!("[queue_worker]\n{queue}\n{rest}") };
        files.write("executor.toml", &format!("{text}{table}"));
    };
    executor("");
    for driver in ["own", "stask"] {
        policy(&format!("driver = \"{driver}\"\nfailover = \"sync\""));
        let (code, text) = files.check(&[]);
        assert!(code == 1 && text.contains("executor.toml has no [queue_worker]"), "{driver}: {text}");
        assert!(!text.contains("is valid"), "{text}");
    }
    policy("driver = \"sync\"\nfailover = \"sync\"");
    let (code, text) = files.check(&[]);
    assert!(code == 0 && text.contains("warn       queue.driver is \"sync\" and executor.toml has no"), "{text}");
    policy("driver = \"sync\"");
    assert!(files.check(&[]).1.contains("every dispatched call is answered with 503"));

    let down = vacant().port();
    let away = format!("url = \"mysql://user@127.0.0.1:{down}/site\"\nacquire_timeout = \"200ms\"");
    for (driver, queue, word, expected) in [
        ("own", "url = \"sqlite://queue.sqlite\"", "ok", "will be made in"),
        ("own", "url = \"sqlite://nowhere/queue.sqlite\"", "failed", "cannot be used"),
        ("own", "url = \"sqlite://site.sqlite\"", "ok", "will be made when it is first used"),
        ("own", &away, "failed", "cannot be used"),
        ("stask", "url = \"sqlite://site.sqlite\"", "ok", "sTask's table of tasks, with the prefix"),
        ("stask", "url = \"sqlite://site.sqlite\"\nprefix = \"none_\"", "failed", "none_s_tasks is missing"),
        ("stask", "url = \"sqlite://queue.sqlite\"", "failed", "there is no"),
    ] {
        policy(&format!("driver = \"{driver}\""));
        executor(queue);
        let (code, text) = files.check(&["--connect"]);
        assert!(about(&text, word, "queue").0.contains(expected), "{driver} {queue}: {text}");
        assert_eq!(code, i32::from(word == "failed"), "{text}");
    }
    assert!(!files.dir.path().join("conf/queue.sqlite").exists(), "nothing is made");
    policy("driver = \"off\"");
    let (code, text) = files.check(&["--connect"]);
    assert!(code == 0 && !text.contains(" queue "), "{text}");
}

#[test]
fn a_redis_is_told_by_what_it_refuses() {
    let redis = RedisServer::start();
    let files = Files::new();
    let ask = |url: &str| {
        files.sidecar(&format!("[redis]\nurl = \"{url}\"\ntimeout_ms = 5000\nprefix = \"p\"\n"));
        files.connect()
    };
    let port = redis.port;
    redis.command(&["ACL", "SETUSER", "alice", "on", ">pass", "+@all", "~p:*"]);
    redis.command(&["ACL", "SETUSER", "bob", "on", ">pass", "+ping", "+info", "~p:*"]);
    redis.command(&["ACL", "SETUSER", "carol", "on", ">pass", "+@all", "~other:*"]);
    redis.command(&["ACL", "SETUSER", "dave", "on", ">pass", "+@all", "-info", "~p:*"]);
    let (code, text) = ask(&format!("redis://alice:pass@127.0.0.1:{port}"));
    assert!(code == 0 && !text.contains("warn"), "{text}");
    let (code, text) = ask(&format!("redis://alice:hunter2@127.0.0.1:{port}"));
    let (line, fix) = about(&text, "failed", "redis");
    assert!(code == 1 && line.contains("refuses the user or the password") && fix.contains("correct"), "{text}");
    for user in ["bob", "carol"] {
        let (code, text) = ask(&format!("redis://{user}:pass@127.0.0.1:{port}"));
        let (line, fix) = about(&text, "failed", "redis");
        assert!(code == 1 && line.contains("does not let this user run") && fix.contains("~p:*"), "{user}: {text}");
    }
    let (code, text) = ask(&format!("redis://dave:pass@127.0.0.1:{port}"));
    assert!(code == 0 && about(&text, "warn", "redis").0.contains("INFO"), "{text}");

    redis.config("maxmemory", "100mb");
    redis.config("maxmemory-policy", "allkeys-lru");
    let (code, text) = ask(&redis.url());
    assert!(code == 0 && about(&text, "warn", "redis").0.contains("maxmemory-policy allkeys-lru"), "{text}");

    let replica = RedisServer::start_with(|_, _| vec!["--replicaof".into(), "127.0.0.1".into(), port.to_string()]);
    let (code, text) = ask(&replica.url());
    assert!(code == 1 && about(&text, "failed", "redis").0.contains("read-only replica"), "{text}");
    let cluster = RedisServer::start_with(|_, _| vec!["--cluster-enabled".into(), "yes".into()]);
    let (code, text) = ask(&cluster.url());
    assert!(code == 1 && about(&text, "failed", "redis").0.contains("part of a Cluster"), "{text}");

    redis.config("requirepass", "hunter2");
    let (code, text) = ask(&redis.url());
    let (line, fix) = about(&text, "failed", "redis");
    assert!(code == 1 && line.contains("asks for a password") && fix.contains("user:password"), "{text}");
    assert_eq!(ask(&format!("redis://:hunter2@127.0.0.1:{port}")).0, 0);
    redis.pause();
    let (code, text) = ask(&redis.url());
    assert!(code == 1 && about(&text, "failed", "redis").0.contains("does not answer within"), "{text}");
    redis.resume();
}

#[test]
fn a_socket_of_redis_is_as_good() {
    let socket = RefCell::new(PathBuf::new());
    let _redis = RedisServer::start_with(|dir, _| {
        socket.replace(dir.join("redis.sock"));
        vec!["--unixsocket".into(), dir.join("redis.sock").to_string_lossy().into_owned()]
    });
    let files = Files::new();
    let socket = socket.into_inner();
    files.sidecar(&format!("[redis]\nurl = \"unix://{}\"\ntimeout_ms = 5000\n", socket.display()));
    let (code, text) = files.connect();
    assert!(code == 0 && about(&text, "ok", "redis").0.contains("redis.sock"), "{text}");
}

#[test]
fn without_options_what_is_in_conf_is_read() {
    let files = Files::new();
    let (code, text) = files.check(&[]);
    assert!(code == 1 && text.contains("there is no file to check here") && text.contains("--policy"), "{text}");
    files.policy();
    let (code, text) = files.check(&[]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("read       conf/policy.toml\n"), "{text}");
    assert!(text.contains("not there  conf/sidecar.toml, conf/executor.toml\n"), "{text}");
    let output = files.command(&["check"]).env_remove("SAPI_JWT_SECRET").output().expect("the binary runs");
    assert!(String::from_utf8_lossy(&output.stdout).contains("every token is answered with 500"));
    let (code, text) = files.check(&["--config", "elsewhere.toml"]);
    assert!(code == 1 && text.contains("elsewhere.toml") && text.contains("cannot be read"), "{text}");
    files.sidecar("");
    let (code, text) = files.check(&[]);
    assert!(code == 1 && text.contains("there is no upstream \"executor\""), "{text}");
}

#[test]
fn explain_names_the_entry_that_denies() {
    let files = Files::new();
    files.policy();
    let path = files.dir.path().join("conf/policy.toml");
    let text = std::fs::read_to_string(&path).expect("the policy");
    std::fs::write(&path, text.replace("deny_sub = []", "deny_sub = [\"eve\", \"mallory\"]")).expect("is written");
    let call = |tool: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{tool}"}}}}"#);
    for (sub, tool, expected) in [
        ("mallory", "evo.content.get", "rule     auth.deny_sub[1] at conf/policy.toml:23:20"),
        ("alice", "evo.content.get", "rule     servers[0].allow_tools[0] at conf/policy.toml:"),
        ("alice", "other.get", "rule     servers[0].allow_tools at conf/policy.toml:"),
    ] {
        std::fs::write(files.dir.path().join("call.json"), call(tool)).expect("is written");
        let arguments = ["explain", "--sub", sub, "--scopes", "mcp:call", "--body", "call.json"];
        let output = files.command(&arguments).output().expect("the binary runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains(expected), "{sub} {tool}: {text}{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn files_that_do_not_fit_each_other_are_warned_about() {
    let files = Files::new();
    files.policy();
    files.write("executor.toml", "[executor]\nsocket = \"ours.sock\"\n[database]\nurl = \"sqlite://site.sqlite\"\n");
    files.sidecar("[upstreams.executor]\nsocket = \"theirs.sock\"\n");
    let (code, text) = files.check(&[]);
    assert_eq!(code, 0, "{text}");
    for warning in ["leads to executor.socket, conf/ours.sock", "set upstreams.executor.identity = true"] {
        assert!(text.contains(warning), "{warning}: {text}");
    }
    files.sidecar("[upstreams.executor]\nsocket = \"ours.sock\"\nidentity = true\n");
    assert!(!files.check(&[]).1.contains("warn"));
    let address = "127.0.0.1:8090";
    let listen = format!("listen = \"{address}\"\nkey_env = \"EXECUTOR_KEY\"");
    files.write("executor.toml", &format!("[executor]\n{listen}\n[database]\nurl = \"sqlite://site.sqlite\"\n"));
    files.sidecar(&format!(
        "[upstreams.executor]\nurl = \"http://{address}\"\nidentity = true\nkey_env = \"OTHER_KEY\"\n"
    ));
    assert!(files.check(&[]).1.contains("upstreams.executor has another key than executor.toml"));
}

#[test]
fn what_stdio_would_refuse_is_refused_here_too() {
    let files = Files::new();
    files.policy();
    files.sidecar("[upstreams.executor]\nsocket = \"ours.sock\"\nidentity = true\n");
    let (code, text) = files.check(&[]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("note       mode.internal is true and manager.sources is empty"), "{text}");
    let path = files.dir.path().join("conf/policy.toml");
    let shipped = std::fs::read_to_string(&path).expect("the policy");
    let desk = |upstream: &str| {
        let table = format!("handle = \"desk\"\nenabled = true\ntransport = \"local\"\nupstream = \"{upstream}\"");
        let rest = "kind = \"content\"\nsecurity = { deny_tools = [] }";
        let text = shipped.replace("\n[end]", &format!("\n[[servers]]\n{table}\n{rest}\n\n[end]"));
        std::fs::write(&path, text).expect("is written");
    };
    desk("executor");
    let (code, text) = files.check(&[]);
    assert!(code == 0 && !text.contains("warn"), "{text}");
    desk("executer");
    let (code, text) = files.check(&[]);
    assert!(code == 1 && text.contains("there is no upstream \"executer\""), "{text}");
    assert_eq!(text.matches("error: ").count(), 1, "{text}");
}

#[test]
fn a_redis_whose_certificate_nobody_vouches_for_is_told_so() {
    let listens = Cell::new(0);
    let _redis = RedisServer::start_with(|dir, port| {
        listens.set(port);
        let file = |name: &str| dir.join(name).to_string_lossy().into_owned();
        let (key, certificate) = (file("redis.key"), file("redis.crt"));
        let key_kind = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
        let names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"];
        let made =
            Command::new("openssl").args(key_kind).args(names).args(["-keyout", &key, "-out", &certificate]).output();
        assert!(made.expect("openssl is installed").status.success());
        let port = port.to_string();
        let tls = ["--tls-port", &port, "--tls-key-file", &key, "--tls-cert-file", &certificate];
        let rest = ["--tls-ca-cert-file", &certificate, "--tls-auth-clients", "no"];
        tls.into_iter().chain(rest).map(str::to_owned).collect()
    });
    let files = Files::new();
    files.sidecar(&format!("[redis]\nurl = \"rediss://:hunter2@localhost:{}\"\n", listens.get()));
    let (code, text) = files.connect();
    let (line, fix) = about(&text, "failed", "redis");
    assert!(code == 1 && line.contains("certificate that is not accepted") && fix.contains("SSL_CERT_FILE"), "{text}");
}
