//! A new policy acts without a restart; a bad one changes nothing.

use std::time::Duration;

use crate::harness::{Sidecar, eventually};

const SOON: Duration = Duration::from_secs(10);

fn rewrite(sidecar: &Sidecar, from: &str, to: &str) {
    let path = sidecar.policy_file();
    let text = std::fs::read_to_string(&path).expect("is there");
    assert!(text.contains(from), "{from} is not in the policy");
    let next = path.with_extension("next");
    std::fs::write(&next, text.replace(from, to)).expect("is written");
    std::fs::rename(next, path).expect("is renamed");
}

fn becomes(sidecar: &Sidecar, tool: &str, status: u16) {
    eventually("the new policy acts", SOON, || (sidecar.call(tool).status == status).then_some(()));
}

#[test]
fn file_change_signal_and_command_each_reload() {
    let sidecar = Sidecar::start().go();
    assert_eq!(sidecar.call("raw.secret").status, 403);
    rewrite(&sidecar, "raw.secret", "raw.other");
    becomes(&sidecar, "raw.secret", 200);
    rewrite(&sidecar, "raw.other", "raw.secret");
    sidecar.signal(rustix::process::Signal::HUP);
    becomes(&sidecar, "raw.secret", 403);
    rewrite(&sidecar, "raw.danger.*", "raw.echo");
    let told = sidecar.ctl(&["reload"]);
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    assert_eq!(sidecar.call("raw.echo").status, 403);
    sidecar.finish();
}

#[test]
fn a_bad_file_leaves_the_old_policy() {
    let sidecar = Sidecar::start().go();
    std::fs::write(sidecar.policy_file(), "this is = = no policy").expect("is written");
    assert!(!sidecar.ctl(&["reload"]).status.success());
    assert_eq!(sidecar.call("raw.secret").status, 403);
    assert_eq!(sidecar.call("raw.echo").status, 200);
    sidecar.finish();
}
