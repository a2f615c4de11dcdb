use std::time::Duration;

use super::*;
use crate::base::Secret;

const LEASE: Duration = Duration::from_secs(30);

fn queue(directory: &tempfile::TempDir) -> Queue {
    let url = format!("sqlite://{}", directory.path().join("queue.sqlite").display());
    Queue::open(&Settings::new(Secret::new(url), "evo_"), Driver::Own).unwrap()
}

async fn submit(queue: &Queue, priority: Priority) -> i64 {
    let task =
        NewTask { meta: "{}", started_by: Some(7), priority, max_attempts: 3, seal: &|id| format!("sealed {id}") };
    match queue.submit(&task, None).await.unwrap() {
        Submitted::New(id) => id,
        Submitted::Known(record) => panic!("{record:?}"),
    }
}

#[tokio::test]
async fn urgent_tasks_come_first_and_then_the_oldest() {
    let directory = tempfile::tempdir().unwrap();
    let queue = queue(&directory);
    let mut ids = Vec::new();
    for priority in [Priority::Low, Priority::Normal, Priority::High, Priority::Normal] {
        ids.push(submit(&queue, priority).await);
    }
    for expected in [ids[2], ids[1], ids[3], ids[0]] {
        let claim = queue.claim("w", LEASE).await.unwrap().unwrap();
        assert_eq!((claim.id, claim.mac), (expected, format!("sealed {expected}")));
    }
    assert_eq!(queue.claim("w", LEASE).await.unwrap(), None);
}

#[tokio::test]
async fn who_lost_a_task_can_neither_keep_nor_complete_it() {
    let directory = tempfile::tempdir().unwrap();
    let queue = queue(&directory);
    let id = submit(&queue, Priority::Normal).await;
    let first = queue.claim("one", Duration::ZERO).await.unwrap().unwrap();
    let second = queue.claim("two", LEASE).await.unwrap().unwrap();
    assert_eq!((second.id, second.run, second.attempt, second.lost.as_deref()), (id, 2, 2, Some("one")));
    assert!(!queue.renew(&first, "one", LEASE).await.unwrap());
    let finished = Settlement::Finished { result: "1", key: None };
    assert!(!queue.settle(&first, "one", finished).await.unwrap());
    // Nor can somebody else under the name of the holder, with an older run.
    assert!(!queue.settle(&first, "two", finished).await.unwrap());
    assert!(queue.settle(&second, "two", finished).await.unwrap());
    assert!(!queue.settle(&second, "two", Settlement::Failed { message: "late" }).await.unwrap());
    let task = queue.task(id).await.unwrap().unwrap();
    assert_eq!((task.status, &*task.result, task.attempts), (Some(Status::Finished), "1", 2));
    let attempts = queue.attempts(id).await.unwrap();
    let expected = [(1, "one".to_owned(), "lost".to_owned()), (2, "two".to_owned(), "finished".to_owned())];
    assert_eq!(attempts, expected);
}

#[tokio::test]
async fn keys_expire_and_are_swept() {
    let directory = tempfile::tempdir().unwrap();
    let queue = queue(&directory);
    let key = |ttl_ms| Key { id: "k", payload_hash: "h", trace_id: "t", ttl_ms };
    assert_eq!(queue.reserve(key(0)).await.unwrap(), Submitted::New(0));
    assert_eq!(queue.reserve(key(60_000)).await.unwrap(), Submitted::New(0), "the first one's time is over");
    let Submitted::Known(known) = queue.reserve(key(60_000)).await.unwrap() else { panic!("it is known") };
    assert_eq!((known.status, known.task_id), (Status::Running, None));
    queue.keep(key(60_000), "{}").await.unwrap();
    let Submitted::Known(known) = queue.reserve(key(60_000)).await.unwrap() else { panic!("it is known") };
    assert_eq!((known.status, known.result.as_deref()), (Status::Finished, Some("{}")));
    assert_eq!(queue.sweep().await.unwrap(), 0);
    queue.keep(key(0), "{}").await.unwrap();
    assert_eq!(queue.sweep().await.unwrap(), 1);
}

#[tokio::test]
async fn a_task_that_waits_for_its_next_attempt_is_not_due() {
    let directory = tempfile::tempdir().unwrap();
    let queue = queue(&directory);
    let id = submit(&queue, Priority::Normal).await;
    let claim = queue.claim("w", LEASE).await.unwrap().unwrap();
    let again = Settlement::Again { message: "away", after: Duration::from_secs(600), counts: true };
    assert!(queue.settle(&claim, "w", again).await.unwrap());
    assert_eq!(queue.claim("w", LEASE).await.unwrap(), None);
    let task = queue.task(id).await.unwrap().unwrap();
    assert_eq!((task.status, &*task.message), (Some(Status::Preparing), "away"));
    assert_eq!(queue.depth().await.unwrap(), [0, 1, 0, 0, 0]);
}

#[tokio::test]
async fn what_ended_long_ago_is_forgotten_once_no_key_asks_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let queue = queue(&directory);
    let waiting = submit(&queue, Priority::Low).await;
    let ended = submit(&queue, Priority::High).await;
    let key = |ttl_ms| Key { id: "k", payload_hash: "h", trace_id: "t", ttl_ms };
    let task =
        NewTask { meta: "{}", started_by: None, priority: Priority::High, max_attempts: 3, seal: &|_| String::new() };
    let Submitted::New(keyed) = queue.submit(&task, Some(key(60_000))).await.unwrap() else { panic!("it is new") };
    for id in [ended, keyed] {
        let claim = queue.claim("w", LEASE).await.unwrap().unwrap();
        assert_eq!(claim.id, id);
        assert!(queue.settle(&claim, "w", Settlement::Finished { result: "1", key: None }).await.unwrap());
    }
    assert_eq!(queue.prune(LEASE).await.unwrap(), 0, "it has just ended");
    assert_eq!(queue.prune(Duration::ZERO).await.unwrap(), 1);
    let left: Vec<i64> = queue.list(None, 10).await.unwrap().iter().map(|task| task.id).collect();
    assert_eq!((left, queue.attempts(ended).await.unwrap()), (vec![keyed, waiting], Vec::new()));
    assert_eq!(queue.claim("w", LEASE).await.unwrap().map(|claim| claim.id), Some(waiting));
}

#[tokio::test]
async fn operators_cancel_what_has_not_ended_and_retry_what_failed() {
    let directory = tempfile::tempdir().unwrap();
    let queue = queue(&directory);
    let id = submit(&queue, Priority::Normal).await;
    assert_eq!(queue.retry(id).await.unwrap(), Err(Undone::WrongStatus));
    let claim = queue.claim("w", LEASE).await.unwrap().unwrap();
    assert_eq!(queue.cancel(id).await.unwrap(), Ok(()));
    assert!(!queue.renew(&claim, "w", LEASE).await.unwrap());
    assert!(!queue.settle(&claim, "w", Settlement::Finished { result: "1", key: None }).await.unwrap());
    assert_eq!(queue.cancel(id).await.unwrap(), Err(Undone::WrongStatus));
    assert_eq!(queue.cancel(id + 1).await.unwrap(), Err(Undone::NoSuchTask));
    assert_eq!(queue.retry(id).await.unwrap(), Ok(()));
    let again = queue.claim("w", LEASE).await.unwrap().unwrap();
    assert_eq!((again.id, again.run, again.attempt), (id, 2, 1));
    assert_eq!(queue.list(Some(Status::Running), 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_waits_is_what_is_due_and_nobody_has() {
    let directory = tempfile::tempdir().unwrap();
    let queue = queue(&directory);
    assert_eq!(queue.oldest_wait().await.unwrap(), Duration::ZERO);
    let id = submit(&queue, Priority::Normal).await;
    age(&directory, 90_000).await;
    let waited = queue.oldest_wait().await.unwrap().as_secs();
    assert!((90..120).contains(&waited), "{waited}");
    let claim = queue.claim("w", LEASE).await.unwrap().unwrap();
    assert_eq!(queue.oldest_wait().await.unwrap(), Duration::ZERO, "somebody has it");
    let again = Settlement::Again { message: "away", after: Duration::from_secs(600), counts: true };
    assert!(queue.settle(&claim, "w", again).await.unwrap());
    assert_eq!(queue.oldest_wait().await.unwrap(), Duration::ZERO, "it is not due");
    queue.cancel(id).await.unwrap().unwrap();
    age(&directory, 900_000).await;
    assert_eq!(queue.oldest_wait().await.unwrap(), Duration::ZERO, "it has ended");
    queue.retry(id).await.unwrap().unwrap();
    assert!(queue.oldest_wait().await.unwrap() < Duration::from_secs(60), "it waits since it was asked for again");
}

/// Leases are as if they had been written so much earlier.
async fn age(directory: &tempfile::TempDir, ms: i64) {
    execute(directory, &format!("UPDATE evo_mcp_leases SET not_before_ms = not_before_ms - {ms}")).await;
}

async fn execute(directory: &tempfile::TempDir, statement: &str) {
    let url = format!("sqlite://{}", directory.path().join("queue.sqlite").display());
    let mut connection = <sqlx::SqliteConnection as sqlx::Connection>::connect(&url).await.unwrap();
    sqlx::query(sqlx::AssertSqlSafe(statement.to_owned())).execute(&mut connection).await.unwrap();
}
