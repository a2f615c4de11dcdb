//! The audit log: one JSON line per decision, written by a thread of its own.
//!
//! Invariants: a place in the queue is reserved before a request is permitted, so that no permitted request can lack
//! its line while the process lives; what waits is bounded (a stream gives its place back while it is open, and its
//! line may exceed the bound); lines come out whole, in the order they were handed in,
//! also across a disk that was full for a while. Denials that are charged to nobody have their own bounded queue and
//! are aggregated, so that a flood neither fills the disk nor takes places from permitted requests.
//!
//! `written` means handed to the operating system: a killed process loses nothing then, a machine that loses power
//! may. `buffered` may cost a killed process the lines of the last 20 ms.
//!
//! Non-goals: redaction beyond cutting and escaping (records hold no bodies, arguments or tokens), shipping.

mod denials;
mod file;
mod record;
pub mod settings;
#[cfg(test)]
mod tests;
mod writer;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::{Semaphore, oneshot};

use self::denials::Denials;
use self::file::{DailyFile, Sink};
pub use self::record::{Lines, Record};
pub use self::settings::{Durability, Settings};
use crate::base::Clock;
use crate::telemetry::{AuditDrop, Metrics, event};

/// How long [`Audit::reserve`] waits for a place.
const RESERVE_WAIT: Duration = Duration::from_millis(50);

/// No place in the queue became free in time, or the log is closed: permitted calls must be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the audit log has no free place")]
pub struct Full;

/// The record could not be written (yet); it stays queued for the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the audit record is not written")]
pub struct Unwritten;

/// The log could not be flushed before the deadline; so many records are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{lost} audit records could not be written before the deadline")]
pub struct Unflushed {
    pub lost: u64,
}

/// A handle on the audit log; clones share it.
#[derive(Clone)]
pub struct Audit(Arc<Shared>);

/// What the callers and the writer share.
struct Shared {
    durability: Durability,
    capacity: usize,
    min_free_bytes: u64,
    /// Free places. A place is taken by a slot, kept by its record, and given back when the line is written.
    places: Semaphore,
    /// Records to come, or waiting, that hold no place: those of streams.
    unplaced: AtomicUsize,
    state: Mutex<State>,
    denials: Mutex<Denials>,
    /// Wakes the writer.
    work: Condvar,
    /// Tells that the writer ended.
    ended: Condvar,
    /// Writing failed and has not succeeded since.
    failing: AtomicBool,
    /// Free disk is below the watermark.
    disk_low: AtomicBool,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct State {
    queue: Vec<Entry>,
    /// When the first of `queue` was handed in.
    first_at: Option<Instant>,
    reopen: bool,
    /// Set once, by [`Audit::close`]: when the writer gives up at the latest.
    closing: Option<Instant>,
    ended: bool,
    /// What the writer could not write, known when it ended.
    lost: u64,
}

struct Entry {
    record: Record,
    /// Whether it holds one of the places.
    placed: bool,
    waiter: Option<oneshot::Sender<Result<(), Unwritten>>>,
}

impl Audit {
    /// Opens the log and starts its writer.
    ///
    /// # Errors
    /// When the directory or today's file cannot be made, or the thread cannot start.
    pub fn open(settings: &Settings, metrics: Arc<Metrics>, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let mut file = DailyFile::new(&settings.dir, &settings.channel, settings.retain_days)?;
        file.turn(clock.now_ms())?;
        Self::start(settings, Box::new(file), metrics, clock)
    }

    fn start(
        settings: &Settings,
        sink: Box<dyn Sink>,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
    ) -> io::Result<Self> {
        let capacity = settings.queue.clamp(1, Semaphore::MAX_PERMITS);
        let shared = Arc::new(Shared {
            durability: settings.durability,
            capacity,
            min_free_bytes: settings.min_free_bytes,
            places: Semaphore::new(capacity),
            unplaced: AtomicUsize::new(0),
            state: Mutex::default(),
            denials: Mutex::default(),
            work: Condvar::new(),
            ended: Condvar::new(),
            failing: AtomicBool::new(false),
            disk_low: AtomicBool::new(false),
            metrics,
            clock,
        });
        let writer = writer::Writer::new(Arc::clone(&shared), sink);
        // The writer ends with `close`; nobody joins it otherwise.
        std::thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run())?;
        Ok(Self(shared))
    }

    /// A place for one record, waiting at most 50 ms for it.
    ///
    /// # Errors
    /// When none became free, or the log is closed; with `written` also while lines cannot be written, since nothing
    /// that is begun now could keep that promise.
    pub async fn reserve(&self) -> Result<Slot, Full> {
        if self.0.durability == Durability::Written && self.0.failing.load(Ordering::Relaxed) {
            return Err(Full);
        }
        if let Some(slot) = self.try_reserve() {
            return Ok(slot);
        }
        match tokio::time::timeout(RESERVE_WAIT, self.0.places.acquire()).await {
            Ok(Ok(place)) => {
                place.forget();
                Ok(Slot { shared: Some(Arc::clone(&self.0)), placed: true })
            }
            _ => Err(Full),
        }
    }

    /// A place for one record, if one is free now.
    #[must_use]
    pub fn try_reserve(&self) -> Option<Slot> {
        self.0.places.try_acquire().ok()?.forget();
        Some(Slot { shared: Some(Arc::clone(&self.0)), placed: true })
    }

    /// Records a denial that cost its caller nothing. Needs no place, never waits, is aggregated.
    pub fn deny(&self, record: Record) {
        let shared = &self.0;
        if shared.state.lock().closing.is_some() {
            event::audit_dropped(&shared.metrics, AuditDrop::Closed, 1);
            return;
        }
        let now_ms = shared.clock.now_ms();
        if shared.denials.lock().add(record, now_ms) {
            shared.work.notify_one();
        }
    }

    /// Opens the file anew, e.g. after it was moved away.
    pub fn reopen(&self) {
        self.0.state.lock().reopen = true;
        self.0.work.notify_one();
    }

    /// Whether lines are being written, as far as is known.
    #[must_use]
    pub fn writable(&self) -> bool {
        !self.0.failing.load(Ordering::Relaxed)
    }

    /// Whether lines are being written and the disk has room; false fails readiness.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.trouble().is_none()
    }

    /// Why the log is not healthy.
    #[must_use]
    pub fn trouble(&self) -> Option<&'static str> {
        if self.0.failing.load(Ordering::Relaxed) {
            Some("audit_unwritable")
        } else if self.0.disk_low.load(Ordering::Relaxed) {
            Some("audit_disk_low")
        } else {
            None
        }
    }

    /// Takes no more reservations, waits for the slots that are out, flushes and ends the writer; blocks up to
    /// `deadline`. Not for async code: use a blocking task.
    ///
    /// # Errors
    /// When records or slots were still waiting at the deadline.
    pub fn close(&self, deadline: Duration) -> Result<(), Unflushed> {
        let shared = &self.0;
        shared.places.close();
        let until = Instant::now() + deadline;
        let mut state = shared.state.lock();
        state.closing.get_or_insert(until);
        shared.work.notify_one();
        // The writer keeps the deadline itself; the second on top is for a write that hangs in the kernel.
        let patience = until + Duration::from_secs(1);
        while !state.ended {
            if shared.ended.wait_until(&mut state, patience).timed_out() && !state.ended {
                return Err(Unflushed { lost: self.outstanding() });
            }
        }
        if state.lost == 0 { Ok(()) } else { Err(Unflushed { lost: state.lost }) }
    }

    fn outstanding(&self) -> u64 {
        self.0.outstanding()
    }
}

impl Shared {
    /// Slots that are out and records that are not written.
    fn outstanding(&self) -> u64 {
        (self.capacity - self.places.available_permits() + self.unplaced.load(Ordering::Acquire)) as u64
    }
}

/// A place for one record. Dropped without [`Slot::write`], it gives the place back and is counted.
#[must_use = "a slot is there to be written"]
pub struct Slot {
    /// `None` once written.
    shared: Option<Arc<Shared>>,
    /// Whether it holds one of the places.
    placed: bool,
}

impl Slot {
    /// What it is for takes long: the place is given back meanwhile, so that open streams keep nobody out. The record
    /// takes one again if one is free by then, and goes beyond the queue's bound if not: by no more than there are
    /// streams open while nothing can be written.
    pub fn give_place_back(&mut self) {
        if let Some(shared) = self.shared.as_ref().filter(|_| self.placed) {
            shared.unplaced.fetch_add(1, Ordering::AcqRel);
            shared.places.add_permits(1);
            self.placed = false;
        }
    }

    /// Hands the record over. The answer waits for the future only with `audit.durability = "written"`; dropping the
    /// future does not take the record back.
    pub fn write(mut self, record: Record) -> Written {
        let Some(shared) = self.shared.take() else { return Written(None) };
        let (waiter, written) = match shared.durability {
            Durability::Buffered => (None, Written(None)),
            Durability::Written => {
                let (sender, receiver) = oneshot::channel();
                (Some(sender), Written(Some(receiver)))
            }
        };
        let mut state = shared.state.lock();
        if state.ended {
            drop(state);
            event::audit_dropped(&shared.metrics, AuditDrop::Closed, 1);
            return written;
        }
        let mut placed = self.placed;
        if !placed && let Ok(place) = shared.places.try_acquire() {
            place.forget();
            shared.unplaced.fetch_sub(1, Ordering::AcqRel);
            placed = true;
        }
        state.queue.push(Entry { record, placed, waiter });
        let waiting = state.queue.len();
        if waiting == 1 {
            state.first_at = Some(Instant::now());
        }
        drop(state);
        if waiting == 1 || waiting == shared.capacity / 2 {
            shared.work.notify_one();
        }
        written
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            if self.placed {
                shared.places.add_permits(1);
            } else {
                shared.unplaced.fetch_sub(1, Ordering::AcqRel);
            }
            event::audit_dropped(&shared.metrics, AuditDrop::Abandoned, 1);
        }
    }
}

/// Ready at once when buffered; else when the record's group was written, or could not be.
#[must_use = "with durability `written` the answer waits for this"]
pub struct Written(Option<oneshot::Receiver<Result<(), Unwritten>>>);

impl Future for Written {
    type Output = Result<(), Unwritten>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            None => Poll::Ready(Ok(())),
            Some(receiver) => Poll::Ready(ready!(Pin::new(receiver).poll(context)).unwrap_or(Err(Unwritten))),
        }
    }
}

/// A record for tests.
#[cfg(test)]
fn sample(timestamp_ms: u64) -> Record {
    Record {
        timestamp_ms,
        request_id: "0190c2de-5f3a-7d6e-8c11-2f1f3f0f9a10".into(),
        client_request_id: Some("client-1".to_owned()),
        trace_id: "trace-1".into(),
        server_handle: "content".into(),
        method: "tools/call",
        status: 200,
        actor_user_id: Some(7),
        context: "api",
        duration_ms: 3,
        task_id: None,
        run: None,
        rate_limit_identity: "api:7".into(),
        decision: "allow",
        deny_code: None,
        tool: Some("evo.content.search".to_owned()),
        rule: "servers.content.allow_tools[0]".into(),
        policy_revision: 1,
        bytes_in: 150,
        bytes_out: 900,
        peer: Some(std::net::Ipv4Addr::new(192, 0, 2, 1).into()),
        outcome: None,
    }
}
