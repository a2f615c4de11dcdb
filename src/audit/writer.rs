use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::file::Sink;
use super::record::Lines;
use super::{Durability, Entry, Shared, Unwritten};
use crate::telemetry::{AuditDrop, AuditQueue, event};

/// How long buffered records gather.
const FLUSH: Duration = Duration::from_millis(20);
/// How often the disk is looked at and seconds of denials are closed.
const TICK: Duration = Duration::from_secs(1);
/// Between two attempts at a disk that fails.
const RETRY: Duration = Duration::from_millis(100);
/// A buffer that one large group has grown beyond this is given back.
const KEEP_BYTES: usize = 1 << 20;

/// The thread that writes. Holds at most one group of lines; while that cannot be written it takes no further one,
/// so that the places stay taken and callers are told.
pub(super) struct Writer {
    shared: Arc<Shared>,
    sink: Box<dyn Sink>,
    group: Group,
    /// Reused for the next swap with the queue.
    spare: Vec<Entry>,
    next_tick: Instant,
    failing_since: Option<Instant>,
}

/// Lines on their way to the sink.
#[derive(Default)]
struct Group {
    lines: Lines,
    /// Bytes of `lines` that the sink has taken.
    done: usize,
    /// Records among the lines.
    records: usize,
    /// Places to give back.
    places: usize,
    denials: u64,
    summaries: u64,
    first_at: Option<Instant>,
    waiters: Vec<oneshot::Sender<Result<(), Unwritten>>>,
}

impl Group {
    fn is_empty(&self) -> bool {
        self.lines.buffer.is_empty()
    }
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, sink: Box<dyn Sink>) -> Self {
        Self {
            shared,
            sink,
            group: Group::default(),
            spare: Vec::new(),
            next_tick: Instant::now(),
            failing_since: None,
        }
    }

    pub(super) fn run(mut self) {
        loop {
            let closing = self.wait();
            if Instant::now() >= self.next_tick {
                self.tick();
            }
            if self.group.is_empty() {
                self.gather(closing.is_some());
            }
            self.flush();
            if let Some(until) = closing
                && (self.finished() || Instant::now() >= until)
            {
                self.end();
                return;
            }
        }
    }

    /// Sleeps until there is something to do; `Some` once the log is closing.
    fn wait(&mut self) -> Option<Instant> {
        let shared = &self.shared;
        let mut state = shared.state.lock();
        let stuck_until = self.failing_since.map(|_| Instant::now() + RETRY);
        loop {
            let now = Instant::now();
            let mut wake = self.next_tick;
            if let Some(until) = stuck_until {
                wake = wake.min(until);
            } else if state.closing.is_some() {
                // Slots that are still out come back without a signal.
                wake = if state.queue.is_empty() { now + Duration::from_millis(2) } else { now };
            } else if let Some(first_at) = state.first_at {
                let full = state.queue.len() >= (shared.capacity / 2).max(1);
                let gathered = full || shared.durability == Durability::Written;
                wake = wake.min(if gathered { now } else { first_at + FLUSH });
            }
            if state.reopen {
                state.reopen = false;
                self.sink.reopen();
                wake = now;
            }
            if wake <= now {
                return state.closing;
            }
            let woken = !shared.work.wait_until(&mut state, wake).timed_out();
            let retry_due = stuck_until.is_some_and(|until| Instant::now() >= until);
            if retry_due || (state.closing.is_some() && state.queue.is_empty()) || (woken && state.queue.is_empty()) {
                return state.closing;
            }
        }
    }

    /// Once a second: free disk, seconds of denials, the lag while nothing can be written.
    fn tick(&mut self) {
        self.next_tick = Instant::now() + TICK;
        let shared = &self.shared;
        if let Some(free) = self.sink.free_bytes() {
            shared.metrics.audit_disk_free(free);
            let low = free < shared.min_free_bytes;
            if shared.disk_low.swap(low, Ordering::Relaxed) != low {
                event::audit_disk(low, free);
            }
        }
        shared.denials.lock().turn(shared.clock.now_ms());
        if let Some(first_at) = self.group.first_at {
            shared.metrics.audit_lag(first_at.elapsed());
        }
        shared.metrics.audit_queue(self.group.records + shared.state.lock().queue.len());
    }

    /// Takes everything that waits into the group.
    fn gather(&mut self, closing: bool) {
        let shared = &self.shared;
        let group = &mut self.group;
        {
            let mut state = shared.state.lock();
            std::mem::swap(&mut state.queue, &mut self.spare);
            group.first_at = state.first_at.take();
        }
        for entry in self.spare.drain(..) {
            group.lines.record(&entry.record);
            group.records += 1;
            group.places += usize::from(entry.placed);
            group.waiters.extend(entry.waiter);
        }
        let (whole, summaries, dropped) = {
            let mut denials = shared.denials.lock();
            if closing {
                denials.finish();
            } else {
                denials.turn(shared.clock.now_ms());
            }
            denials.take()
        };
        for record in &whole {
            group.lines.record(record);
        }
        for summary in &summaries {
            group.lines.summary(summary);
        }
        group.denials = whole.len() as u64;
        group.summaries = summaries.len() as u64;
        if dropped > 0 {
            event::audit_dropped(&shared.metrics, AuditDrop::DenialQueue, dropped);
        }
        if !group.is_empty() {
            group.first_at.get_or_insert_with(Instant::now);
        }
    }

    /// Tries to write the rest of the group, and settles it when that worked.
    fn flush(&mut self) {
        if self.group.is_empty() {
            // Turns the day and reopens also while nothing happens, so that retention does not wait for traffic.
            if let Err(error) = self.sink.turn(self.shared.clock.now_ms()) {
                self.failed(&error);
            } else {
                self.worked();
            }
            return;
        }
        match self.write() {
            Ok(()) => {
                self.worked();
                self.settle();
            }
            Err(error) => {
                self.failed(&error);
                // Whoever waits is told now, also those behind this group; the records stay and are tried again.
                let mut state = self.shared.state.lock();
                let behind = state.queue.iter_mut().filter_map(|entry| entry.waiter.take());
                for waiter in self.group.waiters.drain(..).chain(behind) {
                    let _ = waiter.send(Err(Unwritten));
                }
            }
        }
    }

    fn write(&mut self) -> io::Result<()> {
        let Group { lines, done, .. } = &mut self.group;
        if self.sink.turn(self.shared.clock.now_ms())? {
            // Another file: a line that was half written begins again there, whole.
            *done = memchr::memrchr(b'\n', &lines.buffer[..*done]).map_or(0, |end| end + 1);
        }
        while *done < lines.buffer.len() {
            match self.sink.write(&lines.buffer[*done..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => *done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn settle(&mut self) {
        let metrics = &self.shared.metrics;
        let group = &mut self.group;
        metrics.audit_written(AuditQueue::Decision, group.records as u64);
        metrics.audit_written(AuditQueue::Denial, group.denials);
        metrics.audit_written(AuditQueue::Summary, group.summaries);
        metrics.audit_lag(group.first_at.take().map_or(Duration::ZERO, |first_at| first_at.elapsed()));
        metrics.audit_queue(self.shared.state.lock().queue.len());
        let unplaced = std::mem::take(&mut group.records) - group.places;
        self.shared.unplaced.fetch_sub(unplaced, Ordering::AcqRel);
        self.shared.places.add_permits(std::mem::take(&mut group.places));
        for waiter in group.waiters.drain(..) {
            let _ = waiter.send(Ok(()));
        }
        group.lines.buffer.clear();
        group.lines.buffer.shrink_to(KEEP_BYTES);
        group.done = 0;
        group.denials = 0;
        group.summaries = 0;
    }

    fn failed(&mut self, error: &io::Error) {
        self.failing_since.get_or_insert_with(Instant::now);
        self.shared.failing.store(true, Ordering::Relaxed);
        // The kind and the system's own text; a path is no secret, but it is not in either.
        event::audit_write_failed(&self.shared.metrics, &error.to_string());
    }

    fn worked(&mut self) {
        if let Some(since) = self.failing_since.take() {
            self.shared.failing.store(false, Ordering::Relaxed);
            event::audit_recovered(u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX));
        }
    }

    /// Whether nothing waits and no slot is out.
    fn finished(&self) -> bool {
        self.group.is_empty() && self.shared.state.lock().queue.is_empty() && self.shared.outstanding() == 0
    }

    fn end(&mut self) {
        let mut state = self.shared.state.lock();
        // What is in the group and was not written, what came after it, and slots that never wrote.
        let lost = self.shared.outstanding();
        let unwritten = (self.group.records + state.queue.len()) as u64 + self.group.denials;
        state.queue.clear();
        // Counted before anybody learns of the end, and under the lock, so that no record slips in between.
        if unwritten > 0 {
            event::audit_dropped(&self.shared.metrics, AuditDrop::Closed, unwritten);
        }
        state.lost = lost;
        state.ended = true;
        self.shared.ended.notify_all();
    }
}
