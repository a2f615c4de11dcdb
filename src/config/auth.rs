use std::sync::Arc;

use crate::base::{Digest, Secret};
use crate::config::Overrides;
use crate::config::document::Value;
use crate::config::pattern::pattern;
use crate::config::reader::{Section, Word, words_of};
use crate::policy::{AuthMode, AuthPolicy, RuleSite, ScopeMap};

/// `[auth]`.
pub(in crate::config) fn auth(root: &Section<'_>, overrides: &Overrides, extra: &[Secret]) -> AuthPolicy {
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
    };
    policy.generation =
        AuthPolicy::generation_of(&policy.secrets, &policy.issuer, &policy.audience, policy.require_exp);
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
