//! A caller with few calls a minute, who asks for more all the time; another one in each turn.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::corpus::Call;
use crate::harness::Token;
use crate::load::{Load, post};
use crate::members::{Member, NARROW};
use crate::tally::{Alarm, Turn};
use crate::wire::{Door, Loss};

const PACE: Duration = Duration::from_millis(20);
/// A window of `per_minute`.
const WINDOW: Duration = Duration::from_secs(60);

/// What one caller met.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    first: Option<Instant>,
    last: Option<Instant>,
    admitted: usize,
    refused: usize,
    /// Sent, and never answered: nobody can say whether they were admitted.
    unsure: usize,
}

impl Count {
    /// Whether the caller has asked for much more than is allowed.
    fn is_full(&self) -> bool {
        self.refused >= NARROW
    }

    /// Panics unless the limit was kept to the last call.
    pub fn check(&self, turn: Turn) {
        let (Some(first), Some(last)) = (self.first, self.last) else { panic!("{turn:?}: nobody asked") };
        // A slow machine may take more than a minute for a turn.
        let windows = 1 + usize::try_from((last - first).as_secs() / WINDOW.as_secs()).expect("few");
        let most = match turn {
            // The share of each of two replicas while Redis is away, and all of it again when Redis has forgotten.
            Turn::Redis => NARROW + 2 * (NARROW / 2) + NARROW,
            _ => NARROW,
        };
        assert!(self.admitted <= windows * most, "{turn:?}: {self:?}");
        assert!(self.admitted + self.unsure >= NARROW, "{turn:?}: {self:?}");
        let dies = matches!(turn, Turn::Member(Member::Sidecar(_)));
        assert!(dies || self.unsure == 0, "{turn:?}: {self:?}");
    }
}

/// The counts of each turn.
#[derive(Default)]
pub struct Limited {
    counts: Mutex<Vec<Count>>,
}

impl Limited {
    /// Asks by turns over both sidecars until the load is over.
    pub fn ask(&self, load: &Load<'_>, call: &Call) {
        let _alarm = Alarm(load.tally);
        let mut doors = load.doors.map(Door::new);
        for number in 0.. {
            if load.tally.is_over() {
                return;
            }
            let turn = load.tally.turn();
            let token = Token::of(&format!("limited-{turn}")).sign();
            let id = format!("limited-{number}");
            let asked = load.ask(&mut doors, number % 2, &post("narrow", &token, &call.body(&id)));
            self.count(turn, |count| match &asked {
                Ok(answer) if answer.status == 429 => count.refused += 1,
                Ok(answer) => {
                    assert_eq!((answer.status, call.wrong(&id, &answer.json())), (200, None));
                    count.admitted += 1;
                }
                // Admitted, and then met something dead.
                Err(None) => count.admitted += 1,
                Err(Some(Loss::Cut)) => count.unsure += 1,
                Err(Some(Loss::Refused)) => {}
            });
            std::thread::park_timeout(PACE);
        }
    }

    fn count(&self, turn: usize, add: impl FnOnce(&mut Count)) {
        let mut counts = self.counts.lock().expect("whole");
        if counts.len() <= turn {
            counts.resize(turn + 1, Count::default());
        }
        let count = &mut counts[turn];
        count.first.get_or_insert_with(Instant::now);
        add(count);
        count.last = Some(Instant::now());
    }

    /// Whether the caller of this turn has met its limit.
    pub fn is_full(&self, turn: usize) -> bool {
        self.counts.lock().expect("whole").get(turn).is_some_and(Count::is_full)
    }

    pub fn counts(self) -> Vec<Count> {
        self.counts.into_inner().expect("whole")
    }
}
