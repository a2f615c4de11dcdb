//! What libraries say through the `log` crate, reduced to words that cannot hold a secret.
//!
//! Pingora's error texts quote request targets, raw headers and addresses, and any of them may carry a credential. So
//! no such text passes as it is: what is kept is the place in the library, the fixed beginning of the message, and the
//! names of error types found in it. Non-goal: a library's full message; for that there is a debugger.

use log::{Level, LevelFilter, Log, Metadata, Record};

use super::throttle::Throttle;

/// The words of Pingora's errors: whose fault, and which.
const WORDS: [&str; 33] = [
    "Upstream",
    "Downstream",
    "Internal",
    "ConnectTimedout",
    "ConnectRefused",
    "ConnectNoRoute",
    "ConnectProxyFailure",
    "ConnectError",
    "TLSWantX509Lookup",
    "TLSHandshakeFailure",
    "TLSHandshakeTimedout",
    "InvalidCert",
    "HandshakeError",
    "BindError",
    "AcceptError",
    "SocketError",
    "InvalidHTTPHeader",
    "H1Error",
    "H2Error",
    "InvalidH2",
    "H2Downgrade",
    "ReadError",
    "WriteError",
    "ReadTimedout",
    "WriteTimedout",
    "ConnectionClosed",
    "HTTPStatus",
    "FileOpenError",
    "FileCreateError",
    "FileReadError",
    "FileWriteError",
    "InternalError",
    "UnknownError",
];
/// Bytes of a message that are searched for such words.
const SEARCHED: usize = 2048;
/// Lines per second; a neighbour can cause them at will.
const LINES: u32 = 5;

struct Bridge(Throttle);

/// Takes over the records of the `log` crate. Where another logger is set already, that one stays.
pub(super) fn install() {
    if log::set_boxed_logger(Box::new(Bridge(Throttle::new(LINES)))).is_ok() {
        log::set_max_level(LevelFilter::Warn);
    }
}

impl Log for Bridge {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        let wanted = record.level() == Level::Error || tracing::enabled!(tracing::Level::DEBUG);
        if !self.enabled(record.metadata()) || !wanted {
            return;
        }
        let text = record.args().to_string();
        let failure = failure(&text);
        // What clients cause, and what a library only wonders about, is nobody's to act on.
        let ours = record.level() == Level::Error && !failure.contains("Downstream");
        // Asked last, so that what is not written takes no line's place.
        if !(ours || tracing::enabled!(tracing::Level::DEBUG)) || !self.0.admit() {
            return;
        }
        // A literal has nothing of anybody in it.
        let said = record.args().as_str().unwrap_or_else(|| beginning(&text));
        let (library, line) = (record.target(), record.line());
        if ours {
            tracing::warn!(library, line, said, failure, "a library reports an error");
        } else {
            tracing::debug!(library, line, said, failure, "a library reports");
        }
    }

    fn flush(&self) {}
}

/// The message up to its first colon, when that is made of plain short words; else nothing.
fn beginning(text: &str) -> &str {
    let start = text.split_once(':').map_or("", |(start, _)| start);
    let plain = |word: &str| word.len() <= 16 && word.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'\'');
    if start.len() <= 64 && start.split(' ').all(plain) { start } else { "" }
}

/// The error words in the message, each once, in the order of the message.
fn failure(text: &str) -> String {
    let text = &text[..text.floor_char_boundary(SEARCHED)];
    let mut found: Vec<&'static str> = Vec::new();
    for token in text.split(|letter: char| !letter.is_ascii_alphanumeric()) {
        if let Some(word) = WORDS.iter().find(|word| **word == token)
            && !found.contains(word)
        {
            found.push(word);
        }
    }
    found.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_fixed_words_of_a_message_are_kept() {
        let cases = [
            (
                "Fail to proxy:  Upstream ConnectRefused context: Peer: addr: 10.0.0.1:80 cause:  InternalError, status: \
                 502, GET /a?token=5entinel, Host: x",
                ("Fail to proxy", "Upstream ConnectRefused InternalError"),
            ),
            ("GET /a?token=5entinel, Host: x", ("", "")),
            ("abc5entinel: done", ("", "")),
            (" InvalidHTTPHeader context: buf: POST / HTTP/1.1\r\nCookie: a=5entinel", ("", "InvalidHTTPHeader")),
            ("eyJhbGciOiJIUzINiJ: no", ("", "")),
            ("no colon at all", ("", "")),
            ("", ("", "")),
        ];
        for (text, (said, words)) in cases {
            assert_eq!((beginning(text), failure(text).as_str()), (said, words), "{text}");
        }
        let long = "é".repeat(4000);
        assert_eq!((beginning(&long), failure(&long).as_str()), ("", ""));
    }
}
