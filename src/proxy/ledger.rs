//! What a call leaves behind: its count in the metrics and its audit line, each exactly once.

use std::sync::Arc;

use crate::audit::{Record, Slot};
use crate::base::Principal;
use crate::policy::Rule;
use crate::protocol::{Envelope, MethodClass, Refused};
use crate::proxy::call::Call;

/// What is known about a call when its audit line is written.
pub struct Trail {
    method: MethodClass,
    tool: Option<String>,
    bytes_in: u64,
}

impl Trail {
    pub fn of(method: MethodClass, parsed: Option<&Result<Envelope<'_>, Refused<'_>>>, bytes_in: u64) -> Self {
        let tool = match parsed {
            Some(Ok(envelope)) => envelope.name.as_deref().map(str::to_owned),
            _ => None,
        };
        Self { method, tool, bytes_in }
    }
}

impl Call<'_> {
    pub fn count(&self, trail: &Trail, allowed: bool, code: &'static str) {
        self.gateway.metrics.decision(self.handle, trail.method, allowed, code);
    }

    pub fn record(&self, principal: Option<&Principal>, trail: &Trail, status: u16, bytes_out: u64) -> Record {
        let server_handle = self.policy.server(self.handle).map(|server| Arc::clone(&server.handle));
        let client_request_id = self.asked.client_request_id.as_ref().and_then(|value| value.to_str().ok());
        let duration_ms = u64::try_from(self.ctx.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Record {
            timestamp_ms: self.ctx.started_ms,
            request_id: Arc::clone(&self.asked.request_id),
            client_request_id: client_request_id.map(str::to_owned),
            trace_id: Arc::clone(&self.asked.trace_id),
            // A handle that is none of ours is whatever the client put there, a secret perhaps.
            server_handle: server_handle.unwrap_or_else(|| Arc::clone(&self.policy.unknown_handle)),
            method: trail.method.as_str(),
            status,
            actor_user_id: principal.and_then(|principal| self.policy.actor_of(principal)),
            context: principal.map_or("unknown", |principal| principal.context().as_str()),
            duration_ms,
            task_id: None,
            run: None,
            rate_limit_identity: principal
                .map_or_else(|| format!("ip:{}", self.ctx.client).into(), |principal| Arc::clone(principal.identity())),
            decision: "allow",
            deny_code: None,
            tool: trail.tool.clone(),
            rule: Arc::from(""),
            policy_revision: self.policy.revision,
            bytes_in: trail.bytes_in,
            bytes_out,
            peer: Some(self.ctx.client),
            outcome: None,
        }
    }
}

/// The audit line of a permitted call: written once, also when the call is dropped half-way.
pub struct Ledger<'a, 'c> {
    call: &'a Call<'c>,
    open: bool,
    /// `None` when the policy switches the audit off: the call is counted all the same.
    slot: Option<Slot>,
    principal: &'a Principal,
    trail: &'a Trail,
    rule: Arc<str>,
    /// The metric's code: `ok`, or why the upstream's answer was replaced by ours.
    pub code: &'static str,
    /// The task that the call became.
    pub task_id: Option<u64>,
}

impl<'a, 'c> Ledger<'a, 'c> {
    pub fn open(
        call: &'a Call<'c>,
        slot: Option<Slot>,
        principal: &'a Principal,
        trail: &'a Trail,
        rule: &Rule,
    ) -> Self {
        Self { call, open: true, slot, principal, trail, rule: rule.name(), code: "ok", task_id: None }
    }

    /// The call goes on as a stream: what it holds of the audit's queue is given back until its line comes.
    pub fn lasts(&mut self) {
        if let Some(slot) = &mut self.slot {
            slot.give_place_back();
        }
    }

    pub async fn close(&mut self, status: u16, bytes_out: u64, detail: Option<&'static str>) {
        if let Some((slot, record)) = self.entry(status, bytes_out, detail) {
            let _ = slot.write(record).await;
        }
    }

    fn entry(&mut self, status: u16, bytes_out: u64, detail: Option<&'static str>) -> Option<(Slot, Record)> {
        if !std::mem::take(&mut self.open) {
            return None;
        }
        self.call.count(self.trail, true, self.code);
        let slot = self.slot.take()?;
        let mut record = self.call.record(Some(self.principal), self.trail, status, bytes_out);
        record.rule = Arc::clone(&self.rule);
        record.outcome = detail;
        record.task_id = self.task_id;
        Some((slot, record))
    }
}

impl Drop for Ledger<'_, '_> {
    fn drop(&mut self) {
        if let Some((slot, record)) = self.entry(0, 0, Some("aborted")) {
            drop(slot.write(record));
        }
    }
}
