//! Reloads under load: each answer fits the policy revision that its audit line names.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Client, Token, Upstream, eventually};
use crate::part::{Files, Part, SOON, rpc};

/// Denied and allowed by turns, always allowed, always denied.
const TOOLS: [&str; 3] = ["raw.flip", "raw.echo", "raw.secret"];
const CONNECTIONS: usize = 6;

/// `SOAK_SECONDS`, else a taste of it.
fn length() -> Duration {
    let asked = std::env::var("SOAK_SECONDS").ok();
    Duration::from_secs(asked.map_or(8, |seconds| seconds.parse().expect("SOAK_SECONDS is a number")))
}

struct Answer {
    id: String,
    tool: &'static str,
    status: u16,
    /// The newest revision that was known to be in force before the request was sent.
    at_least: u64,
}

/// Asks for a reload; the revision that is in force then.
fn reload(control: &mut BufReader<UnixStream>) -> u64 {
    control.get_mut().write_all(b"{\"command\":\"reload\"}\n").expect("is sent");
    let mut line = String::new();
    control.read_line(&mut line).expect("is answered");
    let answer: Value = serde_json::from_str(&line).expect("JSON");
    let message = answer["message"].as_str().unwrap_or_else(|| panic!("the reload was refused: {answer}"));
    let words = message.split("revision ").nth(1).and_then(|rest| rest.split(',').next());
    words.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no revision in {message}"))
}

fn connect(socket: &Path) -> BufReader<UnixStream> {
    let stream = UnixStream::connect(socket).expect("the control socket answers");
    stream.set_read_timeout(Some(SOON)).expect("sets a timeout");
    BufReader::new(stream)
}

/// Calls one tool after the other on one connection, which is never closed on it.
fn drive(proxy: SocketAddr, index: usize, in_force: &AtomicU64, over: &AtomicBool) -> Vec<Answer> {
    let token = Token::of(&format!("client-{index}")).sign();
    let requests = TOOLS.map(|tool| (tool, rpc("raw", &token, "tools/call", &json!({"name": tool, "arguments": {}}))));
    let mut answers = Vec::new();
    let mut client = Client::connect(proxy);
    for (tool, request) in requests.iter().cycle() {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let at_least = in_force.load(Ordering::SeqCst);
        let answer = client.round_trip(request);
        let id = answer.header("x-request-id").expect("is sent").to_owned();
        answers.push(Answer { id, tool, status: answer.status, at_least });
    }
    answers
}

#[test]
fn each_answer_fits_the_revision_that_it_was_given_under() {
    let _load = crate::load();
    let upstream = Upstream::mcp();
    let files = Files::shipped();
    crate::drain::before(&files, &upstream);
    let proxy = Part::ready(files.service("proxy"));
    let mcp = proxy.address("listening");
    let mut control = connect(&files.path("run/control.sock"));
    let (in_force, over) = (AtomicU64::new(1), AtomicBool::new(false));
    // Revision 1 denies `raw.secret` only.
    let mut denying = BTreeMap::from([(1, false)]);

    let answers: Vec<Vec<Answer>> = std::thread::scope(|scope| {
        let drivers: Vec<_> = (0..CONNECTIONS)
            .map(|index| {
                let (in_force, over) = (&in_force, &over);
                scope.spawn(move || drive(mcp, index, in_force, over))
            })
            .collect();
        let began = Instant::now();
        let mut deny = true;
        while began.elapsed() < length() {
            let lists = ["deny_tools = [\"raw.secret\"]", "deny_tools = [\"raw.secret\", \"raw.flip\"]"];
            let (from, to) = if deny { (lists[0], lists[1]) } else { (lists[1], lists[0]) };
            files.edit("policy.toml", from, to);
            let revision = reload(&mut control);
            let known = denying.insert(revision, deny);
            assert_eq!(known, None, "revision {revision} came twice");
            in_force.store(revision, Ordering::SeqCst);
            deny = !deny;
            std::thread::park_timeout(Duration::from_millis(20));
        }
        over.store(true, Ordering::Relaxed);
        drivers.into_iter().map(|driver| driver.join().expect("every call is answered")).collect()
    });

    let count: usize = answers.iter().map(Vec::len).sum();
    let audit: HashMap<String, Value> = eventually("every answer has its line", SOON * 4, || {
        let records = files.audit();
        let id = |record: &Value| record["request_id"].as_str().unwrap_or("").to_owned();
        let by_id: HashMap<_, _> = records.into_iter().map(|record| (id(&record), record)).collect();
        (by_id.len() >= count).then_some(by_id)
    });
    assert_eq!(audit.len(), count, "one line for each answer");
    let mut passed = 0;
    let mut by_outcome = BTreeMap::<(&str, u16), usize>::new();
    for connection in &answers {
        let mut newest = 0;
        for answer in connection {
            let record = &audit[&answer.id];
            let revision = record["policy_revision"].as_u64().expect("is named");
            let denied = answer.tool == "raw.secret" || (answer.tool == "raw.flip" && denying[&revision]);
            let (status, decision) = if denied { (403, "deny") } else { (200, "allow") };
            assert_eq!((answer.status, &record["decision"]), (status, &json!(decision)), "{record}");
            assert_eq!((&record["status"], &record["tool"]), (&json!(status), &json!(answer.tool)), "{record}");
            assert!(revision >= answer.at_least, "revision {} was in force before: {record}", answer.at_least);
            assert!(revision >= newest, "one connection went back from revision {newest}: {record}");
            newest = revision;
            passed += usize::from(!denied);
            *by_outcome.entry((answer.tool, answer.status)).or_default() += 1;
        }
    }
    assert_eq!(upstream.count(), passed, "what the policy lets through reached the upstream, and nothing else");
    assert!(by_outcome.contains_key(&("raw.flip", 200)) && by_outcome.contains_key(&("raw.flip", 403)));
    println!("soak: {:?}, {} reloads, {count} answers: {by_outcome:?}", length(), denying.len() - 1);
}
