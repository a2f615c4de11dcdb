//! Calls that wait in sTask's table, whatever letters that table can hold.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use mcp_sidecar::audit::{self, Audit, Durability};
use mcp_sidecar::base::{PrincipalRecord, Secret, SystemClock};
use mcp_sidecar::config::{Overrides, PolicyContext, Source, load_policy};
use mcp_sidecar::jobs::{Away, Desk, Queues, Ran, Run, Settings, Worker};
use mcp_sidecar::policy::Snapshot;
use mcp_sidecar::protocol::Identity;
use mcp_sidecar::store::{self, Dialect};
use mcp_sidecar::telemetry::Metrics;
use serde_json::json;
use tokio::sync::{Notify, watch};

use crate::server::{Kind, shared};
use crate::stask;

const TEXT: &str = "Привіт, sœur 🦊";

/// Answers with what it is asked.
struct Echo;

#[async_trait]
impl Run for Echo {
    async fn run(&self, _: &Snapshot, _: &Identity, body: &[u8]) -> Ran {
        Ran { http_status: 200, body: body.to_vec(), session_id: String::new(), infrastructure: false }
    }

    async fn permissions(&self, _: &Snapshot, _: u64) -> Result<Option<Vec<String>>, Away> {
        Err(Away)
    }
}

fn policy() -> Snapshot {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/policy.toml");
    let text = std::fs::read_to_string(&path).expect("it is there");
    let overrides = Overrides::default().with_builtin(&[("queue.driver", "\"stask\""), ("auth.mode", "\"none\"")]);
    let source = Source::embedded("policy.toml", &text, &path);
    load_policy(&source, &overrides, PolicyContext::default()).unwrap_or_else(|report| panic!("{report}"))
}

#[tokio::test]
async fn no_character_set_changes_a_task_or_its_result() {
    let server = shared(Kind::MariaDb).await;
    for charset in ["utf8mb3", "cp1251", "latin1"] {
        let database = format!("charset_{charset}");
        server.run("mysql", &format!("CREATE DATABASE {database} CHARACTER SET {charset}")).await;
        server.run(&database, &stask::statements(Dialect::MySql)).await;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let log = audit::Settings {
            dir: directory.path().to_owned(),
            channel: "runs".to_owned(),
            retain_days: 0,
            durability: Durability::Written,
            queue: 16,
            min_free_bytes: 0,
        };
        let store = store::Settings::new(Secret::new(server.url(&database)), "evo_");
        let settings = Settings::new(store, Secret::new([b'k'; 32]), log);
        let metrics = Metrics::new(&[]).expect("registers");
        let audit = Audit::open(&settings.audit, Arc::clone(&metrics), Arc::new(SystemClock)).expect("is written");
        let counts = metrics.queue().expect("registers");
        let queues = Queues::open(&settings.store).expect("valid settings");
        let (taken, policy) = (Arc::new(Notify::new()), Arc::new(policy()));
        let served = Some((Arc::clone(&queues), settings.key.clone()));
        let desk = Desk::new(served, Arc::new(Echo), Arc::clone(&counts), Arc::clone(&taken));
        let principal = PrincipalRecord {
            context: "api".to_owned(),
            subject: "Аліса".to_owned(),
            scopes: vec!["mcp:call".to_owned()],
            ..PrincipalRecord::default()
        };
        let caller = Identity {
            context: "api".to_owned(),
            identity: "api:Аліса".to_owned(),
            server: "content".to_owned(),
            principal: Some(principal),
            ..Identity::default()
        };
        let params = json!({"name": "evo.content.search", "arguments": {"query": TEXT}});
        let body = json!({"id": TEXT, "method": "tools/call", "params": params}).to_string();
        let ask = async || {
            let asked = desk.dispatch(&policy, &caller, body.as_bytes(), Some("ключ"), "").await;
            asked.unwrap_or_else(|reason| panic!("{charset}: {reason:?}"))
        };
        assert_eq!(ask().await.body["status"], "accepted", "{charset}");
        let current = Arc::new(ArcSwap::new(Arc::clone(&policy)));
        let worker = Worker::new(queues, Arc::new(Echo), current, settings, audit.clone(), counts, taken);
        let (_stop, stopped) = watch::channel(false);
        let pass = worker.once(stopped).await.unwrap_or_else(|error| panic!("{charset}: {error}"));
        assert_eq!(pass.to_string(), "adopted 0, processed 1: finished 1", "{charset}");
        let done = ask().await.body;
        let echoed = json!({"jsonrpc": "2.0", "id": TEXT, "method": "tools/call", "params": params});
        assert_eq!(done["result"]["response"], echoed, "{charset}: {done}");
        let closed = tokio::task::spawn_blocking(move || audit.close(Duration::from_secs(5))).await;
        closed.expect("no panic").expect("all lines are written");
    }
}
