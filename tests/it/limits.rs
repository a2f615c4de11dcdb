//! Exactly `limit` calls pass in a window, alone and shared.

use crate::harness::{Redis, Sidecar};

/// A loaded machine must not make Redis look away: what is counted then is counted locally.
const PATIENT: &str = "redis.timeout_ms=5000";

#[test]
fn thirty_pass_and_the_next_is_429() {
    let sidecar = Sidecar::start().raw("rate_limit.per_minute", 30).go();
    let statuses: Vec<_> = (0..30).map(|_| sidecar.call("raw.echo").status).collect();
    assert_eq!(statuses, vec![200; 30]);
    let refused = sidecar.call("raw.echo");
    assert_eq!((refused.status, refused.code().as_deref()), (429, Some("rate_limited")));
    let wait: u32 = refused.header("retry-after").expect("is sent").parse().expect("seconds");
    assert!((1..=60).contains(&wait), "{wait}");
    sidecar.finish();
}

#[test]
fn two_sidecars_on_one_redis_share_the_limit_exactly() {
    let redis = Redis::start();
    let pair =
        [(); 2].map(|()| Sidecar::start().raw("rate_limit.per_minute", 20).set(redis.setting()).set(PATIENT).go());
    let passed = std::thread::scope(|scope| {
        let threads = pair
            .each_ref()
            .map(|sidecar| scope.spawn(|| (0..30).filter(|_| sidecar.call("raw.echo").status == 200).count()));
        threads.map(|thread| thread.join().expect("no panic")).iter().sum::<usize>()
    });
    assert_eq!(passed, 20);
    for sidecar in pair {
        sidecar.finish();
    }
}
