use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;

use super::*;

#[derive(Default)]
struct Process {
    reasons: Mutex<Vec<String>>,
    drained: Mutex<bool>,
}

impl Control for Process {
    fn status(&self) -> Value {
        json!({ "revision": 3 })
    }

    fn readiness(&self) -> Vec<String> {
        self.reasons.lock().clone()
    }

    fn metrics(&self) -> String {
        "up 1\n".to_owned()
    }

    fn reload(&self) -> Result<String, String> {
        Err("policy.toml:3:1: unknown key".to_owned())
    }

    fn set_log_level(&self, level: &str) -> Result<(), String> {
        if level == "info" { Ok(()) } else { Err("no such level".to_owned()) }
    }

    fn drain(&self) {
        *self.drained.lock() = true;
    }
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), what).await.expect("in time")
}

async fn http(port: u16, request: &str) -> (u16, String) {
    let exchange = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("connect");
        stream.write_all(format!("{request}Connection: close\r\n\r\n").as_bytes()).await.expect("send");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answer");
        answer
    };
    let answer = within(exchange).await;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("status");
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    (status, body)
}

#[tokio::test]
async fn the_listener_reads_and_nothing_else() {
    let process = Arc::new(Process::default());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("address").port();
    let (stop, stopped) = oneshot::channel::<()>();
    let control: Arc<dyn Control> = Arc::clone(&process) as _;
    let server = tokio::spawn(serve(listener, vec!["sidecar".to_owned()], control, async move {
        let _ = stopped.await;
    }));
    let cases = [
        ("GET /healthz HTTP/1.1\r\nHost: localhost\r\n", 200, "ok\n"),
        ("GET /metrics HTTP/1.1\r\nHost: sidecar:9087\r\n", 200, "up 1\n"),
        ("HEAD /metrics HTTP/1.1\r\nHost: [::1]\r\n", 200, ""),
        ("GET /status HTTP/1.1\r\nHost: 127.0.0.1\r\n", 200, r#"{"revision":3}"#),
        ("GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\n", 200, r#"{"ready":true,"reasons":[]}"#),
        ("GET http://sidecar/healthz HTTP/1.1\r\nHost: sidecar\r\n", 200, "ok\n"),
        ("GET /nothing HTTP/1.1\r\nHost: localhost\r\n", 404, "not found\n"),
        ("POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n", 405, ""),
        ("DELETE /status HTTP/1.1\r\nHost: localhost\r\n", 405, ""),
    ];
    for (request, status, body) in cases {
        assert_eq!(http(port, request).await, (status, body.to_owned()), "{request}");
    }
    for request in [
        "GET /metrics HTTP/1.1\r\nHost: evil.example\r\n",
        "GET /metrics HTTP/1.1\r\n",
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n",
        "GET http://evil.example/metrics HTTP/1.1\r\nHost: localhost\r\n",
        "GET /nothing HTTP/1.1\r\nHost: evil.example\r\n",
    ] {
        let (status, body) = http(port, request).await;
        assert!((400..=403).contains(&status) && !body.contains("up 1"), "{request}: {status} {body}");
    }
    process.reasons.lock().push("audit_disk_low".to_owned());
    let (status, body) = http(port, "GET /readyz HTTP/1.1\r\nHost: localhost\r\n").await;
    assert_eq!((status, body.as_str()), (503, r#"{"ready":false,"reasons":["audit_disk_low"]}"#));
    drop(stop);
    within(server).await.expect("no panic").expect("served");
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
}

async fn converse(path: &Path, requests: &[u8]) -> Vec<Value> {
    let exchange = async {
        let mut stream = UnixStream::connect(path).await.expect("connect");
        stream.write_all(requests).await.expect("send");
        stream.shutdown().await.expect("shutdown");
        let mut lines = BufReader::new(stream).lines();
        let mut answers = Vec::new();
        while let Ok(Some(line)) = lines.next_line().await {
            answers.push(serde_json::from_str(&line).expect("JSON"));
        }
        answers
    };
    within(exchange).await
}

#[tokio::test]
async fn the_control_socket_takes_its_commands() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("control.sock");
    let process = Arc::new(Process::default());
    let socket = ControlSocket::bind(&path).expect("bind");
    assert_eq!(std::fs::metadata(&path).expect("metadata").permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(dir.path()).expect("directory").count(), 1, "nothing but the socket is left");
    let (stop, stopped) = oneshot::channel::<()>();
    let control: Arc<dyn Control> = Arc::clone(&process) as _;
    let server = tokio::spawn(serve_control(socket, control, async move {
        let _ = stopped.await;
    }));

    let requests = br#"{"command":"status"}
{"command":"reload"}
{"command":"log-level","level":"info"}
{"command":"log-level","level":"loud"}
{"command":"log-level"}
{"command":"ban"}
{"command":"drain","now":true}
nonsense
{"command":"drain"}
"#;
    let answers = converse(&path, requests).await;
    let ok: Vec<bool> = answers.iter().map(|answer| answer["ok"] == true).collect();
    assert_eq!(ok, [true, false, true, false, false, false, false, false, true], "{answers:?}");
    assert_eq!(answers[0]["status"]["revision"], 3);
    assert_eq!(answers[1]["error"], "policy.toml:3:1: unknown key");
    assert!(*process.drained.lock());

    let long = format!("{{\"command\":\"{}\"}}\n", "x".repeat(3000));
    assert_eq!(converse(&path, long.as_bytes()).await[0]["ok"], false);

    assert_eq!(ControlSocket::bind(&path).expect_err("in use").kind(), ErrorKind::AddrInUse);
    drop(stop);
    within(server).await.expect("no panic").expect("served");
    assert!(!path.exists(), "the file goes with the socket");
}

#[test]
fn a_path_too_long_for_a_socket_is_said_plainly() {
    let dir = tempfile::tempdir().expect("directory");
    let longest = 107 - dir.path().as_os_str().len() - 1;
    drop(ControlSocket::bind(&dir.path().join("s".repeat(longest))).expect("just fits"));
    let error = ControlSocket::bind(&dir.path().join("s".repeat(longest + 1))).expect_err("too long");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("at most 107"), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).expect("directory").count(), 0, "nothing is left");
}

#[test]
fn a_stale_socket_is_replaced_and_other_files_are_not() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("control.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bind"));
    assert!(path.exists());
    drop(ControlSocket::bind(&path).expect("replaced"));
    std::fs::write(&path, "precious").expect("write");
    assert_eq!(ControlSocket::bind(&path).expect_err("a file").kind(), ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read_to_string(&path).expect("read"), "precious");
}
