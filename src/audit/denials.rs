use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::record::Record;

/// Whole lines and summaries that may wait, each.
const WAITING: usize = 1024;
/// Callers and codes told apart within one second; beyond, repeats are counted without saying whose.
const TOLD_APART: usize = 256;

/// Address, identity for rates, code.
type Key = (Option<IpAddr>, Option<Arc<str>>, &'static str);

/// The repeats of one second.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) second: u64,
    pub(super) peer: Option<IpAddr>,
    pub(super) identity: Option<Arc<str>>,
    pub(super) code: &'static str,
    pub(super) repeats: u64,
}

/// Denials that cost their caller nothing, before authentication and after: they can be caused without end, so they are
/// aggregated per caller and second and have bounded queues of their own.
#[derive(Debug, Default)]
pub(super) struct Denials {
    second: u64,
    repeats: HashMap<Key, u64>,
    whole: Vec<Record>,
    summaries: Vec<Summary>,
    /// Denials that no line will tell of.
    dropped: u64,
}

impl Denials {
    /// Takes one denial in at `now_ms`. True when something waits that did not before.
    pub(super) fn add(&mut self, record: Record, now_ms: u64) -> bool {
        self.turn(now_ms);
        let code = record.deny_code.unwrap_or("unknown");
        let key = (record.peer, Some(Arc::clone(&record.rate_limit_identity)), code);
        if let Some(repeats) = self.repeats.get_mut(&key) {
            *repeats += 1;
            return false;
        }
        if self.repeats.len() >= TOLD_APART {
            // Codes are a closed set, so that this part is bounded, too.
            *self.repeats.entry((None, None, code)).or_insert(0) += 1;
            return false;
        }
        if self.whole.len() >= WAITING {
            // The summary will tell of it, as long as there is room for one.
            self.repeats.insert(key, 1);
            return false;
        }
        self.repeats.insert(key, 0);
        self.whole.push(record);
        self.whole.len() == 1
    }

    /// Closes the seconds before `now_ms`.
    pub(super) fn turn(&mut self, now_ms: u64) {
        let second = now_ms / 1000;
        if second != self.second {
            self.finish();
            self.second = second;
        }
    }

    /// Closes the current second.
    pub(super) fn finish(&mut self) {
        let mut ended: Vec<(Key, u64)> = self.repeats.drain().filter(|(_, repeats)| *repeats > 0).collect();
        ended.sort_unstable();
        for ((peer, identity, code), repeats) in ended {
            if self.summaries.len() < WAITING {
                self.summaries.push(Summary { second: self.second, peer, identity, code, repeats });
            } else {
                self.dropped += repeats;
            }
        }
    }

    /// Takes what waits: whole lines, summaries, and how many denials were lost.
    pub(super) fn take(&mut self) -> (Vec<Record>, Vec<Summary>, u64) {
        (std::mem::take(&mut self.whole), std::mem::take(&mut self.summaries), std::mem::take(&mut self.dropped))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::sample;
    use super::*;

    fn denial(address: u32, code: &'static str) -> Record {
        Record { peer: Some(Ipv4Addr::from(address).into()), deny_code: Some(code), ..sample(0) }
    }

    #[test]
    fn callers_of_one_address_are_told_apart() {
        let mut denials = Denials::default();
        for name in ["api:alice", "api:bob", "api:bob"] {
            denials.add(Record { rate_limit_identity: name.into(), ..denial(1, "rate_limited") }, 0);
        }
        denials.turn(1000);
        let (whole, summaries, _) = denials.take();
        assert_eq!(whole.len(), 2);
        assert_eq!(summaries.len(), 1);
        assert_eq!((summaries[0].identity.as_deref(), summaries[0].repeats), (Some("api:bob"), 1));
    }

    #[test]
    fn repeats_of_a_second_become_one_line_per_address_and_code() {
        let mut denials = Denials::default();
        for (address, code, now) in
            [(1, "a", 0), (1, "a", 10), (1, "a", 999), (1, "b", 999), (2, "a", 999), (1, "a", 1000), (1, "a", 1001)]
        {
            denials.add(denial(address, code), now);
        }
        denials.turn(2000);
        let (whole, summaries, dropped) = denials.take();
        assert_eq!((whole.len(), dropped), (4, 0));
        let peer = Some(Ipv4Addr::from(1).into());
        let identity = Some(sample(0).rate_limit_identity);
        let first = Summary { second: 0, peer, identity: identity.clone(), code: "a", repeats: 2 };
        assert_eq!(summaries, [first, Summary { second: 1, peer, identity, code: "a", repeats: 1 }]);
    }

    #[test]
    fn a_flood_from_everywhere_is_bounded_and_counted_exactly() {
        let mut denials = Denials::default();
        let (seconds, addresses) = (20_u64, 5_000_u32);
        for second in 0..seconds {
            for address in 0..addresses {
                denials.add(denial(address, "unauthenticated"), second * 1000);
            }
        }
        denials.turn(seconds * 1000);
        let (whole, summaries, dropped) = denials.take();
        assert!(whole.len() <= WAITING && summaries.len() <= WAITING);
        let told: u64 = summaries.iter().map(|summary| summary.repeats).sum();
        assert_eq!(whole.len() as u64 + told + dropped, seconds * u64::from(addresses));
    }
}
