use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use super::denials::Summary;

/// Client-supplied texts are cut here, in bytes.
const CUT: usize = 128;

/// One decision: what the audit log says about one request. Never holds a token, a body or arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When the request began, in milliseconds since the Unix epoch.
    pub timestamp_ms: u64,
    /// Minted by us.
    pub request_id: Arc<str>,
    /// As the client sent it.
    pub client_request_id: Option<String>,
    pub trace_id: Arc<str>,
    pub server_handle: Arc<str>,
    /// The JSON-RPC method, or `unknown`.
    pub method: &'static str,
    /// HTTP status of the answer.
    pub status: u16,
    pub actor_user_id: Option<u64>,
    /// `mgr`, `api`, `cli`, or `unknown` when no identity was established.
    pub context: &'static str,
    pub duration_ms: u64,
    pub task_id: Option<u64>,
    /// Which run of the task it was; `None` for a request.
    pub run: Option<u64>,
    pub rate_limit_identity: Arc<str>,
    /// `allow` or `deny`.
    pub decision: &'static str,
    /// The reason's code of a denial.
    pub deny_code: Option<&'static str>,
    pub tool: Option<String>,
    /// The rule that decided.
    pub rule: Arc<str>,
    pub policy_revision: u64,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    pub peer: Option<IpAddr>,
    /// What happened after a permit, e.g. an upstream's failure, `client_gone`, `stream_deadline`.
    pub outcome: Option<&'static str>,
}

/// Writes records as JSON lines into a buffer that is reused.
#[derive(Default)]
pub struct Lines {
    pub(super) buffer: Vec<u8>,
    numbers: itoa::Buffer,
    /// The second of `second_text`; lines of one second share its text.
    second: Option<u64>,
    second_text: String,
}

impl Lines {
    /// The lines so far.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// Forgets the lines so far and keeps their room.
    pub fn clear(&mut self) {
        self.buffer.clear();
    }

    /// Appends one line for `record`.
    pub fn record(&mut self, record: &Record) {
        self.open(record.timestamp_ms);
        self.text("request_id", &record.request_id);
        self.optional_text("client_request_id", record.client_request_id.as_deref());
        self.text("trace_id", &record.trace_id);
        self.text("server_handle", &record.server_handle);
        self.text("method", record.method);
        self.number("status", u64::from(record.status));
        self.optional_number("actor_user_id", record.actor_user_id);
        self.text("context", record.context);
        self.number("duration_ms", record.duration_ms);
        self.optional_number("task_id", record.task_id);
        self.optional_number("run", record.run);
        self.text("rate_limit_identity", &record.rate_limit_identity);
        self.text("decision", record.decision);
        self.optional_text("deny_code", record.deny_code);
        self.optional_text("tool", record.tool.as_deref());
        self.text("rule", &record.rule);
        self.number("policy_revision", record.policy_revision);
        self.number("bytes_in", record.bytes_in);
        self.number("bytes_out", record.bytes_out);
        self.peer(record.peer);
        self.optional_text("outcome", record.outcome);
        self.close();
    }

    /// Appends the line for `repeats` further denials of one address and code within one second.
    pub(super) fn summary(&mut self, summary: &Summary) {
        self.open(summary.second.saturating_mul(1000));
        self.text("decision", "deny");
        self.text("deny_code", summary.code);
        if let Some(identity) = &summary.identity {
            self.text("rate_limit_identity", identity);
        }
        self.peer(summary.peer);
        self.number("repeats", summary.repeats);
        self.number("window_s", 1);
        self.close();
    }

    fn open(&mut self, timestamp_ms: u64) {
        let second = timestamp_ms / 1000;
        if self.second != Some(second) {
            self.second = Some(second);
            self.second_text.clear();
            let stamp = i64::try_from(second).ok().and_then(|s| Timestamp::from_second(s).ok()).unwrap_or_default();
            // Displayed as 2026-01-31T23:59:59Z; the zone follows the milliseconds.
            let _ = write!(self.second_text, "{stamp}");
            self.second_text.truncate(self.second_text.len().saturating_sub(1));
        }
        self.buffer.extend_from_slice(b"{\"timestamp\":\"");
        self.buffer.extend_from_slice(self.second_text.as_bytes());
        let ms = timestamp_ms % 1000;
        let digit = |n: u64| b'0' + u8::try_from(n % 10).unwrap_or(0);
        self.buffer.extend_from_slice(&[b'.', digit(ms / 100), digit(ms / 10), digit(ms)]);
        self.buffer.extend_from_slice(b"+00:00\",\"event\":\"emcp.audit\"");
    }

    fn close(&mut self) {
        self.buffer.extend_from_slice(b"}\n");
    }

    fn key(&mut self, key: &str) {
        self.buffer.extend_from_slice(b",\"");
        self.buffer.extend_from_slice(key.as_bytes());
        self.buffer.extend_from_slice(b"\":");
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        self.buffer.push(b'"');
        escape(&mut self.buffer, &value[..value.floor_char_boundary(CUT)]);
        self.buffer.push(b'"');
    }

    fn optional_text(&mut self, key: &str, value: Option<&str>) {
        match value {
            Some(value) => self.text(key, value),
            None => self.null(key),
        }
    }

    fn number(&mut self, key: &str, value: u64) {
        self.key(key);
        self.buffer.extend_from_slice(self.numbers.format(value).as_bytes());
    }

    fn optional_number(&mut self, key: &str, value: Option<u64>) {
        match value {
            Some(value) => self.number(key, value),
            None => self.null(key),
        }
    }

    fn peer(&mut self, peer: Option<IpAddr>) {
        match peer {
            Some(peer) => {
                use std::io::Write as _;
                self.key("peer");
                // Writing to a Vec does not fail, and an address has nothing to escape.
                let _ = write!(self.buffer, "\"{peer}\"");
            }
            None => self.null("peer"),
        }
    }

    fn null(&mut self, key: &str) {
        self.key(key);
        self.buffer.extend_from_slice(b"null");
    }
}

/// JSON escapes, and every character that could end a line or steer a terminal as `\uHHHH`.
fn escape(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    if bytes.iter().all(|b| (0x20..0x7f).contains(b) && !matches!(b, b'"' | b'\\')) {
        out.extend_from_slice(bytes);
        return;
    }
    for c in text.chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            c if c.is_control() || steers(c) => {
                use std::io::Write as _;
                // All of these lie in the basic plane, so that one unit says it.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// Line and paragraph separators, marks and overrides of direction, byte order mark.
const fn steers(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::super::sample;
    use super::*;

    fn line(record: &Record) -> (String, Value) {
        let mut lines = Lines::default();
        lines.record(record);
        let text = String::from_utf8(lines.buffer).expect("UTF-8");
        let value = serde_json::from_str(&text).expect("one JSON document");
        (text, value)
    }

    #[test]
    fn a_line_holds_every_field() {
        let (text, value) = line(&sample(1_700_000_000_007));
        assert_eq!(value["timestamp"], "2023-11-14T22:13:20.007+00:00");
        assert_eq!(value["event"], "emcp.audit");
        assert_eq!(value["actor_user_id"], 7);
        assert_eq!((&value["task_id"], &value["run"]), (&Value::Null, &Value::Null));
        assert_eq!(value["peer"], "192.0.2.1");
        for key in [
            "request_id",
            "client_request_id",
            "trace_id",
            "server_handle",
            "method",
            "status",
            "context",
            "duration_ms",
            "rate_limit_identity",
            "decision",
            "deny_code",
            "tool",
            "rule",
            "policy_revision",
            "bytes_in",
            "bytes_out",
            "outcome",
        ] {
            assert!(value.get(key).is_some(), "{key}");
        }
        assert!(text.ends_with("}\n") && text.matches('\n').count() == 1);
    }

    #[test]
    fn texts_are_cut_at_a_character() {
        let mut record = sample(0);
        record.trace_id = "é".repeat(100).into();
        record.tool = Some(format!("a{}", "é".repeat(100)));
        let (_, value) = line(&record);
        assert_eq!(value["trace_id"].as_str().map(str::len), Some(128));
        assert_eq!(value["tool"].as_str().map(str::len), Some(127));
    }

    #[test]
    fn nothing_in_a_text_can_end_the_line_or_steer_a_terminal() {
        let mut record = sample(0);
        record.trace_id = "a\n{\"decision\":\"allow\"}\r\u{1b}[2J\u{7f}\u{85}\u{2028}\u{202e}".into();
        let (text, value) = line(&record);
        assert_eq!(value["trace_id"], &*record.trace_id);
        assert!(text.trim_end().chars().all(|c| !c.is_control() && !steers(c)), "{text}");
    }

    #[test]
    fn times_beyond_the_calendar_do_not_panic() {
        for time in [0, 999, u64::MAX] {
            line(&sample(time));
        }
    }

    proptest! {
        #[test]
        fn any_text_comes_back_from_one_line(text in ".{0,40}", tool in proptest::option::of(".{0,40}")) {
            let mut record = sample(1_000);
            record.trace_id = text.into();
            record.tool = tool;
            let (line, value) = line(&record);
            prop_assert_eq!(line.matches('\n').count(), 1);
            let cut = |text: &str| text[..text.floor_char_boundary(CUT)].to_owned();
            prop_assert_eq!(value["trace_id"].as_str().map(str::to_owned), Some(cut(&record.trace_id)));
            prop_assert_eq!(value["tool"].as_str().map(str::to_owned), record.tool.as_deref().map(cut));
        }
    }
}
