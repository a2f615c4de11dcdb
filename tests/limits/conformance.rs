//! What every store must do, run against each of them in real time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mcp_sidecar::base::{Clock, Digest, SystemClock};
use mcp_sidecar::limits::{MemoryStore, Store, Verdict};
use mcp_sidecar::policy::{Charge, RateKey, Window};
use mcp_sidecar::protocol::{Method, MethodClass};

use crate::server::{DEADLINE, RedisServer, store};

pub const MINUTE: Window = Window::FromFirstHit { seconds: 60 };
/// Long enough that no answer is late on a busy machine; latency is judged in the tests of failures.
const PATIENT: Duration = Duration::from_secs(5);

pub fn charge(principal: u8, method: Option<Method>, limit: u32, window: Window) -> Charge {
    let method = method.map(MethodClass::Known);
    Charge { key: RateKey { principal: Digest([principal; 16]), server: "content".into(), method }, limit, window }
}

async fn hit(store: &impl Store, charges: &[Charge]) -> Verdict {
    store.reserve(charges, SystemClock.now_ms()).await
}

/// Hits all stores alike from 64 tasks at once and counts what they admitted together.
async fn storm<S: Store + 'static>(stores: &[Arc<S>], charges: &[Charge], each: usize) -> u32 {
    let tasks: Vec<_> = (0..64)
        .map(|task| {
            let (store, charges) = (stores[task % stores.len()].clone(), charges.to_vec());
            tokio::spawn(async move {
                let mut admitted = 0;
                for _ in 0..each {
                    match hit(&*store, &charges).await {
                        Verdict::Admitted => admitted += 1,
                        Verdict::Refused { retry_after_s, .. } => assert!(retry_after_s >= 1),
                        Verdict::Unavailable => panic!("the store is there"),
                    }
                }
                admitted
            })
        })
        .collect();
    let mut admitted = 0;
    for task in tasks {
        admitted += task.await.expect("no panic");
    }
    admitted
}

async fn exactly_the_limit_passes_under_64_tasks<S: Store + 'static>(store: Arc<S>) {
    let one = [charge(1, Some(Method::ToolsCall), 100, MINUTE)];
    assert_eq!(storm(std::slice::from_ref(&store), &one, 20).await, 100);
    let two = [charge(2, Some(Method::ToolsCall), 500, MINUTE), charge(2, None, 77, MINUTE)];
    assert_eq!(storm(&[store], &two, 20).await, 77, "with two charges");
}

async fn windows_end_on_time<S: Store + 'static>(store: Arc<S>) {
    for (principal, window) in [(1, Window::FromFirstHit { seconds: 1 }), (2, Window::Aligned { seconds: 1 })] {
        let charges = [charge(principal, None, 2, window)];
        // An aligned window may end between the hits: until one is full.
        while hit(&*store, &charges).await == Verdict::Admitted {}
        let full = Instant::now();
        // Hits that are refused neither count nor extend, however many there are.
        while hit(&*store, &charges).await != Verdict::Admitted {
            assert!(full.elapsed() < DEADLINE, "{window:?} does not end");
            tokio::task::yield_now().await;
        }
        assert!(full.elapsed() < Duration::from_secs(3), "{window:?} ended after {:?}", full.elapsed());
        if principal == 1 {
            // It opened with the first hit just now, so it is the whole second long.
            let opened = Instant::now();
            assert_eq!(hit(&*store, &charges).await, Verdict::Admitted);
            while hit(&*store, &charges).await != Verdict::Admitted {
                assert!(opened.elapsed() < DEADLINE);
            }
            assert!(opened.elapsed() >= Duration::from_millis(900), "ended after {:?}", opened.elapsed());
        }
    }
}

async fn waits_are_told_in_whole_seconds<S: Store + 'static>(store: Arc<S>) {
    for (principal, window, longest) in [
        (1, MINUTE, 60),
        (2, Window::Aligned { seconds: 60 }, 60),
        (3, Window::FromFirstHit { seconds: 1 }, 1),
        (4, Window::Aligned { seconds: 3_600 }, 3_600),
    ] {
        let charges = [charge(principal, None, 1, window)];
        while hit(&*store, &charges).await == Verdict::Admitted {}
        match hit(&*store, &charges).await {
            Verdict::Refused { retry_after_s, charge: 0 } => {
                assert!((1..=longest).contains(&retry_after_s), "{window:?}: {retry_after_s}");
                if window == MINUTE {
                    assert!(retry_after_s >= 55, "a minute from the first hit: {retry_after_s}");
                }
            }
            // The window of one second may just have ended.
            verdict => assert_eq!((verdict, longest), (Verdict::Admitted, 1)),
        }
    }
}

async fn all_or_none<S: Store + 'static>(store: Arc<S>) {
    let narrow = charge(1, Some(Method::ToolsCall), 1, MINUTE);
    let wide = charge(1, None, 3, MINUTE);
    assert_eq!(hit(&*store, &[narrow.clone(), wide.clone()]).await, Verdict::Admitted);
    for _ in 0..5 {
        let verdict = hit(&*store, &[narrow.clone(), wide.clone()]).await;
        assert!(matches!(verdict, Verdict::Refused { charge: 0, .. }), "{verdict:?}");
        let verdict = hit(&*store, &[wide.clone(), narrow.clone()]).await;
        assert!(matches!(verdict, Verdict::Refused { charge: 1, .. }), "{verdict:?}");
    }
    for _ in 0..2 {
        assert_eq!(hit(&*store, std::slice::from_ref(&wide)).await, Verdict::Admitted, "nothing was taken from it");
    }
    let ping = charge(1, Some(Method::Ping), 1, MINUTE);
    assert!(matches!(hit(&*store, &[ping.clone(), wide]).await, Verdict::Refused { charge: 1, .. }));
    assert_eq!(hit(&*store, &[ping]).await, Verdict::Admitted);
}

async fn buckets_are_apart<S: Store + 'static>(store: Arc<S>) {
    for principal in 0..20 {
        for method in [None, Some(Method::ToolsCall), Some(Method::ToolsList)] {
            for window in [MINUTE, Window::Aligned { seconds: 3_600 }] {
                let charges = [charge(principal, method, 1, window)];
                assert_eq!(hit(&*store, &charges).await, Verdict::Admitted);
                assert!(matches!(hit(&*store, &charges).await, Verdict::Refused { .. }));
            }
        }
    }
    let mut other = charge(0, None, 1, MINUTE);
    other.key.server = "files".into();
    assert_eq!(hit(&*store, &[other]).await, Verdict::Admitted);
}

async fn odd_charges<S: Store + 'static>(store: Arc<S>) {
    assert_eq!(hit(&*store, &[]).await, Verdict::Admitted);
    let none = charge(1, None, 0, MINUTE);
    assert_eq!(hit(&*store, &[none]).await, Verdict::Refused { retry_after_s: 60, charge: 0 });
    assert_eq!(hit(&*store, &[charge(1, None, 1, MINUTE)]).await, Verdict::Admitted);
    let foreign = [charge(1, None, 9, MINUTE), charge(2, None, 9, MINUTE)];
    assert_eq!(hit(&*store, &foreign).await, Verdict::Unavailable);
    // A changed limit keeps the count.
    assert_eq!(hit(&*store, &[charge(1, None, 2, MINUTE)]).await, Verdict::Admitted);
    assert!(matches!(hit(&*store, &[charge(1, None, 2, MINUTE)]).await, Verdict::Refused { .. }));
}

macro_rules! conformance {
    ($($case:ident)*) => {
        mod memory {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $case() {
                super::$case(Arc::new(MemoryStore::default())).await;
            })*
        }

        mod redis {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $case() {
                let server = RedisServer::start();
                super::$case(Arc::new(store(&server.url(), PATIENT))).await;
            })*
        }
    };
}

conformance! {
    exactly_the_limit_passes_under_64_tasks
    windows_end_on_time
    waits_are_told_in_whole_seconds
    all_or_none
    buckets_are_apart
    odd_charges
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_proxies_on_one_redis_admit_exactly_the_limit_together() {
    let server = RedisServer::start();
    let stores: Vec<_> = (0..2).map(|_| Arc::new(store(&server.url(), PATIENT))).collect();
    let charges = [charge(1, Some(Method::ToolsCall), 101, MINUTE), charge(1, None, 5_000, MINUTE)];
    assert_eq!(storm(&stores, &charges, 20).await, 101);
}

#[tokio::test]
async fn proxies_whose_clocks_differ_share_a_window() {
    let server = RedisServer::start();
    let stores = [store(&server.url(), PATIENT), store(&server.url(), PATIENT)];
    for window in [MINUTE, Window::Aligned { seconds: 3_600 }] {
        let charges = [charge(1, None, 10, window)];
        let mut admitted = 0;
        for n in 0..40_u64 {
            let now_ms = if n % 2 == 0 { 0 } else { SystemClock.now_ms() + 86_400_000 };
            let verdict = stores[usize::from(n % 2 == 0)].reserve(&charges, now_ms).await;
            admitted += u32::from(verdict == Verdict::Admitted);
        }
        assert_eq!(admitted, 10, "{window:?}");
    }
}
