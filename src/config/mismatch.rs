use crate::config::{Executor, Sidecar};
use crate::executor::settings::Listen;
use crate::policy::{AuthMode, Failover, IdentitySource, QueueDriver, ServerKind, Snapshot};
use crate::proxy::settings::{Address, Upstream};

/// What a policy's queue comes to where executor.toml has no `[queue_worker]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unkept {
    /// The policy names a table of tasks, and no connection leads to it.
    Tasks,
    /// Calls are answered at once, and their keys are forgotten.
    Keys,
}

impl Unkept {
    /// What is missing for this policy, if anything is.
    #[must_use]
    pub fn of(executor: &Executor, policy: &Snapshot) -> Option<Self> {
        if executor.queue_worker.is_some() {
            return None;
        }
        match (policy.queue.driver, policy.queue.failover) {
            (QueueDriver::Own | QueueDriver::Stask, _) => Some(Self::Tasks),
            (QueueDriver::Sync, Failover::Sync) => Some(Self::Keys),
            (QueueDriver::Sync, Failover::Fail) | (QueueDriver::Off, _) => None,
        }
    }

    /// The sentence.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tasks => {
                "queue.driver of the policy names a table of tasks, and executor.toml has no [queue_worker] that leads to \
                 it: no call can be run later"
            }
            Self::Keys => {
                "queue.driver is \"sync\" and executor.toml has no [queue_worker], where keys would be kept: dispatched \
                 calls with an idempotency key are answered with 503, and those without one run each time"
            }
        }
    }

    /// What to do about it.
    #[must_use]
    pub const fn fix(self) -> &'static str {
        "add [queue_worker] with url, key_env and audit to executor.toml, or set queue.driver = \"off\""
    }
}

/// Where each file is valid and two of them, or one and this environment, do not fit each other: one sentence each.
/// They may belong to different machines, so that these are warnings.
#[must_use]
pub fn mismatches(sidecar: Option<&Sidecar>, executor: Option<&Executor>, policy: Option<&Snapshot>) -> Vec<String> {
    let mut notes = Vec::new();
    if policy.is_some_and(|policy| policy.auth.mode == AuthMode::SapiJwt && policy.auth.secrets.is_empty()) {
        notes.push(
            "no variable or file of `auth` holds a secret here: started like this, every token is answered with 500"
                .to_owned(),
        );
    }
    if policy.is_some_and(|policy| policy.queue.driver == QueueDriver::Sync && policy.queue.failover == Failover::Fail)
    {
        notes.push(
            "queue.driver is \"sync\" and queue.failover is \"fail\": every dispatched call is answered with 503"
                .to_owned(),
        );
    }
    if let (Some(executor), Some(policy)) = (executor, policy)
        && let Some(unkept @ Unkept::Keys) = Unkept::of(executor, policy)
    {
        notes.push(unkept.as_str().to_owned());
    }
    let sources = policy.filter(|policy| policy.routes.manager).map_or(&[][..], |policy| &policy.manager.sources);
    for source in executor.map_or(&[][..], |_| sources) {
        let sessions = executor.map(|executor| &executor.sessions);
        let missing = match source {
            IdentitySource::SessionFile if sessions.is_some_and(|s| s.directory.is_none()) => "session_dir",
            IdentitySource::RedisSession if sessions.is_some_and(|s| s.redis.is_none()) => "redis_url_env",
            IdentitySource::AuthRequest if sessions.is_some_and(|s| s.auth_request.is_none()) => "auth_request_url",
            _ => continue,
        };
        let source = source.as_str();
        notes.push(format!("manager.sources names {source:?}, and executor.toml has no executor.manager.{missing}"));
    }
    let Some(sidecar) = sidecar else { return notes };
    if let Some(name) = policy.filter(|_| !sources.is_empty()).map(|policy| &policy.manager.upstream)
        && !sidecar.proxy.upstreams.get(name).is_some_and(|upstream| upstream.identity)
    {
        notes.push(format!(
            "the manager's users are asked for at upstreams.{name}, which gets no identity: set upstreams.{name}.identity \
             = true"
        ));
    }
    let upstreams = &sidecar.proxy.upstreams;
    if let Some(executor) = executor {
        match &executor.executor.listen {
            Listen::Unix(path) => {
                let leads = |upstream: &Upstream| matches!(&upstream.address, Address::Unix(to) if to == path);
                if !upstreams.values().any(leads) {
                    notes.push(format!("no upstream of sidecar.toml leads to executor.socket, {}", path.display()));
                }
            }
            Listen::Tcp { address, key } => {
                for (name, upstream) in upstreams {
                    let to = matches!(&upstream.address, Address::Tcp { host, port, .. }
                            if *port == address.port() && host.parse() == Ok(address.ip()));
                    if to && upstream.key.as_ref() != Some(key) {
                        notes.push(format!("upstreams.{name} has another key than executor.toml"));
                    }
                }
            }
        }
    }
    for server in policy.iter().flat_map(|policy| &policy.servers) {
        let identity = upstreams.get(&server.upstream).is_some_and(|upstream| upstream.identity);
        match server.kind {
            ServerKind::Content if !identity => notes.push(format!(
                "server {} is of kind \"content\", and our executor refuses calls without an identity: set \
                 upstreams.{}.identity = true",
                server.handle, server.upstream
            )),
            ServerKind::Foreign if identity => notes.push(format!(
                "server {} is not ours, and upstreams.{}.identity = true tells it who calls",
                server.handle, server.upstream
            )),
            _ => {}
        }
    }
    notes
}
