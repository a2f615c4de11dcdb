//! The task queue on each engine: one task per key, one worker per task, in a table of ours and in sTask's own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mcp_sidecar::base::Secret;
use mcp_sidecar::store::queue::{Driver, Key, NewTask, Priority, Queue, Registration, Settlement, Status, Submitted};
use mcp_sidecar::store::{Error, Settings};

use crate::server::{DEADLINE, Kind, Server, shared};
use crate::site::{dialect, run_sqlite};
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
                queue.submit(&task("{}"), Some(key)).await
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
        for number in 0..TASKS {
            queue.submit(&task(&format!("{{\"n\":{number}}}")), None).await.expect("it is made");
        }
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
        assert_eq!(queue.prune(LEASE).await.expect("it answers"), 0, "{}", place.name);
        let tasks = queue.list(Some(Status::Finished), 100).await.expect("it answers");
        assert!(tasks.iter().all(|task| task.result == task.meta && task.progress == 100 && task.attempts == 1));
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
        assert_eq!(queue.adopt().await.expect("it answers"), 1, "{name}");
        assert_eq!(queue.adopt().await.expect("it answers"), 0, "{name}");
        let foreign = queue.claim("w", LEASE).await.expect("it answers").expect("it was taken over");
        assert_eq!((&*foreign.meta, &*foreign.mac), ("foreign", ""), "{name}");
        place.run("UPDATE evo_s_tasks SET status = 100").await;
        let finished = Settlement::Finished { result: "1", key: None };
        assert!(!queue.settle(&claim, "w", finished).await.expect("it answers"), "{name}");
    }
}
