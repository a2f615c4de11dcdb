//! Manager mode: `manager.*` of policy.toml, and `executor.manager.*` of executor.toml.

use std::time::Duration;

use crate::config::reader::Section;
use crate::executor::settings::{AuthRequest, Sessions};
use crate::policy::{IdentitySource, ManagerPolicy};
use crate::redis::settings as redis;

const SOURCES: [IdentitySource; 5] = [
    IdentitySource::Database,
    IdentitySource::SessionFile,
    IdentitySource::RedisSession,
    IdentitySource::AuthRequest,
    IdentitySource::AccessToken,
];

/// `manager`: how the manager's users are told.
pub(in crate::config) fn policy(root: &Section<'_>, upstreams: Option<&[String]>) -> ManagerPolicy {
    let section = root.section("manager", false);
    let reader = section.reader;
    let mut sources = Vec::new();
    for word in section.words("sources", false) {
        match SOURCES.into_iter().find(|source| source.as_str() == word.text) {
            Some(source) if sources.contains(&source) => {
                reader.problem(word.place, format!("`manager.sources` names {:?} twice", word.text), "name it once");
            }
            Some(source) => sources.push(source),
            None => {
                let fix = format!("use {}", SOURCES.map(IdentitySource::as_str).join(", "));
                reader.problem(word.place, format!("there is no identity source {:?}", word.text), &fix);
            }
        }
    }
    let upstream = section.text("upstream", Some("executor"));
    let unknown = upstreams.is_some_and(|known| !known.contains(&upstream.text));
    if !sources.is_empty() && unknown {
        let message = format!("`manager.upstream` names no upstream of sidecar.toml: {:?}", upstream.text);
        reader.problem(upstream.place, message, "name the entry of [upstreams] that is our executor");
    }
    let cookie = section.text("cookie", Some("evo_session"));
    let given = |key: &str| section.table.is_some_and(|table| table.get(key).is_some());
    let token = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
    if given("cookie") && (cookie.text.is_empty() || !token(&cookie.text)) {
        let message = format!("`manager.cookie` is no name of a cookie: {:?}", cookie.text);
        reader.problem(cookie.place, message, "use letters, digits, _ - and ., as the site names its session");
    }
    let access = section.text("access_permission", Some("access_permissions"));
    if !access.text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        let message = format!("`manager.access_permission` is no name of a permission: {:?}", access.text);
        reader.problem(access.place, message, "use letters, digits and _");
    }
    let manager = ManagerPolicy {
        sources,
        upstream: upstream.text,
        cookie: cookie.text,
        session_seconds: u64::from(section.integer("session_minutes", (1, 43_200), Some(120))) * 60,
        cache_seconds: section.integer("cache_seconds", (0, 10), Some(2)).into(),
        require_csrf_token: section.boolean("require_csrf_token", Some(false)),
        access_permission: access.text,
    };
    section.close();
    manager
}

/// `executor.manager`: where the executor finds sessions.
pub(in crate::config) fn sessions(executor: &Section<'_>, env: &dyn Fn(&str) -> Option<String>) -> Sessions {
    let section = executor.section("manager", false);
    let reader = section.reader;
    let file_prefix = section.text("session_prefix", Some("sess_"));
    if !file_prefix.text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)) {
        let message = format!("`{}` becomes part of file names: {:?}", file_prefix.key, file_prefix.text);
        reader.problem(file_prefix.place, message, "use letters, digits, _ and -");
    }
    let redis_prefix = section.text("redis_prefix", Some("PHPREDIS_SESSION:"));
    let redis = section.secret("redis_url", env, false).map(|(url, place)| {
        let checked = std::str::from_utf8(url.expose()).map_or(Err(redis::InvalidUrl::Malformed), redis::check_url);
        if let Err(invalid) = checked {
            reader.problem(place, format!("`executor.manager.redis_url` {invalid}"), invalid.fix());
        }
        redis::Settings { url, timeout: Duration::from_millis(250), prefix: redis_prefix.text.clone() }
    });
    let header = section.text("auth_request_header", Some("X-Manager-User"));
    if http::HeaderName::from_bytes(header.text.as_bytes()).is_err() {
        reader.problem(
            header.place,
            format!("`{}` is no header name: {:?}", header.key, header.text),
            "use X-Manager-User",
        );
    }
    let auth_request =
        section.optional("auth_request_url").and_then(|word| match AuthRequest::new(&word.text, &header.text) {
            Some(request) => Some(request),
            None => {
                let message = format!("`{}` is no address of a page: {:?}", word.key, word.text);
                reader.problem(word.place, message, "write http://host:port/path, without user and password");
                None
            }
        });
    let sessions = Sessions {
        directory: section.optional("session_dir").map(|word| section.path(&word)),
        file_prefix: file_prefix.text,
        redis,
        auth_request,
        utc_offset_s: utc_offset(&section),
    };
    section.close();
    sessions
}

/// How far the CMS's clock times are ahead of UTC.
fn utc_offset(section: &Section<'_>) -> i64 {
    let word = section.text("utc_offset", Some("+00:00"));
    let parsed = || {
        let (sign, rest) = match word.text.split_at_checked(1)? {
            ("+", rest) => (1, rest),
            ("-", rest) => (-1, rest),
            _ => return None,
        };
        let (hours, minutes) = rest.split_once(':').filter(|_| rest.len() == 5)?;
        let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
        ((0..=14).contains(&hours) && (0..60).contains(&minutes)).then_some(sign * (hours * 3600 + minutes * 60))
    };
    let given = section.table.is_some_and(|table| table.get("utc_offset").is_some());
    parsed().unwrap_or_else(|| {
        if given && !word.text.is_empty() {
            let message = format!("`{}` is no offset from UTC: {:?}", word.key, word.text);
            section.reader.problem(word.place, message, "write it as \"+02:00\"");
        }
        0
    })
}
