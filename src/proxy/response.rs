//! The header of an answer, written as it goes out.

use std::cell::Cell;
use std::time::{Duration, SystemTime};

use http::StatusCode;

/// Status line and fields; who writes it names each field once.
#[derive(Debug)]
pub struct Response {
    status: u16,
    bytes: Vec<u8>,
}

impl Response {
    /// Begins with the status line.
    #[must_use]
    pub fn new(status: u16) -> Self {
        let mut bytes = Vec::with_capacity(768);
        if status == 200 {
            bytes.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        } else {
            let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
            bytes.extend_from_slice(format!("HTTP/1.1 {status} {}\r\n", reason.unwrap_or_default()).as_bytes());
        }
        Self { status, bytes }
    }

    /// As it was begun.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// Adds a field; a value that no field can carry is left out.
    pub fn set(&mut self, name: &str, value: &[u8]) {
        // Without an early end, so that many bytes are looked at in one step.
        let can_stand = |byte: u8| (byte >= b' ') & (byte != 0x7f) | (byte == b'\t');
        if !value.iter().fold(true, |all, byte| all & can_stand(*byte)) {
            return;
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.extend_from_slice(b": ");
        self.bytes.extend_from_slice(value);
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// Adds a field whose value is a number.
    pub fn number(&mut self, name: &str, value: u64) {
        self.set(name, itoa::Buffer::new().format(value).as_bytes());
    }

    /// The whole header, with what every answer has.
    #[must_use]
    pub fn into_head(mut self, keeps: bool) -> Vec<u8> {
        self.bytes.extend_from_slice(b"Date: ");
        self.bytes.extend_from_slice(&date());
        self.bytes.extend_from_slice(match keeps {
            true => b"\r\nConnection: keep-alive\r\n\r\n".as_slice(),
            false => b"\r\nConnection: close\r\n\r\n",
        });
        self.bytes
    }
}

/// The time as the field `Date` has it, in 29 bytes.
fn date() -> [u8; 29] {
    thread_local! {
        static LAST: Cell<(u64, [u8; 29])> = const { Cell::new((0, [b' '; 29])) };
    }
    let now_s = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (at_s, text) = LAST.get();
    if at_s == now_s {
        return text;
    }
    let text = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(now_s));
    let text = text.as_bytes().try_into().unwrap_or([b' '; 29]);
    LAST.set((now_s, text));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_can_begin_a_line_of_its_own() {
        let mut response = Response::new(429);
        response.set("X-Good", b"a\tb \xc3\xa9");
        for bad in [b"a\r\nX: b".as_slice(), b"a\nb", b"a\0b", b"\x7f"] {
            response.set("X-Bad", bad);
        }
        response.number("Retry-After", 3);
        let text = String::from_utf8(response.into_head(false)).expect("is text");
        let lines: Vec<&str> = text.split("\r\n").collect();
        assert_eq!(lines[..3], ["HTTP/1.1 429 Too Many Requests", "X-Good: a\tb é", "Retry-After: 3"]);
        assert_eq!(lines[4..], ["Connection: close", "", ""]);
        let date = lines[3].strip_prefix("Date: ").expect("a date");
        let age = SystemTime::now().duration_since(httpdate::parse_http_date(date).expect("a date"));
        assert!(age.expect("is past") < Duration::from_secs(60));
    }
}
