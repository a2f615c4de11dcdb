//! What the load has seen, by turn, and what it may see in each.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::harness::eventually;
use crate::members::Member;

/// Anything that must happen happens within this, or the test fails.
const DEADLINE: Duration = Duration::from_secs(60);

/// Who dies, or stands still for longer than its leases last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Nobody,
    Database,
    Redis,
    Member(Member),
    /// A worker, of which others have ended the task when it goes on.
    Frozen(usize),
    /// A worker that says that its task is done when another run of it has begun.
    Late(usize),
}

impl Turn {
    /// Whether a call may fail in this way while it is this one's turn; everything else is a defect.
    fn excuses(self, failure: &str) -> bool {
        match self {
            // Nobody waits for a worker, and Redis has a stand-in.
            Self::Nobody | Self::Redis | Self::Member(Member::Worker(_)) | Self::Frozen(_) | Self::Late(_) => false,
            Self::Database => ["-32603", "503 async_unavailable"].contains(&failure),
            Self::Member(Member::Executor(_)) => failure == "502 upstream_failed",
            Self::Member(Member::Sidecar(_)) => ["refused", "cut"].contains(&failure),
        }
    }
}

/// An answer that a client has in hands.
#[derive(Clone, Debug)]
pub struct Answered {
    pub door: usize,
    pub request_id: String,
    pub status: u16,
}

/// A call that failed: the turns in which it began and ended, and how.
#[derive(Clone, Debug)]
struct Failure {
    began: usize,
    ended: usize,
    how: String,
}

/// How far the load has come.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// Right answers to direct calls, by sidecar.
    pub right: [usize; 2],
    /// Tasks taken.
    pub accepted: usize,
    /// Tasks whose right result was seen.
    pub completed: usize,
    failures: usize,
}

#[derive(Default)]
pub struct Tally {
    turns: Mutex<Vec<Turn>>,
    over: AtomicBool,
    broken: AtomicBool,
    right: [AtomicUsize; 2],
    pub accepted: AtomicUsize,
    pub completed: AtomicUsize,
    failures: Mutex<Vec<Failure>>,
    answered: Mutex<Vec<Answered>>,
}

impl Tally {
    /// From now on it is this one's turn.
    pub fn begin(&self, turn: Turn) {
        self.turns.lock().expect("whole").push(turn);
    }

    /// The index of the turn of now.
    pub fn turn(&self) -> usize {
        self.turns.lock().expect("whole").len() - 1
    }

    pub fn turns(&self) -> Vec<Turn> {
        self.turns.lock().expect("whole").clone()
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst) || self.broken.load(Ordering::SeqCst)
    }

    pub fn answered(&self, answered: Answered) {
        self.answered.lock().expect("whole").push(answered);
    }

    pub fn answers(&self) -> Vec<Answered> {
        self.answered.lock().expect("whole").clone()
    }

    pub fn right(&self, door: usize) {
        self.right[door].fetch_add(1, Ordering::SeqCst);
    }

    pub fn failed(&self, began: usize, how: impl Into<String>) {
        let failure = Failure { began, ended: self.turn(), how: how.into() };
        self.failures.lock().expect("whole").push(failure);
    }

    pub fn mark(&self) -> Mark {
        let count = |number: &AtomicUsize| number.load(Ordering::SeqCst);
        Mark {
            right: self.right.each_ref().map(count),
            accepted: count(&self.accepted),
            completed: count(&self.completed),
            failures: self.failures.lock().expect("whole").len(),
        }
    }

    /// Whether calls have failed in this way since.
    pub fn has_failed(&self, since: &Mark, how: &str) -> bool {
        self.failures.lock().expect("whole")[since.failures..].iter().any(|failure| failure.how == how)
    }

    /// Waits for the load to come to this, counted from now.
    pub fn until(&self, what: &str, mut done: impl FnMut(&Mark, &Mark) -> bool) {
        let from = self.mark();
        eventually(what, DEADLINE, || {
            assert!(!self.broken.load(Ordering::SeqCst), "the load has ended by itself");
            done(&from, &self.mark()).then_some(())
        });
    }

    /// How calls failed in each turn, where something was dead that they needed. Panics for every other failure.
    pub fn excused(&self) -> Vec<(Turn, String, usize)> {
        let turns = self.turns();
        let mut counts: Vec<(Turn, String, usize)> = Vec::new();
        for failure in self.failures.lock().expect("whole").iter() {
            let between = &turns[failure.began..=failure.ended];
            let Some(turn) = between.iter().find(|turn| turn.excuses(&failure.how)) else {
                panic!("{} while it was the turn of {between:?}", failure.how)
            };
            match counts.iter_mut().find(|(of, how, _)| (of, how) == (turn, &failure.how)) {
                Some((.., count)) => *count += 1,
                None => counts.push((*turn, failure.how.clone(), 1)),
            }
        }
        counts
    }
}

/// Held by each thread of the load: a panic in one ends all.
pub struct Alarm<'a>(pub &'a Tally);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.broken.store(true, Ordering::SeqCst);
        }
    }
}

/// Ends the load when it is dropped, whatever else happens.
pub struct Over<'a>(pub &'a Tally);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::SeqCst);
    }
}
