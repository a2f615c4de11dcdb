//! A worker that ends when nothing is due.

use super::*;

#[tokio::test]
async fn a_pass_over_a_queue_that_fails_lets_runs_at_work_end() {
    let mut office = Office::open(|call| if call == 0 { Answered::Result } else { Answered::Late });
    (office.settings.drain, office.settings.concurrency) = (Duration::from_secs(60), 2);
    for key in ["k", "l", "m"] {
        office.ask(key).await;
    }
    office
        .execute(
            "CREATE TRIGGER third BEFORE UPDATE ON evo_mcp_leases \
             WHEN NEW.runs > OLD.runs AND (SELECT COUNT(*) FROM evo_mcp_leases WHERE runs > 0) > 1 \
             BEGIN SELECT RAISE(ABORT, 'away'); END",
        )
        .await;
    let (_stop, stopped) = watch::channel(false);
    let failed = office.worker().once(stopped).await.unwrap_err().to_string();
    assert!(failed.starts_with("the queue does not answer: ") && failed.contains("away"), "{failed}");
    assert_eq!(office.run.calls.load(Ordering::SeqCst), 2);
    assert_eq!(office.number("SELECT COUNT(*) FROM evo_mcp_tasks WHERE status = 80").await, 2);
}

#[tokio::test]
async fn a_run_at_work_may_end_when_its_pass_is_told_to_stop() {
    let mut office = Office::open(|call| if call == 0 { Answered::Late } else { Answered::Never });
    office.settings.drain = Duration::from_secs(60);
    for (key, said) in [("k", "adopted 0, processed 1: finished 1"), ("l", "adopted 0, processed 1: again 1")] {
        office.ask(key).await;
        let (stop, stopped) = watch::channel(false);
        let pass = tokio::spawn(office.worker().once(stopped));
        office.called(if key == "k" { 1 } else { 2 }).await;
        stop.send_replace(true);
        assert_eq!(pass.await.unwrap().unwrap().to_string(), said);
        office.settings.drain = Duration::from_millis(10);
    }
    assert_eq!(office.ask("k").await.body["status"], "completed");
    assert_eq!(office.ask("l").await.body["status"], "accepted");
}

#[tokio::test]
async fn a_pass_fails_where_its_runs_cannot_be_told_of() {
    let mut office = Office::open(|_| Answered::Result);
    office.settings.concurrency = 1;
    let mut files = std::fs::read_dir(office.directory.path().join("audit")).unwrap();
    let log = files.next().unwrap().unwrap().path();
    std::fs::remove_file(&log).unwrap();
    std::os::unix::fs::symlink("/dev/full", &log).unwrap();
    office.audit.reopen();
    for key in ["k", "l"] {
        office.ask(key).await;
    }
    // The first run finds out.
    for _ in 0..2 {
        let (_stop, stopped) = watch::channel(false);
        let failed = office.worker().once(stopped).await.unwrap_err();
        assert!(matches!(failed, Halted::Audit), "{failed}");
        assert_eq!(office.run.calls.load(Ordering::SeqCst), 1);
    }
}
