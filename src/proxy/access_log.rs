//! The access log: one line per request, `combined` or JSON, written by a thread of its own.
//!
//! Invariants: a request never waits for the log (a full queue drops the line and counts it); nothing a client sends
//! can start a line or end a field; secrets in query strings are not written.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::policy::Redactor;
use crate::proxy::redaction;
use crate::proxy::settings::{AccessLog as Settings, AccessLogFormat};

const QUEUE_LINES: usize = 8192;
const MAX_FIELD_BYTES: usize = 2048;

/// What one line tells.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Unix milliseconds of the request's begin.
    pub at_ms: u64,
    pub client: IpAddr,
    pub method: &'a str,
    /// The request target as sent; its secrets are hidden here.
    pub target: &'a str,
    /// `HTTP/1.1`
    pub protocol: &'a str,
    pub status: u16,
    /// Body bytes sent.
    pub bytes: u64,
    pub referer: Option<&'a str>,
    pub user_agent: Option<&'a str>,
    pub host: Option<&'a str>,
    pub trace_id: &'a str,
    pub duration_ms: u64,
    /// `logging.redact_keys`, beside the names that are always hidden.
    pub redactor: &'a Redactor,
}

impl Entry<'_> {
    /// The line without its end, or `None` when the log is off.
    #[must_use]
    pub fn line(&self, format: AccessLogFormat) -> Option<String> {
        let at = i64::try_from(self.at_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        let at = at.unwrap_or_default();
        let target = redaction::target(self.target, self.redactor);
        let referer = self.referer.map(|referer| redaction::target(referer, self.redactor));
        let user_agent = self.user_agent.map(redaction::tokens);
        match format {
            AccessLogFormat::Off => None,
            AccessLogFormat::Combined => Some(format!(
                "{} - - [{}] \"{} {} {}\" {} {} \"{}\" \"{}\"",
                self.client,
                at.strftime("%d/%b/%Y:%H:%M:%S +0000"),
                escaped(self.method),
                escaped(&target),
                escaped(self.protocol),
                self.status,
                self.bytes,
                escaped(referer.as_deref().unwrap_or("-")),
                escaped(user_agent.as_deref().unwrap_or("-")),
            )),
            AccessLogFormat::Json => {
                let line = serde_json::json!({
                    "time": at.to_string(), "client": self.client.to_string(), "method": cut(self.method),
                    "target": cut(&target), "protocol": self.protocol, "status": self.status, "bytes": self.bytes,
                    "referer": referer.as_deref().map(cut), "user_agent": user_agent.as_deref().map(cut),
                    "host": self.host.map(cut), "trace_id": cut(self.trace_id), "duration_ms": self.duration_ms,
                });
                Some(line.to_string())
            }
        }
    }
}

/// At most [`MAX_FIELD_BYTES`] of a field, cut between characters.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_FIELD_BYTES)]
}

/// Quotes, backslashes, control and non-ASCII bytes as `\xHH`, as nginx and Apache do.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in cut(text).bytes() {
        match byte {
            b' '..=b'~' if byte != b'"' && byte != b'\\' => out.push(char::from(byte)),
            _ => out.push_str(&format!("\\x{byte:02X}")),
        }
    }
    out
}

/// The log's sending end and its thread; dropping it writes what is queued.
#[derive(Debug)]
pub struct AccessLog {
    format: AccessLogFormat,
    sender: Option<SyncSender<String>>,
    reopen: Arc<AtomicBool>,
    dropped: AtomicU64,
    thread: Option<JoinHandle<()>>,
}

impl AccessLog {
    /// Opens the file (for appending) and starts the thread.
    ///
    /// # Errors
    /// When the file cannot be opened or the thread cannot be started.
    pub fn open(settings: &Settings) -> io::Result<Self> {
        let reopen = Arc::new(AtomicBool::new(false));
        let (mut sender, mut thread) = (None, None);
        if settings.format != AccessLogFormat::Off {
            let sink = sink(settings.path.as_ref())?;
            let (lines, receiver) = sync_channel(QUEUE_LINES);
            let (path, flag) = (settings.path.clone(), Arc::clone(&reopen));
            let writer = move || write_lines(&receiver, sink, path.as_ref(), &flag);
            thread = Some(std::thread::Builder::new().name("access-log".into()).spawn(writer)?);
            sender = Some(lines);
        }
        Ok(Self { format: settings.format, sender, reopen, dropped: AtomicU64::new(0), thread })
    }

    /// Queues a line; never waits.
    pub fn write(&self, entry: &Entry<'_>) {
        let (Some(sender), Some(line)) = (&self.sender, entry.line(self.format)) else { return };
        if sender.try_send(line).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Opens the file anew (`SIGUSR1`), also when no line follows.
    pub fn reopen(&self) {
        self.reopen.store(true, Ordering::Release);
        // Wakes the thread. A full queue keeps it awake anyway.
        if let Some(sender) = &self.sender {
            let _ = sender.try_send(String::new());
        }
    }

    /// Lines lost to a full queue so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn sink(path: Option<&PathBuf>) -> io::Result<BufWriter<Box<dyn Write + Send>>> {
    let file = |path| OpenOptions::new().append(true).create(true).open(path).map(|file: File| Box::new(file) as _);
    let output = path.map_or_else(|| Ok(Box::new(io::stdout()) as Box<dyn Write + Send>), file)?;
    Ok(BufWriter::new(output))
}

fn write_lines(
    lines: &Receiver<String>,
    mut output: BufWriter<Box<dyn Write + Send>>,
    path: Option<&PathBuf>,
    reopen: &AtomicBool,
) {
    // An empty line is no line: it asks for a look at the flag.
    while let Ok(first) = lines.recv() {
        if reopen.swap(false, Ordering::AcqRel) {
            // When it cannot be opened, the old file is better than none.
            match sink(path) {
                Ok(fresh) => output = fresh,
                Err(error) => tracing::warn!(%error, "the access log cannot be reopened"),
            }
        }
        let batch = std::iter::once(first).chain(lines.try_iter().take(256));
        let mut batch = batch.filter(|line| !line.is_empty());
        let written = batch.try_for_each(|line| writeln!(output, "{line}"));
        if let Err(error) = written.and_then(|()| output.flush()) {
            tracing::warn!(%error, "the access log cannot be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry<'a>(target: &'a str, redactor: &'a Redactor) -> Entry<'a> {
        Entry {
            redactor,
            at_ms: 0,
            client: IpAddr::from([203, 0, 113, 1]),
            method: "GET",
            target,
            protocol: "HTTP/1.1",
            status: 200,
            bytes: 5,
            referer: Some("http://a/?token=s3cret"),
            user_agent: Some("x\"\n\\é"),
            host: None,
            trace_id: "t",
            duration_ms: 3,
        }
    }

    #[test]
    fn lines_hold_no_secrets_and_no_line_ends() {
        let redactor = Redactor::default();
        let entry = entry("/x?a=1&Access-Token=s3cret&%74oken=s3cret&key", &redactor);
        let combined = entry.line(AccessLogFormat::Combined).expect("a line");
        assert_eq!(
            combined,
            "203.0.113.1 - - [01/Jan/1970:00:00:00 +0000] \
             \"GET /x?a=1&Access-Token=[REDACTED]&%74oken=[REDACTED]&key HTTP/1.1\" 200 5 \
             \"http://a/?token=[REDACTED]\" \"x\\x22\\x0A\\x5C\\xC3\\xA9\""
        );
        let json = entry.line(AccessLogFormat::Json).expect("a line");
        assert!(!json.contains("s3cret") && !json.contains('\n'));
        assert!(entry.line(AccessLogFormat::Off).is_none());
    }

    #[test]
    fn a_dropped_log_has_written_everything() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("access.log");
        let settings = Settings { format: AccessLogFormat::Json, path: Some(path.clone()) };
        let log = AccessLog::open(&settings).expect("opens");
        log.reopen();
        for _ in 0..50 {
            log.write(&entry("/", &Redactor::default()));
        }
        drop(log);
        assert_eq!(std::fs::read_to_string(path).expect("readable").lines().count(), 50);
    }
}
