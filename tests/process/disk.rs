//! An audit log that cannot be written.

use std::path::PathBuf;

use rustix::process::{Resource, Rlimit, prlimit};
use serde_json::json;

use crate::harness::{Upstream, eventually};
use crate::part::{Files, Part, SOON, call, get};

/// Lets no file of the process grow beyond so many bytes. The same to it as a full disk, and takes no rights.
fn limit_files(proxy: &Part, bytes: Option<u64>) {
    prlimit(Some(proxy.pid()), Resource::Fsize, Rlimit { current: bytes, maximum: None }).expect("the process is ours");
}

fn audit_file(files: &Files) -> PathBuf {
    std::fs::read_dir(files.path("logs")).expect("is there").flatten().next().expect("today's file").path()
}

fn full_disk(durability: &str) {
    let upstream = Upstream::mcp();
    let files = Files::shipped();
    crate::drain::before(&files, &upstream);
    files.edit("sidecar.toml", "queue = 8192", "queue = 16");
    files.edit("sidecar.toml", "durability = \"buffered\"", &format!("durability = \"{durability}\""));
    let proxy = Part::ready(files.service("proxy"));
    let (mcp, admin) = (proxy.address("listening"), proxy.address("admin listening"));
    assert_eq!(call(mcp, "raw", "raw.echo").status, 200);
    eventually("its line is written", SOON, || (files.audit().len() == 1).then_some(()));
    let size = std::fs::metadata(audit_file(&files)).expect("is there").len();
    // In the middle of a line: its rest must come later, not the whole of it once more.
    limit_files(&proxy, Some(size + 100));

    let mut passed = 1;
    let refused = loop {
        let answer = call(mcp, "raw", "raw.echo");
        if answer.status != 200 {
            break answer;
        }
        passed += 1;
        assert!(passed < 60, "calls pass without an audit line");
    };
    assert_eq!((refused.status, refused.code().as_deref()), (503, Some("audit_unavailable")), "{}", refused.text());
    assert_eq!(refused.header("retry-after"), Some("1"));
    let reached = upstream.count();
    assert_eq!(reached, passed, "a call that was refused reached the upstream");
    let unready = get(admin, "/readyz");
    let reasons = json!(["audit: audit_unwritable"]);
    assert_eq!((unready.status, &unready.json()["reasons"]), (503, &reasons), "{}", unready.text());
    assert_eq!(get(admin, "/healthz").status, 200, "a restart would not help");
    // What the policy denies is denied as ever.
    assert_eq!(call(mcp, "raw", "raw.secret").status, 403);

    limit_files(&proxy, None);
    eventually("it is ready again", SOON, || (get(admin, "/readyz").status == 200).then_some(()));
    assert_eq!(call(mcp, "raw", "raw.echo").status, 200);
    eventually("each permitted call has its line", SOON, || {
        let records = files.audit();
        let allowed = records.iter().filter(|record| record["decision"] == "allow").count();
        (allowed == passed + 1 && upstream.count() == allowed).then_some(())
    });
    let text = std::fs::read_to_string(audit_file(&files)).expect("is there");
    let ids: Vec<_> =
        files.audit().iter().filter_map(|record| record["request_id"].as_str().map(str::to_owned)).collect();
    let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len(), "a line stands twice: {text}");
}

#[test]
fn a_full_disk_refuses_permitted_calls_until_there_is_room() {
    full_disk("buffered");
}

#[test]
fn a_full_disk_with_durability_written_does_the_same() {
    full_disk("written");
}

#[test]
fn little_free_space_fails_readiness_and_says_so() {
    let files = Files::shipped();
    // More than any disk here has.
    files.edit("sidecar.toml", "min_free_mb = 64", "min_free_mb = 1000000");
    let free = rustix::fs::statvfs(files.path(".").as_path()).expect("a file system");
    if free.f_bavail.saturating_mul(free.f_frsize) >= 1_000_000 << 20 {
        eprintln!("SKIPPED: little_free_space_fails_readiness_and_says_so: this disk has a terabyte free");
        return;
    }
    let proxy = Part::ready(files.service("proxy"));
    let admin = proxy.address("admin listening");
    eventually("it is not ready", SOON, || (get(admin, "/readyz").status == 503).then_some(()));
    assert_eq!(get(admin, "/readyz").json()["reasons"], json!(["audit: audit_disk_low"]));
}
