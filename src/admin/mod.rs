//! The operator's doors: a listener that only reads (`/metrics /healthz /readyz /status`) and a control socket for
//! what changes something.
//!
//! Invariants: the listener answers GET and HEAD only and checks `Host`, so that a web page that a browser on this
//! machine shows cannot read it by a rebound name; the control socket is 0600 from its first moment, and each peer's
//! user is checked. Non-goals: remote administration, TLS.

mod control;
mod listener;
pub mod settings;
#[cfg(test)]
mod tests;

use serde_json::Value;

pub use control::{ControlSocket, serve_control};
pub use listener::serve;
pub use settings::Settings;

/// What the process lets its operator see and do.
pub trait Control: Send + Sync + 'static {
    /// What `/status` and `ctl status` show; no secrets.
    fn status(&self) -> Value;
    /// Why the process should get no traffic; empty when it should.
    fn readiness(&self) -> Vec<String>;
    /// The text exposition of the metrics.
    fn metrics(&self) -> String;
    /// Loads the policy anew. May block.
    ///
    /// # Errors
    /// What is wrong with it, for the operator; the old policy stays.
    fn reload(&self) -> Result<String, String>;
    /// Sets the level of the log.
    ///
    /// # Errors
    /// When there is no such level.
    fn set_log_level(&self, level: &str) -> Result<(), String>;
    /// Begins to drain.
    fn drain(&self);
}
