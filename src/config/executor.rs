use std::net::SocketAddr;
use std::time::Duration;

use crate::admin::settings as admin;
use crate::base::Secret;
use crate::config::address::{SOCKET_ADDRESS, key, parsed};
use crate::config::document::Document;
use crate::config::manager;
use crate::config::reader::{Reader, Section};
use crate::config::sidecar::audit_log;
use crate::config::{EXECUTOR_KEYS, Effective, Overrides, Report, Source, all_keys};
use crate::executor::settings as executor;
use crate::jobs::settings as jobs;
use crate::store::settings as store;

/// A valid executor.toml.
#[derive(Clone, Debug)]
pub struct Executor {
    pub executor: executor::Settings,
    /// `executor.manager`.
    pub sessions: executor::Sessions,
    /// `executor.admin`; without a control socket.
    pub admin: admin::Settings,
    pub database: store::Settings,
    /// `queue_worker`: `None` without the table, and then nothing can be dispatched.
    pub queue_worker: Option<jobs::Settings>,
}

/// Loads executor.toml.
///
/// # Errors
/// Every problem at once.
pub fn load_executor(source: &Source, overrides: &Overrides) -> Result<Executor, Report> {
    inspect_executor(source, overrides).0
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
            (Some(word), None) => Listen::Unix(section.socket(&word)),
            (None, Some(word)) => {
                if key.is_none() && section.lacks(&["key_env", "key_file"]) {
                    let fix = "set executor.key_env or executor.key_file";
                    reader.problem(word.place, "a TCP listener needs a key", fix);
                }
                let fix = "write an IP address and a port, such as \"10.0.0.12:8090\"";
                let address =
                    parsed(&section, &word, "address with port", fix).unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
                Listen::Tcp { address, key: key.unwrap_or_else(|| Secret::new("")) }
            }
            (Some(_), Some(word)) => {
                let message = "`executor.socket` and `executor.listen` are both given";
                reader.problem(word.place, message, "keep one of the two");
                Listen::Unix(reader.base.clone())
            }
            (None, None) => {
                if section.lacks(&["socket", "listen"]) {
                    let fix = "give socket = \"PATH\", or listen = \"address:port\" with a key";
                    reader.problem(section.place, "`executor` needs either `socket` or `listen`", fix);
                }
                Listen::Unix(reader.base.clone())
            }
        };
        let admin = section.section("admin", false);
        let admin_settings = admin::Settings {
            listen: admin
                .optional("listen")
                .and_then(|word| parsed(&admin, &word, "address with port", SOCKET_ADDRESS)),
            hosts: admin.words("hosts", false).into_iter().map(|word| word.text.to_lowercase()).collect(),
            control: None,
        };
        admin.close();
        let sessions = manager::sessions(&section, &env);
        section.close();
        let database = root.section("database", true);
        let prefix = database.text("prefix", Some("evo_"));
        if !prefix.text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            reader.problem(prefix.place, "`database.prefix` becomes part of table names", "use letters, digits and _");
        }
        let settings = store::Settings {
            url: database_url(&database, &env),
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
        let queue_worker = queue_worker(&root, &env, &settings);
        root.close();
        Executor {
            executor: executor::Settings { listen },
            sessions,
            admin: admin_settings,
            database: settings,
            queue_worker,
        }
    };
    reader.finish(value)
}

/// `queue_worker`: where tasks are kept, and how they are worked on. Where nothing is said of the connections, they are
/// as those of `database`.
fn queue_worker(
    root: &Section<'_>,
    env: &dyn Fn(&str) -> Option<String>,
    database: &store::Settings,
) -> Option<jobs::Settings> {
    let section = root.section("queue_worker", false);
    if !section.present() {
        return None;
    }
    let prefix = section.text("prefix", Some(&database.prefix));
    if !prefix.text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        let message = "`queue_worker.prefix` becomes part of table names";
        section.reader.problem(prefix.place, message, "use letters, digits and _");
    }
    let store = store::Settings {
        url: database_url(&section, env),
        password: section.secret("password", env, false).map(|(secret, _)| secret),
        prefix: prefix.text,
        max_connections: section.integer("max_connections", (1, 1000), Some(4)),
        // Those that ask at the same moment stand in line.
        acquire_timeout: section.duration("acquire_timeout", Duration::from_secs(10)),
        statement_timeout: section.duration("statement_timeout", Duration::from_secs(15)),
        idle_timeout: database.idle_timeout,
        max_lifetime: database.max_lifetime,
    };
    if section.lacks(&["key_env", "key_file"]) {
        let fix = "set queue_worker.key_env or queue_worker.key_file; make one with: openssl rand -hex 32";
        section.reader.problem(section.place, "`queue_worker` needs a key, which proves whose tasks are run", fix);
    }
    let key = key(&section, env).unwrap_or_else(|| Secret::new(""));
    if section.lacks(&["audit"]) {
        let fix = "add audit = { dir = \"/var/lib/mcp-sidecar/audit\" }: each run of a task is a line there";
        section.reader.problem(section.place, "`queue_worker.audit` is missing", fix);
    }
    let audit = audit_log(&section.section("audit", false), "emcp-worker");
    let defaults = jobs::Settings::new(store, key, audit);
    let second = Duration::from_secs(1);
    let settings = jobs::Settings {
        inside: section.boolean("inside", Some(false)),
        concurrency: section.size("concurrency", (1, 256), Some(2), 1),
        poll: section.duration("poll", defaults.poll),
        lease: section.duration("lease", defaults.lease),
        timeout: section.duration("timeout", defaults.timeout),
        drain: section.duration("drain", defaults.drain),
        keep: Duration::from_secs(86_400) * section.integer("keep_days", (1, 3650), Some(30)),
        backoff: section.duration("backoff", defaults.backoff),
        ..defaults
    };
    if settings.lease < second {
        let place = section.node("lease").map_or(section.place, |node| node.place);
        section.reader.problem(place, "`queue_worker.lease` is too short to be renewed in time", "use at least \"1s\"");
    }
    section.close();
    Some(settings)
}

fn database_url(section: &Section<'_>, env: &dyn Fn(&str) -> Option<String>) -> Secret {
    let Some((secret, place)) = section.secret("url", env, true) else {
        if section.lacks(&["url", "url_env", "url_file"]) {
            let fix = "set url = \"sqlite://PATH\" (or mysql://, postgres://), url_env or url_file";
            section.reader.problem(section.place, format!("`{}` is missing", section.key("url")), fix);
        }
        return Secret::new("");
    };
    let text = String::from_utf8_lossy(secret.expose()).into_owned();
    let fix = match text.split_once("://").map(|(scheme, _)| scheme) {
        _ if store::SCHEMES.iter().any(|scheme| text.starts_with(scheme)) => None,
        Some("pgsql") => Some("write postgres://user@host/database"),
        _ => Some("write sqlite://PATH, mysql://user@host/database or postgres://user@host/database"),
    };
    if let Some(fix) = fix {
        // The place's text may be the secret itself: point at the table instead.
        section.reader.problem(section.place, format!("`{}` has an unknown scheme", section.key("url")), fix);
    }
    match text.strip_prefix("sqlite://") {
        Some(path) if !path.starts_with('/') && !path.starts_with(':') && place.source == 0 => {
            Secret::new(format!("sqlite://{}", section.reader.base.join(path).display()))
        }
        _ => secret,
    }
}
