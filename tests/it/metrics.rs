//! The metrics of the running binary: all there, as documented, from closed sets, and moved by what happens.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mcp_sidecar::policy::Reason;
use mcp_sidecar::protocol::Method;
use mcp_sidecar::telemetry::Name;
use serde_json::json;

use crate::harness::{Client, Next, Redis, Request, SENTINEL, Sidecar, Token, Upstream, call_params, eventually};
use crate::harness::{json_answer, stream_head, vacant};

const SOON: Duration = Duration::from_secs(15);

/// One line of the exposition.
#[derive(Clone, Debug, PartialEq)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

fn samples(text: &str) -> Vec<Sample> {
    let sample = |line: &str| {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let labels = labels.strip_suffix('}')?.split("\",").filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once("=\"").expect("label=\"value\"");
            (key.to_owned(), value.trim_end_matches('"').to_owned())
        });
        Some(Sample { name: name.to_owned(), labels: labels.collect(), value: value.parse().ok()? })
    };
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| sample(line).unwrap_or_else(|| panic!("not understood: {line}"))).collect()
}

/// The sum of what a metric counts over the series that carry these labels.
fn sum(text: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    samples(text)
        .iter()
        .filter(|sample| sample.name == format!("mcp_sidecar_{name}"))
        .filter(|sample| labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|have| have == value)))
        .map(|sample| sample.value)
        .sum()
}

/// Waits until the metric has this value.
fn becomes(sidecar: &Sidecar, name: &str, labels: &[(&str, &str)], value: f64) {
    let mut last = f64::NAN;
    let reached = || {
        last = sum(&sidecar.metrics(), name, labels);
        (last == value).then_some(())
    };
    eventually(&format!("{name}{labels:?} is {value}"), SOON, reached);
}

/// The metric a sample belongs to: without the endings of a histogram's parts.
fn family(name: &str) -> Option<Name> {
    let base = ["_bucket", "_sum", "_count"].iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name);
    Name::ALL.iter().copied().find(|known| known.as_str() == name || known.as_str() == base)
}

/// The closed set that docs/METRICS.md names for a label of a metric; `None` where it is open for operators only.
fn documented(metric: &str, label: &str) -> Option<BTreeSet<String>> {
    let page = include_str!("../../docs/METRICS.md");
    let short = metric.trim_start_matches("mcp_sidecar_");
    let row = |key: &str| {
        page.lines().find_map(|line| {
            let mut cells = line.strip_prefix("| ")?.splitn(2, " | ");
            (cells.next()? == key).then(|| cells.next().unwrap_or_default().to_owned())
        })
    };
    let values = row(&format!("`{label}` of `{short}`")).or_else(|| row(&format!("`{label}`")))?;
    // Remarks stand in brackets.
    let mut depth = 0;
    let bare: String = values
        .chars()
        .filter(|letter| {
            depth += i32::from(*letter == '(');
            let keep = depth == 0;
            depth -= i32::from(*letter == ')');
            keep
        })
        .collect();
    Some(bare.split('`').skip(1).step_by(2).map(str::to_owned).collect())
}

fn check_exposition(text: &str, servers: &[&str]) {
    for name in Name::ALL {
        let (metric, kind) = (name.as_str(), name.kind().as_str());
        assert!(text.contains(&format!("# TYPE {metric} {kind}\n")), "no type of {metric}");
        assert!(text.contains(&format!("# HELP {metric} {}\n", name.help())), "no help of {metric}");
        assert!(samples(text).iter().any(|sample| family(&sample.name) == Some(*name)), "no sample of {metric}");
    }
    let codes: BTreeSet<&str> = Reason::all().into_iter().map(Reason::code).chain(["ok", "other"]).collect();
    let methods: BTreeSet<&str> = Method::ALL.into_iter().map(Method::as_str).chain(["other", "unknown"]).collect();
    for sample in samples(text) {
        let name = family(&sample.name).unwrap_or_else(|| panic!("{} is not documented", sample.name));
        for (label, value) in &sample.labels {
            let known = match label.as_str() {
                "le" => value == "+Inf" || value.parse::<f64>().is_ok(),
                "server" => servers.contains(&value.as_str()) || value == "unknown",
                "code" => codes.contains(value.as_str()),
                "method" => methods.contains(value.as_str()),
                "digest" => value.len() == 16,
                "version" => value == env!("CARGO_PKG_VERSION"),
                "status" => ["none", "1xx", "2xx", "3xx", "4xx", "5xx"].contains(&value.as_str()),
                _ => documented(name.as_str(), label).is_some_and(|set| set.contains(value)),
            };
            assert!(known, "{}: {label}={value:?} is from no documented set", sample.name);
            assert!(label == "le" || name.labels().contains(&label.as_str()), "{}: label {label}", sample.name);
        }
    }
}

/// Answers tools by name: a stream, a broken answer, a plain one.
fn upstream() -> Upstream {
    Upstream::scripted(|seen, peer| {
        let request = seen.json();
        match request["params"]["name"].as_str().unwrap_or_default() {
            "raw.stream" => {
                peer.send(stream_head());
                peer.chunk("data: {}\n\n");
                peer.gone_within(Duration::from_millis(1500));
                peer.send("0\r\n\r\n");
            }
            "raw.endless" => {
                peer.send(stream_head());
                peer.chunk("data: {}\n\n");
                peer.gone_within(SOON);
                return Next::Close;
            }
            "raw.garbage" => {
                peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nno");
                return Next::Close;
            }
            _ => {
                peer.send(json_answer(&json!({"jsonrpc": "2.0", "id": request["id"], "result": {}})));
            }
        }
        Next::KeepAlive
    })
}

fn stream(sidecar: &Sidecar, tool: &str) -> Client {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call_params(tool)});
    let mut client = Client::connect(sidecar.mcp);
    client.send(&sidecar.post("raw", &Token::of("alice"), body.to_string()).bytes());
    assert_eq!(client.head().status, 200);
    client
}

#[test]
fn a_mixed_load_moves_what_it_should_and_every_name_is_there() {
    let sidecar = Sidecar::start().policy("stream.heartbeat_seconds", 1).upstream(upstream()).go();
    check_exposition(&sidecar.metrics(), &["content", "raw"]);

    let token = Token::of("alice");
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call_params("raw.echo")});
    let call = sidecar.post("raw", &token, body.to_string());
    for _ in 0..3 {
        assert_eq!(sidecar.send(&call).status, 200);
    }
    assert_eq!(sidecar.call("raw.secret").status, 403);
    assert_eq!(sidecar.call("raw.garbage").status, 502);
    assert_eq!(sidecar.send(&call.clone().without("Authorization")).status, 401);
    let search = json!({"name": "evo.content.search", "arguments": {"limit": 5, "offset": 0}});
    assert_eq!(sidecar.rpc("content", "tools/call", search).status, 200);
    assert_eq!(sidecar.send(&Request::new("GET", "/a-page")).status, 200);

    assert_eq!(sidecar.send(&Request::new("GET", "/api/v2/mcp/raw")).status, 404);

    let mut whole = stream(&sidecar, "raw.stream");
    whole.body_until("a heartbeat", SOON, |text| text.contains("\n:") || text.starts_with(':'));
    becomes(&sidecar, "stream_heartbeats_total", &[], 1.0);
    while whole.part(SOON).is_some() {}
    let mut left = stream(&sidecar, "raw.endless");
    left.body_until("an event", SOON, |text| text.contains("data"));
    becomes(&sidecar, "streams_open", &[], 1.0);
    drop(left);
    becomes(&sidecar, "streams_open", &[], 0.0);

    let path = sidecar.policy_file();
    let good = std::fs::read_to_string(&path).expect("is there");
    std::fs::write(&path, "= no policy").expect("is written");
    assert!(!sidecar.ctl(&["reload"]).status.success());
    std::fs::write(&path, good.replace("\"raw.secret\"", "\"raw.other\"")).expect("is written");
    sidecar.ctl(&["reload"]);
    becomes(&sidecar, "policy_revision", &[], 2.0);
    becomes(&sidecar, "requests_in_flight", &[], 0.0);
    // The audit counts what it has written, 20 ms later.
    becomes(&sidecar, "audit_records_total", &[("queue", "decision")], 8.0);

    let text = sidecar.metrics();
    check_exposition(&text, &["content", "raw"]);
    let raw = |code| [("server", "raw"), ("method", "tools/call"), ("code", code)];
    for (name, labels, expected) in [
        ("requests_total", &raw("ok")[..], 5.0),
        ("requests_total", &raw("tool_denied"), 1.0),
        ("requests_total", &raw("upstream_failed"), 1.0),
        ("requests_total", &[("decision", "allow"), ("code", "upstream_failed")], 1.0),
        ("requests_total", &[("decision", "deny"), ("code", "unauthenticated")], 1.0),
        ("requests_total", &[("server", "content"), ("decision", "allow")], 1.0),
        ("request_duration_seconds_count", &[], 7.0),
        ("upstream_duration_seconds_count", &[], 7.0),
        ("own_duration_seconds_count", &[], 7.0),
        ("stream_duration_seconds_count", &[], 2.0),
        ("streams_total", &[], 2.0),
        ("stream_ends_total", &[("how", "complete")], 1.0),
        ("stream_ends_total", &[("how", "client_gone")], 1.0),
        ("stream_ends_total", &[], 2.0),
        ("cms_requests_total", &[("status", "2xx")], 1.0),
        ("cms_requests_total", &[], 1.0),
        ("refusals_total", &[("code", "route_not_found")], 1.0),
        ("refusals_total", &[], 1.0),
        ("upstream_failures_total", &[("server", "raw"), ("kind", "garbage")], 1.0),
        ("upstream_failures_total", &[], 1.0),
        ("internal_errors_total", &[], 0.0),
        ("in_flight_bytes", &[], 0.0),
        ("limits_store_mode", &[("mode", "memory")], 1.0),
        ("limits_store_mode", &[], 1.0),
        ("limits_breaker_state", &[("state", "closed")], 1.0),
        ("limits_breaker_state", &[], 1.0),
        ("audit_records_total", &[("queue", "denial")], 1.0),
        ("audit_dropped_total", &[], 0.0),
        ("policy_reloads_total", &[], 1.0),
        ("policy_looser_reloads_total", &[], 1.0),
        ("policy_revision_mismatches_total", &[], 0.0),
        ("executor_requests_total", &[("tool", "content"), ("outcome", "ok")], 1.0),
        ("executor_request_duration_seconds_count", &[], 1.0),
        ("executor_database_errors_total", &[], 0.0),
        ("draining", &[], 0.0),
        ("build_info", &[], 1.0),
        ("policy_info", &[], 1.0),
    ] {
        assert_eq!(sum(&text, name, labels), expected, "{name}{labels:?} in\n{text}");
    }
    for name in [
        // The watch on the file may have tried it as well.
        "policy_reload_failures_total",
        "token_cache_hits_total",
        "token_cache_misses_total",
        "token_cache_entries",
        "connections_total",
        "connections_limit",
        "in_flight_limit_bytes",
        "limits_buckets",
        "audit_disk_free_bytes",
        "policy_last_success_timestamp_seconds",
        "executor_database_connections_limit",
        "executor_database_statements_total",
        "resident_memory_bytes",
        "open_fds",
        "max_fds",
        "request_duration_seconds_sum",
    ] {
        assert!(sum(&text, name, &[]) > 0.0, "{name} is 0");
    }
    let status = sidecar.admin_get("/status").json();
    let digest = status["policy"]["digest"].as_str().expect("a digest").to_owned();
    assert_eq!(sum(&text, "policy_info", &[("digest", &digest)]), 1.0);
    sidecar.finish();
}

#[test]
fn what_clients_choose_makes_no_series() {
    let sidecar = Sidecar::start().go();
    let token = sidecar.token(&Token::of("alice"));
    let send = |client: &mut Client, target: &str, method: &str, tool: &str| {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": {"name": tool}}).to_string();
        let request = Request::new("POST", target)
            .header("Content-Type", "application/json")
            .header("Authorization", &format!("Bearer {token}"))
            .body(body);
        client.round_trip(&request).status
    };
    let series = || -> BTreeSet<String> {
        let without_value = |line: &str| line.rsplit_once(' ').map(|(series, _)| series.to_owned());
        sidecar.metrics().lines().filter(|line| !line.starts_with('#')).filter_map(without_value).collect()
    };
    // One connection as long as it is kept open, and one more of each kind than the loop below sends.
    let each = |n: usize| {
        let mut client = Client::connect(sidecar.mcp);
        let statuses = [
            send(&mut client, &format!("/api/v1/mcp/handle{n}"), "tools/call", "raw.echo"),
            send(&mut Client::connect(sidecar.mcp), "/api/v1/mcp/raw", "tools/call", &format!("made.up.{n}")),
            send(&mut Client::connect(sidecar.mcp), "/api/v1/mcp/raw", &format!("made/up{n}"), "raw.echo"),
            send(&mut Client::connect(sidecar.mcp), "/api/v1/mcp/content", "tools/call", &format!("evo.content.{n}")),
        ];
        assert!(statuses.iter().all(|status| (200..500).contains(status)), "{statuses:?}");
        Client::connect(sidecar.mcp).round_trip(&Request::new("GET", &format!("/page{n}?a={n}")));
    };
    // Enough for the limits of a minute to be reached, so that their refusals are there before, too.
    (0..150).for_each(each);
    let before = series();
    (150..1000).for_each(each);
    let after = series();
    assert_eq!(after.difference(&before).collect::<Vec<_>>(), Vec::<&String>::new());
    check_exposition(&sidecar.metrics(), &["content", "raw"]);
    sidecar.finish();
}

#[test]
fn a_body_on_its_way_is_in_flight() {
    let sidecar = Sidecar::start().go();
    let mut body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call_params("raw.echo")});
    body["params"]["arguments"]["filler"] = "x".repeat(100_000).into();
    let bytes = sidecar.post("raw", &Token::of("alice"), body.to_string()).bytes();
    let mut client = Client::connect(sidecar.mcp);
    client.send(&bytes[..60_000]);
    eventually("half a body is counted", SOON, || {
        let text = sidecar.metrics();
        (sum(&text, "in_flight_bytes", &[]) > 40_000.0 && sum(&text, "connections_open", &[]) == 1.0).then_some(())
    });
    client.send(&bytes[60_000..]);
    assert_eq!(client.response(false).status, 200);
    drop(client);
    becomes(&sidecar, "in_flight_bytes", &[], 0.0);
    becomes(&sidecar, "connections_open", &[], 0.0);
    sidecar.finish();
}

#[test]
fn connections_beyond_the_bound_are_counted() {
    let sidecar = Sidecar::start().set("runtime.per_address=2").go();
    let mut held: Vec<Client> = (0..2).map(|_| Client::connect(sidecar.mcp)).collect();
    let page = Request::new("GET", "/page");
    assert!(held.iter_mut().all(|client| client.round_trip(&page).status == 200));
    let mut third = Client::connect(sidecar.mcp);
    assert!(third.try_head().is_none(), "the third is closed");
    becomes(&sidecar, "connections_refused_total", &[("why", "per_address")], 1.0);
    let text = sidecar.metrics();
    assert_eq!((sum(&text, "connections_open", &[]), sum(&text, "connections_total", &[])), (2.0, 2.0));
    drop(held);
    becomes(&sidecar, "connections_open", &[], 0.0);
    sidecar.finish();
}

#[test]
fn a_redis_that_hangs_shows_in_mode_breaker_and_errors() {
    let redis = Redis::start();
    let sidecar = Sidecar::start().set(redis.setting()).go();
    for _ in 0..3 {
        assert_eq!(sidecar.call("raw.echo").status, 200);
    }
    becomes(&sidecar, "limits_store_mode", &[("mode", "redis")], 1.0);
    let timed = sum(&sidecar.metrics(), "limits_store_duration_seconds_count", &[]);
    assert!(timed >= 3.0, "{timed}");
    redis.pause();
    eventually("the breaker opens", SOON, || {
        assert_eq!(sidecar.call("raw.echo").status, 200);
        (sum(&sidecar.metrics(), "limits_breaker_state", &[("state", "open")]) == 1.0).then_some(())
    });
    let text = sidecar.metrics();
    assert_eq!(sum(&text, "limits_store_mode", &[("mode", "local")]), 1.0);
    assert!(sum(&text, "limits_store_errors_total", &[("kind", "timeout")]) >= 3.0);
    assert!(sum(&text, "limits_breaker_openings_total", &[]) >= 1.0);
    assert!(sum(&text, "limits_fallbacks_total", &[]) >= 3.0);
    redis.resume();
    eventually("the breaker closes", SOON, || {
        assert_eq!(sidecar.call("raw.echo").status, 200);
        (sum(&sidecar.metrics(), "limits_store_mode", &[("mode", "redis")]) == 1.0).then_some(())
    });
    sidecar.finish();
}

#[test]
fn a_librarys_error_is_logged_without_what_the_client_sent() {
    let gone = Upstream::scripted(|_, _| Next::Close);
    let sidecar = Sidecar::start().set(format!("cms.url=\"http://{}\"", gone.address())).go();
    let request = Request::new("GET", &format!("/{SENTINEL}-path?token={SENTINEL}-query&{SENTINEL}=1"))
        .header("Cookie", &format!("a={SENTINEL}"))
        .header("Referer", &format!("http://{SENTINEL}@a/?{SENTINEL}"))
        .header("User-Agent", SENTINEL);
    assert_eq!(sidecar.send(&request).status, 502);
    eventually("the library's error is logged", SOON, || {
        let said = sidecar.output();
        (said.contains("a library reports an error") && said.contains("pingora")).then_some(())
    });
    assert!(sidecar.output().contains("ConnectionClosed"), "{}", sidecar.output());
    eventually("the answer is counted", SOON, || {
        (sum(&sidecar.metrics(), "cms_requests_total", &[("status", "5xx")]) >= 1.0).then_some(())
    });
    sidecar.finish();
}

#[test]
fn at_the_loudest_level_nothing_of_a_request_is_logged() {
    let sidecar = Sidecar::start().upstream(upstream()).go();
    assert!(sidecar.ctl(&["log-level", "trace"]).status.success());
    let before = sidecar.output().len();
    for raw in [
        format!("GET /?token={SENTINEL} HTTP/1.1\r\nCookie {SENTINEL}\r\n\r\n"),
        format!(
            "GET /?token={SENTINEL} HTTP/1.1\r\nHost: a\r\nCookie: a={SENTINEL}\r\nContent-Length: {SENTINEL}\r\n\r\n"
        ),
        format!("{SENTINEL} /{SENTINEL} HTTP/9.9\r\n\r\n"),
        format!("GET /?token={SENTINEL} HTTP/1.1\r\nHost: a\r\nUpgrade: {SENTINEL}\r\nConnection: upgrade\r\n\r\n"),
        format!("POST /{SENTINEL} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{SENTINEL}\r\n"),
    ] {
        let mut client = Client::connect(sidecar.mcp);
        client.send(raw.as_bytes());
        client.try_head();
    }
    // Leaves in the middle of a header, and of a body.
    let request = sidecar.post("raw", &Token::of("alice"), format!("{{\"{SENTINEL}")).bytes();
    for part in [request.len() / 2, request.len() - 4] {
        Client::connect(sidecar.mcp).send(&request[..part]);
    }
    assert_eq!(sidecar.call("raw.garbage").status, 502);
    eventually("the failure is logged", SOON, || sidecar.output()[before..].contains("upstream failed").then_some(()));
    assert!(!sidecar.output()[before..].contains("alice"), "{}", sidecar.output());
    sidecar.finish();
}

/// A process of a test's own, ended with the value.
struct Process(std::process::Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_proxy_without_its_secret_counts_an_error_of_its_own() {
    let directory = tempfile::tempdir().expect("a directory");
    let conf = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    for file in ["sidecar.toml", "policy.toml"] {
        std::fs::copy(conf.join(file), directory.path().join(file)).expect("is copied");
    }
    let (mcp, admin) = (vacant(), vacant());
    let log = directory.path().join("log");
    let child = std::process::Command::new(env!("CARGO_BIN_EXE_mcp-sidecar"))
        .current_dir(directory.path())
        .args(["proxy", "--config", "sidecar.toml", "--policy", "policy.toml", "--data", "data"])
        .args(["--set", &format!("listen.http=[\"{mcp}\"]"), "--set", &format!("admin.listen=\"{admin}\"")])
        .args(["--set", "control.socket=\"control.sock\""])
        .env_remove("SAPI_JWT_SECRET")
        .stdout(std::process::Stdio::null())
        .stderr(std::fs::File::create(&log).expect("is made"))
        .spawn()
        .expect("the binary runs");
    let _process = Process(child);
    let read = |path: &str| {
        let request = Request::new("GET", path).header("Connection", "close");
        Client::connect(admin).round_trip(&request).text()
    };
    eventually("the proxy listens", Duration::from_secs(60), || {
        [mcp, admin].iter().all(|address| std::net::TcpStream::connect(address).is_ok()).then_some(())
    });
    let request = Request::new("POST", "/api/v1/mcp/content")
        .header("Content-Type", "application/json")
        .header("Authorization", &format!("Bearer {SENTINEL}.{SENTINEL}.{SENTINEL}"))
        .body(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
    let answer = Client::connect(mcp).round_trip(&request);
    assert_eq!((answer.status, answer.code().as_deref()), (500, Some("internal_error")), "{}", answer.text());
    // The answer is on its way before it is counted.
    let text = eventually("the error is counted", Duration::from_secs(10), || {
        Some(read("/metrics")).filter(|text| sum(text, "internal_errors_total", &[]) == 1.0)
    });
    assert_eq!(sum(&text, "requests_total", &[("decision", "deny"), ("code", "internal_error")]), 1.0);
    assert!(!text.contains("executor"), "a proxy alone shows nothing of an executor");
    let said = std::fs::read_to_string(&log).expect("is readable");
    assert!(said.contains("internal error") && !said.contains(SENTINEL), "{said}");
}
