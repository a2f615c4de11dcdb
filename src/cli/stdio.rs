//! `mcp-sidecar stdio`: MCP over standard input and output, for clients that start their servers themselves.
//!
//! Each line is posted to a proxy inside this process, and what comes back is written as lines. So nothing is decided
//! here: policy, limits and audit are the proxy's.

use std::collections::HashMap;
use std::io::{BufRead, Write as _};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;

use crate::app::{Endpoint, Reply};
use crate::cli::local::{CallerArgs, Local, LocalArgs};
use crate::protocol::{self, EventScanner};

/// Requests under way at a time; further lines wait.
const AT_A_TIME: usize = 16;
/// An answer that is no stream, in bytes; the policy's own bound acts before it.
const ANSWER: usize = 1 << 30;
/// What is under way when the input ends may take this long.
const LAST: Duration = Duration::from_secs(60);
/// A token is used this long; it lives a day longer than streams do.
const RENEW: Duration = Duration::from_secs(3600);
/// JSON-RPC: an error of the server's own, for what HTTP says by its status.
const REFUSED: i32 = -32000;

/// Serve one server over standard input and output.
#[derive(Debug, clap::Args)]
#[command(after_help = "Standard output carries MCP and nothing else; the log is on standard error.

Examples:
  mcp-sidecar stdio content
  mcp-sidecar stdio content --demo
  mcp-sidecar stdio content --config /etc/mcp-sidecar/sidecar.toml --policy /etc/mcp-sidecar/policy.toml \\
    --executor /etc/mcp-sidecar/executor.toml --sub alice --scopes mcp:read")]
pub struct Args {
    /// The server's handle in the policy; its transport may be "local"
    handle: String,
    #[command(flatten)]
    caller: CallerArgs,
    #[command(flatten)]
    local: LocalArgs,
}

/// Serves until the input ends or a signal comes.
///
/// # Errors
/// What is wrong with the files, why it cannot start, or that there is no such server.
pub fn run(args: Args) -> anyhow::Result<()> {
    let Args { handle, caller, local } = args;
    local.with(None, |local| serve(local, handle, caller)).map(drop)
}

/// What every request needs.
struct Bridge {
    local: Local,
    endpoint: Endpoint,
    caller: CallerArgs,
    state: RwLock<State>,
    running: Mutex<HashMap<String, AbortHandle>>,
    out: mpsc::Sender<Vec<u8>>,
}

struct State {
    token: Arc<str>,
    minted: std::time::Instant,
    /// From the answer to `initialize`.
    session: Option<Arc<str>>,
    version: Option<Arc<str>>,
}

async fn serve(local: Local, handle: String, caller: CallerArgs) -> anyhow::Result<()> {
    let endpoint = local.endpoint(&handle)?;
    let limit = local.policy.server(&handle).map_or(0, |server| server.limits.max_payload_bytes);
    let token = local.token(&caller).into();
    let state = State { token, minted: std::time::Instant::now(), session: None, version: None };
    let (out, mut lines) = mpsc::channel::<Vec<u8>>(64);
    let bridge =
        Arc::new(Bridge { local, endpoint, caller, state: RwLock::new(state), running: Mutex::default(), out });
    let writer = tokio::task::spawn_blocking(move || {
        let mut stdout = std::io::stdout().lock();
        while let Some(line) = lines.blocking_recv() {
            if stdout.write_all(&line).is_err() || stdout.flush().is_err() {
                return;
            }
        }
    });
    let places = Arc::new(Semaphore::new(AT_A_TIME));
    let mut input = input(limit + 1);
    let mut last = Vec::new();
    while let Some(line) = input.recv().await {
        let line = line?;
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let (id, cancels) = intent(&line);
        if let Some(cancelled) = cancels.and_then(|id| bridge.running.lock().remove(&id)) {
            cancelled.abort();
        }
        let place = Arc::clone(&places).acquire_owned().await?;
        if bridge.out.is_closed() {
            break;
        }
        let (bridge_of, id_of) = (Arc::clone(&bridge), id.clone());
        // Held until the handle is filed, so that a quick answer does not leave it behind.
        let mut running = bridge.running.lock();
        let task = tokio::spawn(async move {
            bridge_of.exchange(line, id_of.as_deref()).await;
            if let Some(id) = &id_of {
                bridge_of.running.lock().remove(id);
            }
            drop(place);
        });
        if let Some(id) = id {
            running.insert(id, task.abort_handle());
        }
        drop(running);
        last.retain(|task: &tokio::task::JoinHandle<()>| !task.is_finished());
        last.push(task);
    }
    let _ = tokio::time::timeout(LAST, futures_util::future::join_all(last)).await;
    drop(bridge);
    let _ = tokio::time::timeout(LAST, writer).await;
    Ok(())
}

impl Bridge {
    /// Posts one message, and writes what comes back. `id` is JSON, and absent where no answer is expected.
    async fn exchange(&self, line: Vec<u8>, id: Option<&str>) {
        match self.post(line).await {
            Ok(reply) => self.relay(reply, id).await,
            Err(error) => {
                tracing::error!(%error, "stdio: a message could not be passed on");
                self.refuse(id, "Internal error", json!({})).await;
            }
        }
    }

    async fn post(&self, line: Vec<u8>) -> Result<Reply, crate::app::Trouble> {
        let (token, session, version) = self.headers();
        let bearer = format!("Bearer {token}");
        let mut headers = vec![
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
        ];
        headers.extend(session.as_deref().map(|session| ("mcp-session-id", session)));
        headers.extend(version.as_deref().map(|version| ("mcp-protocol-version", version)));
        self.endpoint.post(&headers, Bytes::from(line)).await
    }

    fn headers(&self) -> (Arc<str>, Option<Arc<str>>, Option<Arc<str>>) {
        let mut state = self.state.write();
        if state.minted.elapsed() > RENEW {
            state.token = self.local.token(&self.caller).into();
            state.minted = std::time::Instant::now();
        }
        (Arc::clone(&state.token), state.session.clone(), state.version.clone())
    }

    async fn relay(&self, mut reply: Reply, id: Option<&str>) {
        if let Some(session) = reply.header("mcp-session-id").map(Arc::from) {
            self.state.write().session = Some(session);
        }
        if reply.is_stream() {
            self.stream(reply, id).await;
            return;
        }
        let status = reply.status;
        let wait = reply.header("retry-after").and_then(|wait| wait.parse::<u64>().ok());
        let body = match reply.whole(ANSWER).await {
            Ok(body) => body,
            Err(error) => {
                tracing::error!(%error, "stdio: an answer broke off");
                return self.refuse(id, "Internal error", json!({})).await;
            }
        };
        let answer: Option<Value> = serde_json::from_slice(&body).ok();
        match answer {
            Some(answer) if answer.get("jsonrpc").is_some() => {
                if let Some(version) = answer["result"]["protocolVersion"].as_str().filter(|_| status == 200) {
                    self.state.write().version = Some(Arc::from(version));
                }
                self.write(body).await;
            }
            Some(answer) if status >= 400 => {
                let message = answer["error"]["message"].as_str().unwrap_or("Refused").to_owned();
                let mut data = json!({"code": answer["error"]["code"], "status": status,
                    "trace_id": answer["error"]["trace_id"]});
                if let Some(wait) = wait {
                    data["retry_after"] = wait.into();
                }
                self.refuse(id, &message, data).await;
            }
            _ if status >= 400 => self.refuse(id, "Refused", json!({"status": status})).await,
            _ => {}
        }
    }

    async fn stream(&self, mut reply: Reply, id: Option<&str>) {
        // The proxy has bounded events already.
        let mut scanner = EventScanner::new(ANSWER);
        loop {
            let whole = match reply.chunk().await {
                Ok(Some(chunk)) => scanner.push(chunk).is_ok(),
                Ok(None) => return,
                Err(_) => false,
            };
            if !whole {
                return self.refuse(id, "Internal error", json!({})).await;
            }
            while let Some(event) = scanner.next_event() {
                for data in payloads(&event.0) {
                    self.write(data).await;
                }
            }
        }
    }

    /// A refusal that HTTP told by its status, in JSON-RPC; nobody waits for one to a notification.
    async fn refuse(&self, id: Option<&str>, message: &str, data: Value) {
        let Some(id) = id.and_then(|id| serde_json::from_str::<Value>(id).ok()) else {
            tracing::warn!(message, %data, "stdio: a message that expects no answer was refused");
            return;
        };
        let error = json!({"jsonrpc": "2.0", "id": id, "error": {"code": REFUSED, "message": message, "data": data}});
        self.write(error.to_string().into_bytes()).await;
    }

    /// Writes one message as one line: line ends stand only between the tokens of JSON, never inside.
    async fn write(&self, mut message: Vec<u8>) {
        for byte in &mut message {
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
        message.push(b'\n');
        let _ = self.out.send(message).await;
    }
}

/// A line's id as JSON, where an answer is expected, and the id of the request that it cancels. What the strict
/// reading refuses gets its answer all the same: with the id `null`, as JSON-RPC wants it.
fn intent(line: &[u8]) -> (Option<String>, Option<String>) {
    let id = |id: &protocol::Id<'_>| match id {
        protocol::Id::Absent | protocol::Id::Null => None,
        protocol::Id::Number(number) => Some(number.to_string()),
        protocol::Id::String(text) => Some(Value::from(text.as_ref()).to_string()),
    };
    match protocol::parse(line) {
        Err(refused) => (Some(id(&refused.id).unwrap_or_else(|| "null".to_owned())), None),
        Ok(envelope) if envelope.method == "notifications/cancelled" => {
            let whole: Value = serde_json::from_slice(line).unwrap_or_default();
            let cancelled = &whole["params"]["requestId"];
            (id(&envelope.id), (cancelled.is_number() || cancelled.is_string()).then(|| cancelled.to_string()))
        }
        Ok(envelope) => (id(&envelope.id), None),
    }
}

/// The data of each event in a block.
fn payloads(block: &[u8]) -> Vec<Vec<u8>> {
    let text = String::from_utf8_lossy(block).replace("\r\n", "\n").replace('\r', "\n");
    let data = |event: &str| {
        let lines = event.lines().filter_map(|line| line.strip_prefix("data:"));
        lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join(" ")
    };
    text.split("\n\n").map(data).filter(|data| !data.is_empty()).map(String::into_bytes).collect()
}

/// The lines of standard input, read by a thread of its own, since a read cannot be called off.
fn input(most: usize) -> mpsc::Receiver<std::io::Result<Vec<u8>>> {
    let (lines, received) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        while let Some(line) = read_line(&mut stdin, most).transpose() {
            if lines.blocking_send(line).is_err() {
                return;
            }
        }
    });
    received
}

/// The next line without its end; what lies beyond `most` bytes is read and dropped. `None` at the end.
fn read_line(input: &mut impl BufRead, most: usize) -> std::io::Result<Option<Vec<u8>>> {
    let (mut line, mut any) = (Vec::new(), false);
    loop {
        let bytes = input.fill_buf()?;
        if bytes.is_empty() {
            return Ok(any.then_some(line));
        }
        any = true;
        let (part, used, ended) = match bytes.iter().position(|byte| *byte == b'\n') {
            Some(end) => (&bytes[..end], end + 1, true),
            None => (bytes, bytes.len(), false),
        };
        line.extend_from_slice(&part[..part.len().min(most.saturating_sub(line.len()))]);
        input.consume(used);
        if ended {
            return Ok(Some(line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_at_their_bound_and_at_no_other_place() {
        let mut input = std::io::BufReader::with_capacity(3, &b"abcdefgh\n\nxy\r\nend"[..]);
        let mut lines = Vec::new();
        while let Some(line) = read_line(&mut input, 5).expect("memory can be read") {
            lines.push(String::from_utf8(line).expect("text"));
        }
        assert_eq!(lines, ["abcde", "", "xy\r", "end"]);
    }

    #[test]
    fn intents_are_read_from_lines() {
        let text = |text: &str| Some(text.to_owned());
        for (line, expected) in [
            (r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#, (text("7"), None)),
            (r#"{"jsonrpc":"2.0","id":"a\"b","method":"ping"}"#, (text(r#""a\"b""#), None)),
            (r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#, (None, None)),
            (r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}"#, (None, text("7"))),
            ("{", (text("null"), None)),
        ] {
            assert_eq!(intent(line.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn events_become_messages() {
        let block = b": heartbeat\n\nevent: message\r\ndata: {\"a\":\r\ndata: 1}\r\n\r\nid: 4\ndata:{}\n\n";
        assert_eq!(payloads(block), [b"{\"a\": 1}".to_vec(), b"{}".to_vec()]);
    }
}
