//! What wins where, and secrets that come from files.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output};

use rustix::process::Signal;
use serde_json::json;

use crate::harness::{Client, Token, eventually};
use crate::part::{Files, Part, SOON, program, rpc};

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The line of `check --dump` about a key.
fn dumped(command: &mut Command, key: &str) -> String {
    let output = command.arg("--dump").output().expect("the binary runs");
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    let line = text.lines().find(|line| line.starts_with(&format!("{key} = ")));
    line.unwrap_or_else(|| panic!("no {key} in {text}")).to_owned()
}

#[test]
fn the_environment_wins_over_files_and_set_over_both() {
    let files = Files::shipped();
    for (key, variable, file, other, set) in [
        ("timeouts.drain", "MCP_SIDECAR__TIMEOUTS__DRAIN", "\"25s\"", "3s", "4s"),
        ("audit.min_free_mb", "MCP_SIDECAR__AUDIT__MIN_FREE_MB", "64", "7", "8"),
        ("rate_limit.per_minute", "MCP_SIDECAR__RATE_LIMIT__PER_MINUTE", "60", "7", "8"),
        (
            "servers.content.rate_limit.per_minute",
            "MCP_SIDECAR__SERVERS__CONTENT__RATE_LIMIT__PER_MINUTE",
            "30",
            "7",
            "8",
        ),
        ("security.deny_tools", "MCP_SIDECAR__SECURITY__DENY_TOOLS", "[]", "[\"a\"]", "[\"b\", \"c\"]"),
        ("database.prefix", "MCP_SIDECAR__DATABASE__PREFIX", "\"evo_\"", "site_", "site2_"),
        ("executor.admin.listen", "MCP_SIDECAR__EXECUTOR__ADMIN__LISTEN", "\"127.0.0.1:0\"", "127.0.0.1:1", "[::1]:2"),
    ] {
        let shown = key.replace("servers.content", "servers[0]");
        let toml = |value: &str| if file.starts_with('"') { format!("\"{value}\"") } else { value.to_owned() };
        let from_file = dumped(&mut files.check(), &shown);
        assert!(from_file.starts_with(&format!("{shown} = {file}  # ")) && from_file.contains(".toml:"), "{from_file}");
        let from_environment = dumped(files.check().env(variable, toml(other)), &shown);
        assert_eq!(from_environment, format!("{shown} = {}  # {variable}", toml(other)));
        let set = toml(set);
        let from_set = dumped(files.check().env(variable, other).args(["--set", &format!("{key}={set}")]), &shown);
        assert_eq!(from_set, format!("{shown} = {set}  # --set {key}"));
    }
    for (variable, value, why) in [
        ("MCP_SIDECAR__TIMEOUTS__DRIAN", "3s", "did you mean `drain`?"),
        ("MCP_SIDECAR__TIMEOUT__DRAIN", "3s", "did you mean `timeouts`?"),
        ("MCP_SIDECAR__TIMEOUTS__DRAIN", "soon", "no length of time"),
        ("MCP_SIDECAR__SECURITY__DENY_TOOLS", "[", "not TOML"),
    ] {
        let output = files.check().env(variable, value).output().expect("the binary runs");
        let text = said(&output);
        assert!(!output.status.success() && text.contains(why) && text.contains(variable), "{text}");
    }
}

fn status(proxy: std::net::SocketAddr, token: &str) -> u16 {
    let request = rpc("content", token, "tools/call", &json!({"name": "evo.no", "arguments": {}}));
    Client::connect(proxy).round_trip(&request.header("Connection", "close")).status
}

#[test]
fn a_rotated_secret_file_acts_after_a_reload() {
    let files = Files::shipped();
    files.edit("policy.toml", "secret_envs = [\"SAPI_JWT_SECRET\"]", "secret_files = [\"keys/new\", \"keys/old\"]");
    std::fs::create_dir(files.path("keys")).expect("is made");
    let secrets = ["the-first-secret-0123456789abcdef-0123", "the-next-secret-0123456789abcdef-01234"];
    let write = |name: &str, secret: &str| {
        std::fs::write(files.path("keys").join(name), format!("{secret}\n")).expect("is written");
    };
    write("new", secrets[0]);
    write("old", secrets[0]);
    let proxy = Part::ready(files.service("proxy"));
    let mcp = proxy.address("listening");
    let tokens = secrets.map(|secret| Token::of("alice").sign_with(jsonwebtoken::Algorithm::HS256, secret));
    // Denied by the policy, behind the check of the token: no executor is needed.
    assert_eq!(tokens.each_ref().map(|token| status(mcp, token)), [403, 401]);

    // While both are accepted, whoever holds an old token goes on.
    write("new", secrets[1]);
    proxy.signal(Signal::HUP);
    eventually("the new secret is known", SOON, || (status(mcp, &tokens[1]) == 403).then_some(()));
    assert_eq!(status(mcp, &tokens[0]), 403);
    write("old", secrets[1]);
    let socket = files.path("run/control.sock");
    let told = program().args(["ctl", "reload", "--socket"]).arg(&socket).output().expect("the binary runs");
    assert!(told.status.success() && said(&told).contains("revision 3"), "{}", said(&told));
    assert_eq!(tokens.each_ref().map(|token| status(mcp, token)), [401, 403], "also for tokens seen before");

    // A secret that is gone or cut short changes nothing, and says so.
    for (name, text, why) in [("new", Some("short"), "at least 32"), ("old", None, "cannot be read")] {
        match text {
            Some(text) => write(name, text),
            None => std::fs::remove_file(files.path("keys").join(name)).expect("was there"),
        }
        let told = program().args(["ctl", "reload", "--socket"]).arg(&socket).output().expect("the binary runs");
        assert!(!told.status.success() && said(&told).contains(why), "{}", said(&told));
        write(name, secrets[1]);
        assert_eq!(status(mcp, &tokens[1]), 403);
    }
    for secret in secrets {
        assert!(!proxy.output().contains(secret), "a secret stands in the log");
    }
}

#[test]
fn a_secret_file_that_cannot_be_read_is_named_with_its_line() {
    let files = Files::shipped();
    std::fs::write(files.path("key"), "0123456789abcdef0123456789abcdef\n").expect("is written");
    files.edit("executor.toml", "socket = \"run/executor.sock\"", "listen = \"127.0.0.1:0\"\nkey_file = \"key\"");
    let good = files.check().output().expect("the binary runs");
    assert!(good.status.success(), "{}", said(&good));

    let refused = |command: &mut Command, why: &str| {
        let output = command.output().expect("the binary runs");
        let text = said(&output);
        assert!(!output.status.success() && text.contains("executor.toml:5:"), "{text}");
        assert!(text.contains(&format!("the secret's file cannot be read: {why}")), "{text}");
        assert!(text.contains("check path and rights"), "{text}");
    };
    std::fs::set_permissions(files.path("key"), std::fs::Permissions::from_mode(0o000)).expect("ours");
    if rustix::process::geteuid().is_root() {
        // Rights do not bind root: somebody else asks, with a copy of the program that they can reach.
        let nobody = 65_534;
        let readable = std::fs::Permissions::from_mode(0o755);
        let dir = files.path("policy.toml").parent().expect("has one").to_owned();
        std::fs::set_permissions(dir, readable.clone()).expect("ours");
        let copy = files.path("mcp-sidecar");
        std::fs::copy(env!("CARGO_BIN_EXE_mcp-sidecar"), &copy).expect("is copied");
        std::fs::set_permissions(&copy, readable).expect("ours");
        let asked = files.check();
        let mut command = Command::new(&copy);
        command.args(asked.get_args()).env("SAPI_JWT_SECRET", crate::part::SECRET).uid(nobody).gid(nobody);
        refused(&mut command, "permission denied");
    } else {
        refused(&mut files.check(), "permission denied");
    }
    std::fs::remove_file(files.path("key")).expect("was there");
    refused(&mut files.check(), "entity not found");
    std::fs::create_dir(files.path("key")).expect("is made");
    refused(&mut files.check(), "is a directory");
}
