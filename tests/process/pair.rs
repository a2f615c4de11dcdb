//! Proxy and executor as two processes, as in production.

use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::harness::{Client, Request, eventually, vacant};
use crate::part::{Files, Part, SOON, call, get};

const TOOL: &str = "evo.content.search";
const KEY: &str = "a-key-of-the-two-processes-0123456789abcdef";

/// Both processes' share of a pair that talks over TCP with a key.
fn over_tcp(files: &Files) {
    let address = vacant();
    files.edit(
        "executor.toml",
        "socket = \"run/executor.sock\"",
        &format!("listen = \"{address}\"\nkey_env = \"EXECUTOR_KEY\""),
    );
    files.edit(
        "sidecar.toml",
        "socket = \"run/executor.sock\"",
        &format!("url = \"http://{address}\"\nkey_env = \"EXECUTOR_KEY\""),
    );
}

fn keyed(mut command: Command, key: &str) -> Command {
    command.env("EXECUTOR_KEY", key);
    command
}

/// A call passes; the executor is killed, and calls fail as documented; it starts again, and calls pass.
fn lives_and_dies(files: &Files, key: &str) {
    files.demo_site();
    // More calls than the shipped limit of 30 a minute may be needed until the executor is back.
    files.edit("policy.toml", "per_minute = 30 }", "per_minute = 100000 }");
    let mut executor = Part::ready(keyed(files.service("executor"), key));
    let proxy = Part::ready(keyed(files.service("proxy"), key));
    let mcp = proxy.address("listening");
    let answer = call(mcp, "content", TOOL);
    assert_eq!((answer.status, &answer.json()["result"]["isError"]), (200, &json!(false)), "{}", answer.text());

    executor.kill();
    let failed = call(mcp, "content", TOOL);
    assert_eq!((failed.status, failed.code().as_deref()), (502, Some("upstream_failed")), "{}", failed.text());
    assert!(failed.header("retry-after").is_some_and(|wait| wait.parse::<u32>().is_ok_and(|wait| wait >= 1)));
    let record = eventually("the failed call is audited", SOON, || {
        let records = files.audit();
        records.into_iter().find(|record| record["status"] == 502)
    });
    assert_eq!((&record["decision"], &record["tool"]), (&json!("allow"), &json!(TOOL)), "{record}");

    let _again = Part::ready(keyed(files.service("executor"), key));
    eventually("calls pass again", SOON, || (call(mcp, "content", TOOL).status == 200).then_some(()));
    let metrics = get(proxy.address("admin listening"), "/metrics").text();
    let counted: usize = metrics
        .lines()
        .filter(|line| line.starts_with("mcp_sidecar_requests_total{") && line.contains("decision=\"allow\""))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok())
        .sum();
    eventually("each call is audited", SOON, || (files.audit().len() == counted).then_some(()));
}

#[test]
fn over_a_unix_socket_an_executor_may_die_and_come_back() {
    lives_and_dies(&Files::shipped(), "");
}

#[test]
fn over_tcp_an_executor_may_die_and_come_back() {
    let files = Files::shipped();
    over_tcp(&files);
    lives_and_dies(&files, KEY);
}

#[test]
fn what_the_executor_alone_refuses_is_told_as_a_refusal() {
    let files = Files::shipped();
    files.demo_site();
    let mut stricter = files.service("executor");
    stricter.args(["--set", &format!("security.deny_tools=[\"{TOOL}\"]")]);
    let _executor = Part::ready(stricter);
    let proxy = Part::ready(files.service("proxy"));
    let refused = call(proxy.address("listening"), "content", TOOL);
    assert_eq!((refused.status, refused.code().as_deref()), (403, Some("tool_denied")), "{}", refused.text());
    assert_eq!(refused.header("retry-after"), None, "it would be refused again");
    assert!(!proxy.output().contains("upstream failed"), "{}", proxy.output());
}

#[test]
fn a_wrong_key_is_refused_and_a_missing_one_does_not_start() {
    let files = Files::shipped();
    over_tcp(&files);
    files.demo_site();
    let _executor = Part::ready(keyed(files.service("executor"), KEY));
    let proxy = Part::ready(keyed(files.service("proxy"), "another-key-of-the-same-length-0123456789ab"));
    let refused = call(proxy.address("listening"), "content", TOOL);
    assert_eq!((refused.status, refused.code().as_deref()), (502, Some("upstream_failed")), "{}", refused.text());

    for (key, said) in [("", "EXECUTOR_KEY"), ("too-short", "32")] {
        for service in ["executor", "proxy"] {
            let mut part = Part::spawn(keyed(files.service(service), key));
            assert!(!part.exited_within(SOON).success());
            eventually("it says why", SOON, || part.output().contains(said).then_some(()));
        }
    }
    files.edit("executor.toml", "key_env = \"EXECUTOR_KEY\"", "");
    let mut part = Part::spawn(files.service("executor"));
    assert!(!part.exited_within(SOON).success());
    eventually("it says why", SOON, || part.output().contains("a TCP listener needs a key").then_some(()));
}

#[test]
fn a_policy_change_reaches_both_processes_and_a_bad_file_neither() {
    let files = Files::shipped();
    files.demo_site();
    let executor = Part::ready(files.service("executor"));
    let proxy = Part::ready(files.service("proxy"));
    let (mcp, doors) = (proxy.address("listening"), [&proxy, &executor].map(|part| part.address("admin listening")));
    let revisions = || doors.map(|door| get(door, "/status").json()["policy"]["revision"].clone());
    assert_eq!(call(mcp, "content", TOOL).status, 200);
    assert_eq!(revisions(), [1, 1]);
    files.edit("policy.toml", "security = { deny_tools = [] }", "security = { deny_tools = [\"evo.content.search\"] }");
    eventually("both have it", SOON, || (revisions() == [2, 2]).then_some(()));
    assert_eq!(call(mcp, "content", TOOL).status, 403);

    files.edit("policy.toml", "[security]", "[securty]");
    let problem = |door| get(door, "/status").json()["policy"]["last_problem"].clone();
    eventually("both say so", SOON, || {
        doors.map(problem).iter().all(|said| said.as_str().is_some_and(|said| said.contains("securty"))).then_some(())
    });
    assert_eq!(revisions(), [2, 2]);
    assert_eq!(call(mcp, "content", TOOL).status, 403);
}

#[test]
fn the_executor_has_doors_of_its_own_and_tells_when_its_database_is_away() {
    let files = Files::shipped();
    let executor = Part::ready(files.service("executor"));
    let admin = executor.address("admin listening");
    assert_eq!(get(admin, "/healthz").status, 200);
    // Told from the first answer on, not from the first look at the database.
    let unready = get(admin, "/readyz");
    let reasons = json!(["executor: database refuses"]);
    assert_eq!((unready.status, &unready.json()["reasons"]), (503, &reasons), "{}", unready.text());
    files.demo_site();
    eventually("the database is seen", SOON, || (get(admin, "/readyz").status == 200).then_some(()));
    assert_eq!(get(admin, "/status").json()["policy"]["revision"], 1);
    assert!(get(admin, "/metrics").text().contains("mcp_sidecar_build_info"));
    let foreign = Request::new("GET", "/status").header("Host", "evil.example").header("Connection", "close");
    assert_eq!(Client::connect(admin).round_trip(&foreign).status, 403);
    let write = Request::new("POST", "/status").header("Connection", "close");
    assert_eq!(Client::connect(admin).round_trip(&write).status, 405);

    // What was a database is none any more.
    std::fs::write(files.path("emcp.sqlite"), vec![0xff; 65_536]).expect("is written");
    eventually("the loss is seen", SOON, || (get(admin, "/readyz").status == 503).then_some(()));
    let mut executor = executor;
    executor.signal(rustix::process::Signal::TERM);
    assert!(executor.exited_within(Duration::from_secs(10)).success());
}
