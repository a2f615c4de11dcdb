use std::sync::Arc;

use crate::base::{Digest, Secret};
use crate::config::Overrides;
use crate::config::document::Value;
use crate::config::pattern::pattern;
use crate::config::reader::{Section, Word, words_of};
use crate::policy::{AuthMode, AuthPolicy, RuleSite, ScopeMap, TokenPolicy};

/// `[auth]`.
pub(in crate::config) fn auth(
    root: &Section<'_>,
    overrides: &Overrides,
    extra: &[Secret],
    upstreams: Option<&[String]>,
) -> AuthPolicy {
    let section = root.section("auth", true);
    let reader = root.reader;
    let mode = section.choice("mode", &[("sapi_jwt", AuthMode::SapiJwt), ("none", AuthMode::None)], None);
    let mut secrets = Vec::new();
    let mut names = section.words("secret_envs", false);
    names.extend(section.optional("secret_env"));
    let files = section.words("secret_files", false);
    section.refuse_secret("secret", "secret_envs or secret_files");
    if section.present() && mode == AuthMode::SapiJwt && names.is_empty() && files.is_empty() {
        reader.problem(section.place, "`auth` names no secret", "set secret_env, secret_envs or secret_files");
    }
    let named = names.iter().filter_map(|word| {
        let value = overrides.environment.get(&word.text).filter(|value| !value.is_empty())?;
        Some((Secret::new(value.as_bytes()), word))
    });
    for (secret, word) in named.chain(files.iter().filter_map(|word| Some((section.secret_file(word)?, word)))) {
        if secret.len() < 32 {
            let message = format!("the secret of {} has {} bytes, at least 32 are needed", word.text, secret.len());
            reader.problem(word.place, message, "make one with: openssl rand -hex 32");
        }
        secrets.push(secret);
    }
    if secrets.is_empty() {
        secrets.extend_from_slice(extra);
    }
    let sites = |key| -> Vec<(String, RuleSite)> {
        let words = section.words(key, true).into_iter();
        words.map(|word| (word.text, reader.site(word.key, word.place))).collect()
    };
    let mut policy = AuthPolicy {
        generation: Digest([0; 16]),
        mode,
        require_scopes: section.boolean("require_scopes", None),
        require_exp: section.boolean("require_exp", None),
        secrets,
        issuer: section.text("issuer", None).text,
        audience: section.text("audience", None).text,
        deny_sub: sites("deny_sub"),
        deny_jti: sites("deny_jti"),
        failures_per_minute: section.integer("failures_per_minute", (0, 1_000_000), None),
        scope_map: scope_map(&section, true),
        token: token(&section, mode, upstreams),
    };
    policy.generation =
        AuthPolicy::generation_of(&policy.secrets, &policy.issuer, &policy.audience, policy.require_exp);
    section.close();
    policy
}

/// `auth.token`: absent, it is off; present, it says all that matters.
fn token(auth: &Section<'_>, mode: AuthMode, upstreams: Option<&[String]>) -> TokenPolicy {
    let section = auth.section("token", false);
    let reader = section.reader;
    let enabled = section.boolean("enabled", None);
    let upstream = section.text("upstream", Some("executor"));
    let scopes = section.words("scopes", true);
    let roles = section.integers("roles", (1, u32::MAX));
    if enabled {
        if mode == AuthMode::None {
            let fix = "set auth.mode = \"sapi_jwt\", or auth.token.enabled = false";
            reader.problem(section.place, "`auth.token` would issue tokens that nobody looks at", fix);
        }
        if let Some(known) = upstreams.filter(|known| !known.contains(&upstream.text)) {
            let fix = format!("sidecar.toml has: {}", known.join(", "));
            reader.problem(upstream.place, format!("there is no upstream {:?}", upstream.text), &fix);
        }
        if section.table.is_some_and(|table| table.get("roles").is_some()) && roles.is_empty() {
            let fix = "name roles of the CMS, such as [1]";
            reader.problem(section.place, "`auth.token.roles` is empty: nobody could get a token", fix);
        }
    }
    for scope in scopes.iter().filter(|scope| scope.text.trim().is_empty()) {
        reader.problem(scope.place, format!("`{}` is empty", scope.key), "name a scope, such as \"mcp:read\"");
    }
    let policy = TokenPolicy {
        enabled,
        upstream: upstream.text,
        ttl_s: section.integer("ttl_seconds", (60, 30 * 86_400), None),
        scopes: scopes.into_iter().map(|word| word.text).collect(),
        roles,
        account_per_minute: section.integer("account_per_minute", (0, 1_000_000), None),
        address_per_minute: section.integer("address_per_minute", (0, 1_000_000), None),
        legacy_md5: section.boolean("legacy_md5", Some(false)),
    };
    section.close();
    policy
}

/// `scope_map`: scopes in the order of the file, each a pattern or a list of patterns.
pub(in crate::config) fn scope_map(section: &Section<'_>, required: bool) -> ScopeMap {
    let map = section.section("scope_map", required);
    let mut entries = Vec::new();
    for entry in map.table.iter().flat_map(|table| &table.entries) {
        let key = map.key(&format!("{:?}", entry.key));
        if entry.key.trim().is_empty() {
            map.reader.problem(entry.key_place, "a scope must not be empty", "name it");
        }
        let words = match &entry.node.value {
            Value::Text(text) => vec![Word { text: text.clone(), key, place: entry.node.place }],
            _ => words_of(map.reader, &key, &entry.node),
        };
        let scope: Arc<str> = Arc::from(entry.key.as_str());
        entries.extend(words.into_iter().filter_map(|word| {
            let (pattern, site) = pattern(map.reader, word)?;
            Some((Arc::clone(&scope), pattern, site))
        }));
    }
    if required && map.present() && entries.is_empty() {
        map.reader.problem(map.place, "`auth.scope_map` is empty", "copy it from conf/policy.toml");
    }
    ScopeMap { entries }
}
