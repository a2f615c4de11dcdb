//! The tables of eMCP's policy that are small, or whose feature is not part of this version.

use crate::config::reader::Section;
use crate::policy::{AclPolicy, Actor, Failover, I18n, IdempotencyPolicy, Locale, QueueDriver, QueuePolicy};

/// Tables of the contract that nothing here could honour: name, feature, what to do.
const LATER: [(&str, &str, &str); 1] = [("rules", "free rules", "use scopes, the allow lists and the deny lists")];

/// `acl`: what the manager's users need.
pub(in crate::config) fn acl(root: &Section<'_>) -> AclPolicy {
    let section = root.section("acl", false);
    let permission = |key: &str, default: &str| {
        let permission = section.text(key, Some(default));
        let named = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if section.table.is_some_and(|table| table.get(key).is_some()) && !named(&permission.text) {
            let message = format!("`acl.{key}` is no name of a permission: {:?}", permission.text);
            let fix = format!("use letters, digits and _, such as {default:?}");
            section.reader.problem(permission.place, message, &fix);
        }
        permission.text
    };
    let policy = AclPolicy {
        permission: permission("permission", "emcp"),
        dispatch_permission: permission("dispatch_permission", "emcp_dispatch"),
    };
    section.close();
    policy
}

/// `i18n`: in which language messages are.
pub(in crate::config) fn i18n(root: &Section<'_>) -> I18n {
    let section = root.section("i18n", false);
    let locales = [Locale::En, Locale::Uk, Locale::Ru].map(|locale| (locale.as_str(), locale));
    let i18n = I18n {
        locale: section.choice("locale", &locales, Some("en")),
        negotiate: section.boolean("negotiate", Some(false)),
    };
    section.close();
    i18n
}

/// `actor`: as whom permitted calls act.
pub(in crate::config) fn actor(root: &Section<'_>) -> Actor {
    let section = root.section("actor", false);
    let service = section.choice("mode", &[("initiator", false), ("service", true)], Some("initiator"));
    let user_id = section.integer("service_user_id", (0, u32::MAX), Some(0));
    if service && user_id == 0 {
        let place = section.node("mode").map_or(section.place, |node| node.place);
        let fix = "set actor.service_user_id to a user of the CMS";
        section.reader.problem(place, "`actor.mode` is \"service\", and no user is named", fix);
    }
    for key in ["service_username", "service_role"] {
        section.refuse(key, "is not read: names are not looked up here", "give the user's id: actor.service_user_id");
    }
    section.refuse("block_login", "is not read: this program logs nobody in", "block the user in the CMS");
    section.close();
    if service { Actor::Service { user_id: user_id.into() } } else { Actor::Initiator }
}

/// `queue`: where dispatched calls wait. Without the table nothing is dispatched.
pub(in crate::config) fn queue(root: &Section<'_>) -> QueuePolicy {
    use QueueDriver::{Off, Own, Stask, Sync};
    let section = root.section("queue", false);
    let drivers = [("off", Off), ("own", Own), ("stask", Stask), ("sync", Sync)];
    let policy = QueuePolicy {
        driver: section.choice("driver", &drivers, Some("off")),
        failover: section.choice("failover", &[("fail", Failover::Fail), ("sync", Failover::Sync)], Some("fail")),
        max_attempts: section.integer("max_attempts", (1, 100), Some(3)),
        accept_foreign: section.boolean("accept_foreign", Some(false)),
    };
    section.refuse("poll_interval_ms", "is the worker's", "set queue_worker.poll in executor.toml");
    section.close();
    policy
}

/// `idempotency`: how long a repeated dispatch is known.
pub(in crate::config) fn idempotency(root: &Section<'_>) -> IdempotencyPolicy {
    let section = root.section("idempotency", false);
    let header = section.text("header", Some("Idempotency-Key"));
    if http::HeaderName::from_bytes(header.text.as_bytes()).is_err() {
        let message = format!("`idempotency.header` is no header name: {:?}", header.text);
        section.reader.problem(header.place, message, "use Idempotency-Key");
    }
    let ttl_seconds = section.integer("ttl_seconds", (60, 31_536_000), Some(86_400));
    section.refuse("storage", "is not read: keys are kept in the queue's database", "remove it");
    section.close();
    IdempotencyPolicy { header: header.text.to_lowercase(), ttl_seconds }
}

/// Says of each table that belongs to a later version, that it does.
pub(in crate::config) fn refuse(root: &Section<'_>) {
    for (key, feature, fix) in LATER {
        later(root, key, feature, fix);
    }
}

/// What eMCP's server registry has, and a server here has not.
pub(in crate::config) fn refuse_in_server(server: &Section<'_>) {
    let never = "is not read here, nor was it by eMCP";
    server.refuse("class", "is not read: a server here has a kind", "use kind = \"content\" or kind = \"mcp\"");
    server.refuse("route", never, "remove it; paths come from [route] and the handle");
    server.refuse("auth", never, "remove it; [auth] counts for every server");
    server.refuse("scopes", never, "remove it; use scope_map");
}

fn later(section: &Section<'_>, key: &str, feature: &str, fix: &str) {
    section.refuse(key, &format!("belongs to {feature}, which is not part of this version"), fix);
}
