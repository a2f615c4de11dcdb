//! The task queue on each engine: one task per key, one worker per task, in a table of ours and in sTask's own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mcp_sidecar::base::Secret;
use mcp_sidecar::store::queue::{
    Claim, Driver, Key, NewTask, Priority, Queue, Registration, Settlement, Status, Submitted, Undone,
};
use mcp_sidecar::store::{Error, Settings};
use sqlx::mysql::MySqlConnectOptions;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _, MySqlConnection};

use crate::failures::documented;
use crate::server::{DEADLINE, Kind, Server, shared};
use crate::site::{create, dialect, run_sqlite};
use crate::stask;
use mcp_sidecar::store::Dialect;

const LEASE: Duration = Duration::from_secs(60);

/// An empty database.
struct Place {
    name: &'static str,
    settings: Settings,
    server: Option<(Arc<Server>, String)>,
    directory: tempfile::TempDir,
}

impl Place {
    fn queue(&self, driver: Driver) -> Queue {
        Queue::open(&self.settings, driver).expect("valid settings")
    }

    async fn run(&self, statements: &str) {
        match &self.server {
            Some((server, database)) => server.run(database, statements).await,
            None => run_sqlite(&self.directory.path().join("queue.sqlite"), statements).await,
        }
    }

    fn dialect(&self) -> Dialect {
        self.server.as_ref().map_or(Dialect::Sqlite, |(server, _)| dialect(server.kind))
    }
}

async fn everywhere(database: &str) -> Vec<Place> {
    let directory = || tempfile::tempdir().expect("a temporary directory");
    let patient = |url: String| Settings {
        acquire_timeout: Duration::from_secs(60),
        statement_timeout: Duration::from_secs(60),
        ..Settings::new(Secret::new(url), "evo_")
    };
    let file = directory();
    let url = format!("sqlite://{}", file.path().join("queue.sqlite").display());
    let mut places = vec![Place { name: "sqlite", settings: patient(url), server: None, directory: file }];
    for (kind, name, first) in [(Kind::MariaDb, "mariadb", "mysql"), (Kind::Postgres, "postgres", "postgres")] {
        let server = shared(kind).await;
        server.run(first, &format!("CREATE DATABASE {database}")).await;
        let settings = patient(server.url(database));
        places.push(Place { name, settings, server: Some((server, database.to_owned())), directory: directory() });
    }
    places
}

fn seal(id: i64) -> String {
    format!("sealed {id}")
}

fn task(meta: &str) -> NewTask<'_> {
    NewTask { meta, started_by: Some(7), priority: Priority::Normal, max_attempts: 3, seal: &seal }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_hundred_requests_with_one_key_one_makes_the_task() {
    for place in everywhere("queue_keys").await {
        // Two processes: each has connections of its own, and both find no tables.
        let queues = [place.queue(Driver::Own), place.queue(Driver::Own)];
        let requests = (0..200).map(|number| {
            let queue = queues[number % 2].clone();
            tokio::spawn(async move {
                let trace_id = number.to_string();
                let key = Key { id: "key", payload_hash: "hash", trace_id: &trace_id, ttl_ms: 60_000 };
                queue.submit(&task(r#"{"key":"key"}"#), Some(key)).await
            })
        });
        let (mut made, mut known) = (Vec::new(), Vec::new());
        for request in requests.collect::<Vec<_>>() {
            match request.await.expect("no panic").unwrap_or_else(|error| panic!("{}: {error}", place.name)) {
                Submitted::New(id) => made.push(id),
                Submitted::Known(record) => known.push(record),
            }
        }
        assert_eq!((made.len(), known.len()), (1, 199), "{}", place.name);
        let first = &known[0];
        assert!(known.iter().all(|record| record == first), "{}", place.name);
        assert_eq!((first.task_id, first.status), (Some(made[0]), Status::Preparing), "{}", place.name);
        assert_eq!(queues[0].depth().await.expect("it answers"), [0, 1, 0, 0, 0], "{}", place.name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_task_has_one_worker_and_one_completion() {
    const TASKS: usize = 40;
    for place in everywhere("queue_claims").await {
        let queue = place.queue(Driver::Own);
        let many = NewTask { started_by: Some(1 << 40), ..task("{}") };
        let made = queue.submit(&many, None).await.unwrap_or_else(|error| panic!("{}: {error}", place.name));
        let Submitted::New(id) = made else { panic!("it is new") };
        let by = queue.task(id).await.expect("it answers").expect("it is there").started_by;
        assert_eq!(by, Some(1 << 40), "{}", place.name);
        for number in 1..TASKS {
            queue.submit(&task(&format!("{{\"n\":{number}}}")), None).await.expect("it is made");
        }
        let waited = queue.oldest_wait().await.unwrap_or_else(|error| panic!("{}: {error}", place.name));
        assert!(waited < Duration::from_secs(60), "{}: {waited:?}", place.name);
        place.run("UPDATE evo_mcp_leases SET not_before_ms = not_before_ms - 90000 WHERE task_id = 7").await;
        let waited = queue.oldest_wait().await.expect("it answers").as_secs();
        assert!((90..150).contains(&waited), "{}: {waited}", place.name);
        let workers = (0..6).map(|number| {
            let queue = place.queue(Driver::Own);
            let place = place.name;
            tokio::spawn(async move {
                let worker = format!("worker {number}");
                let mut done = Vec::new();
                while let Some(claim) =
                    queue.claim(&worker, LEASE).await.unwrap_or_else(|error| panic!("{place}: {error}"))
                {
                    assert_eq!(claim.mac, seal(claim.id), "{place}");
                    assert!(queue.renew(&claim, &worker, LEASE).await.expect("it answers"), "{place}");
                    let finished = Settlement::Finished { result: &claim.meta, key: None };
                    assert!(queue.settle(&claim, &worker, finished).await.expect("it answers"), "{place}");
                    done.push(claim.id);
                }
                done
            })
        });
        let mut done: BTreeMap<i64, usize> = BTreeMap::new();
        for worker in workers.collect::<Vec<_>>() {
            for id in worker.await.expect("no panic") {
                *done.entry(id).or_default() += 1;
            }
        }
        assert_eq!((done.len(), done.values().sum::<usize>()), (TASKS, TASKS), "{}", place.name);
        assert_eq!(queue.depth().await.expect("it answers"), [0, 0, 0, TASKS as u64, 0], "{}", place.name);
        assert_eq!(queue.oldest_wait().await.expect("it answers"), Duration::ZERO, "{}", place.name);
        assert_eq!(queue.prune(LEASE).await.expect("it answers"), 0, "{}", place.name);
        let tasks = queue.list(Some(Status::Finished), 100).await.expect("it answers");
        assert!(tasks.iter().all(|task| task.result.is_empty() && task.progress == 100 && task.attempts == 1));
        for task in &tasks {
            let whole = queue.task(task.id).await.expect("it answers").expect("it is there");
            assert_eq!((&whole.result, &whole.meta), (&task.meta, &task.meta), "{}", place.name);
        }
        assert_eq!(queue.prune(Duration::ZERO).await.expect("it answers"), TASKS as u64, "{}", place.name);
        assert!(tasks.iter().all(|task| task.created_at.starts_with("20") && task.finished_at.starts_with("20")));
    }
}

/// Neither server learns that a machine has lost its power: what it held in a transaction stays held.
#[tokio::test]
async fn a_worker_that_stands_still_in_a_claim_holds_only_its_own_task() {
    for place in everywhere("queue_claim_still").await {
        let Some((server, database)) = &place.server else { continue };
        let (queue, name) = (place.queue(Driver::Own), place.name);
        for _ in 0..3 {
            queue.submit(&task("{}"), None).await.expect("it is made");
        }
        let mut still = server.still(database, "SELECT runs FROM evo_mcp_leases WHERE task_id = 1 FOR UPDATE").await;
        let began = Instant::now();
        for expected in [2, 3] {
            let claim = queue.claim("w", LEASE).await.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(claim.map(|claim| claim.id), Some(expected), "{name}");
        }
        assert_eq!(queue.claim("w", LEASE).await.expect("it answers"), None, "{name}");
        assert!(began.elapsed() < Duration::from_secs(10), "{name}: {:?}", began.elapsed());
        still.end().await;
        assert_eq!(queue.claim("w", LEASE).await.expect("it answers").map(|claim| claim.id), Some(1), "{name}");
    }
}

#[tokio::test]
async fn a_server_may_tell_in_any_language_that_a_row_is_held() {
    let server = Server::start(Kind::MariaDb).await;
    server.run("mysql", "CREATE DATABASE russian; SET GLOBAL lc_messages = 'ru_RU'").await;
    let settings = Settings::new(Secret::new(server.url("russian")), "evo_");
    let queue = Queue::open(&settings, Driver::Own).expect("valid settings");
    for _ in 0..2 {
        queue.submit(&task("{}"), None).await.expect("it is made");
    }
    let mut still = server.still("russian", "SELECT runs FROM evo_mcp_leases WHERE task_id = 1 FOR UPDATE").await;
    let claim = queue.claim("w", LEASE).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(claim.map(|claim| claim.id), Some(2));
    still.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_ends_a_transaction_that_stands_still() {
    for mut place in everywhere("queue_still").await {
        let Some((server, database)) = place.server.clone() else { continue };
        place.settings.statement_timeout = Duration::from_secs(2);
        let (queue, name) = (place.queue(Driver::Own), place.name);
        queue.ready().await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let begun = match server.kind {
            Kind::MariaDb => format!(
                "SELECT COUNT(*) FROM information_schema.innodb_trx t JOIN information_schema.processlist p \
                 ON p.id = t.trx_mysql_thread_id WHERE p.db = '{database}'"
            ),
            Kind::Postgres => format!(
                "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = '{database}' AND state = 'idle in transaction'"
            ),
        };
        // Called in the midst of the transaction: nothing happens until the server has had enough.
        let seal = |_| {
            let still = async {
                assert_eq!(server.number(&begun).await, 1, "{name}");
                let deadline = Instant::now() + DEADLINE;
                while server.number(&begun).await > 0 {
                    assert!(Instant::now() < deadline, "{name}: the transaction goes on");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            let handle = tokio::runtime::Handle::current();
            tokio::task::block_in_place(|| handle.block_on(still));
            String::new()
        };
        let made = queue.submit(&NewTask { seal: &seal, ..task("{}") }, None).await;
        assert!(made.is_err(), "{name}: {made:?}");
        assert_eq!(queue.depth().await.expect("it answers again"), [0; 5], "{name}: it never happened");
    }
}

/// Whoever waits for a table waits in the midst of a statement: the connection is lost, its place is not.
#[tokio::test]
async fn a_table_that_was_locked_for_a_while_leaves_no_connection_behind() {
    const TRIES: u32 = 6;
    for mut place in everywhere("queue_locked").await {
        let Some((server, database)) = place.server.clone() else { continue };
        place.settings.statement_timeout = Duration::from_secs(1);
        place.settings.acquire_timeout = Duration::from_secs(1);
        place.settings.max_connections = TRIES / 2;
        let name = place.name;
        let (lock, unlock) = match server.kind {
            Kind::MariaDb => ("LOCK TABLES evo_mcp_tasks WRITE", "UNLOCK TABLES"),
            Kind::Postgres => ("LOCK TABLE evo_mcp_tasks", "COMMIT"),
        };
        let queue = place.queue(Driver::Own);
        queue.ready().await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut other = server.still(&database, lock).await;
        for _ in 0..TRIES {
            let made = queue.submit(&task("{}"), None).await;
            assert!(matches!(made, Err(Error::Slow(_))), "{name}: {made:?}");
        }
        other.run(unlock).await;
        for _ in 0..TRIES {
            let made = queue.submit(&task("{}"), None).await;
            assert!(matches!(made, Ok(Submitted::New(_))), "{name}: {made:?}");
        }
        assert_eq!(queue.depth().await.expect("it answers"), [0, TRIES.into(), 0, 0, 0], "{name}");
    }
}

#[tokio::test]
async fn stasks_own_tables_are_written_in_its_shape_and_what_it_ends_stays_ended() {
    for place in everywhere("queue_stask").await {
        let name = place.name;
        let queue = place.queue(Driver::Stask);
        let missing = queue.ready().await;
        assert!(matches!(missing, Err(Error::NoTable(_))), "{name}: {missing:?}");
        assert_eq!(queue.register().await.expect("it answers"), Registration::Skipped, "{name}");
        place.run(&stask::statements(place.dialect())).await;
        queue.ready().await.unwrap_or_else(|error| panic!("{name}: {error}"));

        assert_eq!(queue.register().await.expect("it answers"), Registration::Created, "{name}");
        assert_eq!(queue.register().await.expect("it answers"), Registration::Ok, "{name}");
        place.run("UPDATE evo_s_workers SET scope = 'other'").await;
        assert_eq!(queue.register().await.expect("it answers"), Registration::Updated, "{name}");

        let Submitted::New(id) = queue.submit(&task("{}"), None).await.expect("it is made") else { panic!("{name}") };
        let seen = queue.task(id).await.expect("it answers").expect("it is there");
        // At 10 sTask's own worker would take it, without asking anybody.
        assert_eq!((seen.status, seen.started_by, &*seen.priority), (Some(Status::Preparing), Some(7), "normal"));
        let many = NewTask { started_by: Some(1 << 40), ..task("{}") };
        let Submitted::New(other) = queue.submit(&many, None).await.expect("it is made") else { panic!("{name}") };
        let by = queue.task(other).await.expect("it answers").expect("it is there").started_by;
        assert_eq!(by, None, "{name}: sTask's column does not hold it");
        queue.cancel(other).await.expect("it answers").expect("it had not ended");
        // A row that somebody else put there has no lease: nobody takes it.
        place
            .run("INSERT INTO evo_s_tasks (identifier, action, status) VALUES ('emcp_dispatch', 'dispatch', 30)")
            .await;
        // Nor one that sTask's own worker would take, unless it is taken over.
        let foreign = "INSERT INTO evo_s_tasks (identifier, action, priority, meta) VALUES \
                       ('emcp_dispatch', 'dispatch', 'high', 'foreign'), ('other', 'dispatch', 'high', 'other')";
        place.run(foreign).await;
        let claim = queue.claim("w", LEASE).await.expect("it answers").expect("one is due");
        assert_eq!(claim.id, id, "{name}");
        assert_eq!(queue.claim("w", LEASE).await.expect("it answers"), None, "{name}");
        // Its urgency counts, though it was taken over later.
        let later = queue.submit(&task("{}"), None).await.expect("it is made");
        let Submitted::New(later) = later else { panic!("{name}") };
        assert_eq!(queue.adopt().await.expect("it answers"), 1, "{name}");
        assert_eq!(queue.adopt().await.expect("it answers"), 0, "{name}");
        let foreign = queue.claim("w", LEASE).await.expect("it answers").expect("it was taken over");
        assert_eq!(queue.claim("w", LEASE).await.expect("it answers").map(|claim| claim.id), Some(later), "{name}");
        assert_eq!((&*foreign.meta, &*foreign.mac), ("foreign", ""), "{name}");
        // What is ended or deleted in sTask's screens is nobody's any more, and leaves no lease behind.
        place.run("UPDATE evo_s_tasks SET status = 100 WHERE meta <> 'foreign'").await;
        place.run("DELETE FROM evo_s_tasks WHERE meta = 'foreign'").await;
        let finished = Settlement::Finished { result: "1", key: None };
        for claim in [&claim, &foreign] {
            assert!(!queue.settle(claim, "w", finished).await.expect("it answers"), "{name}");
            assert!(queue.renew(claim, "w", LEASE).await.expect("it answers"), "{name}");
        }
        queue.prune(LEASE).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        for claim in [&claim, &foreign] {
            assert!(!queue.renew(claim, "w", LEASE).await.expect("it answers"), "{name}");
            let runs = queue.attempts(claim.id).await.expect("it answers");
            assert_eq!(runs.last().map(|(_, _, how)| &**how), Some("cancelled"), "{name}");
        }
        assert_eq!(queue.retry(foreign.id).await.expect("it answers"), Err(Undone::NoSuchTask), "{name}");
        assert_eq!(queue.retry(id).await.expect("it answers"), Ok(()), "{name}: its code is known still");
        queue.prune(LEASE).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let again = queue.claim("w", LEASE).await.expect("it answers").expect("it was asked for again");
        assert_eq!((again.id, &*again.mac), (id, &*seal(id)), "{name}");
    }
}

#[tokio::test]
async fn keys_and_leases_run_out_and_runs_that_told_nothing_are_no_attempts() {
    for place in everywhere("queue_time").await {
        let (queue, name) = (place.queue(Driver::Own), place.name);
        let key = |ttl_ms| Key { id: "k", payload_hash: "h", trace_id: "t", ttl_ms };
        let reserve = async |ttl_ms| queue.reserve(key(ttl_ms)).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(reserve(0).await, Submitted::New(0), "{name}");
        assert_eq!(reserve(60_000).await, Submitted::New(0), "{name}: the first one's time is over");
        queue.keep(key(60_000), "{}").await.unwrap_or_else(|error| panic!("{name}: {error}"));
        queue.release(key(0)).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let Submitted::Known(known) = reserve(60_000).await else { panic!("{name}: what has an answer is kept") };
        assert_eq!((known.status, known.result.as_deref()), (Status::Finished, Some("{}")), "{name}");
        assert_eq!(queue.sweep().await.expect("it answers"), 0, "{name}");
        queue.keep(key(0), "{}").await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(queue.sweep().await.expect("it answers"), 1, "{name}");
        assert_eq!(reserve(60_000).await, Submitted::New(0), "{name}");
        queue.release(key(0)).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(reserve(60_000).await, Submitted::New(0), "{name}: it was freed");

        let Submitted::New(id) = queue.submit(&task("{}"), None).await.expect("it is made") else { panic!("{name}") };
        let seen = async || {
            let task = queue.task(id).await.expect("it answers").expect("it is there");
            (task.status.expect("a status"), task.attempts, task.progress)
        };
        assert_eq!(seen().await, (Status::Preparing, 0, 0), "{name}");
        queue.claim("lost", LEASE).await.expect("it answers").expect("it is due");
        assert_eq!(seen().await, (Status::Running, 1, 10), "{name}");
        assert_eq!(queue.oldest_wait().await.expect("it answers"), Duration::ZERO, "{name}: somebody has it");
        // Its worker was not heard of again: it waits since its lease ended, not since it was made.
        place
            .run("UPDATE evo_mcp_leases SET until_ms = until_ms - 150000, not_before_ms = not_before_ms - 900000")
            .await;
        let waited = queue.oldest_wait().await.expect("it answers").as_secs();
        assert!((89..150).contains(&waited), "{name}: {waited}");
        let settle = async |claim: &Claim, counts| {
            let again = Settlement::Again { message: "away", after: Duration::ZERO, counts };
            assert!(queue.settle(claim, "w", again).await.unwrap_or_else(|error| panic!("{name}: {error}")), "{name}");
        };
        for (counts, attempts) in [(false, 1), (false, 1), (true, 2)] {
            let claim = queue.claim("w", LEASE).await.expect("it answers").expect("it is due");
            assert_eq!(claim.attempt, 2, "{name}");
            settle(&claim, counts).await;
            assert_eq!(seen().await, (Status::Preparing, attempts, 0), "{name}");
        }
        let runs: Vec<String> = queue.attempts(id).await.expect("it answers").into_iter().map(|run| run.2).collect();
        assert_eq!(runs, ["lost", "again", "again", "again"], "{name}");
    }
}

#[tokio::test]
async fn a_key_lives_as_long_as_its_task_has_not_ended() {
    for place in everywhere("queue_keys_live").await {
        let (queue, name) = (place.queue(Driver::Own), place.name);
        let key = Key { id: "k", payload_hash: "h", trace_id: "t", ttl_ms: 0 };
        let submit = async || {
            let made = queue.submit(&task(r#"{"key":"k"}"#), Some(key)).await;
            made.unwrap_or_else(|error| panic!("{name}: {error}"))
        };
        let Submitted::New(id) = submit().await else { panic!("{name}: it is new") };
        let same = async |status| match submit().await {
            Submitted::Known(record) => assert_eq!((record.task_id, record.status), (Some(id), status), "{name}"),
            made => panic!("{name}: {made:?}"),
        };
        assert_eq!(queue.sweep().await.unwrap_or_else(|error| panic!("{name}: {error}")), 0, "{name}");
        same(Status::Preparing).await;
        let claim = queue.claim("w", LEASE).await.expect("it answers").expect("it is due");
        assert_eq!(queue.sweep().await.expect("it answers"), 0, "{name}");
        same(Status::Running).await;
        let finished = Settlement::Finished { result: "1", key: Some(("k", 60_000)) };
        assert!(queue.settle(&claim, "w", finished).await.expect("it answers"), "{name}");
        assert_eq!(queue.sweep().await.expect("it answers"), 0, "{name}");
        same(Status::Finished).await;
        place.run("UPDATE evo_mcp_keys SET expires_ms = expires_ms - 60000").await;
        assert_eq!(queue.sweep().await.expect("it answers"), 1, "{name}");
        assert!(matches!(submit().await, Submitted::New(new) if new != id), "{name}");
    }
}

#[tokio::test]
async fn whatever_there_is_to_forget_is_forgotten_in_batches() {
    const MANY: u64 = 1100;
    for place in everywhere("queue_many").await {
        let (queue, name) = (place.queue(Driver::Own), place.name);
        queue.ready().await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let rows = |row: &dyn Fn(u64) -> String| (1..=MANY).map(row).collect::<Vec<_>>().join(", ");
        let tables = [
            ("tasks", "id, identifier, action, status", rows(&|id| format!("({id}, 'emcp_dispatch', 'dispatch', 80)"))),
            ("leases", "task_id, mac, open", rows(&|id| format!("({id}, '', 0)"))),
            ("attempts", "task_id, run, worker, started_ms", rows(&|id| format!("({id}, 1, '', 0), ({id}, 2, '', 0)"))),
            ("keys", "id, payload_hash, trace_id, expires_ms", rows(&|id| format!("('{id}', '', '', 0)"))),
        ];
        // The second time, the same rows find none in their way.
        for _ in 0..2 {
            for (table, columns, rows) in &tables {
                place.run(&format!("INSERT INTO evo_mcp_{table} ({columns}) VALUES {rows}")).await;
            }
            assert_eq!(queue.sweep().await.unwrap_or_else(|error| panic!("{name}: {error}")), MANY, "{name}");
            assert_eq!(queue.prune(LEASE).await.unwrap_or_else(|error| panic!("{name}: {error}")), MANY, "{name}");
        }
    }
}

/// As after `TRUNCATE`, or a restart of a server that remembers no count.
#[tokio::test]
async fn a_task_whose_number_was_anothers_before_has_nothing_of_it() {
    for place in everywhere("queue_again").await {
        let (queue, name) = (place.queue(Driver::Stask), place.name);
        place.run(&stask::statements(place.dialect())).await;
        let key = |id| Key { id, payload_hash: "h", trace_id: "t", ttl_ms: 60_000 };
        let submit = async |id: &'static str, seal: &'static (dyn Fn(i64) -> String + Send + Sync)| {
            let meta = format!("{{\"key\":\"{id}\"}}");
            let made = queue.submit(&NewTask { seal, ..task(&meta) }, Some(key(id))).await;
            made.unwrap_or_else(|error| panic!("{name}: {error}"))
        };
        for (number, id) in ["a", "b", "c", "d"].into_iter().enumerate() {
            assert_eq!(submit(id, &|_| "before".to_owned()).await, Submitted::New(number as i64 + 1), "{name}");
        }
        let claim = queue.claim("w", LEASE).await.expect("it answers").expect("it is due");
        let second = queue.claim("w", LEASE).await.expect("it answers").expect("it is due");
        queue.claim("w", LEASE).await.expect("it answers").expect("it is due");
        let fourth = queue.claim("w", Duration::ZERO).await.expect("it answers").expect("it is due");
        assert_eq!((claim.id, second.id, fourth.id), (1, 2, 4), "{name}");
        place
            .run(match place.dialect() {
                Dialect::MySql => "TRUNCATE TABLE evo_s_tasks",
                Dialect::Postgres => "TRUNCATE TABLE evo_s_tasks RESTART IDENTITY",
                Dialect::Sqlite => "DELETE FROM evo_s_tasks; DELETE FROM sqlite_sequence WHERE name = 'evo_s_tasks'",
            })
            .await;

        assert_eq!(submit("new", &|_| "after".to_owned()).await, Submitted::New(1), "{name}");
        place
            .run(
                "INSERT INTO evo_s_tasks (identifier, action, status, result, meta) VALUES \
                 ('emcp_dispatch', 'dispatch', 80, 'theirs', 'foreign'), \
                 ('emcp_dispatch', 'dispatch', 10, NULL, 'foreign'), ('other', 'dispatch', 30, NULL, 'other')",
            )
            .await;
        for id in ["a", "b", "c", "d"] {
            let Submitted::Known(known) = submit(id, &seal).await else { panic!("{name}: {id} is known") };
            let told = (known.status, known.result.as_deref(), known.message.as_deref());
            assert_eq!(told, (Status::Failed, None, Some("The task was removed")), "{name}: {id}");
        }
        let Submitted::Known(known) = submit("new", &seal).await else { panic!("{name}: it is known") };
        assert_eq!((known.status, known.task_id), (Status::Preparing, Some(1)), "{name}");
        assert_eq!(queue.adopt().await.expect("it answers"), 1, "{name}");

        assert!(!queue.renew(&claim, "w", LEASE).await.expect("it answers"), "{name}");
        let again = queue.claim("w", LEASE).await.expect("it answers").expect("it is due");
        assert_eq!((again.id, &*again.mac, again.lost.as_deref()), (1, "after", None), "{name}");
        // The same worker, and its first run of each.
        assert!(!queue.renew(&claim, "w", LEASE).await.expect("it answers"), "{name}");
        let late = Settlement::Finished { result: "late", key: None };
        assert!(!queue.settle(&claim, "w", late).await.expect("it answers"), "{name}");
        let runs: Vec<i64> = queue.attempts(1).await.expect("it answers").into_iter().map(|(run, ..)| run).collect();
        assert_eq!(runs, [again.run], "{name}");
        let foreign = queue.claim("w", LEASE).await.expect("it answers").expect("it was taken over");
        assert_eq!((foreign.id, &*foreign.mac), (3, ""), "{name}");
        assert_eq!(queue.claim("w", LEASE).await.expect("it answers"), None, "{name}: the fourth is not ours");
        queue.prune(LEASE).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        for gone in [&second, &fourth] {
            assert!(!queue.renew(gone, "w", LEASE).await.expect("it answers"), "{name}: {}", gone.id);
        }
    }
}

/// sTask's PHP writes the time of its own clock, which is UTC, into a session that has the server's time zone.
#[tokio::test]
async fn times_are_those_of_stasks_screens_whatever_the_servers_zone_is() {
    let server = Server::start(Kind::MariaDb).await;
    server.run("mysql", "CREATE DATABASE zones; SET GLOBAL time_zone = '+03:00'").await;
    let options: MySqlConnectOptions = server.url("zones").parse().expect("a URL");
    let mut php = options.timezone(None).connect().await.expect("it answers");
    php.execute(sqlx::raw_sql(AssertSqlSafe(stask::statements(Dialect::MySql)))).await.expect("the tables are made");
    let settings = Settings::new(Secret::new(server.url("zones")), "evo_");
    for driver in [Driver::Stask, Driver::Own] {
        let queue = Queue::open(&settings, driver).expect("valid settings");
        let Submitted::New(id) = queue.submit(&task("{}"), None).await.expect("it is made") else {
            panic!("it is new")
        };
        let claim = queue.claim("w", LEASE).await.expect("it answers").expect("it is due");
        assert_eq!(claim.id, id);
        let finished = Settlement::Finished { result: "1", key: None };
        assert!(queue.settle(&claim, "w", finished).await.expect("it answers"), "{driver:?}");
        let told = queue.task(id).await.expect("it answers").expect("it is there");
        assert_eq!(php.is_now(&told.created_at).await, 1, "operators are told UTC: {told:?}");
        assert_eq!(php.is_now(&told.finished_at).await, 1, "{told:?}");
    }
    let screens = "SELECT COUNT(*) FROM evo_s_tasks WHERE ABS(TIMESTAMPDIFF(SECOND, created_at, UTC_TIMESTAMP())) < 60 \
                   AND ABS(TIMESTAMPDIFF(SECOND, finished_at, UTC_TIMESTAMP())) < 60";
    assert_eq!(php.number(screens).await, 1, "as the screens read it");

    // What PHP wrote is due when it says.
    let queue = Queue::open(&settings, Driver::Stask).expect("valid settings");
    let row = |hours: i64| {
        format!(
            "INSERT INTO evo_s_tasks (identifier, action, start_at) VALUES \
             ('emcp_dispatch', 'dispatch', UTC_TIMESTAMP() + INTERVAL {hours} HOUR)"
        )
    };
    php.execute(sqlx::raw_sql(AssertSqlSafe(row(2)))).await.expect("is written");
    assert_eq!(queue.adopt().await.expect("it answers"), 0, "due in two hours");
    php.execute(sqlx::raw_sql(AssertSqlSafe(row(-1)))).await.expect("is written");
    assert_eq!(queue.adopt().await.expect("it answers"), 1, "due for an hour");
}

/// What a session of PHP's reads.
trait Screens {
    async fn number(&mut self, statement: &str) -> i64;

    async fn is_now(&mut self, utc: &str) -> i64 {
        self.number(&format!("SELECT ABS(TIMESTAMPDIFF(SECOND, '{utc}', UTC_TIMESTAMP())) < 60")).await
    }
}

impl Screens for MySqlConnection {
    async fn number(&mut self, statement: &str) -> i64 {
        let statement = AssertSqlSafe(statement.to_owned());
        sqlx::query_scalar(statement).fetch_one(self).await.expect("a number")
    }
}

/// Everything that executors, workers and operators do with a queue.
async fn live(name: &str, queue: &Queue, server: &Server, database: &str) {
    fn done<T>(name: &str, what: &str, answer: Result<T, Error>) -> T {
        answer.unwrap_or_else(|error| panic!("{name}: {what}: {error}"))
    }
    let key = |id: &'static str| Key { id, payload_hash: "hash", trace_id: "t", ttl_ms: 60_000 };
    let name = &*format!("{name}, {:?}", queue.driver());
    done(name, "ready", queue.ready().await);
    let mut ids = Vec::new();
    for key_id in ["one", "two"] {
        let made = done(name, "submit", queue.submit(&task("{}"), Some(key(key_id))).await);
        let Submitted::New(id) = made else { panic!("{name}: {made:?}") };
        ids.push(id);
    }
    done(name, "known", queue.submit(&task("{}"), Some(key("one"))).await);
    let claim = done(name, "claim", queue.claim("w", LEASE).await).expect("it is due");
    assert!(done(name, "renew", queue.renew(&claim, "w", LEASE).await));
    let finished = Settlement::Finished { result: "1", key: Some(("one", 1)) };
    assert!(done(name, "settle", queue.settle(&claim, "w", finished).await));
    assert_eq!(done(name, "cancel", queue.cancel(ids[1]).await), Ok(()));
    assert_eq!(done(name, "retry", queue.retry(ids[1]).await), Ok(()));
    assert_eq!(done(name, "cancel", queue.cancel(ids[1]).await), Ok(()));
    done(name, "a key alone", queue.reserve(key("three")).await);
    done(name, "keep", queue.keep(key("three"), "1").await);
    done(name, "a key alone", queue.reserve(key("four")).await);
    done(name, "release", queue.release(key("four")).await);
    if queue.driver() == Driver::Stask {
        let foreign = "INSERT INTO evo_s_tasks (identifier, action, meta) VALUES ('emcp_dispatch', 'dispatch', '{}')";
        server.run(database, foreign).await;
        assert_eq!(done(name, "adopt", queue.adopt().await), 1);
        server.run(database, "DELETE FROM evo_s_workers").await;
        assert_eq!(done(name, "register", queue.register().await), Registration::Created);
        server.run(database, "UPDATE evo_s_workers SET scope = ''").await;
        assert_eq!(done(name, "register", queue.register().await), Registration::Updated);
        let adopted = done(name, "claim", queue.claim("w", LEASE).await).expect("it is due");
        assert!(done(name, "settle", queue.settle(&adopted, "w", Settlement::Failed { message: "no" }).await));
    }
    assert_eq!(done(name, "depth", queue.depth().await)[..3], [0, 0, 0], "{name}");
    done(name, "wait", queue.oldest_wait().await);
    done(name, "list", queue.list(None, 9).await);
    done(name, "attempts", queue.attempts(ids[0]).await);
    done(name, "sweep", queue.sweep().await);
    done(name, "prune", queue.prune(Duration::ZERO).await);
    server.run(database, "DELETE FROM evo_mcp_keys").await;
    if queue.driver() == Driver::Stask {
        server.run(database, "DELETE FROM evo_mcp_stask_keys").await;
    }
    done(name, "prune", queue.prune(Duration::ZERO).await);
}

#[tokio::test]
async fn the_documented_rights_of_the_queue_are_enough_and_no_more() {
    for kind in [Kind::MariaDb, Kind::Postgres] {
        let (server, database, user) = (shared(kind).await, "queue_granted", "mcp_queue");
        create(&server, database, "").await;
        server.run(database, &stask::statements(dialect(kind))).await;
        let block = async |what: &str| server.run(database, &documented(kind, what, database, user)).await;
        let settings = Settings {
            password: Some(Secret::new("change me")),
            ..Settings::new(Secret::new(server.url_of(user, database)), "evo_")
        };
        let name = &*format!("{kind:?}");
        let queue = |driver| Queue::open(&settings, driver).expect("valid settings");
        block(", queue").await;
        live(name, &queue(Driver::Own), &server, database).await;
        assert!(queue(Driver::Stask).ready().await.is_err(), "{name}: not granted yet");
        block(", queue of sTask").await;
        live(name, &queue(Driver::Stask), &server, database).await;
        // Those who come later make nothing.
        block(", queue that is made").await;
        for driver in [Driver::Own, Driver::Stask] {
            live(&format!("{name}, later"), &queue(driver), &server, database).await;
        }
        for statement in [
            "SELECT username FROM evo_users",
            "SELECT id FROM evo_site_content",
            "UPDATE evo_site_content SET pagetitle = ''",
            "DELETE FROM evo_s_tasks",
            "DROP TABLE evo_s_workers",
            "CREATE TABLE evo_mcp_other (id INT)",
        ] {
            let refused = match kind {
                Kind::MariaDb => {
                    let options: MySqlConnectOptions = server.url_of(user, database).parse().expect("a URL");
                    let mut session = options.password("change me").connect().await.expect("it answers");
                    session.execute(statement).await.is_err()
                }
                Kind::Postgres => {
                    let options: PgConnectOptions = server.url_of(user, database).parse().expect("a URL");
                    let mut session = options.password("change me").connect().await.expect("it answers");
                    session.execute(statement).await.is_err()
                }
            };
            assert!(refused, "{name}: {statement}");
        }
    }
}
