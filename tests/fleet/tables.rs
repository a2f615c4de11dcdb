//! The database, and the queue's tables in it as the test itself reaches them: behind the backs of all others.

use std::time::{Duration, Instant};

use mcp_sidecar::base::Secret;
use mcp_sidecar::store::Settings;
use mcp_sidecar::store::queue::{Driver, Queue, Task};
use serde_json::{Value, json};

use crate::server::{Kind, Server};
use crate::{site, stask};

const DATABASE: &str = "fleet";
/// What keeps a task from being somebody else's.
pub const LEASE: Duration = Duration::from_secs(2);

/// On which engine, and in whose table the tasks are.
#[derive(Clone, Copy, Debug)]
pub struct Stage {
    pub engine: Kind,
    pub driver: Driver,
}

pub struct Tables {
    pub stage: Stage,
    runtime: tokio::runtime::Runtime,
    server: Server,
}

impl Tables {
    /// A server, the site, and sTask's tables where the tasks are in them.
    pub fn start(runtime: tokio::runtime::Runtime, stage: Stage) -> Self {
        let collation = if stage.engine == Kind::MariaDb { "COLLATE utf8mb4_general_ci" } else { "" };
        let server = runtime.block_on(async {
            let server = Server::start(stage.engine).await;
            site::create(&server, DATABASE, collation).await;
            if stage.driver == Driver::Stask {
                server.run(DATABASE, &stask::statements(site::dialect(stage.engine))).await;
                // Not ours at all.
                let other = "INSERT INTO evo_s_tasks (identifier, action) VALUES ('other', 'dispatch')";
                server.run(DATABASE, other).await;
            }
            server
        });
        Self { stage, runtime, server }
    }

    pub fn url(&self) -> String {
        self.server.url(DATABASE)
    }

    pub fn kill(&mut self) {
        self.server.kill();
    }

    pub fn restart(&mut self) {
        self.runtime.block_on(self.server.restart());
    }

    /// A statement with the tables' names in it, and the moment as leases tell it.
    fn sql(&self, text: &str) -> String {
        let (tasks, own) = match self.stage.driver {
            Driver::Own => ("evo_mcp_tasks", "evo_mcp_"),
            Driver::Stask => ("evo_s_tasks", "evo_mcp_stask_"),
        };
        let now_ms = match self.stage.engine {
            Kind::MariaDb => "UNIX_TIMESTAMP(NOW(3)) * 1000",
            Kind::Postgres => "EXTRACT(EPOCH FROM clock_timestamp()) * 1000",
        };
        let mut text = text.replace("{tasks}", tasks).replace("{now_ms}", now_ms);
        for table in ["leases", "attempts", "keys"] {
            text = text.replace(&format!("{{{table}}}"), &format!("{own}{table}"));
        }
        text
    }

    /// A number that the database tells.
    pub fn number(&self, statement: &str) -> i64 {
        self.runtime.block_on(self.server.number_in(DATABASE, &self.sql(statement)))
    }

    /// How many rows there are of these.
    pub fn count(&self, of: &str) -> i64 {
        self.number(&format!("SELECT COUNT(*) FROM {of}"))
    }

    /// The newest task that this worker has at this moment; 0 for none.
    pub fn at_work(&self, worker: &str) -> i64 {
        let of = format!("{{attempts}} WHERE worker = '{worker}' AND outcome IS NULL");
        self.number(&format!("SELECT COALESCE(MAX(task_id), 0) FROM {of}"))
    }

    /// Has a worker's word that a task is done come too late, as over a bad network: it waits until the lease has ended
    /// and another run has begun, which is even the same worker's, so that only the run's number tells them apart. The
    /// task, and the run that has lost it; `None` if the worker has none, or gave up before.
    pub fn overtake(&self, worker: &str) -> Option<(i64, i64)> {
        let task = self.at_work(worker);
        let lock = self.sql(&format!("SELECT runs FROM {{leases}} WHERE task_id = {task} FOR UPDATE"));
        // Who wants to keep the task or to settle it waits from here on.
        let mut session = self.runtime.block_on(self.server.still(DATABASE, &lock));
        let lease = format!("{{leases}} WHERE task_id = {task} AND holder = '{worker}' AND open = 1");
        let began = Instant::now();
        let mut late = false;
        while !late && self.count(&lease) == 1 && began.elapsed() < LEASE * 2 {
            late = self.count(&format!("{lease} AND until_ms <= {{now_ms}}")) == 1 && self.settlement_waits();
        }
        if !late {
            self.runtime.block_on(session.end());
            return None;
        }
        let run = self.count(&format!("{{attempts}} WHERE task_id = {task}"));
        // As a claim does it. Nobody keeps this run: its lease ends, too.
        let claim = self.sql(&format!(
            "UPDATE {{leases}} SET until_ms = until_ms + {lease}, runs = runs + 1 WHERE task_id = {task}; \
             UPDATE {{tasks}} SET attempts = attempts + 1 WHERE id = {task}; \
             UPDATE {{attempts}} SET ended_ms = started_ms, outcome = 'lost' WHERE task_id = {task} AND run = {run}; \
             INSERT INTO {{attempts}} (task_id, run, worker, started_ms) \
             SELECT task_id, runs, holder, until_ms - {lease} FROM {{leases}} WHERE task_id = {task}; COMMIT",
            lease = LEASE.as_millis()
        ));
        self.runtime.block_on(session.run(&claim));
        Some((task, run))
    }

    /// Whether somebody's word of how a run ended waits for its row.
    fn settlement_waits(&self) -> bool {
        let settling = "LIKE 'UPDATE {leases} SET holder = NULL%'";
        self.count(&match self.stage.engine {
            Kind::MariaDb => {
                format!("information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT' AND trx_query {settling}")
            }
            Kind::Postgres => format!("pg_stat_activity WHERE wait_event_type = 'Lock' AND query {settling}"),
        }) > 0
    }

    /// Puts a task into sTask's table as eMCP's PHP does.
    pub fn offer(&self, id: &str, method: &str, params: &Value) {
        let meta = json!({
            "server_handle": "content", "jsonrpc_method": method, "jsonrpc_params": params, "request_id": id,
            "session_id": "", "trace_id": id, "idempotency_key": "", "actor_user_id": null,
            "initiated_by_user_id": null, "context": "api", "attempts": 0, "max_attempts": 20, "payload_hash": "",
        });
        let meta = meta.to_string().replace('\'', "''");
        assert!(!meta.contains('\\'), "engines read it differently: {meta}");
        let statement = format!(
            "INSERT INTO {{tasks}} (identifier, action, message, meta, max_attempts, created_at, updated_at) VALUES \
             ('emcp_dispatch', 'dispatch', 'Queued', '{meta}', 20, CURRENT_TIMESTAMP, CURRENT_TIMESTAMP)"
        );
        self.runtime.block_on(self.server.run(DATABASE, &self.sql(&statement)));
    }

    /// The newest tasks, as operators see them, with their results.
    pub fn list(&self) -> Vec<Task> {
        let settings = Settings::new(Secret::new(self.url()), site::PREFIX);
        self.runtime.block_on(async {
            let queue = Queue::open(&settings, self.stage.driver).expect("valid settings");
            let mut tasks = queue.list(None, 100_000).await.expect("it answers");
            for listed in &mut tasks {
                *listed = queue.task(listed.id).await.expect("it answers").expect("it is there");
            }
            tasks
        })
    }
}
