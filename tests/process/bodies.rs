//! Two thousand bodies that never end.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::harness::{Client, Token, Upstream, eventually};
use crate::part::{Files, Part, SOON, call, get, rpc};

const STALLED: usize = 2000;
const BODY: usize = 32 * 1024;
/// Bytes in the budget while each stalled body holds its own.
const ALL: usize = STALLED * (BODY - 1);
const DEADLINE: Duration = Duration::from_secs(10);

/// Room for two thousand connections, here and in what is started from here; false where the system grants less.
fn descriptors() -> bool {
    let limit = getrlimit(Resource::Nofile);
    let wanted = STALLED as u64 * 2;
    if limit.current.is_none_or(|current| current >= wanted) {
        return true;
    }
    let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
    let done = limit.maximum.is_none_or(|most| most >= wanted) && setrlimit(Resource::Nofile, raised).is_ok();
    if !done {
        eprintln!("SKIPPED: {}: no more than {:?} descriptors", module_path!(), limit.maximum);
    }
    done
}

fn start(upstream: &Upstream, in_flight_mb: u32) -> Part {
    let files = Files::shipped();
    crate::drain::before(&files, upstream);
    files.edit("sidecar.toml", "per_address = 512", "per_address = 4000");
    files.edit("sidecar.toml", "in_flight_mb = 256", &format!("in_flight_mb = {in_flight_mb}"));
    Part::ready(files.service("proxy"))
}

/// All but the last byte of a call.
fn unfinished() -> Vec<u8> {
    let params = serde_json::json!({"name": "raw.echo", "arguments": {"text": "x".repeat(BODY)}});
    let mut request = rpc("raw", &Token::of("mallory").sign(), "tools/call", &params);
    request.body.truncate(BODY);
    let mut bytes = request.bytes();
    bytes.pop();
    bytes
}

fn stall(proxy: SocketAddr, bytes: &[u8]) -> Client {
    let mut client = Client::connect(proxy);
    client.send(bytes);
    client
}

/// Resident memory of the process, in bytes.
fn resident(proxy: &Part) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid().as_raw_nonzero())).expect("it lives");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("is told");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<usize>().ok()).expect("a number") * 1024
}

fn in_flight(proxy: &Part) -> usize {
    let status = get(proxy.address("admin listening"), "/status").json();
    usize::try_from(status["body_bytes_in_flight"].as_u64().expect("a number")).expect("fits")
}

#[test]
fn within_the_budget_they_end_at_the_deadline_and_others_go_on() {
    let _load = crate::load();
    if !descriptors() {
        return;
    }
    let upstream = Upstream::mcp();
    let proxy = start(&upstream, 256);
    let mcp = proxy.address("listening");
    assert_eq!(call(mcp, "raw", "raw.echo").status, 200);
    let before = resident(&proxy);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let others = scope.spawn(|| {
            let mut slowest = Duration::ZERO;
            let mut count = 0_usize;
            while !over.load(Ordering::Relaxed) {
                let began = Instant::now();
                assert_eq!(call(mcp, "raw", "raw.echo").status, 200);
                slowest = slowest.max(began.elapsed());
                count += 1;
            }
            (count, slowest)
        });
        let bytes = unfinished();
        let began = Instant::now();
        let mut clients: Vec<Client> = (0..STALLED).map(|_| stall(mcp, &bytes)).collect();
        eventually("all are held", DEADLINE, || (in_flight(&proxy) >= ALL).then_some(()));
        let grown = resident(&proxy).saturating_sub(before);
        println!("{STALLED} bodies of {BODY} bytes: {} MB more after {:?}", grown >> 20, began.elapsed());
        // Beside its body, each holds the HTTP machinery's own buffers: 64 KiB to read into.
        assert!(grown < 4 * ALL + (64 << 20), "{grown} bytes for {ALL}");
        for client in &mut clients {
            let answer = client.response(false);
            assert_eq!((answer.status, answer.code().as_deref()), (408, Some("request_timeout")), "{}", answer.text());
        }
        assert!(began.elapsed() > DEADLINE - Duration::from_secs(1) && began.elapsed() < DEADLINE * 2);
        over.store(true, Ordering::Relaxed);
        let (count, slowest) = others.join().expect("others got their answers");
        println!("{count} other calls meanwhile, the slowest took {slowest:?}");
        assert!(count > 20, "{count}");
    });
    eventually("the budget is free", SOON, || (in_flight(&proxy) == 0).then_some(()));
    eventually("memory is given back", SOON, || (resident(&proxy) < before + (64 << 20)).then_some(()));
}

#[test]
fn beyond_the_budget_they_are_refused_and_memory_stays_bounded() {
    let _load = crate::load();
    if !descriptors() {
        return;
    }
    let upstream = Upstream::mcp();
    let budget = 8 << 20;
    let proxy = start(&upstream, 8);
    let mcp = proxy.address("listening");
    assert_eq!(call(mcp, "raw", "raw.echo").status, 200);
    let before = resident(&proxy);
    let (bytes, mut most) = (unfinished(), 0);
    let mut clients: Vec<Client> = (0..STALLED)
        .map(|index| {
            if index % 100 == 0 {
                most = most.max(in_flight(&proxy));
            }
            stall(mcp, &bytes)
        })
        .collect();
    most = most.max(in_flight(&proxy));
    assert!(most <= budget, "{most}");
    let grown = resident(&proxy).saturating_sub(before);
    let mut statuses = std::collections::BTreeMap::<u16, usize>::new();
    for client in &mut clients {
        let answer = client.response(false);
        let expected = if answer.status == 503 { "overloaded" } else { "request_timeout" };
        assert_eq!(answer.code().as_deref(), Some(expected), "{}", answer.text());
        if answer.status == 503 {
            assert_eq!(answer.header("retry-after"), Some("1"));
        }
        *statuses.entry(answer.status).or_default() += 1;
    }
    println!("a budget of {budget}: {statuses:?}, at most {most} in flight, {} MB more", grown >> 20);
    let held = statuses.get(&408).copied().unwrap_or_default();
    assert!((1..=budget / BODY + 1).contains(&held), "{statuses:?}");
    assert!(grown < 10 * budget, "{grown}");
    eventually("the budget is free", SOON, || (in_flight(&proxy) == 0).then_some(()));
    assert_eq!(call(mcp, "raw", "raw.echo").status, 200);
    assert_eq!(upstream.count(), 2, "nothing that was cut short reached the upstream");
}
