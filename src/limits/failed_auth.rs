use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::net::IpAddr;

use parking_lot::Mutex;

use super::retry_after_s;

const WINDOW_MS: u64 = 60_000;
const SHARDS: usize = 16;
/// Addresses per shard: 65,536 in all, 3 MiB at most.
const CAPACITY: usize = 4_096;
/// How many entries are looked at for one to give up when a shard is full.
const SAMPLE: usize = 8;

/// Failed authentications per address, in a minute from the first of them. In memory only: it protects this process.
///
/// IPv6 addresses count by their /64, which is what one client has. When more addresses fail than fit, the one with
/// the fewest failures among some gives way, so that a flood of addresses neither grows memory nor locks out others.
#[derive(Debug)]
pub struct FailedAuth {
    shards: Box<[Mutex<HashMap<u128, Failures>>]>,
    hasher: RandomState,
    capacity: usize,
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    ends_ms: u64,
}

impl Default for FailedAuth {
    fn default() -> Self {
        Self::with_capacity(CAPACITY)
    }
}

impl FailedAuth {
    /// Nothing recorded yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn with_capacity(capacity: usize) -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), hasher: RandomState::new(), capacity }
    }

    /// Whether `address` may try to authenticate. A `limit_per_minute` of 0 is off.
    ///
    /// # Errors
    /// Seconds until it may, at least 1.
    pub fn check(&self, address: IpAddr, limit_per_minute: u32, now_ms: u64) -> Result<(), u32> {
        if limit_per_minute == 0 {
            return Ok(());
        }
        let key = group(address);
        match self.shard(key).lock().get(&key) {
            Some(failures) if failures.is_live(now_ms) && failures.count >= limit_per_minute => {
                Err(retry_after_s(failures.ends_ms - now_ms))
            }
            _ => Ok(()),
        }
    }

    /// Notes a failed authentication.
    pub fn record(&self, address: IpAddr, now_ms: u64) {
        let key = group(address);
        let mut shard = self.shard(key).lock();
        if shard.len() >= self.capacity && !shard.contains_key(&key) {
            make_room(&mut shard, self.capacity, now_ms);
        }
        let first = Failures { count: 1, ends_ms: now_ms.saturating_add(WINDOW_MS) };
        match shard.entry(key) {
            Entry::Occupied(mut entry) if entry.get().is_live(now_ms) => {
                let failures = entry.get_mut();
                failures.count = failures.count.saturating_add(1);
            }
            Entry::Occupied(mut entry) => *entry.get_mut() = first,
            Entry::Vacant(entry) => {
                entry.insert(first);
            }
        }
    }

    fn shard(&self, key: u128) -> &Mutex<HashMap<u128, Failures>> {
        let hash = self.hasher.hash_one(key);
        &self.shards[usize::try_from(hash % self.shards.len() as u64).unwrap_or_default()]
    }
}

impl Failures {
    /// Whether its minute still runs; one that lies further ahead was opened before the clock was set back.
    const fn is_live(self, now_ms: u64) -> bool {
        self.ends_ms > now_ms && self.ends_ms - now_ms <= 2 * WINDOW_MS
    }
}

/// What one client is taken to have: an IPv4 address, or a /64 of IPv6.
#[must_use]
pub fn group(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(address) => u128::from(address.to_ipv6_mapped()),
        IpAddr::V6(address) => u128::from(address) >> 64 << 64,
    }
}

/// Frees at least one place: everything that has expired when a sample finds any of it, else the entry with the
/// fewest failures of the sample.
fn make_room(shard: &mut HashMap<u128, Failures>, capacity: usize, now_ms: u64) {
    let sampled = shard.iter().take(SAMPLE);
    let expired = sampled.clone().any(|(_, failures)| !failures.is_live(now_ms));
    if expired {
        shard.retain(|_, failures| failures.is_live(now_ms));
    }
    while shard.len() >= capacity.max(1) {
        let fewest = shard.iter().take(SAMPLE).min_by_key(|(_, failures)| failures.count).map(|(key, _)| *key);
        match fewest {
            Some(key) => shard.remove(&key),
            None => break,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_address_waits_after_its_failures() {
        let failed = FailedAuth::new();
        let address = ip("203.0.113.7");
        for now in [1_000, 2_000, 3_000] {
            assert_eq!(failed.check(address, 3, now), Ok(()));
            failed.record(address, now);
        }
        assert_eq!(failed.check(address, 3, 3_000), Err(58));
        assert_eq!(failed.check(address, 3, 60_999), Err(1));
        assert_eq!(failed.check(address, 3, 61_000), Ok(()));
        assert_eq!(failed.check(address, 0, 3_000), Ok(()), "0 is off");
        failed.record(address, 61_000);
        assert_eq!(failed.check(address, 2, 61_000), Ok(()), "a new minute starts at one");
        assert_eq!(failed.check(address, 1, 61_000), Err(60));
    }

    #[test]
    fn addresses_of_one_client_count_together() {
        let cases = [
            ("2001:db8::1", "2001:db8::ffff:1", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
            ("203.0.113.7", "::ffff:203.0.113.7", true),
            ("203.0.113.7", "203.0.113.8", false),
            ("::1", "0.0.0.1", false),
        ];
        for (failing, asking, together) in cases {
            let failed = FailedAuth::new();
            failed.record(ip(failing), 0);
            assert_eq!(failed.check(ip(asking), 1, 0).is_err(), together, "{failing} {asking}");
        }
    }

    #[test]
    fn a_flood_of_addresses_stays_bounded_and_spares_the_worst() {
        let failed = FailedAuth::with_capacity(64);
        let worst = ip("203.0.113.7");
        for _ in 0..100 {
            failed.record(worst, 0);
        }
        for n in 0..100_000_u32 {
            failed.record(IpAddr::from(n.to_be_bytes()), 1_000);
        }
        let held: usize = failed.shards.iter().map(|shard| shard.lock().len()).sum();
        assert!(held <= 64 * SHARDS, "{held}");
        assert!(failed.check(worst, 10, 1_000).is_err());
    }
}
