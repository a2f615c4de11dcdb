//! The process under test.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use toml::Value as Toml;

use super::token::SECRET;
use super::{Client, Request, Response, SENTINEL, Token, Upstream, eventually};

const START_DEADLINE: Duration = Duration::from_secs(60);
const SETTLE_DEADLINE: Duration = Duration::from_secs(10);

/// The handle of the foreign server that tests put before their own upstream.
const RAW: &str = "raw";

/// The shipped policy with a server `raw` added, and a rate limit that stays out of the way.
pub fn shipped_policy() -> toml::Table {
    shipped("policy.toml")
}

/// The same of another policy in conf/.
fn shipped(name: &str) -> toml::Table {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut policy: toml::Table = text.parse().expect("the shipped policy is TOML");
    let raw: toml::Table = r#"
        handle = "raw"
        transport = "web"
        kind = "mcp"
        enabled = true
        upstream = "raw"
        allow_tools = ["raw.*"]
        allow_resources = ["*"]
        allow_prompts = ["*"]
        deny_tools = ["raw.secret", "raw.danger.*"]
        rate_limit = { per_minute = 100000 }
        limits = { max_payload_kb = 256 }
    "#
    .parse()
    .expect("the added server is TOML");
    policy
        .entry("servers")
        .or_insert_with(|| Toml::Array(Vec::new()))
        .as_array_mut()
        .expect("servers is a list")
        .push(Toml::Table(raw));
    set(&mut policy, "stream.enabled", Toml::Boolean(true));
    policy
}

/// The text of a policy file, whose last table is `[end]`.
fn policy_text(policy: &toml::Table) -> String {
    let mut policy = policy.clone();
    policy.remove("end");
    format!("{}\n[end]\n", toml::to_string(&policy).expect("a policy serialises"))
}

fn set(table: &mut toml::Table, path: &str, value: Toml) {
    match path.split_once('.') {
        None => {
            table.insert(path.to_owned(), value);
        }
        Some((first, rest)) => {
            let inner = table.entry(first).or_insert_with(|| Toml::Table(toml::Table::new()));
            set(inner.as_table_mut().expect("the path names tables"), rest, value);
        }
    }
}

/// How a sidecar is to be started.
pub struct Start {
    policy: toml::Table,
    sets: Vec<String>,
    arguments: Vec<String>,
    environment: Vec<(String, PathBuf)>,
    upstream: Option<Upstream>,
}

impl Start {
    /// A key of the policy file.
    pub fn policy(mut self, path: &str, value: impl Into<Toml>) -> Self {
        set(&mut self.policy, path, value.into());
        self
    }

    /// A key of the server `raw`.
    pub fn raw(mut self, path: &str, value: impl Into<Toml>) -> Self {
        let servers = self.policy["servers"].as_array_mut().expect("servers is a list");
        let raw = servers.last_mut().and_then(Toml::as_table_mut).expect("the last server is raw");
        set(raw, path, value.into());
        self
    }

    /// A `--set` argument.
    pub fn set(mut self, assignment: impl Into<String>) -> Self {
        self.sets.push(assignment.into());
        self
    }

    /// A further argument of `up`.
    pub fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// A variable of its environment.
    pub fn env(mut self, name: &str, value: impl Into<PathBuf>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    pub fn upstream(mut self, upstream: Upstream) -> Self {
        self.upstream = Some(upstream);
        self
    }

    pub fn go(self) -> Sidecar {
        Sidecar::launch(self)
    }
}

/// A running `mcp-sidecar up` before a mock upstream and a canary.
pub struct Sidecar {
    child: Child,
    data: tempfile::TempDir,
    output: Arc<Mutex<String>>,
    said: HashMap<String, String>,
    minted: Mutex<Vec<String>>,
    unreached: usize,
    pub upstream: Upstream,
    pub canary: Upstream,
    pub mcp: SocketAddr,
    pub admin: SocketAddr,
}

impl Sidecar {
    pub fn start() -> Start {
        Start {
            policy: shipped_policy(),
            sets: Vec::new(),
            arguments: Vec::new(),
            environment: Vec::new(),
            upstream: None,
        }
    }

    /// With another policy of conf/ than the usual one.
    pub fn preset(name: &str) -> Start {
        Start { policy: shipped(name), ..Self::start() }
    }

    fn launch(start: Start) -> Self {
        let upstream = start.upstream.unwrap_or_else(Upstream::mcp);
        let data = tempfile::tempdir().expect("a temporary directory");
        let canary = Upstream::canary();
        let file = data.path().join("test-policy.toml");
        std::fs::write(&file, policy_text(&start.policy)).expect("is written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-sidecar"));
        command.args(["up", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.arg("--data").arg(data.path().join("data")).arg("--policy").arg(&file);
        command.arg("--set").arg(format!("upstreams.raw={{url=\"http://{}/mcp\"}}", upstream.address()));
        command.arg("--set").arg(format!("cms.url=\"http://{}\"", canary.address()));
        command.args(start.arguments).envs(start.environment);
        for assignment in start.sets {
            command.arg("--set").arg(assignment);
        }
        command.env("SAPI_JWT_SECRET", SECRET).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary runs");
        let output = Arc::new(Mutex::new(String::new()));
        collect(child.stdout.take().expect("is piped"), &output);
        collect(child.stderr.take().expect("is piped"), &output);
        let mut sidecar = Self {
            child,
            data,
            output,
            said: HashMap::new(),
            minted: Mutex::new(Vec::new()),
            unreached: 0,
            upstream,
            canary,
            mcp: ([127, 0, 0, 1], 0).into(),
            admin: ([127, 0, 0, 1], 0).into(),
        };
        sidecar.await_ready();
        sidecar
    }

    fn await_ready(&mut self) {
        eventually("the sidecar says `ready`", START_DEADLINE, || {
            if let Some(status) = self.child.try_wait().expect("can be asked") {
                panic!("exited with {status} before it was ready:\n{}", self.output());
            }
            self.output().lines().any(|line| line.trim() == "ready").then_some(())
        });
        for line in self.output().lines() {
            if let Some((key, value)) = line.trim().split_once(char::is_whitespace) {
                self.said.entry(key.to_owned()).or_insert_with(|| value.trim().to_owned());
            }
        }
        self.mcp = authority(self.said("mcp"));
        self.admin = authority(self.said("admin"));
    }

    /// What `up` printed after this word.
    pub fn said(&self, key: &str) -> &str {
        self.said.get(key).unwrap_or_else(|| panic!("`up` printed no {key}:\n{}", self.output()))
    }

    /// Everything written to stdout and stderr so far.
    pub fn output(&self) -> String {
        self.output.lock().expect("no reader panicked").clone()
    }

    pub fn data(&self) -> PathBuf {
        self.data.path().join("data")
    }

    pub fn policy_file(&self) -> PathBuf {
        self.data.path().join("test-policy.toml")
    }

    /// Sends a signal to this process only.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
        rustix::process::kill_process(pid, signal).expect("the process is ours");
    }

    pub fn exited_within(&mut self, within: Duration) -> ExitStatus {
        eventually("the sidecar exits", within, || self.child.try_wait().expect("can be asked"))
    }

    /// A signed token whose text is then looked for in every log.
    pub fn token(&self, token: &Token) -> String {
        let signed = token.sign();
        self.minted.lock().expect("no test thread panicked").push(signed.clone());
        signed
    }

    /// A POST to the server with a good token, JSON, and planted secrets.
    pub fn post(&self, server: &str, token: &Token, body: impl Into<Vec<u8>>) -> Request {
        Request::new("POST", &format!("/api/v1/mcp/{server}"))
            .header("Content-Type", "application/json")
            .header("Accept", "application/json, text/event-stream")
            .header("Authorization", &format!("Bearer {}", self.token(token)))
            .header("Cookie", &format!("evo_session={SENTINEL}-cookie"))
            .body(body)
    }

    pub fn send(&self, request: &Request) -> Response {
        Client::connect(self.mcp).round_trip(request)
    }

    /// Calls `method` at the server as `alice`.
    pub fn rpc(&self, server: &str, method: &str, params: Value) -> Response {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        self.send(&self.post(server, &Token::of("alice"), body))
    }

    /// A call of a tool of the server `raw`, with the id given.
    pub fn call_request(&self, tool: &str, id: u64) -> Request {
        let body = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": call_params(tool)});
        self.post(RAW, &Token::of("alice"), body.to_string())
    }

    /// Calls a tool of the server `raw` as `alice`.
    pub fn call(&self, tool: &str) -> Response {
        self.rpc(RAW, "tools/call", call_params(tool))
    }

    pub fn metrics(&self) -> String {
        self.admin_get("/metrics").text()
    }

    pub fn admin_get(&self, path: &str) -> Response {
        Client::connect(self.admin).round_trip(&Request::new("GET", path).header("Connection", "close"))
    }

    /// The value of one series, 0 while it does not exist.
    pub fn metric(&self, series: &str) -> f64 {
        let metrics = self.metrics();
        let value = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.and_then(|value| value.parse().ok()).unwrap_or(0.0)
    }

    /// Resident memory, in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("is told");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Runs an operator command of the same binary.
    pub fn ctl(&self, arguments: &[&str]) -> std::process::Output {
        Command::new(env!("CARGO_BIN_EXE_mcp-sidecar"))
            .args(["ctl", "--socket", self.said("control")])
            .args(arguments)
            .output()
            .expect("the binary runs")
    }

    /// All audit records written so far, those of workers beside the sidecar included.
    pub fn audit(&self) -> Vec<Value> {
        self.audit_files().into_iter().flat_map(|(_, records)| records).collect()
    }

    /// The audit files' names and records.
    fn audit_files(&self) -> Vec<(String, Vec<Value>)> {
        let Ok(entries) = std::fs::read_dir(self.data().join("audit")) else { return Vec::new() };
        let mut files: Vec<_> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
        files.sort();
        let records = |file: &Path| {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            let parse =
                |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("audit line {line:?}: {error}"));
            whole.lines().map(parse).collect()
        };
        let name = |file: &Path| file.file_name().expect("a file of a directory").to_string_lossy().into_owned();
        files.iter().map(|file| (name(file), records(file))).collect()
    }

    /// Permitted calls that, as the test arranged, never arrived at the upstream (it was down).
    pub fn expect_unreached(&mut self, count: usize) {
        self.unreached = count;
    }

    /// The invariant, then the end of the process.
    pub fn finish(self) {
        self.check_invariant();
    }

    /// Requests seen = audit lines of requests that allow = metric; runs of tasks by this process = their audit lines,
    /// and no run has two; the canary is clean; no planted secret came out.
    pub fn check_invariant(&self) {
        let mut last = (0, 0, 0, 0);
        let deadline = std::time::Instant::now() + SETTLE_DEADLINE;
        loop {
            let audit = self.audit();
            let allowed = |raw_only: bool| {
                audit
                    .iter()
                    .filter(|record| record["decision"] == "allow" && record["run"].is_null())
                    .filter(|record| !raw_only || record["server_handle"] == RAW)
                    .count()
            };
            let metrics = self.metrics();
            let now = (allowed(true), allows(&metrics, true), allowed(false), allows(&metrics, false));
            let seen = self.upstream.count() + self.unreached;
            if now.0 == seen && now.1 == seen && now.2 == now.3 {
                break;
            }
            last = if now == last { last } else { now };
            assert!(
                std::time::Instant::now() < deadline,
                "the upstream saw {seen} requests; (audit raw, metric raw, audit all, metric all) = {last:?}\n{}",
                self.output()
            );
            std::thread::park_timeout(Duration::from_millis(20));
        }
        self.check_runs(deadline);
        for seen in self.canary.seen() {
            // A token in an address may spell anything: none of its parts is shorter than this.
            let words = seen.line.split_inclusive(|c: char| !c.is_ascii_alphanumeric() && !"%_-".contains(c));
            let words = words.filter(|word| word.len() < 36 || word.contains('%'));
            let target = words.collect::<String>().to_ascii_lowercase();
            let reserved = target.contains("mcp") || target.contains("emcp") || target.contains("/token");
            assert!(!reserved, "the canary was reached: {}", seen.line);
        }
        self.check_secrets();
    }

    fn check_runs(&self, deadline: std::time::Instant) {
        loop {
            let files = self.audit_files();
            let runs = |own: bool| {
                let files = files.iter().filter(move |(name, _)| !own || !name.starts_with("emcp-worker-"));
                files.flat_map(|(_, records)| records).filter(|record| !record["run"].is_null())
            };
            let mut seen: Vec<String> = runs(false).map(|run| format!("{}/{}", run["task_id"], run["run"])).collect();
            let lines = seen.len();
            seen.sort();
            seen.dedup();
            assert_eq!(seen.len(), lines, "a run of a task has two audit lines: {files:?}");
            let counted = total(&self.metrics(), |series| series.starts_with("mcp_sidecar_queue_runs_total{"));
            if runs(true).count() == counted {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "{counted} runs were counted; {files:?}\n{}", self.output());
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// No planted secret, key or token stands in output, audit or metrics.
    pub fn check_secrets(&self) {
        let audit = self.audit().iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
        let places = [("output", self.output()), ("audit", audit), ("metrics", self.metrics())];
        let minted = self.minted.lock().expect("no test thread panicked").clone();
        for (place, text) in &places {
            let planted = text.lines().find(|line| line.contains(SENTINEL));
            assert_eq!(planted, None, "a planted secret stands in the {place}");
            assert!(!text.contains(SECRET), "the signing key stands in the {place}");
            for token in &minted {
                let signature = token.rsplit('.').next().filter(|part| part.len() > 16);
                assert!(!signature.is_some_and(|part| text.contains(part)), "a token stands in the {place}");
            }
        }
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Params of a call, with a planted secret among the arguments.
pub fn call_params(tool: &str) -> Value {
    json!({"name": tool, "arguments": {"password": format!("{SENTINEL}-argument")}})
}

/// The sum of `mcp_sidecar_requests_total` over its permitting series.
fn allows(metrics: &str, raw_only: bool) -> usize {
    total(metrics, |series| {
        let allows = series.starts_with("mcp_sidecar_requests_total{") && series.contains("decision=\"allow\"");
        allows && (!raw_only || series.contains("server=\"raw\""))
    })
}

/// The sum over some series.
fn total(metrics: &str, of: impl Fn(&str) -> bool) -> usize {
    let lines = metrics.lines().filter(|line| of(line));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as usize
}

fn authority(url: &str) -> SocketAddr {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let authority = rest.split(['/', ' ']).next().unwrap_or(rest);
    authority.parse().unwrap_or_else(|error| panic!("{url}: {error}"))
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
