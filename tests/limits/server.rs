//! A real redis-server on a free port of loopback, without persistence, that dies with the test.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mcp_sidecar::base::Secret;
use mcp_sidecar::limits::RedisStore;
use mcp_sidecar::redis::{Connection, Settings};

use super::vacant;

/// How long anything that must happen may take before the test fails.
pub const DEADLINE: Duration = Duration::from_secs(10);

pub struct RedisServer {
    child: Child,
    dir: tempfile::TempDir,
    extra: Vec<String>,
    pub port: u16,
}

impl RedisServer {
    pub fn start() -> Self {
        Self::start_with(|_, _| Vec::new())
    }

    /// Starts it with the further arguments that `extra` makes of its directory and a second free port.
    pub fn start_with(extra: impl Fn(&Path, u16) -> Vec<String>) -> Self {
        let port = vacant().port();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let extra = extra(dir.path(), vacant().port());
        let mut server = Self { child: spawn(port, &dir, &extra), dir, extra, port };
        assert!(server.wait_until_ready(), "redis-server does not start");
        server
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// One command on a connection of its own; the raw reply.
    pub fn command(&self, words: &[&str]) -> String {
        self.try_command(words).expect("redis answers")
    }

    fn try_command(&self, words: &[&str]) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        stream.write_all(request.as_bytes())?;
        let mut reply = vec![0; 64 * 1024];
        let read = stream.read(&mut reply)?;
        Ok(String::from_utf8_lossy(&reply[..read]).into_owned())
    }

    pub fn config(&self, key: &str, value: &str) {
        assert!(self.command(&["CONFIG", "SET", key, value]).starts_with("+OK"), "CONFIG SET {key} {value}");
    }

    pub fn pause(&self) {
        self.signal("STOP");
    }

    pub fn resume(&self) {
        self.signal("CONT");
    }

    pub fn kill(&mut self) {
        self.child.kill().expect("redis-server was running");
        self.child.wait().expect("it is our child");
    }

    /// Starts it again on the same port, after [`Self::kill`].
    pub fn restart(&mut self) {
        self.child = spawn(self.port, &self.dir, &self.extra);
        assert!(self.wait_until_ready(), "redis-server does not come back");
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args(["-s", signal, &self.child.id().to_string()]).status();
        assert!(status.expect("kill runs").success(), "kill -s {signal}");
    }

    /// Whether it answers before its process ends.
    fn wait_until_ready(&mut self) -> bool {
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            if self.child.try_wait().expect("it is our child").is_some() {
                return false;
            }
            if self.try_command(&["PING"]).is_ok_and(|reply| reply.starts_with("+PONG")) {
                return true;
            }
            std::thread::yield_now();
        }
        false
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // SIGKILL also ends a stopped process. It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(port: u16, dir: &tempfile::TempDir, extra: &[String]) -> Child {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .args(["--dir", &dir.path().to_string_lossy()])
        .args(extra)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server is installed")
}

pub fn settings(url: &str, timeout: Duration) -> Settings {
    Settings { url: Secret::new(url), timeout, prefix: "test".into() }
}

/// A store with a connection of its own, as another proxy would have.
pub fn store(url: &str, timeout: Duration) -> RedisStore {
    let settings = settings(url, timeout);
    RedisStore::new(Connection::open(&settings).expect("a valid url"), &settings)
}
