use std::sync::Arc;

use crate::base::{Digest, Principal, Secret};
use crate::policy::{I18n, PatternSet, Redactor, RuleSite, ScopeMap};

/// One valid policy, immutable. A request takes one and keeps it until its last byte.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Grows by one with every accepted load of this process, from 1.
    pub revision: u64,
    /// First 16 hex digits of the SHA-256 of the file's bytes.
    pub digest: String,
    /// Unix milliseconds.
    pub loaded_at_ms: u64,
    pub toolset_version: String,
    pub routes: Routes,
    pub auth: AuthPolicy,
    pub rate_limit: RateLimitPolicy,
    pub limits: LimitsPolicy,
    pub stream: StreamPolicy,
    pub security: SecurityPolicy,
    pub logging: LoggingPolicy,
    pub trace: TracePolicy,
    pub domain: DomainPolicy,
    pub compat: Compat,
    pub acl: AclPolicy,
    pub manager: ManagerPolicy,
    pub actor: Actor,
    pub i18n: I18n,
    pub queue: QueuePolicy,
    pub idempotency: IdempotencyPolicy,
    /// Enabled servers with transport `web`, in file order. Overrides are resolved into each.
    pub servers: Vec<Arc<Server>>,
    /// The handle `unknown`, shared by keys and labels.
    pub unknown_handle: Arc<str>,
}

impl Snapshot {
    /// The enabled server of this handle (case-sensitive).
    #[must_use]
    pub fn server(&self, handle: &str) -> Option<&Arc<Server>> {
        self.servers.iter().find(|server| &*server.handle == handle)
    }

    /// What requests are counted by: the servers' handles, and `token` where tokens are issued.
    #[must_use]
    pub fn labels(&self) -> Vec<String> {
        let token = self.auth.token.enabled.then(|| "token".to_owned());
        self.servers.iter().map(|server| server.handle.to_string()).chain(token).collect()
    }

    /// The CMS's user as whom this caller's permitted calls act (emcp.md 11 and 14.1, `actor`).
    #[must_use]
    pub const fn actor_of(&self, principal: &Principal) -> Option<u64> {
        match self.actor {
            Actor::Initiator => principal.user_id(),
            Actor::Service { user_id } => Some(user_id),
        }
    }
}

/// Where the reserved shapes are (`route.*`, `mode.*`, `enable`).
#[derive(Clone, Debug)]
pub struct Routes {
    /// `enable` and `mode.api`: whether the API routes are served (they stay reserved either way).
    pub api: bool,
    /// `enable`, `mode.internal` and some `manager.sources`: whether the manager routes are served (they stay reserved
    /// either way).
    pub manager: bool,
    /// `route.base`, without slashes; may be empty.
    pub base: String,
    /// `route.version`, one segment; may be empty.
    pub version: String,
    /// `route.api_prefix`, without slashes; may be empty.
    pub api_prefix: String,
    /// `route.manager_prefix`, without slashes.
    pub manager_prefix: String,
}

/// `auth.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMode {
    SapiJwt,
    None,
}

/// `auth.*`.
#[derive(Clone, Debug)]
pub struct AuthPolicy {
    pub mode: AuthMode,
    pub require_scopes: bool,
    pub require_exp: bool,
    /// Where HS256 secrets come from, resolved at load; the first signs, all verify. Empty: 500 for any token.
    pub secrets: Vec<Secret>,
    /// Exact `iss`; empty means not checked.
    pub issuer: String,
    /// Exact `aud`; empty means not checked.
    pub audience: String,
    pub deny_sub: Vec<(String, RuleSite)>,
    pub deny_jti: Vec<(String, RuleSite)>,
    /// Failed authentications per address and minute before 429; 0 is off.
    pub failures_per_minute: u32,
    pub scope_map: ScopeMap,
    pub token: TokenPolicy,
    /// [`Self::generation_of`] of the fields above; cached verifications of another generation do not count.
    pub generation: Digest,
}

/// `auth.token.*`: who gets a token for a password, and what it says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenPolicy {
    pub enabled: bool,
    /// Name of an entry of `[upstreams]` in sidecar.toml: the executor, which has the users.
    pub upstream: String,
    /// Seconds from issue to `exp`.
    pub ttl_s: u32,
    pub scopes: Vec<String>,
    /// The CMS's roles whose users may have tokens.
    pub roles: Vec<u32>,
    /// Attempts per minute for one name; 0 is off.
    pub account_per_minute: u32,
    /// Attempts per minute from one address; 0 is off.
    pub address_per_minute: u32,
    /// Passwords stored as MD5 are read.
    pub legacy_md5: bool,
}

impl AuthPolicy {
    /// Stands for everything that a cached verification depends on.
    #[must_use]
    pub fn generation_of(secrets: &[Secret], issuer: &str, audience: &str, require_exp: bool) -> Digest {
        let exp = [u8::from(require_exp)];
        let mut parts: Vec<&[u8]> = vec![issuer.as_bytes(), audience.as_bytes(), &exp];
        parts.extend(secrets.iter().map(Secret::expose));
        Digest::of(&parts)
    }
}

/// `rate_limit.on_store_failure`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStoreFailure {
    Local,
    Deny,
    Allow,
}

/// `rate_limit.*`.
#[derive(Clone, Copy, Debug)]
pub struct RateLimitPolicy {
    pub enabled: bool,
    /// Per server, method and caller; 0 is off. For unknown handles.
    pub per_minute: u32,
    /// Per caller over all servers and methods; 0 is off.
    pub total_per_minute: u32,
    pub on_store_failure: OnStoreFailure,
    /// By how much the limit is divided in `Local`.
    pub replicas: u32,
}

/// `limits.*`, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct LimitsPolicy {
    pub max_payload_bytes: usize,
    pub max_result_bytes: usize,
    pub max_result_items: u32,
    pub max_header_bytes: usize,
    pub max_headers: usize,
    pub max_stream_bytes: u64,
}

/// `stream.*`.
#[derive(Clone, Copy, Debug)]
pub struct StreamPolicy {
    pub enabled: bool,
    pub max_stream_seconds: u32,
    pub heartbeat_seconds: u32,
    pub abort_on_disconnect: bool,
    /// Bound of one event, in bytes.
    pub max_event_bytes: usize,
}

/// `security.*`.
#[derive(Clone, Debug)]
pub struct SecurityPolicy {
    pub allow_servers: PatternSet,
    pub deny_tools: PatternSet,
    pub enable_write_tools: bool,
    /// Where `enable_write_tools` stands.
    pub write_tools_site: RuleSite,
    /// Whether `tools/list` leaves out what its caller may not call.
    pub hide_denied_tools: bool,
    /// Origins (scheme://host[:port], lower case) that may call MCP routes; a request without `Origin` passes.
    pub allow_origins: Vec<String>,
}

/// `logging.*`.
#[derive(Clone, Debug)]
pub struct LoggingPolicy {
    pub audit_enabled: bool,
    pub redact_keys: Vec<String>,
    /// Made of `redact_keys`.
    pub redactor: Redactor,
}

/// `trace.*`.
#[derive(Clone, Debug)]
pub struct TracePolicy {
    /// Lower case.
    pub header: String,
    pub generate_if_missing: bool,
}

/// `domain.*`.
#[derive(Clone, Debug)]
pub struct DomainPolicy {
    pub content_max_depth: u32,
    pub content_max_limit: u32,
    pub content_max_offset: u32,
    pub models_max_offset: u32,
    /// Canonical short names.
    pub models_allow: Vec<String>,
}

/// `compat.*`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Compat {
    /// The models that hold people and rights may be allowed (N4).
    pub emcp_models: bool,
    /// The token endpoint answers with sApi's codes (emcp.md 2.5) instead of one 401.
    pub token_errors: bool,
    /// Tool validation failures become JSON-RPC -32602 (A1 of emcp.md 15).
    pub validation_as_rpc_error: bool,
}

/// `acl.*`: what the manager routes ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclPolicy {
    /// The CMS's permission that a manager's user needs.
    pub permission: String,
    /// What such a user needs besides, to have calls run later.
    pub dispatch_permission: String,
}

/// `manager.sources`: by what the executor finds out who uses the manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentitySource {
    /// The CMS's table of active sessions.
    Database,
    /// PHP's session files.
    SessionFile,
    /// PHP's sessions in Redis.
    RedisSession,
    /// A subrequest to the CMS.
    AuthRequest,
    /// The access token that the CMS keeps for a user, as a bearer token.
    AccessToken,
}

impl IdentitySource {
    /// The word in the policy and in logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::SessionFile => "session_file",
            Self::RedisSession => "redis_session",
            Self::AuthRequest => "auth_request",
            Self::AccessToken => "access_token",
        }
    }
}

/// `manager.*`: how the manager's users are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagerPolicy {
    /// In the order in which they are asked. Empty: nobody can be told, and the manager routes are not served.
    pub sources: Vec<IdentitySource>,
    /// Which entry of `[upstreams]` is the executor that is asked.
    pub upstream: String,
    /// Name of the cookie that holds the session's id.
    pub cookie: String,
    /// How old the last sign of a session may be.
    pub session_seconds: u64,
    /// How long an answer of the executor is good for; 0: for one request.
    pub cache_seconds: u64,
    /// Whether a request with a session must carry its CSRF token.
    pub require_csrf_token: bool,
    /// The CMS's permission to use the manager at all; empty: not asked for.
    pub access_permission: String,
}

impl Default for ManagerPolicy {
    fn default() -> Self {
        Self {
            sources: Vec::new(),
            upstream: "executor".to_owned(),
            cookie: "evo_session".to_owned(),
            session_seconds: 7200,
            cache_seconds: 2,
            require_csrf_token: false,
            access_permission: "access_permissions".to_owned(),
        }
    }
}

/// `actor.*`: as whom permitted calls act, towards the executor and in the audit field `actor_user_id`. Limits and
/// `rate_limit_identity` always go by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// As the caller's own user, where the credential names one.
    Initiator,
    /// All as this user of the CMS.
    Service { user_id: u64 },
}

/// `queue.driver`: where dispatched calls wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueDriver {
    /// Nothing is dispatched: the routes answer 404.
    Off,
    /// Nowhere: with `failover = "sync"` they are answered at once.
    Sync,
    /// In a table of ours.
    Own,
    /// In sTask's.
    Stask,
}

/// `queue.failover`: what happens to a dispatched call when there is no queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failover {
    /// 503.
    Fail,
    /// It is run at once.
    Sync,
}

/// `queue.*`.
#[derive(Clone, Copy, Debug)]
pub struct QueuePolicy {
    pub driver: QueueDriver,
    pub failover: Failover,
    /// How often a task is tried while the infrastructure fails; at least 1.
    pub max_attempts: u32,
    /// Whether tasks in sTask's table that others made are run.
    pub accept_foreign: bool,
}

/// `idempotency.*`.
#[derive(Clone, Debug)]
pub struct IdempotencyPolicy {
    /// Lower case.
    pub header: String,
    /// How long a key is remembered, and its answer after that came.
    pub ttl_seconds: u32,
}

/// `servers[].kind`: what stands behind a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerKind {
    /// Our executor's content server.
    Content,
    /// Any MCP server by URL (`kind = "mcp"`).
    Foreign,
}

/// One `[[servers]]` entry, its overrides resolved against the globals.
#[derive(Clone, Debug)]
pub struct Server {
    /// Position among the snapshot's servers.
    pub index: usize,
    pub handle: Arc<str>,
    pub kind: ServerKind,
    /// Name of an entry of `[upstreams]` in sidecar.toml.
    pub upstream: String,
    /// What a call needs; the server's own map, or the global one.
    pub scope_map: ScopeMap,
    pub allow_tools: PatternSet,
    pub allow_resources: PatternSet,
    pub allow_prompts: PatternSet,
    /// The server's own deny list; `security.deny_tools` counts as well.
    pub deny_tools: PatternSet,
    /// Resolved; 0 is off.
    pub per_minute: u32,
    pub limits: LimitsPolicy,
    pub stream: StreamPolicy,
    pub site: RuleSite,
}
