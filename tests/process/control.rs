//! The control socket through the life of its process.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use crate::harness::eventually;
use crate::part::{Files, Part, SOON, program};

fn ctl(socket: &Path, words: &[&str]) -> Output {
    program().arg("ctl").arg("--socket").arg(socket).args(words).output().expect("the binary runs")
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn its_commands_act_and_drain_ends_the_process() {
    let files = Files::shipped();
    let mut proxy = Part::ready(files.service("proxy"));
    let socket = files.path("run/control.sock");
    let mode = std::fs::metadata(&socket).expect("is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let status = ctl(&socket, &["status"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).expect("JSON");
    assert_eq!((&status["ready"], &status["policy"]["revision"]), (&true.into(), &1.into()), "{status}");
    assert!(told(&ctl(&socket, &["reload"])).contains("unchanged: revision 1"));
    assert!(!proxy.output().contains("DEBUG"));
    assert!(ctl(&socket, &["log-level", "debug"]).status.success());
    assert!(ctl(&socket, &["drain"]).status.success());
    assert!(proxy.exited_within(Duration::from_secs(40)).success());
    assert!(!socket.exists(), "the file goes with the process");
    let left: Vec<_> = std::fs::read_dir(files.path("run")).expect("is there").collect();
    assert!(left.is_empty(), "{left:?}");
    let nobody = ctl(&socket, &["status"]);
    assert!(!nobody.status.success() && told(&nobody).contains("is mcp-sidecar running?"), "{}", told(&nobody));
}

#[test]
fn a_killed_process_leaves_a_socket_that_the_next_one_replaces() {
    let files = Files::shipped();
    let socket = files.path("run/control.sock");
    let mut first = Part::ready(files.service("proxy"));
    first.kill();
    assert!(socket.exists());
    let nobody = ctl(&socket, &["status"]);
    assert!(!nobody.status.success() && told(&nobody).contains("nobody answers"), "{}", told(&nobody));
    let _second = Part::ready(files.service("proxy"));
    assert!(ctl(&socket, &["status"]).status.success());
    let left: Vec<_> = std::fs::read_dir(files.path("run")).expect("is there").flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn a_socket_that_answers_is_not_taken_over() {
    let files = Files::shipped();
    let socket = files.path("run/control.sock");
    let _first = Part::ready(files.service("proxy"));
    let mut second = Part::spawn(files.service("proxy"));
    assert!(!second.exited_within(SOON).success());
    let said = eventually("it says why", SOON, || {
        let output = second.output();
        output.contains("another process answers there").then_some(output)
    });
    assert!(said.contains("run/control.sock (control.socket)"), "{said}");
    assert!(ctl(&socket, &["status"]).status.success(), "the first one still has it");
}

#[test]
fn a_path_too_long_for_a_socket_is_said_plainly() {
    let files = Files::shipped();
    let deep = "d".repeat(60);
    files.edit("sidecar.toml", "run/control.sock", &format!("{deep}/{deep}/control.sock"));
    let mut proxy = Part::spawn(files.service("proxy"));
    assert!(!proxy.exited_within(SOON).success());
    let said = eventually("it says why", SOON, || {
        let output = proxy.output();
        output.contains("at most 107").then_some(output)
    });
    assert!(said.contains("control.socket") && said.contains("use a shorter one"), "{said}");

    // The data directory of `up` decides about both sockets.
    let mut up = program();
    up.args(["up", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"]).arg(files.path(&deep).join(&deep));
    let mut up = Part::spawn(up);
    assert!(!up.exited_within(SOON).success());
    eventually("it says why", SOON, || up.output().contains("at most 107").then_some(()));
}
