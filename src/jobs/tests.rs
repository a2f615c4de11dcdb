mod pass;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use super::*;
use crate::audit::{self, Audit, Durability};
use crate::base::{PrincipalRecord, Secret, SystemClock};
use crate::policy::{Denial, Failover, Reason};
use crate::store::queue::{Key, Submitted};
use crate::telemetry::{Metrics, QueueMetrics};

#[test]
fn the_payload_hash_is_that_of_the_contracts_vector() {
    let expected = "ec89533df164b20989d4db551854b42b5651506fe9f14142a3a56c30e9ec611c";
    assert_eq!(payload_hash("content", "tools/call", None, None), expected);
    let ordered = json!({"a": 1, "b": "ї/"});
    let reordered = json!({"b": "ї/", "a": 1});
    let of = |params| payload_hash("content", "tools/call", Some(params), Some(7));
    assert_ne!(of(&ordered), of(&reordered), "members are hashed in the order they came in");
}

#[test]
fn what_is_written_into_tables_is_ascii_and_reads_the_same() {
    let text = json!({"ключ": "a\"\\/\n\u{7f}é\u{2028}\u{ffff}🦊"}).to_string();
    let written = request::ascii(&text);
    assert_eq!(
        written,
        r#"{"\u043a\u043b\u044e\u0447":"a\"\\/\n"#.to_owned() + "\u{7f}" + r#"\u00e9\u2028\uffff\ud83e\udd8a"}"#
    );
    assert_eq!(serde_json::from_str::<Value>(&written).unwrap(), serde_json::from_str::<Value>(&text).unwrap());
}

#[test]
fn both_forms_of_a_dispatch_are_read_and_nothing_else() {
    let read = |body: &str| Request::read(body.as_bytes());
    let whole = read(r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"x"}}"#).unwrap();
    assert_eq!((&*whole.method, whole.id, whole.key), ("tools/call", Some(json!(7)), None));
    let short = read(r#"{"method":"tools/list","params":3,"id":null,"idempotency_key":" k "}"#).unwrap();
    assert_eq!((short.params, short.id, short.key.as_deref()), (None, None, Some("k")));
    assert_eq!(read(r#"{"method":"m","params":{}}"#).unwrap().params, None, "as PHP has it");
    for bad in [
        "",
        "[]",
        "{}",
        r#"{"method":""}"#,
        r#"{"method":" \t"}"#,
        r#"{"method":7}"#,
        r#"{"method":"a","method":"b"}"#,
        r#"{"method":"a","id":{}}"#,
        r#"{"method":"a","idempotency_key":7}"#,
        r#"{"method":"a","idempotency_key":"\u0000"}"#,
    ] {
        assert_eq!(read(bad), Err(Invalid), "{bad}");
    }
    assert_eq!(Request::key(&"k".repeat(257)), Err(Invalid));
    assert_eq!(Request::key("  "), Ok(None));
}

#[test]
fn a_rows_code_covers_its_table_its_id_and_its_text() {
    let key = Secret::new([b'k'; 32]);
    let code = meta::seal(&key, Driver::Own, 7, "{}");
    assert!(meta::is_sealed(&key, Driver::Own, 7, "{}", &code));
    assert!(!meta::is_sealed(&key, Driver::Stask, 7, "{}", &code));
    assert!(!meta::is_sealed(&key, Driver::Own, 8, "{}", &code), "a copied row");
    assert!(!meta::is_sealed(&key, Driver::Own, 7, "{ }", &code));
    assert!(!meta::is_sealed(&Secret::new([b'l'; 32]), Driver::Own, 7, "{}", &code));
    for bad in ["", "zz", &code[1..], &code.replace(|c: char| c.is_ascii_hexdigit(), "é")] {
        assert!(!meta::is_sealed(&key, Driver::Own, 7, "{}", bad), "{bad}");
    }
}

#[test]
fn a_task_is_judged_again_by_todays_policy() {
    let caller = PrincipalRecord {
        context: "api".to_owned(),
        subject: "alice".to_owned(),
        scopes: vec!["mcp:call".to_owned()],
        jti: Some("j".to_owned()),
        ..PrincipalRecord::default()
    };
    let call = |tool: &str| request::call("tools/call", Some(&json!({"name": tool})), &json!(1));
    let policy = Snapshot::sample();
    let verdict = |policy: &Snapshot, caller: &PrincipalRecord, tool: &str| {
        judged(policy, "content", caller, &call(tool)).map_err(|denial| denial.reason)
    };
    assert_eq!(verdict(&policy, &caller, "evo.content.get"), Ok("servers[0].allow_tools[0]".to_owned()));
    assert_eq!(verdict(&policy, &caller, "evo.content.secret"), Err(Reason::ToolDenied));
    let poor = PrincipalRecord { scopes: Vec::new(), ..caller.clone() };
    assert_eq!(verdict(&policy, &poor, "evo.content.get"), Err(Reason::ScopeDenied));
    assert_eq!(judged(&policy, "other", &caller, &call("x")).unwrap_err().reason, Reason::ServerNotFound);
    let mut shut = policy.clone();
    shut.routes.api = false;
    assert_eq!(verdict(&shut, &caller, "evo.content.get"), Err(Reason::RouteNotFound));
    let site = policy.security.write_tools_site.clone();
    for (sub, jti) in [(true, false), (false, true)] {
        let mut today = policy.clone();
        today.auth.deny_sub.extend(sub.then(|| ("alice".to_owned(), site.clone())));
        today.auth.deny_jti.extend(jti.then(|| ("j".to_owned(), site.clone())));
        assert_eq!(verdict(&today, &caller, "evo.content.get"), Err(Reason::Unauthenticated));
    }
    let nobody = PrincipalRecord::default();
    assert_eq!(verdict(&policy, &nobody, "evo.content.get"), Err(Reason::Unauthenticated));
}

/// The verdict about a caller of whom the database need not be asked; the rule that permits.
fn judged(policy: &Snapshot, server: &str, caller: &PrincipalRecord, call: &[u8]) -> Result<String, Denial> {
    let run = Standing(|_| panic!("nobody of the manager"));
    let judged = judge_now(&run, policy, server, caller, call);
    match futures_util::FutureExt::now_or_never(judged).expect("nothing to wait for") {
        Ok(permitted) => Ok(permitted.rule.to_string()),
        Err(Unpermitted::Denied(denial)) => Err(denial),
        Err(Unpermitted::Unknown) => panic!("nothing was asked"),
    }
}

/// Knows what users may do, and runs nothing.
struct Standing(fn(u64) -> Result<Option<Vec<String>>, Away>);

#[async_trait]
impl Run for Standing {
    async fn run(&self, _: &Snapshot, _: &Identity, _: &[u8]) -> Ran {
        panic!("nothing is run")
    }

    async fn permissions(&self, _: &Snapshot, user: u64) -> Result<Option<Vec<String>>, Away> {
        (self.0)(user)
    }
}

#[tokio::test]
async fn what_a_user_of_the_manager_may_do_is_asked_for_anew() {
    let mut policy = Snapshot::sample();
    let call = request::call("tools/call", Some(&json!({"name": "evo.content.get"})), &json!(1));
    let record = PrincipalRecord { context: "mgr".to_owned(), user_id: Some(7), ..PrincipalRecord::default() };
    let verdict = async |policy: &Snapshot, standing| {
        judge_now(&Standing(standing), policy, "content", &record, &call).await.map(|permitted| permitted.caller)
    };
    let denied = |verdict: Result<_, Unpermitted>| match verdict {
        Err(Unpermitted::Denied(denial)) => (denial.reason, denial.rule.to_string()),
        other => panic!("{other:?}"),
    };
    let both = |user| {
        assert_eq!(user, 7);
        Ok(Some(["emcp", "emcp_dispatch"].map(str::to_owned).to_vec()))
    };
    assert_eq!(denied(verdict(&policy, both).await), (Reason::RouteNotFound, "mode".to_owned()));
    policy.routes.manager = true;
    let caller = verdict(&policy, both).await.unwrap();
    assert_eq!((&**caller.identity(), caller.permissions().len()), ("mgr:7", 2));
    let forbidden = |rule: &str| (Reason::Forbidden, rule.to_owned());
    let lacking = denied(verdict(&policy, |_| Ok(Some(vec!["emcp".to_owned()]))).await);
    assert_eq!(lacking, forbidden("acl.dispatch_permission"));
    let lacking = denied(verdict(&policy, |_| Ok(Some(vec!["emcp_dispatch".to_owned()]))).await);
    assert_eq!(lacking, forbidden("acl.permission"));
    assert_eq!(denied(verdict(&policy, |_| Ok(None)).await), forbidden("manager.identity"));
    assert_eq!(verdict(&policy, |_| Err(Away)).await, Err(Unpermitted::Unknown));
}

/// Answers as `answer` says of its first call, its second, and so on.
struct Scripted {
    calls: AtomicUsize,
    answer: fn(usize) -> Answered,
}

enum Answered {
    Result,
    Failure,
    /// A result, after a while.
    Late,
    Never,
}

#[async_trait]
impl Run for Scripted {
    async fn run(&self, _: &Snapshot, caller: &Identity, _: &[u8]) -> Ran {
        assert_eq!((&*caller.server, &*caller.identity), ("content", "api:alice"));
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        let infrastructure = match (self.answer)(call) {
            Answered::Result => false,
            Answered::Failure => true,
            Answered::Late => {
                tokio::time::sleep(Duration::from_millis(300)).await;
                false
            }
            Answered::Never => std::future::pending().await,
        };
        Ran { http_status: 200, body: br#"{"ok":true}"#.to_vec(), session_id: String::new(), infrastructure }
    }

    async fn permissions(&self, _: &Snapshot, _: u64) -> Result<Option<Vec<String>>, Away> {
        Err(Away)
    }
}

/// A queue in a file, a desk before it, and workers behind it.
struct Office {
    directory: tempfile::TempDir,
    settings: Settings,
    policy: Arc<ArcSwap<Snapshot>>,
    run: Arc<Scripted>,
    audit: Audit,
    metrics: Arc<QueueMetrics>,
    taken: Arc<Notify>,
    queues: Arc<Queues>,
}

impl Office {
    fn open(answer: fn(usize) -> Answered) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", directory.path().join("queue.sqlite").display());
        let store = store::Settings::new(Secret::new(url), "evo_");
        let audit = audit::Settings {
            dir: directory.path().join("audit"),
            channel: "runs".to_owned(),
            retain_days: 0,
            durability: Durability::Written,
            queue: 16,
            min_free_bytes: 0,
        };
        let settings = Settings {
            lease: Duration::from_secs(1),
            poll: Duration::from_millis(10),
            drain: Duration::from_millis(10),
            backoff: Duration::from_millis(1),
            ..Settings::new(store, Secret::new([b'k'; 32]), audit)
        };
        let metrics = Metrics::new(&[]).unwrap();
        let audit = Audit::open(&settings.audit, Arc::clone(&metrics), Arc::new(SystemClock)).unwrap();
        Self {
            queues: Queues::open(&settings.store).unwrap(),
            audit,
            directory,
            settings,
            policy: Arc::new(ArcSwap::from_pointee(Snapshot::sample())),
            run: Arc::new(Scripted { calls: Default::default(), answer }),
            metrics: metrics.queue().unwrap(),
            taken: Arc::default(),
        }
    }

    /// Until the calls that the workers made are so many.
    async fn called(&self, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.run.calls.load(Ordering::SeqCst) < count {
            assert!(Instant::now() < deadline, "not {count} calls");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// One number from the queue's own database.
    async fn number(&self, statement: &'static str) -> i64 {
        let mut connection = self.connection().await;
        sqlx::query_scalar(statement).fetch_one(&mut connection).await.unwrap()
    }

    async fn execute(&self, statement: &'static str) {
        let mut connection = self.connection().await;
        sqlx::query(statement).execute(&mut connection).await.unwrap();
    }

    async fn connection(&self) -> sqlx::SqliteConnection {
        let url = std::str::from_utf8(self.settings.store.url.expose()).unwrap();
        <sqlx::SqliteConnection as sqlx::Connection>::connect(url).await.unwrap()
    }

    fn worker(&self) -> Arc<Worker> {
        let run: Arc<dyn Run> = Arc::clone(&self.run) as _;
        let (policy, metrics) = (Arc::clone(&self.policy), Arc::clone(&self.metrics));
        let (queues, settings, taken) = (Arc::clone(&self.queues), self.settings.clone(), Arc::clone(&self.taken));
        Worker::new(queues, run, policy, settings, self.audit.clone(), metrics, taken)
    }

    async fn ask(&self, key: &str) -> Reply {
        let run: Arc<dyn Run> = Arc::clone(&self.run) as _;
        let queues = Some((Arc::clone(&self.queues), self.settings.key.clone()));
        let desk = Desk::new(queues, run, Arc::clone(&self.metrics), Arc::clone(&self.taken));
        let principal = PrincipalRecord {
            context: "api".to_owned(),
            subject: "alice".to_owned(),
            scopes: vec!["mcp:call".to_owned()],
            ..PrincipalRecord::default()
        };
        let caller = Identity {
            context: "api".to_owned(),
            identity: "api:alice".to_owned(),
            server: "content".to_owned(),
            principal: Some(principal),
            ..Identity::default()
        };
        let body = br#"{"method":"tools/call","params":{"name":"evo.content.get"}}"#;
        desk.dispatch(&self.policy.load_full(), &caller, body, Some(key), "").await.unwrap()
    }

    /// Run, decision, code, status and outcome of each line of the audit log.
    async fn lines(&self, count: usize) -> Vec<Value> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let files = std::fs::read_dir(self.directory.path().join("audit")).unwrap();
            let text = files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect::<String>();
            let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            if lines.len() >= count {
                let fields = ["run", "decision", "deny_code", "status", "outcome"];
                return lines.iter().map(|line| fields.map(|field| line[field].clone()).to_vec().into()).collect();
            }
            assert!(Instant::now() < deadline, "{text}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn until(&self, key: &str, word: &str) -> Reply {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let reply = self.ask(key).await;
            if reply.body["status"] == word {
                return reply;
            }
            assert!(Instant::now() < deadline, "not {word}: {reply:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn a_task_whose_worker_dies_is_run_by_another_and_completes_once() {
    let office = Office::open(|call| if call == 0 { Answered::Never } else { Answered::Result });
    let id = office.ask("k").await.body["task_id"].as_i64().unwrap();
    let (_stop, stopped) = watch::channel(false);
    let doomed = tokio::spawn(office.worker().work(stopped.clone()));
    let queue = office.queues.of(QueueDriver::Own).unwrap();
    office.called(1).await;
    // As `kill -9` would: it says nothing to anybody.
    doomed.abort();
    let heir = tokio::spawn(office.worker().work(stopped));
    let done = office.until("k", "completed").await;
    assert_eq!((done.status, &done.body["result"]["response"]), (200, &json!({"ok": true})));
    let outcomes: Vec<_> = queue.attempts(id).await.unwrap().into_iter().map(|(run, _, how)| (run, how)).collect();
    assert_eq!(outcomes, [(1, "lost".to_owned()), (2, "finished".to_owned())]);
    // The first worker was dropped, not killed, and so could still say what became of its run.
    let expected = [json!([1, "allow", null, 0, "lost"]), json!([2, "allow", null, 200, "finished"])];
    assert_eq!(office.lines(2).await, expected);
    heir.abort();
}

#[tokio::test]
async fn failed_infrastructure_is_tried_again_and_then_told() {
    let office = Office::open(|call| if call < 4 { Answered::Failure } else { Answered::Result });
    let (_stop, stopped) = watch::channel(false);
    let worker = tokio::spawn(office.worker().work(stopped));
    let failed = office.until("a", "failed").await;
    assert_eq!((failed.status, &failed.body["error"]), (200, &json!("Internal error")));
    assert_eq!(office.run.calls.load(Ordering::SeqCst), 3, "max_attempts");
    office.until("b", "completed").await;
    assert_eq!(office.run.calls.load(Ordering::SeqCst), 5);
    let expected = [(1, "again"), (2, "again"), (3, "failed"), (1, "again"), (2, "finished")];
    let expected = expected.map(|(run, outcome)| json!([run, "allow", null, 200, outcome]));
    assert_eq!(office.lines(5).await, expected);
    worker.abort();
}

#[tokio::test]
async fn a_worker_that_is_told_to_stop_gives_its_task_back_as_if_it_had_not_begun() {
    const STOPS: usize = 5;
    let mut office = Office::open(|call| if call < STOPS { Answered::Never } else { Answered::Result });
    office.settings.lease = Duration::from_secs(600);
    let id = office.ask("k").await.body["task_id"].as_i64().unwrap();
    let queue = office.queues.of(QueueDriver::Own).unwrap();
    // More often than `queue.max_attempts`; the lease is long, and yet it need not be waited for.
    for call in 1..=STOPS {
        let (stop, stopped) = watch::channel(false);
        let worker = tokio::spawn(office.worker().work(stopped));
        office.called(call).await;
        stop.send_replace(true);
        worker.await.unwrap();
        let task = queue.task(id).await.unwrap().unwrap();
        assert_eq!((task.attempts, task.progress, &*task.message), (0, 0, "The worker was stopped"));
    }
    let (_stop, stopped) = watch::channel(false);
    office.worker().once(stopped).await.unwrap();
    office.until("k", "completed").await;
    assert_eq!(queue.task(id).await.unwrap().unwrap().attempts, 1);
}

#[tokio::test]
async fn a_run_at_work_may_end_while_its_worker_drains() {
    let mut office = Office::open(|_| Answered::Late);
    office.settings.drain = Duration::from_secs(60);
    office.ask("k").await;
    let (stop, stopped) = watch::channel(false);
    let worker = tokio::spawn(office.worker().work(stopped));
    office.called(1).await;
    stop.send_replace(true);
    // What comes now is another worker's.
    office.ask("l").await;
    worker.await.unwrap();
    assert_eq!(office.ask("k").await.body["status"], "completed");
    assert_eq!(
        (office.ask("l").await.body["status"].clone(), office.run.calls.load(Ordering::SeqCst)),
        (json!("accepted"), 1)
    );
}

#[tokio::test]
async fn a_call_without_end_is_ended_although_its_worker_lives() {
    let mut office = Office::open(|call| if call == 0 { Answered::Never } else { Answered::Result });
    office.settings.timeout = Duration::from_millis(50);
    let (_stop, stopped) = watch::channel(false);
    let worker = tokio::spawn(office.worker().work(stopped));
    office.until("k", "completed").await;
    worker.abort();
    let office = Office { settings: office.settings.clone(), ..Office::open(|_| Answered::Never) };
    let (_stop, stopped) = watch::channel(false);
    let worker = tokio::spawn(office.worker().work(stopped));
    let failed = office.until("k", "failed").await;
    assert_eq!(failed.body["error"], "The call took too long");
    assert_eq!(office.run.calls.load(Ordering::SeqCst), 3, "max_attempts");
    worker.abort();
}

#[tokio::test]
async fn a_task_that_costs_one_worker_after_another_is_run_no_more() {
    let office = Office::open(|_| Answered::Result);
    let id = office.ask("k").await.body["task_id"].as_i64().unwrap();
    let queue = office.queues.of(QueueDriver::Own).unwrap();
    for worker in ["one", "two", "three"] {
        queue.claim(worker, Duration::ZERO).await.unwrap().unwrap();
    }
    let (_stop, stopped) = watch::channel(false);
    office.worker().once(stopped).await.unwrap();
    let failed = office.until("k", "failed").await;
    assert_eq!(failed.body["error"], "Workers were lost while they ran this task");
    assert_eq!(office.lines(1).await, [json!([4, "deny", "async_unavailable", 503, "failed"])]);
    let outcomes: Vec<String> = queue.attempts(id).await.unwrap().into_iter().map(|(_, _, how)| how).collect();
    assert_eq!(outcomes, ["lost", "lost", "lost", "failed"]);
    assert_eq!(office.run.calls.load(Ordering::SeqCst), 0);
}

#[test]
fn the_wait_doubles_up_to_five_minutes() {
    let waits =
        [1, 2, 3, 8, 9, 100, i64::MAX].map(|attempts| worker::backoff(Duration::from_secs(2), attempts).as_secs());
    assert_eq!(waits, [2, 4, 8, 256, 300, 300, 300]);
    assert_eq!(worker::backoff(Duration::MAX, 2), Duration::from_secs(300));
}

#[tokio::test]
async fn a_key_lives_as_long_as_the_policy_says_from_its_answer_on() {
    let office = Office::open(|_| Answered::Result);
    let mut policy = Snapshot::sample();
    policy.idempotency.ttl_seconds = 1000;
    office.policy.store(Arc::new(policy));
    const LEFT: &str = "SELECT expires_ms - CAST(unixepoch('subsec') * 1000 AS INTEGER) FROM evo_mcp_keys";
    office.ask("k").await;
    let about = |left: i64| assert!((900_000..=1_000_000).contains(&left), "{left}");
    about(office.number(LEFT).await);
    office.execute("UPDATE evo_mcp_keys SET expires_ms = expires_ms - 500000").await;
    let (_stop, stopped) = watch::channel(false);
    office.worker().once(stopped).await.unwrap();
    about(office.number(LEFT).await);
}

#[tokio::test]
async fn a_worker_forgets_keys_and_tasks_whose_time_is_over() {
    let mut office = Office::open(|_| Answered::Result);
    office.settings.keep = Duration::from_secs(100);
    for key in ["old", "young"] {
        office.ask(key).await;
        let (_stop, stopped) = watch::channel(false);
        office.worker().once(stopped).await.unwrap();
        if key == "old" {
            office.execute("UPDATE evo_mcp_keys SET expires_ms = expires_ms - 999999999999").await;
            office.execute("UPDATE evo_mcp_tasks SET finished_at = '2020-01-01 00:00:00'").await;
            office.execute("UPDATE evo_mcp_leases SET not_before_ms = not_before_ms - 200000").await;
        }
    }
    let (_stop, stopped) = watch::channel(false);
    office.worker().once(stopped).await.unwrap();
    assert_eq!(office.number("SELECT COUNT(*) FROM evo_mcp_keys").await, 1);
    assert_eq!(office.number("SELECT COUNT(*) FROM evo_mcp_tasks").await, 1);
    assert_eq!(office.ask("young").await.body["reused"], true);
}

#[tokio::test]
async fn a_row_that_was_changed_since_it_was_made_is_not_run() {
    let office = Office::open(|_| Answered::Result);
    office.ask("k").await;
    let url = std::str::from_utf8(office.settings.store.url.expose()).unwrap();
    let mut connection = <sqlx::SqliteConnection as sqlx::Connection>::connect(url).await.unwrap();
    let change = "UPDATE evo_mcp_tasks SET meta = replace(meta, 'evo.content.get', 'evo.content.search')";
    sqlx::query(change).execute(&mut connection).await.unwrap();
    let (_stop, stopped) = watch::channel(false);
    office.worker().once(stopped).await.unwrap();
    let failed = office.until("k", "failed").await;
    assert_eq!(failed.body["error"], "The task was not made here");
    assert_eq!(office.lines(1).await, [json!([1, "deny", "unauthenticated", 401, "forged"])]);
    assert_eq!(office.run.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_run_without_a_place_for_its_line_is_not_begun_and_costs_no_attempt() {
    let mut office = Office::open(|_| Answered::Result);
    office.ask("k").await;
    let audit = office.audit.clone();
    tokio::task::spawn_blocking(move || audit.close(Duration::from_secs(5))).await.unwrap().unwrap();
    let (stop, stopped) = watch::channel(false);
    let worker = tokio::spawn(office.worker().work(stopped));
    let queue = office.queues.of(QueueDriver::Own).unwrap();
    let id = office.ask("k").await.body["task_id"].as_i64().unwrap();
    // More often than `queue.max_attempts`.
    while queue.attempts(id).await.unwrap().iter().filter(|(_, _, how)| how == "again").count() < 5 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.send_replace(true);
    worker.await.unwrap();
    assert_eq!(office.run.calls.load(Ordering::SeqCst), 0);
    assert_eq!(office.ask("k").await.body["status"], "accepted");
    let metrics = Metrics::new(&[]).unwrap();
    office.audit = Audit::open(&office.settings.audit, metrics, Arc::new(SystemClock)).unwrap();
    let (_stop, stopped) = watch::channel(false);
    office.worker().once(stopped).await.unwrap();
    office.until("k", "completed").await;
}

/// No worker does it where calls are only ever answered at once.
#[tokio::test]
async fn keys_of_calls_that_are_answered_at_once_are_forgotten_in_time() {
    let office = Office::open(|_| Answered::Result);
    let mut policy = Snapshot::sample();
    (policy.queue.driver, policy.queue.failover) = (QueueDriver::Sync, Failover::Sync);
    office.policy.store(Arc::new(policy));
    let keys = office.queues.keys();
    let old = Key { id: "old", payload_hash: "h", trace_id: "t", ttl_ms: 0 };
    assert_eq!(keys.reserve(old).await.unwrap(), Submitted::New(0));
    let done = office.ask("k").await;
    assert_eq!((done.status, &done.body["idempotency_key"]), (200, &json!("k")));
    let url = std::str::from_utf8(office.settings.store.url.expose()).unwrap();
    let mut connection = <sqlx::SqliteConnection as sqlx::Connection>::connect(url).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut left = 2;
    while left != 1 {
        assert!(Instant::now() < deadline, "{left}");
        tokio::time::sleep(Duration::from_millis(5)).await;
        let count = "SELECT COUNT(*) FROM evo_mcp_keys";
        left = sqlx::query_scalar::<_, i64>(count).fetch_one(&mut connection).await.unwrap();
    }
    assert_eq!(office.ask("k").await.body["reused"], true, "what was kept is kept");
}

#[test]
fn what_php_wrote_is_read_and_trusted_with_little() {
    let text = r#"{"server_handle":"content","jsonrpc_method":"tools/call",
        "jsonrpc_params":{"name":"evo.content.get","arguments":{"id":1}},"request_id":"r","session_id":"",
        "trace_id":"t","idempotency_key":"","actor_user_id":3,"initiated_by_user_id":3,"context":"mgr","attempts":0,
        "max_attempts":3,"payload_hash":"h"}"#;
    let meta: Meta = serde_json::from_str(text).unwrap();
    let policy = Snapshot::sample();
    assert_eq!(meta.principal().context, "mgr", "with what the role permits now");
    let meta = Meta { context: "api".to_owned(), ..meta };
    let verdict = |meta: &Meta| judged(&policy, &meta.server_handle, &meta.principal(), &meta.call());
    assert!(verdict(&meta).is_ok());
    assert_eq!((meta.principal().user_id, meta.caller().user_id), (Some(3), Some(3)));
    let admin = Meta { jsonrpc_method: "admin/x".to_owned(), ..meta };
    assert_eq!(verdict(&admin).unwrap_err().reason, Reason::ScopeDenied);
}
