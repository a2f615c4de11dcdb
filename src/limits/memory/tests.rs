use proptest::prelude::*;

use super::*;

const FIRST_HIT: Window = Window::FromFirstHit { seconds: 60 };
const ALIGNED: Window = Window::Aligned { seconds: 60 };

fn charge(principal: u8, server: &str, limit: u32, window: Window) -> Charge {
    Charge { key: RateKey { principal: Digest([principal; 16]), server: server.into(), method: None }, limit, window }
}

fn refused(retry_after_s: u32, charge: usize) -> Verdict {
    Verdict::Refused { retry_after_s, charge }
}

#[test]
fn a_window_opens_with_the_first_hit_and_admits_exactly_its_limit() {
    let store = MemoryStore::default();
    let charges = [charge(1, "content", 3, FIRST_HIT)];
    for now in [30_000, 40_000, 89_000] {
        assert_eq!(store.take(&charges, now), Verdict::Admitted, "{now}");
    }
    for (now, wait) in [(89_000, 1), (40_000, 50), (89_999, 1), (30_001, 60)] {
        assert_eq!(store.take(&charges, now), refused(wait, 0), "{now}");
    }
    assert_eq!(store.take(&charges, 90_000), Verdict::Admitted, "what was refused did not extend it");
    assert_eq!(store.take(&charges, 149_000), Verdict::Admitted);
    assert_eq!(store.take(&charges, 149_999), Verdict::Admitted, "nor was it counted");
    assert_eq!(store.take(&charges, 149_999), refused(1, 0));
    assert_eq!(store.len(), 1);
}

#[test]
fn an_aligned_window_ends_with_its_minute() {
    let store = MemoryStore::default();
    let charges = [charge(1, "content", 1, ALIGNED)];
    assert_eq!(store.take(&charges, 59_000), Verdict::Admitted);
    assert_eq!(store.take(&charges, 59_500), refused(1, 0));
    assert_eq!(store.take(&charges, 60_000), Verdict::Admitted);
    assert_eq!(store.take(&charges, 61_000), refused(59, 0));
}

#[test]
fn charges_are_taken_all_or_none_and_the_longest_wait_is_told() {
    let store = MemoryStore::default();
    let narrow = charge(1, "content", 1, FIRST_HIT);
    let wide = charge(1, "*", 3, FIRST_HIT);
    assert_eq!(store.take(&[narrow.clone(), wide.clone()], 0), Verdict::Admitted);
    for _ in 0..5 {
        assert_eq!(store.take(&[narrow.clone(), wide.clone()], 1_000), refused(59, 0));
    }
    assert_eq!(store.take(std::slice::from_ref(&wide), 2_000), Verdict::Admitted);
    assert_eq!(store.take(std::slice::from_ref(&wide), 2_000), Verdict::Admitted, "nothing was taken from it");
    assert_eq!(store.take(&[charge(1, "files", 1, FIRST_HIT), wide.clone()], 2_000), refused(58, 1));
    assert_eq!(store.take(&[charge(1, "files", 1, FIRST_HIT)], 2_000), Verdict::Admitted);
    assert_eq!(store.take(&[charge(1, "files", 1, FIRST_HIT), wide], 2_000), refused(60, 0), "files ends last");
}

#[test]
fn no_charges_are_no_work_and_foreign_principals_do_not_mix() {
    let store = MemoryStore::default();
    assert_eq!(store.take(&[], 0), Verdict::Admitted);
    assert!(store.is_empty());
    let mixed = [charge(1, "content", 9, FIRST_HIT), charge(2, "content", 9, FIRST_HIT)];
    assert_eq!(store.take(&mixed, 0), Verdict::Unavailable);
    for principal in 0..100 {
        let charges = [charge(principal, "content", 1, FIRST_HIT)];
        assert_eq!(store.take(&charges, 0), Verdict::Admitted);
        assert_eq!(store.take(&charges, 0), refused(60, 0));
    }
}

#[test]
fn a_changed_limit_keeps_the_count() {
    let store = MemoryStore::default();
    for _ in 0..5 {
        assert_eq!(store.take(&[charge(1, "content", 5, FIRST_HIT)], 0), Verdict::Admitted);
    }
    assert_eq!(store.take(&[charge(1, "content", 2, FIRST_HIT)], 0), refused(60, 0));
    assert_eq!(store.take(&[charge(1, "content", 6, FIRST_HIT)], 0), Verdict::Admitted);
    assert_eq!(store.take(&[charge(1, "content", 0, FIRST_HIT)], 90_000), refused(60, 0), "0 admits nothing");
}

#[test]
fn a_full_store_refuses_newcomers_until_a_window_ends() {
    let store = MemoryStore::sharded(4, 1);
    for principal in 0..4 {
        let now = u64::from(principal) * 1_000;
        assert_eq!(store.take(&[charge(principal, "content", 9, FIRST_HIT)], now), Verdict::Admitted);
    }
    assert_eq!(store.take(&[charge(9, "content", 9, FIRST_HIT)], 10_000), refused(50, 0));
    assert_eq!(store.take(&[charge(2, "content", 9, FIRST_HIT)], 10_000), Verdict::Admitted, "it has its bucket");
    assert_eq!(store.len(), 4);
    assert_eq!(store.take(&[charge(9, "content", 9, FIRST_HIT)], 60_000), Verdict::Admitted);
    assert_eq!(store.len(), 4);
    assert_eq!(store.take(&[charge(10, "content", 9, FIRST_HIT)], 600_000), Verdict::Admitted);
    assert_eq!(store.len(), 1, "the sweep took all that had ended");
}

#[test]
fn passing_callers_do_not_pile_up() {
    let store = MemoryStore::default();
    for caller in 0..200_000_u64 {
        let principal = Digest::of(&[&caller.to_be_bytes()]);
        let key = RateKey { principal, server: "content".into(), method: None };
        let charges = [Charge { key, limit: 1, window: FIRST_HIT }];
        assert_eq!(store.take(&charges, caller * 100), Verdict::Admitted);
    }
    assert!(store.len() < 8_000, "600 windows run at a time, {} buckets are held", store.len());
}

#[test]
fn a_clock_set_back_neither_opens_nor_locks_a_window() {
    let store = MemoryStore::default();
    let charges = [charge(1, "content", 1, FIRST_HIT)];
    assert_eq!(store.take(&charges, 10_000_000), Verdict::Admitted);
    assert_eq!(store.take(&charges, 9_999_500), refused(61, 0), "two threads' readings");
    assert_eq!(store.take(&charges, 1_000_000), refused(60, 0));
    assert_eq!(store.take(&charges, 1_060_000), Verdict::Admitted);
}

#[test]
fn threads_share_a_window_exactly() {
    let store = MemoryStore::default();
    let admitted: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let charges = [charge(1, "content", 1_000, FIRST_HIT), charge(1, "*", 5_000, FIRST_HIT)];
                    (0..500).filter(|_| store.take(&charges, 0) == Verdict::Admitted).count()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    });
    assert_eq!(admitted, 1_000);
}

proptest! {
    /// Against the plainest model there is: a list of when each window opened and what it counted.
    #[test]
    fn any_sequence_of_hits_is_judged_like_the_model(
        limit in 1_u32..5,
        aligned in any::<bool>(),
        steps in proptest::collection::vec(0_u64..25_000, 1..80),
    ) {
        let store = MemoryStore::default();
        let window = if aligned { ALIGNED } else { FIRST_HIT };
        let charges = [charge(1, "content", limit, window)];
        let (mut now, mut end, mut count) = (7_000, 0, 0);
        for step in steps {
            now += step;
            if now >= end {
                count = 0;
                end = if aligned { now - now % 60_000 + 60_000 } else { now + 60_000 };
            }
            let expected = if count < limit {
                count += 1;
                Verdict::Admitted
            } else {
                refused(u32::try_from((end - now).div_ceil(1_000)).expect("small"), 0)
            };
            prop_assert_eq!(store.take(&charges, now), expected);
        }
    }
}
