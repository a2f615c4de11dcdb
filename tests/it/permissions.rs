//! `permissions` as an operator types it.

use std::path::Path;
use std::process::{Command, Output};

use mcp_sidecar::store::demo;

fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-sidecar"));
    command.arg("permissions").args(arguments).envs(environment.iter().copied()).output().expect("the binary runs")
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn site(directory: &Path) -> String {
    let path = directory.join("site.sqlite");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(demo::create(&path, 0)).expect("is made");
    format!("sqlite://{}", path.display())
}

#[test]
fn permissions_are_shown_taken_out_and_put_in() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let url = site(directory.path());
    let status = run(&["status", "--url", &url], &[]);
    assert!(status.status.success(), "{}", text(&status));
    let table = "group eMCP      present\nemcp            present   roles 1, 3\n\
                 emcp_manage     present   roles 1\nemcp_dispatch   present   roles 1\n";
    assert_eq!(text(&status), table);
    let by_name = &[("SITE", url.as_str())];
    assert!(run(&["down", "--url-env", "SITE"], by_name).status.success());
    let status = run(&["status", "--url", &url], &[]);
    assert_eq!(status.status.code(), Some(1), "{}", text(&status));
    assert!(text(&status).contains("permissions up") && text(&status).contains("missing"), "{}", text(&status));
    let up = run(&["up", "--url-env", "SITE", "--role", "1", "--role", "3"], by_name);
    assert!(up.status.success() && text(&up).contains("emcp_dispatch   present   roles 1, 3"), "{}", text(&up));
    let unknown = run(&["up", "--url", &url, "--role", "2", "--role", "99"], &[]);
    assert!(!unknown.status.success(), "{}", text(&unknown));
    let why = "the site has no role 99, so nothing was changed; its roles are 1, 2, 3: name one of them with --role";
    assert!(text(&unknown).contains(why), "{}", text(&unknown));
    let status = run(&["status", "--url", &url], &[]);
    assert!(!text(&status).contains("2"), "{}", text(&status));
}

#[test]
fn what_cannot_be_used_is_told_without_the_password() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let missing = format!("sqlite://{}", directory.path().join("none.sqlite").display());
    for (arguments, environment) in [
        (&["up", "--url", "mysql://owner:5entinel@127.0.0.1:1/site"][..], &[][..]),
        (&["up", "--url", "postgres://owner:5entinel@127.0.0.1:1/site"], &[]),
        (&["up", "--url", "http://owner:5entinel@site/"], &[]),
        (&["up", "--url", "mysql://owner:5entinel@[/site"], &[]),
        (&["up", "--url-env", "SITE"], &[]),
        (&["up", "--url-env", "SITE", "--password-env", "WORD"], &[("SITE", "mysql://owner@127.0.0.1:1/site")]),
        (&["up", "--url", &missing], &[]),
        (&["up", "--url", &missing, "--prefix", "x'y"], &[]),
        (&["up", "--url", &missing, "--role", "0"], &[]),
        (&["up"], &[]),
    ] {
        let output = run(arguments, environment);
        assert!(!output.status.success(), "{arguments:?}: {}", text(&output));
        assert!(!text(&output).contains("5entinel"), "{arguments:?}: {}", text(&output));
        assert!(!text(&output).contains("panicked"), "{arguments:?}: {}", text(&output));
    }
    assert!(!directory.path().join("none.sqlite").exists(), "no file is made");
}
