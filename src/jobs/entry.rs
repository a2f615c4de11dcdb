//! The audit line of one run of a task.

use std::sync::Arc;

use tokio::time::Instant;

use crate::audit::{Record, Slot};
use crate::base::{Clock as _, Principal, SystemClock};
use crate::jobs::Meta;
use crate::policy::{Denial, Reason, Rule, Snapshot};
use crate::protocol::{self, MethodClass};
use crate::store::queue::Claim;
use crate::telemetry::{QueueMetrics, RunOutcome};

/// What one run leaves behind: its count in the metrics and its audit line, each exactly once, also when the run is
/// dropped half-way. Until the policy has permitted it, it counts as denied.
pub(in crate::jobs) struct Entry {
    /// `None` where the policy switches the audit off: the run is counted all the same.
    slot: Option<Slot>,
    record: Option<Record>,
    metrics: Arc<QueueMetrics>,
    began: Instant,
}

impl Entry {
    pub fn open(slot: Option<Slot>, claim: &Claim, policy: &Snapshot, metrics: &Arc<QueueMetrics>) -> Self {
        let unknown: Arc<str> = Arc::from("unknown");
        let record = Record {
            timestamp_ms: SystemClock.now_ms(),
            request_id: uuid::Uuid::new_v4().to_string().into(),
            client_request_id: None,
            trace_id: Arc::from(""),
            server_handle: Arc::clone(&policy.unknown_handle),
            method: MethodClass::Unknown.as_str(),
            status: 0,
            actor_user_id: None,
            context: "unknown",
            duration_ms: 0,
            task_id: u64::try_from(claim.id).ok(),
            run: u64::try_from(claim.run).ok(),
            rate_limit_identity: unknown,
            decision: "deny",
            deny_code: Some(Reason::InternalError.code()),
            tool: None,
            rule: Arc::from(""),
            policy_revision: policy.revision,
            bytes_in: 0,
            bytes_out: 0,
            peer: None,
            outcome: None,
        };
        Self { slot, record: Some(record), metrics: Arc::clone(metrics), began: Instant::now() }
    }

    /// The task could be read: what it asks for, and for whom.
    pub fn read(&mut self, policy: &Snapshot, meta: &Meta, caller: Option<&Principal>, call: &[u8]) {
        let Some(record) = &mut self.record else { return };
        record.trace_id = meta.trace_id.as_str().into();
        if let Some(server) = policy.server(&meta.server_handle) {
            record.server_handle = Arc::clone(&server.handle);
        }
        record.method = MethodClass::of(&meta.jsonrpc_method).as_str();
        record.tool = protocol::parse(call).ok().and_then(|envelope| envelope.name.as_deref().map(str::to_owned));
        record.bytes_in = call.len() as u64;
        record.actor_user_id = meta.actor_user_id;
        if let Some(caller) = caller {
            record.context = caller.context().as_str();
            // Of a caller without a name, the address is known only from when the call was taken.
            let by_address = meta.mcp_sidecar.as_ref().filter(|_| !caller.is_named());
            record.rate_limit_identity =
                by_address.map_or_else(|| Arc::clone(caller.identity()), |own| own.identity.as_str().into());
        }
    }

    pub fn denied(&mut self, denial: &Denial) {
        if let Some(record) = &mut self.record {
            record.deny_code = Some(denial.reason.code());
            record.status = denial.reason.status();
            record.rule = denial.rule.name();
        }
    }

    pub fn permitted(&mut self, rule: &Rule) {
        if let Some(record) = &mut self.record {
            record.decision = "allow";
            record.deny_code = None;
            record.rule = rule.name();
        }
    }

    /// The call was answered.
    pub fn answered(&mut self, status: u16, bytes: usize) {
        if let Some(record) = &mut self.record {
            record.status = status;
            record.bytes_out = bytes as u64;
        }
    }

    /// Ends the run's line, and waits for it where the log promises that it is written.
    pub async fn close(mut self, outcome: RunOutcome) {
        if let Some((slot, record)) = self.end(outcome) {
            let _ = slot.write(record).await;
        }
    }

    fn end(&mut self, outcome: RunOutcome) -> Option<(Slot, Record)> {
        let mut record = self.record.take()?;
        self.metrics.run(outcome);
        record.outcome = Some(outcome.as_str());
        record.duration_ms = self.duration_ms();
        self.slot.take().map(|slot| (slot, record))
    }

    pub fn duration_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // The task is given up with its lease, which ends by itself.
        if let Some((slot, record)) = self.end(RunOutcome::Lost) {
            drop(slot.write(record));
        }
    }
}
