use serde_json::{Value, json};

use crate::app::connect::http::{Answer, Ask, Patience, Trouble, authority, is_stream, send};
use crate::app::connect::{ANSWER, Finding};
use crate::base::{Clock as _, SystemClock};
use crate::policy::Snapshot;
use crate::protocol::{self, Identity};
use crate::proxy::settings::{Address, Timeouts, Upstream};

/// The newest revision that has the handshake.
const REVISION: &str = "2025-11-25";

/// Asks one upstream to `initialize`, as the first server of the policy that uses it.
pub(super) async fn ask(
    key: String,
    name: &str,
    upstream: &Upstream,
    timeouts: &Timeouts,
    policy: Option<&Snapshot>,
) -> Vec<Finding> {
    let user = policy.and_then(|policy| policy.servers.iter().find(|server| server.upstream == name));
    let handle = user.map_or("content", |server| &*server.handle);
    let patience = Patience { connect: timeouts.connect, answer: ANSWER.min(timeouts.response_header) };
    let ask = initialize(upstream, handle, policy.map_or(1, |policy| policy.revision));
    let answer = match send(&upstream.address, &ask, patience).await {
        Ok(answer) => answer,
        // Ours closes connections of other users without a word.
        Err(Trouble::Garbage(_) | Trouble::Silent(_)) if ours(upstream) => {
            let fix = "the executor answers processes of its own user only: run this command as that user";
            return vec![Finding::failed(&key, "closes the connection", fix)];
        }
        Err(trouble) => return vec![Finding::failed(&key, trouble.to_string(), trouble.fix())],
    };
    if let Some(session) = answer.headers.get("mcp-session-id").filter(|_| !upstream.identity) {
        let mut end = Ask { method: "DELETE", body: Vec::new(), ..ask };
        end.headers.push(("MCP-Session-Id".to_owned(), session.as_bytes().to_vec()));
        end.headers.push(("MCP-Protocol-Version".to_owned(), REVISION.into()));
        // Whether it knows how to end one is its own business.
        let _ = send(&upstream.address, &end, patience).await;
    }
    let mut found = vec![judge(&key, upstream, handle, &answer)];
    if policy.is_some() && user.is_none() {
        let fix = "remove it, or let a server of policy.toml name it";
        found.push(Finding::warn(&key, "is used by no enabled server of the policy", fix));
    }
    found
}

const fn ours(upstream: &Upstream) -> bool {
    upstream.identity && matches!(upstream.address, Address::Unix(_))
}

/// The handshake's first request, and what goes with every JSON-RPC request to this upstream.
fn initialize(upstream: &Upstream, handle: &str, policy_revision: u64) -> Ask {
    let body = body();
    let mut headers = vec![
        ("Host".to_owned(), authority(&upstream.address).into_bytes()),
        ("Content-Type".to_owned(), b"application/json".to_vec()),
        ("Accept".to_owned(), b"application/json, text/event-stream".to_vec()),
    ];
    headers.extend(upstream.headers.iter().map(|(name, value)| (name.clone(), value.expose().to_vec())));
    if upstream.identity {
        let identity = Identity {
            context: "cli".to_owned(),
            identity: "cli:check".to_owned(),
            server: handle.to_owned(),
            trace_id: "check".to_owned(),
            request_id: "check".to_owned(),
            policy_revision,
            ..Identity::default()
        };
        let now_s = SystemClock.now_ms() / 1000;
        let (identity, signature) = protocol::sign_identity(&identity, &body, upstream.key.as_ref(), now_s);
        headers.push((protocol::IDENTITY_HEADER.to_owned(), identity.into_bytes()));
        headers.extend(signature.map(|signature| (protocol::SIGNATURE_HEADER.to_owned(), signature.into_bytes())));
    }
    Ask { method: "POST", target: upstream.path.replace("{server}", handle), headers, body }
}

/// A JSON-RPC `initialize`.
pub(super) fn body() -> Vec<u8> {
    let client = json!({"name": "mcp-sidecar-check", "version": env!("CARGO_PKG_VERSION")});
    let params = json!({"protocolVersion": REVISION, "capabilities": {}, "clientInfo": client});
    json!({"jsonrpc": "2.0", "id": "check", "method": "initialize", "params": params}).to_string().into_bytes()
}

/// The JSON-RPC message of an answer: its body, or the first one among its events.
pub(super) fn message(answer: &Answer) -> Option<Value> {
    let rpc = |text: &[u8]| serde_json::from_slice::<Value>(text).ok().filter(|value| value["jsonrpc"] == "2.0");
    if !is_stream(&answer.headers) {
        return rpc(&answer.body);
    }
    let text = String::from_utf8_lossy(&answer.body);
    let messages: Vec<Value> =
        text.lines().filter_map(|line| rpc(line.strip_prefix("data:")?.trim().as_bytes())).collect();
    let response = messages.iter().position(|message| message.get("method").is_none());
    messages.into_iter().nth(response.unwrap_or(0))
}

fn judge(key: &str, upstream: &Upstream, handle: &str, answer: &Answer) -> Finding {
    let status = answer.status;
    let place = match &upstream.address {
        Address::Unix(path) => path.display().to_string(),
        address @ Address::Tcp { .. } => authority(address),
    };
    if let Some(message) = message(answer) {
        if let Some(result) = message.get("result") {
            let word = |value: &Value| -> String {
                value.as_str().unwrap_or("?").chars().filter(|c| !c.is_control()).take(64).collect()
            };
            let (server, revision) = (word(&result["serverInfo"]["name"]), word(&result["protocolVersion"]));
            return Finding::ok(key, format!("{server:?} at {place} speaks MCP {revision}"));
        }
        let code = message["error"]["code"].as_i64().unwrap_or_default();
        let text = format!("the server at {place} speaks JSON-RPC, and refuses to initialize (HTTP {status}, {code})");
        let fix = "a server of the 2026-07-28 revision only does that; else see its log";
        return Finding::warn(key, text, fix);
    }
    let (text, fix) = match (status, upstream.identity) {
        (401 | 403, true) => (
            format!("refuses our identity (HTTP {status})"),
            "give both sides the same key (key_env or key_file), and clocks that differ by less than 30 s".to_owned(),
        ),
        (401 | 403, false) => (
            format!("refuses us (HTTP {status})"),
            format!("give its credential: headers = {{ Authorization = {{ value_env = \"NAME\" }} }} in [{key}]"),
        ),
        (404, true) => (
            format!("has no server {handle:?} (HTTP 404)"),
            format!(
                "its policy.toml needs an enabled server {handle:?} of kind \"content\", and {key}.path = \"/mcp/{{server}}\""
            ),
        ),
        (404 | 405, false) => {
            (format!("has no MCP at {} (HTTP {status})", upstream.path), format!("correct {key}.path"))
        }
        _ => (
            format!("answers HTTP {status}, and no JSON-RPC"),
            "check that this is an MCP server, and its path".to_owned(),
        ),
    };
    Finding::failed(key, text, fix)
}
