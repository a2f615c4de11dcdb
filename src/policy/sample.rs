use std::sync::Arc;

use crate::base::Secret;
use crate::policy::{
    AclPolicy, Actor, AuthMode, AuthPolicy, Compat, DomainPolicy, Failover, I18n, IdempotencyPolicy, LimitsPolicy,
    LoggingPolicy, OnStoreFailure, Pattern, PatternSet, QueueDriver, QueuePolicy, RateLimitPolicy, Redactor, Routes,
    RuleSite, ScopeMap, SecurityPolicy, Server, ServerKind, Snapshot, StreamPolicy, TokenPolicy, TracePolicy,
};

impl Snapshot {
    /// A small valid policy for tests: one server `content` that allows `evo.content.*`, secret of 32 `k`.
    #[must_use]
    pub fn sample() -> Self {
        let secrets = vec![Secret::new([b'k'; 32])];
        let limits = LimitsPolicy {
            max_payload_bytes: 256 * 1024,
            max_result_bytes: 1 << 20,
            max_result_items: 100,
            max_header_bytes: 32 * 1024,
            max_headers: 100,
            max_stream_bytes: 64 << 20,
        };
        let stream = StreamPolicy {
            enabled: true,
            max_stream_seconds: 120,
            heartbeat_seconds: 15,
            abort_on_disconnect: true,
            max_event_bytes: 1 << 20,
        };
        let scope_map = scopes(&[
            ("mcp:read", "initialize"),
            ("mcp:read", "*/list"),
            ("mcp:read", "*/read"),
            ("mcp:read", "*/get"),
            ("mcp:call", "tools/call"),
        ]);
        let server = Server {
            index: 0,
            handle: "content".into(),
            kind: ServerKind::Content,
            upstream: "executor".to_owned(),
            scope_map: scope_map.clone(),
            allow_tools: patterns("servers[0].allow_tools", &["evo.content.*", "evo.write.*"]),
            allow_resources: patterns("servers[0].allow_resources", &["site://*"]),
            allow_prompts: patterns("servers[0].allow_prompts", &["hello"]),
            deny_tools: patterns("servers[0].deny_tools", &["evo.content.secret"]),
            per_minute: 30,
            limits,
            stream,
            site: site("servers[0]"),
        };
        Self {
            revision: 1,
            digest: "0123456789abcdef".to_owned(),
            loaded_at_ms: 0,
            toolset_version: "1".to_owned(),
            routes: Routes {
                api: true,
                manager: false,
                base: "api".to_owned(),
                version: "v1".to_owned(),
                api_prefix: "mcp".to_owned(),
                manager_prefix: "emcp".to_owned(),
            },
            auth: AuthPolicy {
                mode: AuthMode::SapiJwt,
                require_scopes: true,
                require_exp: true,
                generation: AuthPolicy::generation_of(&secrets, "", "", true),
                secrets,
                issuer: String::new(),
                audience: String::new(),
                deny_sub: Vec::new(),
                deny_jti: Vec::new(),
                failures_per_minute: 0,
                scope_map,
                token: TokenPolicy::default(),
            },
            rate_limit: RateLimitPolicy {
                enabled: true,
                per_minute: 60,
                total_per_minute: 0,
                on_store_failure: OnStoreFailure::Local,
                replicas: 1,
            },
            limits,
            stream,
            security: SecurityPolicy {
                allow_servers: patterns("security.allow_servers", &["*"]),
                deny_tools: patterns("security.deny_tools", &["*.purge"]),
                enable_write_tools: false,
                write_tools_site: site("security.enable_write_tools"),
                hide_denied_tools: false,
                allow_origins: Vec::new(),
            },
            logging: LoggingPolicy { audit_enabled: true, redact_keys: Vec::new(), redactor: Redactor::default() },
            trace: TracePolicy { header: "x-trace-id".to_owned(), generate_if_missing: true },
            domain: DomainPolicy {
                content_max_depth: 6,
                content_max_limit: 100,
                content_max_offset: 5000,
                models_max_offset: 5000,
                models_allow: Vec::new(),
            },
            compat: Compat::default(),
            acl: AclPolicy { permission: "emcp".to_owned(), dispatch_permission: "emcp_dispatch".to_owned() },
            manager: crate::policy::ManagerPolicy::default(),
            actor: Actor::Initiator,
            i18n: I18n::default(),
            queue: QueuePolicy {
                driver: QueueDriver::Own,
                failover: Failover::Fail,
                max_attempts: 3,
                accept_foreign: false,
            },
            idempotency: IdempotencyPolicy { header: "idempotency-key".to_owned(), ttl_seconds: 86_400 },
            servers: vec![Arc::new(server)],
            unknown_handle: "unknown".into(),
        }
    }
}

fn site(key: &str) -> RuleSite {
    RuleSite { key: key.into(), line: 1, column: 1 }
}

fn patterns(key: &str, texts: &[&str]) -> PatternSet {
    let sited = |(i, text): (usize, &&str)| (Pattern::new(text).unwrap(), site(&format!("{key}[{i}]")));
    PatternSet::new(texts.iter().enumerate().map(sited).collect())
}

fn scopes(entries: &[(&str, &str)]) -> ScopeMap {
    let sited = |(scope, text): &(&str, &str)| (Arc::from(*scope), Pattern::new(text).unwrap(), site("auth.scope_map"));
    ScopeMap { entries: entries.iter().map(sited).collect() }
}
