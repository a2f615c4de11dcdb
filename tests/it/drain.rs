//! TERM: what runs is finished, then the process ends.

use std::time::Duration;

use crate::harness::{Client, Next, Sidecar, Upstream, eventually, stream_head};

#[test]
fn term_makes_it_unready_and_then_ends_it() {
    let mut sidecar = Sidecar::start().go();
    assert_eq!(sidecar.call("raw.echo").status, 200);
    sidecar.check_invariant();
    assert_eq!(sidecar.admin_get("/readyz").status, 200);
    sidecar.signal(rustix::process::Signal::TERM);
    eventually("readiness ends", Duration::from_secs(4), || {
        std::net::TcpStream::connect(sidecar.admin)
            .map_or(Some(()), |_| (sidecar.admin_get("/readyz").status == 503).then_some(()))
    });
    assert!(sidecar.exited_within(Duration::from_secs(40)).success());
    assert_eq!(sidecar.audit().iter().filter(|record| record["decision"] == "allow").count(), 1);
}

#[test]
fn a_call_that_comes_while_the_process_drains_is_refused() {
    let upstream = Upstream::scripted(|_, peer| {
        peer.send(stream_head());
        peer.chunk("data: {}\n\n");
        peer.gone_within(Duration::from_secs(60));
        Next::Close
    });
    let mut sidecar = Sidecar::start()
        .set("timeouts.ready_lag=\"100ms\"")
        .set("timeouts.drain=\"20s\"")
        .set("timeouts.header=\"30s\"")
        .upstream(upstream)
        .go();
    // A stream keeps the process, and half a header keeps the connection.
    let mut stream = Client::connect(sidecar.mcp);
    stream.send(&sidecar.call_request("raw.echo", 1).bytes());
    assert_eq!(stream.head().status, 200);
    let late = sidecar.call_request("raw.echo", 2).bytes();
    let mut client = Client::connect(sidecar.mcp);
    client.send(&late[..40]);
    sidecar.signal(rustix::process::Signal::TERM);
    let closed = || std::net::TcpStream::connect(sidecar.mcp).is_err().then_some(());
    eventually("it takes no new connections", Duration::from_secs(10), closed);
    client.send(&late[40..]);
    let answer = client.response(false);
    assert_eq!((answer.status, answer.code().as_deref()), (503, Some("draining")), "{}", answer.text());
    assert_eq!(answer.header("connection"), Some("close"));
    let told = |record: &serde_json::Value| record["deny_code"] == "draining";
    eventually("the audit says so", Duration::from_secs(10), || sidecar.audit().iter().any(told).then_some(()));
    assert_eq!(sidecar.upstream.count(), 1, "the stream alone");
    drop(stream);
    assert!(sidecar.exited_within(Duration::from_secs(40)).success());
}
