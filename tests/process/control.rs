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
    // A reload is told at `info`.
    for (level, revision, was, is) in [("error", 2, 30, 29), ("info", 3, 29, 28)] {
        assert!(ctl(&socket, &["log-level", level]).status.success());
        files.edit("policy.toml", &format!("per_minute = {was} }}"), &format!("per_minute = {is} }}"));
        assert!(told(&ctl(&socket, &["reload"])).contains(&format!("revision {revision}")));
    }
    let reloads = eventually("the second reload is logged", SOON, || {
        let output = proxy.output();
        let lines: Vec<_> = output.lines().filter(|line| line.contains("policy reloaded")).map(str::to_owned).collect();
        (!lines.is_empty()).then_some(lines)
    });
    assert!(reloads.len() == 1 && reloads[0].contains("policy.revision=3"), "{reloads:?}");
    assert!(ctl(&socket, &["drain"]).status.success());
    assert!(proxy.exited_within(Duration::from_secs(40)).success());
    assert!(!socket.exists(), "the file goes with the process");
    let left: Vec<_> = std::fs::read_dir(files.path("run")).expect("is there").collect();
    assert!(left.is_empty(), "{left:?}");
    let nobody = ctl(&socket, &["status"]);
    assert!(!nobody.status.success() && told(&nobody).contains("is mcp-sidecar running?"), "{}", told(&nobody));
}

#[test]
fn without_a_socket_the_configuration_names_it() {
    let files = Files::shipped();
    let _proxy = Part::ready(files.service("proxy"));
    let dir = files.path("run").parent().expect("has one").to_owned();
    let elsewhere = tempfile::tempdir().expect("a temporary directory");
    let asked = |words: &[&str], from: &Path| {
        program().arg("ctl").args(words).current_dir(from).output().expect("the binary runs")
    };
    let named = files.path("sidecar.toml").display().to_string();
    assert!(asked(&["status", "--config", &named], elsewhere.path()).status.success());
    // As where `proxy` was started: conf/ is below.
    std::os::unix::fs::symlink(".", files.path("conf")).expect("is made");
    let shipped = asked(&["status"], &dir);
    assert!(shipped.status.success(), "{}", told(&shipped));
    let nobody = asked(&["status"], elsewhere.path());
    assert!(!nobody.status.success() && told(&nobody).contains("var/control.sock"), "{}", told(&nobody));
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
