//! `rediss://`: an encrypted connection, and only to a Redis whose certificate is trusted.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::Command;

#[expect(dead_code, reason = "shared with the tests of limits, which use all of it")]
#[path = "../limits/server.rs"]
mod server;

use server::RedisServer;

use crate::harness::{Sidecar, Start, vacant};

/// Makes a certificate authority and a certificate for `localhost`, and says how redis-server finds them.
fn with_tls(dir: &Path, port: u16) -> Vec<String> {
    let openssl = |args: &[&str]| {
        let output = Command::new("openssl").args(args).current_dir(dir).output().expect("openssl is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
    let authority = ["req", "-x509", "-subj", "/CN=test authority", "-keyout", "ca.key", "-out", "ca.crt"];
    openssl(&[&authority[..], &key[..]].concat());
    let request = ["req", "-x509", "-CA", "ca.crt", "-CAkey", "ca.key", "-subj", "/CN=localhost"];
    let names = ["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"];
    openssl(&[&request[..], &key[..], &names[..], &["-keyout", "redis.key", "-out", "redis.crt"]].concat());
    let file = |name: &str| dir.join(name).to_string_lossy().into_owned();
    let words = [
        ("--tls-port", port.to_string()),
        ("--tls-cert-file", file("redis.crt")),
        ("--tls-key-file", file("redis.key")),
        ("--tls-ca-cert-file", file("ca.crt")),
        ("--tls-auth-clients", "no".to_owned()),
    ];
    words.into_iter().flat_map(|(key, value)| [key.to_owned(), value]).collect()
}

#[test]
fn only_a_trusted_certificate_is_talked_to() {
    let place = RefCell::new((0, PathBuf::new()));
    let redis = RedisServer::start_with(|dir, port| {
        place.replace((port, dir.join("ca.crt")));
        with_tls(dir, port)
    });
    let (port, authority) = place.into_inner();
    let limited = || -> Start {
        Sidecar::start()
            .raw("rate_limit.per_minute", 1)
            .policy("rate_limit.on_store_failure", "deny")
            .set(format!("redis.url=\"rediss://localhost:{port}\""))
            .set("redis.timeout_ms=5000")
    };
    let sidecar = limited().go();
    let refused = sidecar.call("raw.echo");
    assert_eq!((refused.status, refused.code().as_deref()), (503, Some("limits_unavailable")), "nobody vouches for it");
    assert_eq!(redis.command(&["DBSIZE"]), ":0\r\n");
    sidecar.finish();

    let sidecar = limited().env("SSL_CERT_FILE", authority).go();
    assert_eq!(sidecar.call("raw.echo").status, 200);
    assert_ne!(redis.command(&["DBSIZE"]), ":0\r\n", "it was counted there");
    assert_eq!(sidecar.call("raw.echo").status, 429);
    sidecar.finish();
}
