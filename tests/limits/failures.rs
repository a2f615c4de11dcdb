//! Redis misbehaving: how many are admitted then, and how long anybody waits.

use std::time::{Duration, Instant};

use mcp_sidecar::base::{Clock, SystemClock};
use mcp_sidecar::limits::{Limits, Mode, Store, Verdict};
use mcp_sidecar::policy::{Charge, OnStoreFailure, RateLimitPolicy};
use mcp_sidecar::protocol::Method;
use mcp_sidecar::redis::{Connection, warnings};
use mcp_sidecar::telemetry::StoreError;

use crate::chaos::Chaos;
use crate::conformance::{MINUTE, charge};
use crate::server::{DEADLINE, RedisServer, settings, store};
use crate::vacant;

/// Longer than in production (25 ms), so that a busy machine is not taken for a failing Redis.
const TIMEOUT: Duration = Duration::from_millis(100);
/// What a request may take at most: the timeout, and what a busy machine adds.
const LATENCY: Duration = Duration::from_millis(400);
const LIMIT: u32 = 20;
const REPLICAS: u32 = 4;
/// What one replica admits by itself.
const SHARE: u32 = LIMIT / REPLICAS;

fn policy(on_store_failure: OnStoreFailure) -> RateLimitPolicy {
    RateLimitPolicy { enabled: true, per_minute: LIMIT, total_per_minute: 0, on_store_failure, replicas: REPLICAS }
}

fn charges(principal: u8) -> [Charge; 2] {
    [charge(principal, Some(Method::ToolsCall), LIMIT, MINUTE), charge(principal, None, 1_000, MINUTE)]
}

/// One request under `local`; it never waits longer than the stated bound.
async fn admitted(limits: &Limits, principal: u8) -> bool {
    let started = Instant::now();
    let verdict = limits.reserve(&policy(OnStoreFailure::Local), &charges(principal), SystemClock.now_ms()).await;
    assert!(started.elapsed() <= LATENCY, "a request took {:?}", started.elapsed());
    assert_ne!(verdict, Verdict::Unavailable, "local always decides");
    verdict == Verdict::Admitted
}

async fn admissions(limits: &Limits, principal: u8, hits: u32) -> u32 {
    let mut count = 0;
    for _ in 0..hits {
        count += u32::from(admitted(limits, principal).await);
    }
    count
}

/// Asks, as `principal`, until the limits are in `mode`; how many were admitted meanwhile.
async fn until(limits: &Limits, mode: Mode, principal: u8) -> u32 {
    let deadline = Instant::now() + DEADLINE;
    let mut count = 0;
    while limits.mode() != mode {
        count += u32::from(admitted(limits, principal).await);
        assert!(Instant::now() < deadline, "still {:?}", limits.mode());
        tokio::task::yield_now().await;
    }
    count
}

async fn connected(url: &str) -> Limits {
    let settings = settings(url, TIMEOUT);
    let connection = Connection::open(&settings).expect("a valid url");
    connection.connect().await.expect("redis is there");
    Limits::redis(mcp_sidecar::limits::RedisStore::new(connection, &settings))
}

/// Redis is there, then fails by `fail`, then is mended by `mend`. Its data outlives that when `keeps_data`.
async fn episode(
    server: &mut RedisServer,
    fail: impl FnOnce(&mut RedisServer),
    mend: impl FnOnce(&mut RedisServer),
    keeps_data: bool,
    kind: StoreError,
) {
    let limits = connected(&server.url()).await;
    assert_eq!(admissions(&limits, 1, 8).await, 8);
    assert_eq!(limits.mode(), Mode::Redis);

    fail(server);
    let fallen = Instant::now();
    let meanwhile = admissions(&limits, 1, 200).await;
    assert_eq!(limits.mode(), Mode::Fallback);
    assert_eq!(meanwhile, SHARE, "a replica's share, however long it lasts");
    // Three timeouts, then one probe a second: not 200 timeouts.
    assert!(fallen.elapsed() < Duration::from_secs(2), "200 requests took {:?}", fallen.elapsed());
    let stats = limits.stats();
    assert!(stats.redis.openings == 1 && stats.fallbacks == 200, "{stats:?}");
    assert!(stats.redis.errors <= 6, "{stats:?}");
    // Three of it opened the breaker; a probe may have met something else.
    assert!(stats.redis.by_kind[kind as usize] >= 3, "{kind:?}: {stats:?}");
    assert_eq!(stats.redis.by_kind.iter().sum::<u64>(), stats.redis.errors);

    mend(server);
    let mended = Instant::now();
    until(&limits, Mode::Redis, 2).await;
    assert!(mended.elapsed() < Duration::from_secs(5), "back after {:?}", mended.elapsed());
    let after = admissions(&limits, 1, 100).await;
    if keeps_data {
        // A request that timed out may have been counted: fewer are possible, more are not.
        assert!((LIMIT - 8 - 6..=LIMIT - 8).contains(&after), "{after}");
    } else {
        assert_eq!(after, LIMIT, "a redis that lost its data starts new windows");
    }
}

#[tokio::test]
async fn a_stopped_redis() {
    episode(&mut RedisServer::start(), |server| server.pause(), |server| server.resume(), true, StoreError::Timeout)
        .await;
}

#[tokio::test]
async fn a_redis_that_dies_and_comes_back() {
    episode(&mut RedisServer::start(), RedisServer::kill, RedisServer::restart, false, StoreError::Connection).await;
}

#[tokio::test]
async fn a_read_only_replica() {
    let nobody = vacant().port().to_string();
    let fail = |server: &mut RedisServer| {
        assert!(server.command(&["REPLICAOF", "127.0.0.1", &nobody]).starts_with("+OK"));
    };
    let mend = |server: &mut RedisServer| {
        assert!(server.command(&["REPLICAOF", "NO", "ONE"]).starts_with("+OK"));
    };
    episode(&mut RedisServer::start(), fail, mend, true, StoreError::ReadOnly).await;
}

#[tokio::test]
async fn a_primary_that_misses_its_replicas() {
    let fail = |server: &mut RedisServer| server.config("min-replicas-to-write", "1");
    let mend = |server: &mut RedisServer| server.config("min-replicas-to-write", "0");
    episode(&mut RedisServer::start(), fail, mend, true, StoreError::ReadOnly).await;
}

#[tokio::test]
async fn a_full_redis() {
    let fail = |server: &mut RedisServer| {
        server.config("maxmemory-policy", "noeviction");
        server.config("maxmemory", "1mb");
    };
    let mend = |server: &mut RedisServer| server.config("maxmemory", "0");
    episode(&mut RedisServer::start(), fail, mend, true, StoreError::OutOfMemory).await;
}

#[tokio::test]
async fn flushed_scripts_cost_nothing() {
    let server = RedisServer::start();
    let limits = connected(&server.url()).await;
    let mut count = 0;
    for _ in 0..50 {
        assert!(server.command(&["SCRIPT", "FLUSH"]).starts_with("+OK"));
        count += u32::from(admitted(&limits, 1).await);
    }
    assert_eq!(count, LIMIT);
    let stats = limits.stats();
    assert_eq!((stats.fallbacks, stats.redis.errors), (0, 0), "{stats:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_redis() {
    let server = RedisServer::start();
    let chaos = Chaos::before(server.port).await;
    let limits = connected(&chaos.url()).await;
    assert_eq!(admissions(&limits, 1, 8).await, 8);

    chaos.delay(Duration::from_millis(5));
    assert!(admitted(&limits, 1).await);
    assert_eq!((limits.mode(), limits.stats().fallbacks), (Mode::Redis, 0), "slow, but in time");

    chaos.delay(Duration::from_millis(400));
    assert_eq!(admissions(&limits, 1, 200).await, SHARE);
    assert_eq!(limits.mode(), Mode::Fallback);
    assert!(limits.stats().redis.timeouts >= 3);

    chaos.delay(Duration::ZERO);
    until(&limits, Mode::Redis, 2).await;
    let after = admissions(&limits, 1, 100).await;
    assert!((LIMIT - 9 - 6..=LIMIT - 9).contains(&after), "{after}");
}

#[tokio::test]
async fn an_evening_of_flapping_stays_within_the_bound() {
    let server = RedisServer::start();
    let limits = connected(&server.url()).await;
    let mut count = 0;
    for _ in 0..3 {
        count += admissions(&limits, 1, 3).await;
        server.pause();
        count += until(&limits, Mode::Fallback, 1).await;
        count += admissions(&limits, 1, 50).await;
        server.resume();
        count += until(&limits, Mode::Redis, 1).await;
    }
    count += admissions(&limits, 1, 100).await;
    assert!(count <= LIMIT + SHARE, "{count} in one window");
    // Per flap the three requests that opened the breaker, and perhaps a probe, may be counted without being told.
    assert!(count >= LIMIT + SHARE - 3 * 4, "{count} in one window");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stopped_redis_under_many_requests_at_once() {
    let server = RedisServer::start();
    let limits = std::sync::Arc::new(connected(&server.url()).await);
    server.pause();
    let started = Instant::now();
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            let limits = limits.clone();
            tokio::spawn(async move { admissions(&limits, 1, 20).await })
        })
        .collect();
    let mut count = 0;
    for task in tasks {
        count += task.await.expect("no panic");
    }
    assert_eq!(count, SHARE);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[tokio::test]
async fn the_policy_may_deny_or_allow_instead() {
    let server = RedisServer::start();
    let limits = connected(&server.url()).await;
    server.pause();
    for _ in 0..10 {
        let now_ms = SystemClock.now_ms();
        assert_eq!(limits.reserve(&policy(OnStoreFailure::Deny), &charges(1), now_ms).await, Verdict::Unavailable);
        assert_eq!(limits.reserve(&policy(OnStoreFailure::Allow), &charges(1), now_ms).await, Verdict::Admitted);
    }
}

#[tokio::test]
async fn acl_users_are_logged_in_and_kept_to_their_keys() {
    let server = RedisServer::start();
    let rules = ["ACL", "SETUSER", "limiter", "on", ">p@ss word", "~test:*", "+@all"];
    assert!(server.command(&rules).starts_with("+OK"));
    assert!(server.command(&["ACL", "SETUSER", "default", "off"]).starts_with("+OK"));
    let patient = Duration::from_secs(5);
    let url = |user: &str| format!("redis://{user}@127.0.0.1:{}", server.port);
    let reserve = async |user: &str| store(&url(user), patient).reserve(&charges(1), 0).await;
    assert_eq!(reserve("limiter:p%40ss%20word").await, Verdict::Admitted);
    assert_eq!(reserve("limiter:wrong").await, Verdict::Unavailable);
    assert_eq!(store(&server.url(), patient).reserve(&charges(1), 0).await, Verdict::Unavailable);
}

#[tokio::test]
async fn an_evicting_redis_is_warned_about() {
    let server = RedisServer::start();
    let connection = Connection::open(&settings(&server.url(), TIMEOUT)).expect("a valid url");
    assert_eq!(warnings(&connection).await, Vec::<String>::new());
    server.config("maxmemory", "100mb");
    server.config("maxmemory-policy", "allkeys-lru");
    let warned = warnings(&connection).await;
    assert!(warned.len() == 1 && warned[0].contains("allkeys-lru"), "{warned:?}");
    let nobody = format!("redis://{}", vacant());
    let connection = Connection::open(&settings(&nobody, TIMEOUT)).expect("a valid url");
    assert_eq!(warnings(&connection).await.len(), 1);
}
