use serde_json::Value;

use crate::cli::import::page::Page;
use crate::cli::import::setting::{Notes, Range, Settings};

/// What belongs to asynchronous dispatch and to actors.
pub(super) fn features(root: &mut Settings, out: &mut Page, notes: &mut Notes) {
    queue(root, out, notes);
    let mut idempotency = root.below("idempotency", notes);
    out.table("idempotency");
    out.key("header", idempotency.header("header", "Idempotency-Key", notes));
    let ttl = Range::cap(Some(86_400), 60, 31_536_000);
    out.some("ttl_seconds", idempotency.number("ttl_seconds", ttl, notes));
    let storage = idempotency.unread(&["storage"]);
    idempotency.finish(notes);
    let mut actor = root.below("actor", notes);
    if actor.text("mode", "initiator", notes) == "service" {
        notes.push(
            "actor.mode is \"service\", which eMCP never read: set it with actor.service_user_id if it is meant"
                .to_owned(),
        );
    }
    let service = actor.unread(&["service_username", "service_role", "block_login"]);
    actor.finish(notes);
    let named =
        |table: &'static str, keys: Vec<&'static str>| keys.into_iter().map(move |key| format!("{table}.{key}"));
    let unread: Vec<String> = named("idempotency", storage).chain(named("actor", service)).collect();
    if !unread.is_empty() {
        notes.push(format!("never read by eMCP, nor here: {}", unread.join(", ")));
    }
}

/// eMCP dispatched without being told to; a driver that it did not know was none, and another failover than `sync` was
/// `fail`.
fn queue(root: &mut Settings, out: &mut Page, notes: &mut Notes) {
    let mut queue = root.below("queue", notes);
    let driver = match queue.take("driver").unwrap_or_else(|| "stask".into()) {
        Value::String(text) if text == "stask" || text == "sync" => text,
        other => {
            notes.push(format!(
                "queue.driver is {other}, which eMCP took for no queue: it is \"sync\" here, and queue.failover decides"
            ));
            "sync".to_owned()
        }
    };
    let failover = match queue.take("failover").unwrap_or_else(|| "sync".into()) {
        Value::String(text) if text == "sync" || text == "fail" => text,
        other => {
            notes.push(format!("queue.failover is {other}, which eMCP took for \"fail\": it is \"fail\" here"));
            "fail".to_owned()
        }
    };
    queue.finish(notes);
    if driver == "stask" {
        let without = match failover.as_str() {
            "sync" => "are answered at once",
            _ => "are answered with 503",
        };
        notes.push(format!(
            "queue.driver is \"stask\", which needs [queue_worker] in executor.toml, as \"own\" does (docs/DISPATCH.md): \
             without it `check` fails, and dispatched calls {without}"
        ));
    }
    out.table("queue");
    out.key("driver", driver);
    out.key("failover", failover);
}
