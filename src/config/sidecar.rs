use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use crate::admin::settings as admin;
use crate::audit::settings as audit;
use crate::base::Secret;
use crate::config::document::Document;
use crate::config::document::Value;
use crate::config::reader::{Reader, Section, Word};
use crate::config::{EXECUTOR_KEYS, Effective, Overrides, Report, SIDECAR_KEYS, Source, all_keys};
use crate::executor::settings as executor;
use crate::proxy::settings as proxy;
use crate::redis::settings as redis;
use crate::store::settings as store;
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

/// A valid executor.toml.
#[derive(Clone, Debug)]
pub struct Executor {
    pub executor: executor::Settings,
    pub database: store::Settings,
}

/// Loads sidecar.toml.
///
/// # Errors
/// Every problem at once.
pub fn load_sidecar(source: &Source, overrides: &Overrides) -> Result<Sidecar, Report> {
    inspect_sidecar(source, overrides).0
}

/// Loads executor.toml.
///
/// # Errors
/// Every problem at once.
pub fn load_executor(source: &Source, overrides: &Overrides) -> Result<Executor, Report> {
    inspect_executor(source, overrides).0
}

fn parsed<T: FromStr>(section: &Section<'_>, word: &Word, what: &str) -> Option<T>
where
    T::Err: Display,
{
    word.text
        .parse()
        .map_err(|error| {
            section.reader.problem(
                word.place,
                format!("`{}` is no {what}: {:?} ({error})", word.key, word.text),
                "correct it",
            );
        })
        .ok()
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
        let http: Vec<SocketAddr> =
            listen.words("http", true).iter().filter_map(|word| parsed(&listen, word, "address with port")).collect();
        let server_names =
            listen.words("server_names", false).into_iter().map(|word| word.text.to_lowercase()).collect();
        let trusted_proxies = listen
            .words("trusted_proxies", false)
            .iter()
            .filter_map(|word| parsed(&listen, word, "address range"))
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
        let admin_settings = admin::Settings {
            listen: admin.optional("listen").and_then(|word| parsed(&admin, &word, "address with port")),
            hosts: admin.words("hosts", false).into_iter().map(|word| word.text.to_lowercase()).collect(),
            control: control.optional("socket").map(|word| control.path(&word)),
        };
        admin.close();
        control.close();
        let cms = root.section("cms", false);
        let cms_origin = cms.optional("url").and_then(|word| match address(&cms, &word, None)? {
            proxy::Address::Tcp { host, port, tls: false } => Some(proxy::CmsOrigin { host, port }),
            _ => {
                cms.reader.problem(word.place, "`cms.url` must be http://host:port", "use http://");
                None
            }
        });
        cms.close();
        let mut upstreams = BTreeMap::new();
        let all = root.section("upstreams", true);
        for entry in all.table.iter().flat_map(|table| &table.entries) {
            if let Value::Table(table) = &entry.node.value {
                let section = Section::at(&reader, table, all.key(&entry.key), entry.node.place);
                if let Some(upstream) = upstream(&section, &env) {
                    upstreams.insert(entry.key.clone(), upstream);
                }
                section.close();
            } else {
                reader.problem(entry.node.place, format!("`upstreams.{}` must be a table", entry.key), "write a table");
            }
        }
        let audit = root.section("audit", true);
        use audit::Durability::{Buffered, Written};
        let dir = audit.text("dir", None);
        let channel = audit.text("channel", Some("emcp"));
        if channel.text.is_empty() || !channel.text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)) {
            reader.problem(
                channel.place,
                "`audit.channel` becomes part of a file name",
                "use letters, digits, _ and -",
            );
        }
        let audit_settings = audit::Settings {
            dir: audit.path(&dir),
            channel: channel.text,
            retain_days: audit.integer("retain_days", (0, 36_500), Some(14)),
            durability: audit.choice("durability", &[("buffered", Buffered), ("written", Written)], Some("buffered")),
            queue: audit.size("queue", (16, 1_000_000), Some(8192), 1),
            min_free_bytes: audit.size("min_free_mb", (0, 1_000_000), Some(64), 1 << 20) as u64,
        };
        audit.close();
        let redis = root.section("redis", false);
        let redis_settings = redis.present().then(|| redis::Settings {
            url: database_url(&redis, &env, &["redis://", "rediss://"]),
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
            upstreams,
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

/// [`load_executor`], with each effective value.
pub fn inspect_executor(source: &Source, overrides: &Overrides) -> (Result<Executor, Report>, Vec<Effective>) {
    let (document, problems) = Document::parse(source, overrides, EXECUTOR_KEYS, &all_keys());
    if document.root.entries.is_empty() {
        return (Err(Report { problems }), Vec::new());
    }
    let env = |name: &str| overrides.environment.get(name).cloned();
    let reader = Reader::new(&document, source.base.clone(), problems);
    let value = {
        use executor::Listen;
        let root = reader.root();
        let section = root.section("executor", true);
        let socket = section.optional("socket");
        let tcp = section.optional("listen");
        let key = key(&section, &env);
        let listen = match (socket, tcp) {
            (Some(word), None) => Listen::Unix(section.path(&word)),
            (None, Some(word)) => {
                if key.is_none() {
                    reader.problem(
                        word.place,
                        "a TCP listener needs a key",
                        "set executor.key_env or executor.key_file",
                    );
                }
                let address =
                    parsed(&section, &word, "address with port").unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
                Listen::Tcp { address, key: key.unwrap_or_else(|| Secret::new("")) }
            }
            _ => {
                reader.problem(section.place, "`executor` needs either `socket` or `listen`", "give one of the two");
                Listen::Unix(reader.base.clone())
            }
        };
        section.close();
        let database = root.section("database", true);
        let prefix = database.text("prefix", Some("evo_"));
        if !prefix.text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            reader.problem(prefix.place, "`database.prefix` becomes part of table names", "use letters, digits and _");
        }
        let settings = store::Settings {
            url: database_url(&database, &env, &store::SCHEMES),
            password: database.secret("password", &env, false).map(|(secret, _)| secret),
            prefix: prefix.text,
            max_connections: database.integer("max_connections", (1, 1000), Some(8)),
            acquire_timeout: Duration::from_millis(
                database.integer("acquire_timeout_ms", (1, 600_000), Some(2000)).into(),
            ),
            statement_timeout: Duration::from_millis(
                database.integer("statement_timeout_ms", (1, 600_000), Some(10_000)).into(),
            ),
            idle_timeout: database.duration("idle_timeout", Duration::from_secs(300)),
            max_lifetime: database.duration("max_lifetime", Duration::from_secs(1800)),
        };
        database.close();
        root.close();
        Executor { executor: executor::Settings { listen }, database: settings }
    };
    reader.finish(value)
}

fn key(section: &Section<'_>, env: &dyn Fn(&str) -> Option<String>) -> Option<Secret> {
    let (secret, place) = section.secret("key", env, false)?;
    if secret.len() < 32 {
        let message = format!("`{}` has {} bytes, at least 32 are needed", section.key("key"), secret.len());
        section.reader.problem(place, message, "make one with: openssl rand -hex 32");
    }
    Some(secret)
}

fn database_url(section: &Section<'_>, env: &dyn Fn(&str) -> Option<String>, schemes: &[&str]) -> Secret {
    let Some((secret, place)) = section.secret("url", env, true) else {
        if section.present() {
            section.reader.problem(section.place, format!("`{}` is missing", section.key("url")), "set url or url_env");
        }
        return Secret::new("");
    };
    let text = String::from_utf8_lossy(secret.expose()).into_owned();
    if !schemes.iter().any(|scheme| text.starts_with(scheme)) {
        // The place's text may be the secret itself: point at the table instead.
        let _ = place;
        let message = format!("`{}` has an unknown scheme", section.key("url"));
        section.reader.problem(section.place, message, &format!("begin it with {}", schemes.join(" or ")));
    }
    match text.strip_prefix("sqlite://") {
        Some(path) if !path.starts_with('/') && !path.starts_with(':') && place.source == 0 => {
            Secret::new(format!("sqlite://{}", section.reader.base.join(path).display()))
        }
        _ => secret,
    }
}

/// `scheme://host:port`, with a path after it where `path` allows.
fn address(section: &Section<'_>, word: &Word, path: Option<&mut String>) -> Option<proxy::Address> {
    let uri: Option<http::Uri> = parsed(section, word, "URL");
    let uri = uri?;
    let tls = uri.scheme_str() == Some("https");
    let plain = match path {
        _ if uri.path() == "/" || uri.path().is_empty() => true,
        Some(path) => {
            uri.path().clone_into(path);
            true
        }
        None => false,
    };
    match uri.host() {
        Some(host) if (tls || uri.scheme_str() == Some("http")) && plain && uri.query().is_none() => {
            Some(proxy::Address::Tcp {
                host: host.trim_matches(['[', ']']).to_owned(),
                port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
                tls,
            })
        }
        _ => {
            section.reader.problem(
                word.place,
                format!("`{}` must be scheme, host and port", word.key),
                "http://host:port",
            );
            None
        }
    }
}

fn upstream(section: &Section<'_>, env: &dyn Fn(&str) -> Option<String>) -> Option<proxy::Upstream> {
    let socket = section.optional("socket").map(|word| proxy::Address::Unix(section.path(&word)));
    let url = section.optional("url");
    // A path in the URL wins.
    let mut path = section.text("path", Some("/mcp"));
    let identity = section.boolean("identity", Some(false));
    let key = key(section, env);
    let mut headers = Vec::new();
    let list = section.section("headers", false);
    for entry in list.table.iter().flat_map(|table| &table.entries) {
        if http::HeaderName::from_bytes(entry.key.as_bytes()).is_err() {
            section.reader.problem(entry.key_place, "not a header name", "use letters, digits and -");
        }
        // `Authorization` takes a value, `Authorization_env` and `_file` are told apart by the table form.
        match &entry.node.value {
            Value::Text(text) if http::HeaderValue::from_str(text).is_ok() => {
                headers.push((entry.key.clone(), Secret::new(text.as_bytes())));
            }
            Value::Table(table) => {
                let inner = Section::at(section.reader, table, list.key(&entry.key), entry.node.place);
                if let Some((secret, _)) = inner.secret("value", env, false) {
                    headers.push((entry.key.clone(), secret));
                }
                inner.close();
            }
            _ => section.reader.problem(
                entry.key_place,
                "a header is a string or { value_env = \"NAME\" }",
                "correct it",
            ),
        }
    }
    if !path.text.starts_with('/') {
        section.reader.problem(path.place, format!("`{}` must start with /", path.key), "write \"/mcp\"");
    }
    let address = match (socket, &url) {
        (Some(unix), None) => unix,
        (None, Some(word)) => {
            if identity && key.is_none() {
                section.reader.problem(word.place, "our executor over TCP needs a key", "set key_env or key_file");
            }
            address(section, word, Some(&mut path.text))?
        }
        _ => {
            section.reader.problem(
                section.place,
                format!("`{}` needs either `socket` or `url`", section.path),
                "give one",
            );
            return None;
        }
    };
    Some(proxy::Upstream { address, path: path.text, key, identity, headers })
}
