use std::net::SocketAddr;
use std::time::Duration;

use crate::admin::settings as admin;
use crate::audit::settings as audit;
use crate::base::Secret;
use crate::config::address::{SOCKET_ADDRESS, address, parsed};
use crate::config::document::{Document, Value};
use crate::config::overlap::{self, At};
use crate::config::reader::{Reader, Section};
use crate::config::upstream::{by_name, upstreams};
use crate::config::{Effective, Overrides, Report, SIDECAR_KEYS, Source, all_keys};
use crate::proxy::settings as proxy;
use crate::redis::settings as redis;
use crate::telemetry::LogFormat;

/// `log.*` of sidecar.toml.
#[derive(Clone, Debug)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: &'static str,
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info", format: LogFormat::Text }
    }
}

/// A valid sidecar.toml.
#[derive(Clone, Debug)]
pub struct Sidecar {
    pub proxy: proxy::Settings,
    pub admin: admin::Settings,
    pub audit: audit::Settings,
    pub redis: Option<redis::Settings>,
    pub log: Log,
}

/// Loads sidecar.toml.
///
/// # Errors
/// Every problem at once.
pub fn load_sidecar(source: &Source, overrides: &Overrides) -> Result<Sidecar, Report> {
    inspect_sidecar(source, overrides).0
}

/// [`load_sidecar`], with each effective value.
pub fn inspect_sidecar(source: &Source, overrides: &Overrides) -> (Result<Sidecar, Report>, Vec<Effective>) {
    let (document, problems) = Document::parse(source, overrides, SIDECAR_KEYS, &all_keys());
    if document.root.entries.is_empty() {
        return (Err(Report { problems }), Vec::new());
    }
    let env = |name: &str| overrides.environment.get(name).cloned();
    let reader = Reader::new(&document, source.base.clone(), problems);
    let value = {
        let root = reader.root();
        let listen = root.section("listen", true);
        let listens = |section: &Section<'_>, word| {
            let what: SocketAddr = parsed(section, &word, "address with port", SOCKET_ADDRESS)?;
            Some(At { what, key: word.key, place: word.place })
        };
        let words = listen.words("http", true);
        if words.is_empty() && listen.node("http").is_some_and(|node| matches!(&node.value, Value::Array(_))) {
            let place = listen.node("http").map_or(listen.place, |node| node.place);
            reader.problem(place, "`listen.http` is empty: the proxy would listen nowhere", SOCKET_ADDRESS);
        }
        let mut listeners: Vec<At<SocketAddr>> = words.into_iter().filter_map(|word| listens(&listen, word)).collect();
        let http: Vec<SocketAddr> = listeners.iter().map(|at| at.what).collect();
        let server_names =
            listen.words("server_names", false).into_iter().map(|word| word.text.to_lowercase()).collect();
        let trusted_proxies = listen
            .words("trusted_proxies", false)
            .iter()
            .filter_map(|word| {
                parsed(&listen, word, "address range", "write an address, or a range such as \"10.0.0.0/8\"")
            })
            .collect();
        let log = listen.section("access_log", false);
        use proxy::AccessLogFormat::{Combined, Json, Off};
        let access_log = proxy::AccessLog {
            format: log.choice("format", &[("off", Off), ("combined", Combined), ("json", Json)], Some("off")),
            path: log.optional("path").map(|word| log.path(&word)),
        };
        log.close();
        listen.close();
        let admin = root.section("admin", false);
        let control = root.section("control", false);
        let reads = admin.optional("listen").and_then(|word| listens(&admin, word));
        let admin_listen = reads.as_ref().map(|at| at.what);
        listeners.extend(reads);
        overlap::listeners(&reader, &listeners);
        let control_socket =
            control.optional("socket").map(|word| At { what: control.socket(&word), key: word.key, place: word.place });
        let admin_settings = admin::Settings {
            listen: admin_listen,
            hosts: admin.words("hosts", false).into_iter().map(|word| word.text.to_lowercase()).collect(),
            control: control_socket.as_ref().map(|at| at.what.clone()),
        };
        admin.close();
        control.close();
        let cms = root.section("cms", false);
        let cms_origin = cms.optional("url").and_then(|word| match address(&cms, &word, None)? {
            proxy::Address::Tcp { host, port, tls: false } => {
                let target = At { what: (host.as_str(), port), key: word.key, place: word.place };
                overlap::own_listener(&reader, &listeners, &target);
                Some(proxy::CmsOrigin { host, port })
            }
            _ => {
                let fix = "use http://; TLS to the site is not supported: where the way there is not safe, put a TLS client such as stunnel between";
                reader.problem(word.place, "`cms.url` must be http://host:port", fix);
                None
            }
        });
        cms.close();
        let upstreams = upstreams(&root, &env);
        overlap::upstreams(&reader, &upstreams, control_socket.as_ref());
        for placed in &upstreams {
            if let proxy::Address::Tcp { host, port, .. } = &placed.upstream.address {
                let key = format!("upstreams.{}", placed.name);
                let target = At { what: (host.as_str(), *port), key, place: placed.place };
                overlap::own_listener(&reader, &listeners, &target);
            }
        }
        let audit = root.section("audit", true);
        let audit_settings = audit_log(&audit, "emcp");
        let redis = root.section("redis", false);
        let redis_settings = redis.present().then(|| redis::Settings {
            url: redis_url(&redis, &env),
            timeout: Duration::from_millis(redis.integer("timeout_ms", (1, 10_000), Some(25)).into()),
            prefix: redis.text("prefix", Some("mcp-sidecar")).text,
        });
        redis.close();
        let runtime = root.section("runtime", false);
        let timeouts = root.section("timeouts", false);
        let memory = root.section("memory", false);
        let d = proxy::Timeouts::default();
        let proxy = proxy::Settings {
            listen: http,
            server_names,
            trusted_proxies,
            access_log,
            cms: cms_origin,
            upstreams: by_name(upstreams),
            timeouts: proxy::Timeouts {
                header: timeouts.duration("header", d.header),
                body: timeouts.duration("body", d.body),
                keepalive: timeouts.duration("keepalive", d.keepalive),
                write_stall: timeouts.duration("write_stall", d.write_stall),
                connect: timeouts.duration("connect", d.connect),
                response_header: timeouts.duration("response_header", d.response_header),
                drain: timeouts.duration("drain", d.drain),
                ready_lag: timeouts.duration("ready_lag", d.ready_lag),
            },
            in_flight_bytes: memory.size("in_flight_mb", (1, 65_536), Some(256), 1 << 20),
            threads: runtime.size("threads", (1, 1024), Some(2), 1),
            max_connections: runtime.size("max_connections", (1, 1_000_000), Some(20_000), 1),
            per_address: runtime.size("per_address", (1, 1_000_000), Some(512), 1),
        };
        for section in [&runtime, &timeouts, &memory] {
            section.close();
        }
        let log = root.section("log", false);
        let levels = [("info", "info"), ("error", "error"), ("warn", "warn"), ("debug", "debug"), ("trace", "trace")];
        let log_settings = Log {
            level: log.choice("level", &levels, Some("info")),
            format: log.choice("format", &[("text", LogFormat::Text), ("json", LogFormat::Json)], Some("text")),
        };
        log.close();
        root.close();
        Sidecar { proxy, admin: admin_settings, audit: audit_settings, redis: redis_settings, log: log_settings }
    };
    reader.finish(value)
}

/// An audit log: sidecar.toml's, or a worker's.
pub(in crate::config) fn audit_log(section: &Section<'_>, channel: &str) -> audit::Settings {
    use audit::Durability::{Buffered, Written};
    let dir = section.text("dir", None);
    let channel = section.text("channel", Some(channel));
    if channel.text.is_empty() || !channel.text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)) {
        let message = format!("`{}` becomes part of a file name", channel.key);
        section.reader.problem(channel.place, message, "use letters, digits, _ and -");
    }
    let settings = audit::Settings {
        dir: section.path(&dir),
        channel: channel.text,
        retain_days: section.integer("retain_days", (0, 36_500), Some(14)),
        durability: section.choice("durability", &[("buffered", Buffered), ("written", Written)], Some("buffered")),
        queue: section.size("queue", (16, 1_000_000), Some(8192), 1),
        min_free_bytes: section.size("min_free_mb", (0, 1_000_000), Some(64), 1 << 20) as u64,
    };
    section.close();
    settings
}

fn redis_url(section: &Section<'_>, env: &dyn Fn(&str) -> Option<String>) -> Secret {
    let Some((secret, _)) = section.secret("url", env, true) else {
        if section.lacks(&["url", "url_env", "url_file"]) {
            let fix = "set url_env (or url_file, or url without a password)";
            section.reader.problem(section.place, "`redis.url` is missing", fix);
        }
        return Secret::new("");
    };
    let checked = std::str::from_utf8(secret.expose()).map_or(Err(redis::InvalidUrl::Malformed), redis::check_url);
    if let Err(invalid) = checked {
        // The place's text may hold a password: point at the table instead.
        section.reader.problem(section.place, format!("`redis.url` {invalid}"), invalid.fix());
    }
    secret
}
