use crate::cli::import::page::Page;
use crate::cli::import::setting::{Notes, Range, Settings};

/// What belongs to asynchronous dispatch and to actors.
pub(super) fn features(root: &mut Settings, out: &mut Page, notes: &mut Notes) {
    let mut queue = root.below("queue", notes);
    if !queue.names().is_empty() {
        out.table("queue");
        out.key("driver", queue.text("driver", "stask", notes));
        // eMCP took every other word for "fail".
        let failover = queue.text("failover", "sync", notes);
        out.key("failover", if failover == "sync" { "sync" } else { "fail" });
    }
    queue.finish(notes);
    let mut idempotency = root.below("idempotency", notes);
    if !idempotency.names().is_empty() {
        out.table("idempotency");
        out.key("header", idempotency.header("header", "Idempotency-Key", notes));
        let ttl = Range::cap(Some(86_400), 60, 31_536_000);
        out.some("ttl_seconds", idempotency.number("ttl_seconds", ttl, notes));
    }
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
