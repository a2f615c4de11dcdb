use super::*;

fn limits(mode: StoreMode, breaker: Breaker) -> LimitsReading {
    LimitsReading {
        mode,
        breaker,
        openings: 1,
        fallbacks: 2,
        buckets: 3,
        errors: [4, 0, 0, 0, 0, 1],
        latency_counts: [5, 6, 0, 0, 0, 0, 0, 0, 0, 7],
        latency_sum_us: 1_500_000,
    }
}

fn metrics() -> Arc<Metrics> {
    Metrics::new(&["content".to_owned(), "archive".to_owned()]).expect("registers")
}

#[test]
fn decisions_are_counted_under_closed_labels() {
    let metrics = metrics();
    let call = MethodClass::Known(Method::ToolsCall);
    metrics.decision("content", call, true, "ok");
    metrics.decision("content", call, true, "ok");
    metrics.decision("content", call, true, "upstream_failed");
    metrics.decision("evil\"} 1\n", call, false, "tool_denied");
    metrics.decision("archive", MethodClass::Unknown, false, "made_up");
    let text = metrics.render();
    for line in [
        r#"{code="ok",decision="allow",method="tools/call",server="content"} 2"#,
        r#"{code="upstream_failed",decision="allow",method="tools/call",server="content"} 1"#,
        r#"{code="tool_denied",decision="deny",method="tools/call",server="unknown"} 1"#,
        r#"{code="other",decision="deny",method="unknown",server="archive"} 1"#,
    ] {
        assert!(text.contains(&format!("mcp_sidecar_requests_total{line}\n")), "{line} in\n{text}");
    }
    assert_eq!((metrics.decided(true), metrics.decided(false)), (3, 2));
}

#[test]
fn methods_have_distinct_places() {
    let mut places: Vec<usize> = Method::ALL.into_iter().map(|m| method_index(MethodClass::Known(m))).collect();
    places.extend([method_index(MethodClass::Other), method_index(MethodClass::Unknown)]);
    places.sort_unstable();
    assert_eq!(places, (0..METHODS).collect::<Vec<_>>());
}

#[test]
fn counts_survive_a_change_of_servers() {
    let metrics = metrics();
    let ping = MethodClass::Known(Method::Ping);
    metrics.decision("content", ping, true, "ok");
    metrics.set_servers(&["content".to_owned(), "new".to_owned()]);
    metrics.decision("content", ping, true, "ok");
    metrics.decision("archive", ping, true, "ok");
    let text = metrics.render();
    assert!(text.contains(r#"method="ping",server="content"} 2"#), "{text}");
    assert!(text.contains(r#"method="ping",server="unknown"} 1"#), "{text}");
}

#[test]
fn every_name_is_registered_and_rendered() {
    let metrics = metrics();
    metrics.executor().expect("registers");
    metrics.queue().expect("registers");
    metrics.policy(7, "abc", 1_700_000_000_500);
    let text = metrics.render();
    for name in Name::ALL {
        let declared = format!("# TYPE {} {}\n", name.as_str(), name.kind().as_str());
        assert!(text.contains(&declared), "{declared}");
    }
}

#[test]
fn one_mode_one_state_and_one_digest_at_a_time() {
    let metrics = metrics();
    metrics.observe_limits(&limits(StoreMode::Redis, Breaker::Closed));
    metrics.observe_limits(&limits(StoreMode::Local, Breaker::Open));
    metrics.policy(1, "old", 0);
    metrics.policy(2, "new", 0);
    let text = metrics.render();
    assert!(text.contains("store_mode{mode=\"local\"} 1\n") && text.contains("store_mode{mode=\"redis\"} 0\n"));
    assert!(text.contains("breaker_state{state=\"open\"} 1\n"));
    assert!(text.contains("policy_info{digest=\"new\"} 1\n") && !text.contains("digest=\"old\""));
}

#[test]
fn file_descriptors_are_read_from_the_system() {
    let metrics = metrics();
    let _ = metrics.render();
    assert!(metrics.open_fds.get() > 2 && metrics.max_fds.get() >= metrics.open_fds.get());
}

#[test]
fn what_others_count_is_taken_over() {
    let metrics = metrics();
    metrics.observe_limits(&limits(StoreMode::Redis, Breaker::Closed));
    metrics.observe_tokens(10, 2, 1);
    let proxy = ProxyReading { in_flight_bytes: 9, in_flight_limit_bytes: 90, ..ProxyReading::default() };
    metrics.observe_proxy(&proxy);
    let text = metrics.render();
    for line in [
        "limits_breaker_openings_total 1",
        "limits_fallbacks_total 2",
        "limits_buckets 3",
        r#"limits_store_errors_total{kind="timeout"} 4"#,
        r#"limits_store_errors_total{kind="other"} 1"#,
        r#"limits_store_duration_seconds_bucket{le="0.00025"} 11"#,
        "limits_store_duration_seconds_count 18",
        "limits_store_duration_seconds_sum 1.5",
        "token_cache_hits_total 10",
        "token_cache_misses_total 2",
        "token_cache_entries 1",
        "in_flight_bytes 9",
        "in_flight_limit_bytes 90",
    ] {
        assert!(text.contains(&format!("mcp_sidecar_{line}\n")), "{line} in\n{text}");
    }
}

#[test]
fn what_clients_choose_makes_no_series() {
    let metrics = metrics();
    let series = |metrics: &Metrics| metrics.render().lines().filter(|line| !line.starts_with('#')).count();
    let other = |code| metrics.decision("made up", MethodClass::Other, false, code);
    other("tool_denied");
    other("not a code");
    let before = series(&metrics);
    for n in 0..1000 {
        metrics.decision(&format!("server-{n}"), MethodClass::Other, false, "tool_denied");
        metrics.upstream_failure(&format!("server-{n}"), UpstreamFailure::Closed);
        metrics.cms_request(n);
        other(format!("code-{n}").leak());
    }
    assert_eq!(series(&metrics), before);
}
