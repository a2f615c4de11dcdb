use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;
use crate::base::{ManualClock, SystemClock};

/// 2023-11-14T22:13:20Z.
const NOW: u64 = 1_700_000_000_000;
const PATIENCE: Duration = Duration::from_secs(10);

/// A disk that takes so many bytes per attempt, then is full until told otherwise.
#[derive(Clone, Default)]
struct Disk(Arc<Mutex<DiskState>>);

#[derive(Default)]
struct DiskState {
    bytes: Vec<u8>,
    room: usize,
    reopened: usize,
    free: Option<u64>,
}

impl Disk {
    fn with_room(room: usize) -> Self {
        let disk = Self::default();
        disk.0.lock().room = room;
        disk
    }

    fn lines(&self) -> Vec<serde_json::Value> {
        let bytes = self.0.lock().bytes.clone();
        let text = String::from_utf8(bytes).expect("UTF-8");
        text.lines().map(|line| serde_json::from_str(line).expect("whole lines")).collect()
    }
}

impl Sink for Disk {
    fn turn(&mut self, _: u64) -> io::Result<bool> {
        Ok(false)
    }

    fn reopen(&mut self) {
        self.0.lock().reopened += 1;
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut disk = self.0.lock();
        if disk.room == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let count = bytes.len().min(disk.room);
        disk.room -= count;
        disk.bytes.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn free_bytes(&self) -> Option<u64> {
        self.0.lock().free
    }
}

fn settings(dir: &Path, durability: Durability, queue: usize) -> Settings {
    Settings { dir: dir.to_owned(), channel: "emcp".to_owned(), retain_days: 14, durability, queue, min_free_bytes: 10 }
}

fn metrics() -> Arc<Metrics> {
    Metrics::new(&[]).expect("registers")
}

fn on_disk(disk: &Disk, durability: Durability, queue: usize) -> (Audit, Arc<Metrics>, Arc<ManualClock>) {
    let (metrics, clock) = (metrics(), Arc::new(ManualClock::at(NOW)));
    let settings = settings(Path::new("/nowhere"), durability, queue);
    let clock_handle: Arc<dyn Clock> = Arc::clone(&clock) as _;
    let audit =
        Audit::start(&settings, Box::new(disk.clone()), Arc::clone(&metrics), clock_handle).expect("thread starts");
    (audit, metrics, clock)
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::yield_now();
    }
}

fn numbered(number: u64) -> Record {
    Record { bytes_in: number, ..sample(NOW) }
}

fn numbers(lines: &[serde_json::Value]) -> Vec<u64> {
    lines.iter().filter_map(|line| line["bytes_in"].as_u64()).collect()
}

#[test]
fn lines_come_out_in_order_and_close_flushes() {
    let disk = Disk::with_room(usize::MAX);
    let (audit, ..) = on_disk(&disk, Durability::Buffered, 1000);
    for number in 0..1000 {
        drop(audit.try_reserve().expect("a place").write(numbered(number)));
    }
    audit.close(PATIENCE).expect("flushed");
    assert_eq!(numbers(&disk.lines()), (0..1000).collect::<Vec<_>>());
    assert!(audit.try_reserve().is_none(), "a closed log gives no places");
}

#[test]
fn buffered_lines_appear_without_close() {
    let disk = Disk::with_room(usize::MAX);
    let (audit, ..) = on_disk(&disk, Durability::Buffered, 8);
    drop(audit.try_reserve().expect("a place").write(numbered(1)));
    until("flushed", || disk.lines().len() == 1);
    audit.close(PATIENCE).expect("flushed");
}

#[tokio::test]
async fn written_means_on_disk() {
    let disk = Disk::with_room(usize::MAX);
    let (audit, ..) = on_disk(&disk, Durability::Written, 8);
    for number in 0..20 {
        let slot = audit.reserve().await.expect("a place");
        assert_eq!(slot.write(numbered(number)).await, Ok(()));
        assert_eq!(disk.lines().len() as u64, number + 1);
    }
    audit.close(PATIENCE).expect("flushed");
}

#[tokio::test]
async fn a_full_disk_refuses_and_recovers_with_whole_lines() {
    // Room for one line and a half.
    let disk = Disk::with_room(700);
    let (audit, metrics, _) = on_disk(&disk, Durability::Buffered, 4);
    // The first line may be written before the others come, and leave its place to one more.
    let mut count = 0;
    while let Ok(slot) = audit.reserve().await {
        drop(slot.write(numbered(count)));
        count += 1;
    }
    assert!((4..=5).contains(&count), "{count}");
    let started = Instant::now();
    assert_eq!(audit.reserve().await.err(), Some(Full));
    assert!(started.elapsed() >= RESERVE_WAIT && audit.try_reserve().is_none());
    until("noticed", || audit.trouble() == Some("audit_unwritable"));
    assert!(!metrics.render().contains("audit_write_errors_total 0\n"));

    disk.0.lock().room = usize::MAX;
    until("recovered", || audit.healthy());
    drop(audit.reserve().await.expect("a place again").write(numbered(count)));
    audit.close(PATIENCE).expect("flushed");
    assert_eq!(numbers(&disk.lines()), (0..=count).collect::<Vec<_>>());
    assert_eq!(metrics.audit_lost(), 0);
}

#[tokio::test]
async fn whoever_waits_for_a_full_disk_is_told_and_the_record_stays() {
    let disk = Disk::default();
    let (audit, ..) = on_disk(&disk, Durability::Written, 4);
    assert_eq!(audit.reserve().await.expect("a place").write(numbered(1)).await, Err(Unwritten));
    disk.0.lock().room = usize::MAX;
    audit.close(PATIENCE).expect("flushed");
    assert_eq!(numbers(&disk.lines()), [1]);
}

#[tokio::test]
async fn with_written_nobody_waits_for_a_disk_that_fails() {
    let disk = Disk::with_room(0);
    let (audit, ..) = on_disk(&disk, Durability::Written, 8);
    let slots = [audit.reserve().await.expect("a place"), audit.reserve().await.expect("a place")];
    // The second comes when the first is stuck already, and waits behind it.
    for (number, slot) in (0..).zip(slots) {
        let told = tokio::time::timeout(PATIENCE, slot.write(numbered(number))).await;
        assert_eq!(told.expect("in time"), Err(Unwritten));
    }
    assert_eq!(audit.reserve().await.err(), Some(Full), "though places are free");
    disk.0.lock().room = usize::MAX;
    until("it works again", || audit.healthy());
    let slot = audit.reserve().await.expect("a place");
    assert_eq!(slot.write(numbered(2)).await, Ok(()));
    assert_eq!(numbers(&disk.lines()), [0, 1, 2]);
    audit.close(PATIENCE).expect("flushed");
}

#[test]
fn close_on_a_full_disk_ends_at_its_deadline_and_says_what_is_lost() {
    let disk = Disk::default();
    let (audit, metrics, _) = on_disk(&disk, Durability::Buffered, 4);
    for number in 0..3 {
        drop(audit.try_reserve().expect("a place").write(numbered(number)));
    }
    assert_eq!(audit.close(Duration::from_millis(50)), Err(Unflushed { lost: 3 }));
    assert_eq!(metrics.audit_lost(), 3);
}

#[test]
fn a_real_full_device_is_survived() {
    if !Path::new("/dev/full").exists() {
        return;
    }
    let dir = tempfile::tempdir().expect("directory");
    symlink("/dev/full", dir.path().join("emcp-2023-11-14.log")).expect("symlink");
    let clock = Arc::new(ManualClock::at(NOW));
    let audit =
        Audit::open(&settings(dir.path(), Durability::Buffered, 4), metrics(), Arc::clone(&clock) as _).expect("opens");
    drop(audit.try_reserve().expect("a place").write(numbered(1)));
    until("noticed", || !audit.healthy());
    // The next day's file lies on a disk with room.
    clock.advance_ms(86_400_000);
    until("recovered", || audit.healthy());
    audit.close(PATIENCE).expect("flushed");
    let text = std::fs::read_to_string(dir.path().join("emcp-2023-11-15.log")).expect("file");
    assert_eq!(text.lines().count(), 1);
}

#[test]
fn slots_given_back_are_free_and_counted() {
    let disk = Disk::with_room(usize::MAX);
    let (audit, metrics, _) = on_disk(&disk, Durability::Buffered, 1);
    for _ in 0..3 {
        drop(audit.try_reserve().expect("a place"));
    }
    assert_eq!(metrics.audit_lost(), 3);
    audit.close(PATIENCE).expect("flushed");
    assert!(disk.lines().is_empty());
}

#[test]
fn a_slot_without_a_place_keeps_nobody_out_and_its_line_is_written() {
    let disk = Disk::with_room(usize::MAX);
    let (audit, metrics, _) = on_disk(&disk, Durability::Buffered, 1);
    let mut streams: Vec<Slot> = Vec::new();
    for _ in 0..5 {
        let mut slot = audit.try_reserve().expect("the place is free again");
        slot.give_place_back();
        slot.give_place_back();
        streams.push(slot);
    }
    let call = audit.try_reserve().expect("the place is free again");
    assert!(audit.try_reserve().is_none(), "there is one place only");
    drop(streams.pop());
    assert_eq!(metrics.audit_lost(), 1);
    let closing = audit.clone();
    let close = std::thread::spawn(move || closing.close(PATIENCE));
    until("closing", || audit.0.places.is_closed());
    drop(call.write(numbered(0)));
    for (number, slot) in (1..).zip(streams) {
        drop(slot.write(numbered(number)));
    }
    assert_eq!(close.join().expect("no panic"), Ok(()), "it waits for slots without a place, too");
    assert_eq!(numbers(&disk.lines()), [0, 1, 2, 3, 4]);
}

#[test]
fn while_nothing_can_be_written_streams_that_end_take_the_places() {
    let disk = Disk::with_room(0);
    let (audit, metrics, _) = on_disk(&disk, Durability::Buffered, 3);
    let stream = || {
        let mut slot = audit.try_reserve().expect("a place");
        slot.give_place_back();
        slot
    };
    let mut streams: Vec<Slot> = std::iter::repeat_with(stream).take(5).collect();
    for number in 0..2 {
        drop(streams.remove(0).write(numbered(number)));
    }
    let last = audit.try_reserve().expect("one of three is left");
    assert!(audit.try_reserve().is_none());
    drop(last.write(numbered(2)));
    for (number, slot) in (3..).zip(streams) {
        drop(slot.write(numbered(number)));
    }
    assert!(audit.try_reserve().is_none());
    until("noticed", || !audit.healthy());
    disk.0.lock().room = usize::MAX;
    until("all places are back, and no more", || audit.0.places.available_permits() == 3);
    until("nothing is out", || audit.0.outstanding() == 0);
    audit.close(PATIENCE).expect("flushed");
    assert_eq!(numbers(&disk.lines()), [0, 1, 2, 3, 4, 5]);
    assert_eq!(metrics.audit_lost(), 0);
}

#[test]
fn close_waits_for_slots_that_are_out() {
    let disk = Disk::with_room(usize::MAX);
    let (audit, ..) = on_disk(&disk, Durability::Buffered, 4);
    let slot = audit.try_reserve().expect("a place");
    let closing = audit.clone();
    let close = std::thread::spawn(move || closing.close(PATIENCE));
    until("closing", || audit.try_reserve().is_none());
    drop(slot.write(numbered(9)));
    assert_eq!(close.join().expect("no panic"), Ok(()));
    assert_eq!(numbers(&disk.lines()), [9]);
}

#[test]
fn denials_are_aggregated_and_take_no_places() {
    let disk = Disk::with_room(usize::MAX);
    let (audit, _, clock) = on_disk(&disk, Durability::Buffered, 1);
    let slot = audit.try_reserve().expect("the only place");
    let denial = || Record { decision: "deny", deny_code: Some("unauthenticated"), ..sample(NOW) };
    for _ in 0..1000 {
        audit.deny(denial());
    }
    clock.advance_ms(1000);
    audit.deny(denial());
    until("written", || disk.lines().iter().any(|line| line["repeats"] == 999));
    drop(slot.write(numbered(1)));
    audit.close(PATIENCE).expect("flushed");
    let lines = disk.lines();
    assert_eq!(lines.iter().filter(|line| line["decision"] == "deny").count(), 3);
    let summary = lines.iter().find(|line| line["repeats"] == 999).expect("summary");
    assert_eq!((&summary["peer"], &summary["deny_code"]), (&"192.0.2.1".into(), &"unauthenticated".into()));
}

#[test]
fn low_disk_is_unhealthy_before_it_is_full() {
    let disk = Disk::with_room(usize::MAX);
    disk.0.lock().free = Some(9);
    let (audit, metrics, _) = on_disk(&disk, Durability::Buffered, 1);
    until("noticed", || audit.trouble() == Some("audit_disk_low"));
    assert!(metrics.render().contains("audit_disk_free_bytes 9\n"));
    disk.0.lock().free = Some(10);
    until("recovered", || audit.healthy());
    audit.close(PATIENCE).expect("flushed");
}

#[test]
fn reopen_makes_a_new_file_after_a_move() {
    let dir = tempfile::tempdir().expect("directory");
    let audit = Audit::open(&settings(dir.path(), Durability::Buffered, 4), metrics(), Arc::new(ManualClock::at(NOW)))
        .expect("opens");
    let (path, moved) = (dir.path().join("emcp-2023-11-14.log"), dir.path().join("moved"));
    let count = |path: &Path| std::fs::read_to_string(path).map_or(0, |text| text.lines().count());
    drop(audit.try_reserve().expect("a place").write(numbered(1)));
    until("first line", || count(&path) == 1);
    std::fs::rename(&path, &moved).expect("rename");
    audit.reopen();
    until("new file", || path.exists());
    drop(audit.try_reserve().expect("a place").write(numbered(2)));
    audit.close(PATIENCE).expect("flushed");
    assert_eq!((count(&moved), count(&path)), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_writers_lose_nothing() {
    const WRITERS: u64 = 8;
    const EACH: u64 = 2_000;
    let dir = tempfile::tempdir().expect("directory");
    for durability in [Durability::Buffered, Durability::Written] {
        let dir = dir.path().join(format!("{durability:?}"));
        let metrics = metrics();
        let clock = Arc::new(SystemClock);
        let audit = Audit::open(&settings(&dir, durability, 64), Arc::clone(&metrics), clock).expect("opens");
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            let audit = audit.clone();
            tasks.spawn(async move {
                for number in 0..EACH {
                    let slot = loop {
                        if let Ok(slot) = audit.reserve().await {
                            break slot;
                        }
                    };
                    slot.write(numbered(writer * EACH + number)).await.expect("written");
                }
            });
        }
        while let Some(joined) = tasks.join_next().await {
            joined.expect("no panic");
        }
        audit.close(PATIENCE).expect("flushed");
        let mut seen = BTreeSet::new();
        for entry in std::fs::read_dir(&dir).expect("directory") {
            let text = std::fs::read_to_string(entry.expect("entry").path()).expect("file");
            for line in text.lines() {
                let line: serde_json::Value = serde_json::from_str(line).expect("whole lines");
                assert!(seen.insert(line["bytes_in"].as_u64()), "twice: {line}");
            }
        }
        assert_eq!(seen.len() as u64, WRITERS * EACH);
        let written = format!("audit_records_total{{queue=\"decision\"}} {}\n", WRITERS * EACH);
        assert!(metrics.render().contains(&written));
        assert_eq!(metrics.audit_lost(), 0);
    }
}
