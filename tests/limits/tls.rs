//! `rediss://`: an encrypted connection, and only to a Redis whose certificate is trusted.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use mcp_sidecar::limits::{Store, Verdict};

use crate::conformance::{MINUTE, charge};
use crate::server::{RedisServer, store};

const PATIENT: Duration = Duration::from_secs(5);
/// Where the process that trusts the certificate is told what to connect to.
const URL: &str = "LIMITS_TEST_TLS_URL";

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

#[tokio::test]
async fn only_a_trusted_certificate_is_talked_to() {
    let server = RedisServer::start_with(with_tls);
    let url = format!("rediss://localhost:{}", server.second_port);
    let charges = [charge(1, None, 1, MINUTE)];
    assert_eq!(store(&url, PATIENT).reserve(&charges, 0).await, Verdict::Unavailable, "nobody vouches for it");
    // What is trusted is read from the environment, which a running process of many threads must not change.
    let trusting = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "tls::in_a_process_that_trusts_the_certificate", "--ignored"])
        .env("SSL_CERT_FILE", server.dir().join("ca.crt"))
        .env(URL, &url)
        .output()
        .expect("this test runs");
    assert!(trusting.status.success(), "{}", String::from_utf8_lossy(&trusting.stdout));
    assert!(String::from_utf8_lossy(&trusting.stdout).contains("1 passed"));
}

#[tokio::test]
#[ignore = "run by only_a_trusted_certificate_is_talked_to, which sets its environment"]
async fn in_a_process_that_trusts_the_certificate() {
    let Ok(url) = std::env::var(URL) else { return };
    let store = store(&url, PATIENT);
    let charges = [charge(1, None, 1, MINUTE)];
    assert_eq!(store.reserve(&charges, 0).await, Verdict::Admitted);
    assert!(matches!(store.reserve(&charges, 0).await, Verdict::Refused { .. }));
}
