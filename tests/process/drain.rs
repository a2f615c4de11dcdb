//! TERM under load: not ready, then draining, then out, and nothing is lost.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Client, Next, Request, Token, Upstream, eventually, stream_head};
use crate::part::{Files, Part, SOON, get, rpc};

/// Puts a server `raw` before the upstream, streaming and without limits in the way.
pub fn before(files: &Files, upstream: &Upstream) {
    let address = upstream.address();
    files.edit("sidecar.toml", "[audit]\n", &format!("[upstreams.raw]\nurl = \"http://{address}/mcp\"\n\n[audit]\n"));
    let raw = "[[servers]]\nhandle = \"raw\"\nenabled = true\ntransport = \"web\"\nkind = \"mcp\"\nupstream = \"raw\"\n\
               allow_tools = [\"raw.*\"]\ndeny_tools = [\"raw.secret\"]\nrate_limit = { per_minute = 1000000 }\n\
               stream = { enabled = true }\n\n[end]\n";
    files.edit("policy.toml", "[end]\n", raw);
}

/// Opens a stream as `alice`; its header has been read.
pub fn open(proxy: SocketAddr) -> Client {
    let mut client = Client::connect(proxy);
    client.send(&request("raw.stream").bytes());
    assert_eq!(client.head().status, 200);
    client
}

fn request(tool: &str) -> Request {
    rpc("raw", &Token::of("alice").sign(), "tools/call", &json!({"name": tool, "arguments": {}}))
}

/// Answers `raw.echo` after a moment; `raw.stream` sends events until the sidecar ends the stream, and
/// `raw.short` ends by itself a while after it began.
fn upstream() -> Upstream {
    Upstream::scripted(|seen, peer| {
        let tool = seen.json()["params"]["name"].as_str().unwrap_or_default().to_owned();
        if tool == "raw.echo" {
            std::thread::park_timeout(Duration::from_millis(20));
            let body = json!({"jsonrpc": "2.0", "id": seen.json()["id"], "result": {}}).to_string();
            let head = format!("Content-Type: application/json\r\nContent-Length: {}", body.len());
            let whole = peer.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}"));
            return if whole { Next::KeepAlive } else { Next::Close };
        }
        peer.send(stream_head());
        let began = Instant::now();
        let life = Duration::from_secs(if tool == "raw.short" { 4 } else { 60 });
        while began.elapsed() < life && peer.chunk("data: {\"tick\":1}\n\n") {
            std::thread::park_timeout(Duration::from_millis(50));
        }
        peer.send("0\r\n\r\n");
        Next::Close
    })
}

#[derive(Default)]
struct Tally {
    /// Ids of requests that were answered whole, by status.
    answered: Mutex<Vec<(u16, String)>>,
    unanswered: AtomicUsize,
}

/// Sends one request after the other, on connections that are kept, until the listener is gone.
fn drive(proxy: SocketAddr, tally: &Tally, over: &AtomicBool) {
    let request = request("raw.echo").bytes();
    while !over.load(Ordering::Relaxed) {
        let Ok(probe) = std::net::TcpStream::connect(proxy) else { return };
        drop(probe);
        let Ok(mut client) = std::panic::catch_unwind(|| Client::connect(proxy)) else { return };
        loop {
            client.send(&request);
            let Some(head) = client.try_head() else {
                tally.unanswered.fetch_add(1, Ordering::Relaxed);
                break;
            };
            // A process that is killed may leave half a body.
            let whole = AssertUnwindSafe(|| while client.part(SOON).is_some() {});
            if std::panic::catch_unwind(whole).is_err() {
                tally.unanswered.fetch_add(1, Ordering::Relaxed);
                break;
            }
            let id = head.header("x-request-id").expect("is sent").to_owned();
            tally.answered.lock().expect("no thread panicked").push((head.status, id));
            if head.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
                break;
            }
        }
    }
}

#[test]
fn term_under_load_loses_nothing_and_ends_streams_in_order() {
    let _load = crate::load();
    let upstream = upstream();
    let files = Files::shipped();
    before(&files, &upstream);
    files.edit("sidecar.toml", "drain = \"25s\"", "drain = \"8s\"");
    files.edit("sidecar.toml", "ready_lag = \"5s\"", "ready_lag = \"3s\"");
    let mut proxy = Part::ready(files.service("proxy"));
    let (mcp, admin) = (proxy.address("listening"), proxy.address("admin listening"));
    let (tally, over) = (Tally::default(), AtomicBool::new(false));

    std::thread::scope(|scope| {
        let drivers: Vec<_> = (0..4).map(|_| scope.spawn(|| drive(mcp, &tally, &over))).collect();
        let mut long = open(mcp);
        let mut short = Client::connect(mcp);
        short.send(&request("raw.short").bytes());
        assert_eq!(short.head().status, 200);
        eventually("load runs", SOON, || (tally.answered.lock().expect("whole").len() > 50).then_some(()));

        let asked = Instant::now();
        proxy.signal(Signal::TERM);
        // Not ready first, while calls are still taken.
        eventually("it is not ready", SOON, || (get(admin, "/readyz").status == 503).then_some(()));
        assert_eq!(get(admin, "/readyz").json()["reasons"], json!(["draining"]));
        let taken = tally.answered.lock().expect("whole").len();
        eventually("it still takes calls", Duration::from_secs(3), || {
            let answered = tally.answered.lock().expect("whole");
            answered[taken..].iter().any(|(status, _)| *status == 200).then_some(())
        });
        assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
        // The short one ends by itself, the long one at the deadline with an event that says so.
        while short.part(SOON).is_some() {}
        assert!(asked.elapsed() < Duration::from_secs(7), "the short stream ended with {:?}", asked.elapsed());
        let body = long.body_until("the last event", SOON, |text| text.contains("draining"));
        let last = body.trim_end().rsplit("\n\n").next().expect("an event");
        let last: Value = serde_json::from_str(last.trim_start_matches("data: ")).expect("a JSON event");
        assert_eq!((&last["id"], &last["error"]["data"]["code"]), (&json!(1), &json!("draining")), "{last}");
        assert!(long.part(SOON).is_none(), "the body is ended");
        assert!(proxy.exited_within(SOON).success());
        assert!(asked.elapsed() < Duration::from_secs(12), "{:?}", asked.elapsed());
        over.store(true, Ordering::Relaxed);
        for driver in drivers {
            driver.join().expect("no driver panicked");
        }
    });

    let answered = tally.answered.into_inner().expect("whole");
    let audit = files.audit();
    let line = |id: &str| audit.iter().find(|record| record["request_id"] == id);
    for (status, id) in &answered {
        let record = line(id).unwrap_or_else(|| panic!("no line for {id} ({status})"));
        assert_eq!(record["status"], json!(status), "{record}");
        let expected = if *status == 200 { "allow" } else { "deny" };
        assert!(record["decision"] == expected && [200, 503].contains(status), "{record}");
    }
    // Two streams, and calls that were answered; a call without an answer may only be one that was never begun.
    let lines = audit.iter().filter(|record| record.get("request_id").is_some()).count();
    assert_eq!(lines, answered.len() + 2);
    let unanswered = tally.unanswered.into_inner();
    println!("{} calls answered, {unanswered} cut off", answered.len());
    assert!(unanswered <= 4, "{unanswered} calls were cut off");
    let allowed = audit.iter().filter(|record| record["decision"] == "allow").count();
    assert_eq!(allowed, upstream.count(), "what the upstream saw");
    let outcomes: Vec<_> = audit.iter().filter_map(|record| record["outcome"].as_str()).collect();
    assert_eq!(outcomes, ["draining"], "one stream was cut, nothing else");
}

#[test]
fn with_durability_written_a_killed_process_has_told_of_all_that_it_answered() {
    let _load = crate::load();
    let upstream = upstream();
    let files = Files::shipped();
    before(&files, &upstream);
    files.edit("sidecar.toml", "durability = \"buffered\"", "durability = \"written\"");
    let mut proxy = Part::ready(files.service("proxy"));
    let mcp = proxy.address("listening");
    let (tally, over) = (Tally::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let drivers: Vec<_> = (0..4).map(|_| scope.spawn(|| drive(mcp, &tally, &over))).collect();
        eventually("load runs", SOON, || (tally.answered.lock().expect("whole").len() > 200).then_some(()));
        proxy.kill();
        over.store(true, Ordering::Relaxed);
        for driver in drivers {
            driver.join().expect("no driver panicked");
        }
    });
    // Half a line at the end is ended by the next start, and no line is glued to it.
    let again = Part::ready(files.service("proxy"));
    assert_eq!(crate::part::call(again.address("listening"), "raw", "raw.echo").status, 200);
    let text = || {
        std::fs::read_dir(files.path("logs")).expect("is there").flatten().map(|e| std::fs::read_to_string(e.path()))
    };
    let ids = || -> std::collections::BTreeSet<String> {
        let lines: String = text().map(|text| text.expect("is readable")).collect();
        let whole = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        whole.filter_map(|record| record["request_id"].as_str().map(str::to_owned)).collect()
    };
    let answered = tally.answered.into_inner().expect("whole");
    let told = ids();
    let missing: Vec<_> = answered.iter().filter(|(_, id)| !told.contains(id)).collect();
    assert!(missing.is_empty(), "answered, and not told of: {missing:?}");
}
