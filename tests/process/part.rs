//! One process of the product, started from files as an operator would write them.

use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

use crate::harness::{Client, Request, Response, Token, eventually};

/// A debug build on a busy machine takes its time.
pub const START: Duration = Duration::from_secs(60);
pub const SOON: Duration = Duration::from_secs(15);
/// What tests sign their tokens with.
pub const SECRET: &str = "integration-tests-only-0123456789abcdef0123456789";

/// The binary under test.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-sidecar"));
    command.env("SAPI_JWT_SECRET", SECRET).stdin(Stdio::null());
    command
}

/// A running process; ended with the value.
pub struct Part {
    child: Child,
    output: Arc<Mutex<String>>,
}

impl Part {
    pub fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary runs");
        let output = Arc::new(Mutex::new(String::new()));
        collect(child.stdout.take().expect("is piped"), &output);
        collect(child.stderr.take().expect("is piped"), &output);
        Self { child, output }
    }

    /// Spawns, and waits until the process says that it is ready.
    pub fn ready(command: Command) -> Self {
        let mut part = Self::spawn(command);
        eventually("the process says `ready`", START, || {
            if let Some(status) = part.exited() {
                panic!("exited with {status} before it was ready:\n{}", part.output());
            }
            let words = part.output();
            words.lines().any(|line| line.trim() == "ready" || line.contains(" ready policy.revision")).then_some(())
        });
        part
    }

    pub fn output(&self) -> String {
        self.output.lock().expect("no reader panicked").clone()
    }

    /// The address of the line that ends with the message, e.g. `listening`.
    pub fn address(&self, message: &str) -> SocketAddr {
        let output = self.output();
        let line = output.lines().find(|line| line.contains(&format!(" {message} ")));
        let line = line.unwrap_or_else(|| panic!("no line says {message}:\n{output}"));
        let address = line.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next());
        address.expect("is named").parse().expect("an address")
    }

    pub fn pid(&self) -> Pid {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a pid")
    }

    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(self.pid(), signal).expect("the process is ours");
    }

    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("can be asked")
    }

    pub fn exited_within(&mut self, within: Duration) -> ExitStatus {
        eventually("the process exits", within, || self.exited())
    }

    /// As `kill -9` does.
    pub fn kill(&mut self) {
        self.child.kill().expect("the process is ours");
        assert_eq!(self.child.wait().expect("can be waited for").signal(), Some(9));
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(pipe: impl Read + Send + 'static, into: &Arc<Mutex<String>>) {
    let into = Arc::clone(into);
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines() {
            let Ok(line) = line else { return };
            let mut text = into.lock().expect("no reader panicked");
            text.push_str(&line);
            text.push('\n');
        }
    });
}

/// Copies of the shipped files in a directory of their own, with ports that the system chooses, and a demo site.
pub struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    pub fn shipped() -> Self {
        let files = Self { dir: tempfile::tempdir().expect("a temporary directory") };
        for name in ["sidecar.toml", "executor.toml", "policy.toml"] {
            let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf").join(name);
            std::fs::copy(shipped, files.path(name)).expect("is copied");
        }
        files.edit("sidecar.toml", "127.0.0.1:8087", "127.0.0.1:0");
        files.edit("sidecar.toml", "127.0.0.1:9087", "127.0.0.1:0");
        files.edit("executor.toml", "127.0.0.1:9088", "127.0.0.1:0");
        files
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Replaces a text that must be there, by rename, as careful editors do.
    pub fn edit(&self, name: &str, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.path(name)).expect("is there");
        assert!(text.contains(from), "{name} does not say {from}");
        let next = self.path("next");
        std::fs::write(&next, text.replace(from, to)).expect("is written");
        std::fs::rename(next, self.path(name)).expect("is renamed");
    }

    /// Makes the site that the shipped executor.toml names.
    pub fn demo_site(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let made = runtime.block_on(mcp_sidecar::app::demo_site(&self.path("emcp.sqlite"), 0));
        made.expect("the demo site is made");
    }

    /// `mcp-sidecar SERVICE` over these files.
    pub fn service(&self, service: &str) -> Command {
        let file = if service == "executor" { "executor.toml" } else { "sidecar.toml" };
        let mut command = program();
        command.arg(service).arg("--config").arg(self.path(file)).arg("--policy").arg(self.path("policy.toml"));
        command.arg("--data").arg(self.path("var")).current_dir(self.dir.path());
        command
    }

    /// `mcp-sidecar check` over these files.
    pub fn check(&self) -> Command {
        let mut command = program();
        command.arg("check").arg("--config").arg(self.path("sidecar.toml"));
        command.arg("--executor").arg(self.path("executor.toml")).arg("--policy").arg(self.path("policy.toml"));
        command
    }

    /// The audit records written so far.
    pub fn audit(&self) -> Vec<Value> {
        records(&self.path("logs"))
    }
}

/// The whole lines of all files in a directory of audit logs.
pub fn records(dir: &Path) -> Vec<Value> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let texts = files.iter().map(|file| std::fs::read_to_string(file).unwrap_or_default());
    let whole = |text: String| text.rfind('\n').map_or(String::new(), |end| text[..end].to_owned());
    texts
        .map(whole)
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .map(|line| serde_json::from_str(&line).unwrap_or_else(|error| panic!("audit line {line:?}: {error}")))
        .collect()
}

/// A POST of JSON-RPC to a server of the proxy.
pub fn rpc(server: &str, token: &str, method: &str, params: &Value) -> Request {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    Request::new("POST", &format!("/api/v1/mcp/{server}"))
        .header("Content-Type", "application/json")
        .header("Accept", "application/json, text/event-stream")
        .header("Authorization", &format!("Bearer {token}"))
        .body(body.to_string())
}

/// Calls a tool as `alice`.
pub fn call(proxy: SocketAddr, server: &str, tool: &str) -> Response {
    let params = json!({"name": tool, "arguments": {"limit": 3, "offset": 0}});
    let request = rpc(server, &Token::of("alice").sign(), "tools/call", &params);
    Client::connect(proxy).round_trip(&request.header("Connection", "close"))
}

pub fn get(address: SocketAddr, path: &str) -> Response {
    Client::connect(address).round_trip(&Request::new("GET", path).header("Connection", "close"))
}
