use std::fmt;

use crate::store::Error;
use crate::telemetry::RunOutcome;

/// Why a pass over the queue did not do all that was due.
#[derive(Debug, thiserror::Error)]
pub enum Halted {
    #[error("the queue does not answer: {0}")]
    Queue(Error),
    #[error("the audit log cannot be written, without which no task is begun")]
    Audit,
}

/// What one pass over the queue did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Tasks of others that were taken over.
    pub adopted: u64,
    /// Runs, in the order of [`RunOutcome::ALL`].
    pub runs: [u64; RunOutcome::ALL.len()],
}

impl Pass {
    /// Counts a run; one that panicked has lost its task.
    pub(in crate::jobs) fn count(&mut self, outcome: Option<RunOutcome>) {
        self.runs[outcome.unwrap_or(RunOutcome::Lost) as usize] += 1;
    }
}

impl fmt::Display for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "adopted {}, processed {}", self.adopted, self.runs.iter().sum::<u64>())?;
        let ended = RunOutcome::ALL.iter().zip(self.runs).filter(|(_, count)| *count > 0);
        for (index, (outcome, count)) in ended.enumerate() {
            write!(f, "{}{} {count}", if index == 0 { ": " } else { ", " }, outcome.as_str())?;
        }
        Ok(())
    }
}
