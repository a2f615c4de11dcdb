//! What happens, each as one function that writes the log line and moves the metric.
//!
//! Arguments named `detail` are internal texts: they go to the log, never into an answer or a label, and hold no
//! token, body or argument. Events that a neighbour can cause at will are throttled in the log, never in the metric.

use tracing::{error, info, warn};

use super::{AuditDrop, ConnectionRefusal, Metrics, UpstreamFailure};

/// A policy took effect; `loosened` says what it permits beyond the one before.
pub fn policy_reloaded(metrics: &Metrics, revision: u64, digest: &str, now_ms: u64, loosened: &[String]) {
    metrics.policy(revision, digest, now_ms);
    metrics.policy_reloaded();
    info!(policy.revision = revision, policy.digest = digest, "policy reloaded");
    if !loosened.is_empty() {
        metrics.policy_loosened();
        let what = loosened.join("; ");
        warn!(policy.revision = revision, policy.loosened = %what, "the new policy permits more than the one before");
    }
}

/// A policy was refused and the old one stays; `detail` names the first problem and its place.
pub fn policy_refused(metrics: &Metrics, revision: u64, problems: usize, detail: &str) {
    metrics.policy_refused();
    error!(policy.revision = revision, policy.problems = problems, detail, "policy refused, the old one stays");
}

/// An MCP upstream failed a request.
pub fn upstream_failed(metrics: &Metrics, server: &str, kind: UpstreamFailure, request_id: &str, detail: &str) {
    metrics.upstream_failure(server, kind);
    if metrics.upstream_lines.admit() {
        warn!(server.handle = server, failure = kind.as_str(), request.id = request_id, detail, "upstream failed");
    }
}

/// We failed a request ourselves.
pub fn internal_error(metrics: &Metrics, request_id: &str, detail: &str) {
    metrics.internal_error();
    if metrics.internal_lines.admit() {
        error!(request.id = request_id, detail, "internal error");
    }
}

/// Audit records are lost.
pub fn audit_dropped(metrics: &Metrics, why: AuditDrop, count: u64) {
    metrics.audit_dropped(why, count);
    if metrics.audit_lines.admit() {
        error!(why = why.as_str(), count, "audit records dropped");
    }
}

/// The audit file cannot be written; records wait.
pub fn audit_write_failed(metrics: &Metrics, detail: &str) {
    metrics.audit_write_error();
    if metrics.audit_lines.admit() {
        error!(detail, "audit log cannot be written, records wait");
    }
}

/// The audit file can be written again.
pub fn audit_recovered(waited_ms: u64) {
    info!(waited_ms, "audit log can be written again");
}

/// Free space where the audit file is went below the watermark, or came back above it.
pub fn audit_disk(low: bool, free_bytes: u64) {
    if low {
        error!(free_bytes, "audit log: free disk space is below audit.min_free_mb");
    } else {
        info!(free_bytes, "audit log: free disk space is back above audit.min_free_mb");
    }
}

/// A downstream connection was refused.
pub fn connection_refused(metrics: &Metrics, why: ConnectionRefusal, peer: std::net::IpAddr) {
    metrics.connection_refused(why);
    if metrics.connection_lines.admit() {
        warn!(why = why.as_str(), %peer, "connection refused");
    }
}

/// A connection could not be accepted, as a rule because the process may open no more files.
pub fn accept_failed(metrics: &Metrics, detail: &str) {
    metrics.connection_refused(ConnectionRefusal::Error);
    if metrics.connection_lines.admit() {
        warn!(detail, "a connection could not be accepted, others wait");
    }
}

/// The process takes no new work.
pub fn draining(metrics: &Metrics, requests_open: u64) {
    metrics.draining(true);
    info!(requests_open, "draining");
}
