use std::io::IsTerminal;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}

/// Why the log could not be set up or changed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LogError {
    #[error("invalid log level {0:?}: expected off, error, warn, info, debug or trace")]
    InvalidLevel(String),
    #[error("a log is already set up in this process")]
    AlreadySet,
    #[error("the log is gone")]
    Gone,
}

/// Changes the level while running.
#[derive(Clone, Debug)]
pub struct LogHandle(reload::Handle<EnvFilter, Registry>);

impl LogHandle {
    /// Sets the level of our own lines.
    ///
    /// # Errors
    /// When `level` is none of `off error warn info debug trace`.
    pub fn set_level(&self, level: &str) -> Result<(), LogError> {
        self.0.reload(filter(level)?).map_err(|_| LogError::Gone)
    }
}

/// Sets up the process's log on standard error.
///
/// # Errors
/// When `level` is unknown, or a log is already set up.
pub fn log_init(level: &str, format: LogFormat) -> Result<LogHandle, LogError> {
    let (filter, handle) = reload::Layer::new(filter(level)?);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(format == LogFormat::Text && std::io::stderr().is_terminal());
    let lines: Box<dyn Layer<_> + Send + Sync> = match format {
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
        LogFormat::Text => lines.boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).try_init().map_err(|_| LogError::AlreadySet)?;
    super::bridge::install();
    Ok(LogHandle(handle))
}

/// Our own lines at `level`, libraries at `warn` at most: below that some of them write headers and bodies.
fn filter(level: &str) -> Result<EnvFilter, LogError> {
    let others = match level {
        "off" => "off",
        "error" => "error",
        "warn" | "info" | "debug" | "trace" => "warn",
        _ => return Err(LogError::InvalidLevel(level.chars().take(32).collect())),
    };
    Ok(EnvFilter::new(format!("{others},mcp_sidecar={level}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_never_log_below_warn() {
        for (level, expected) in [("off", "off"), ("error", "error"), ("info", "warn"), ("trace", "warn")] {
            let text = filter(level).expect("known level").to_string();
            assert!(text.split(',').any(|part| part == expected), "{level}: {text}");
            assert!(text.contains(&format!("mcp_sidecar={level}")), "{level}: {text}");
        }
    }

    #[test]
    fn a_level_is_one_of_six_words() {
        for level in ["", "INFO", "info,hyper=trace", "verbose", "warn "] {
            assert!(matches!(filter(level), Err(LogError::InvalidLevel(_))), "{level:?}");
        }
    }
}
