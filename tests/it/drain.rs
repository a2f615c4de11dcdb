//! TERM: what runs is finished, then the process ends.

use std::time::Duration;

use crate::harness::{Sidecar, eventually};

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
