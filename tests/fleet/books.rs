//! What database, audit, metrics and executors say when all is over, against what clients have seen.
//!
//! A killed sidecar takes its counters along, and what it had permitted but not answered has no line. So of the whole
//! time it is asserted that each permitted answer a client got has its one line (`audit.durability = "written"`), and
//! the equation of the harness (upstream saw = audit lines that allow = metric) for the last life of each sidecar,
//! which begins under load and in which its executor lives throughout.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use mcp_sidecar::store::queue::{Driver, Status};
use serde_json::Value;

use crate::corpus::Call;
use crate::harness::eventually;
use crate::load::Taken;
use crate::members::{Fleet, Member, audit, settled};
use crate::part::SOON;
use crate::tables::{LEASE, Tables};
use crate::tally::{Answered, Turn};

/// What was counted before a sidecar's last life began.
#[derive(Clone, Copy, Debug)]
pub struct Before {
    lines: usize,
    seen: usize,
}

fn allows(fleet: &Fleet, index: usize) -> usize {
    let (records, _) = audit(&fleet.files[index]);
    records.iter().filter(|record| record["decision"] == "allow").count()
}

/// Requests that an executor has answered: calls, and those that were to be run later.
fn seen(fleet: &Fleet, index: usize) -> usize {
    let of = |name| fleet.metric(Member::Executor(index), name, "");
    of("mcp_sidecar_executor_requests_total{") + of("mcp_sidecar_queue_submissions_total{")
}

impl Before {
    /// Taken while the sidecar is dead: its executor ends what it had begun, and gets nothing new.
    pub fn take(fleet: &Fleet, index: usize) -> Self {
        let seen = settled(|| seen(fleet, index));
        Self { lines: allows(fleet, index), seen }
    }

    /// Upstream saw = audit lines that allow = metric, of the life that has begun then.
    pub fn check(self, fleet: &Fleet, index: usize) {
        let mut last = [0; 3];
        let now = || {
            let metric = fleet.metric(Member::Sidecar(index), "mcp_sidecar_requests_total{", "decision=\"allow\"");
            [seen(fleet, index) - self.seen, allows(fleet, index) - self.lines, metric]
        };
        let agreed = std::panic::AssertUnwindSafe(|| {
            eventually("executor, audit and metric agree", SOON, || {
                last = now();
                (last[0] > 0 && last[0] == last[1] && last[1] == last[2]).then_some(())
            });
        });
        assert!(std::panic::catch_unwind(agreed).is_ok(), "sidecar {index}: [executor, audit, metric] = {:?}", now());
    }
}

/// Each permitted answer that a client got has one line of its sidecar, and the line tells its status. Those that the
/// rate refused have one, or are among the repeats of their second, which a sidecar that is killed takes along.
pub fn answers(fleet: &Fleet, answers: &[Answered], turns: &[Turn]) {
    for door in 0..2 {
        let (refused, permitted): (Vec<_>, Vec<_>) =
            answers.iter().filter(|answer| answer.door == door).partition(|answer| answer.status == 429);
        if !turns.contains(&Turn::Member(Member::Sidecar(door))) {
            eventually("each refusal is told of", SOON, || {
                let (records, _) = audit(&fleet.files[door]);
                let told = records.iter().filter(|record| record["deny_code"] == "rate_limited");
                let told: u64 = told.map(|record| record["repeats"].as_u64().unwrap_or(1)).sum();
                (told >= refused.len() as u64).then_some(())
            });
        }
        let (records, torn) = audit(&fleet.files[door]);
        assert!(torn <= turns.len(), "{torn} lines are torn");
        let mut lines: HashMap<&str, Vec<&Value>> = HashMap::new();
        for record in records.iter().filter(|record| record["request_id"].is_string()) {
            lines.entry(record["request_id"].as_str().unwrap_or_default()).or_default().push(record);
        }
        for answer in permitted.into_iter().chain(refused) {
            let told = lines.get(&*answer.request_id).map_or(&[][..], Vec::as_slice);
            let limited = answer.status == 429;
            assert!(told.len() == 1 || (limited && told.is_empty()), "{answer:?}: {told:?}");
            let decision = if limited { "deny" } else { "allow" };
            for line in told {
                assert_eq!((&line["status"], &line["decision"]), (&answer.status.into(), &decision.into()));
            }
        }
    }
}

/// What was put into sTask's table by others.
#[derive(Clone, Debug)]
pub struct Offered {
    pub id: String,
    pub call: usize,
}

/// No task is lost, none is there that nobody asked for, each completed once, and each further run is accounted for.
/// `cut` are the tasks whose workers were killed with them in hands.
pub fn tasks(tables: &Tables, taken: &[Taken], offered: &[Offered], cut: &[i64]) {
    let ids: BTreeSet<i64> = taken.iter().map(|taken| taken.task_id).collect();
    assert_eq!(ids.len(), taken.len(), "two keys have one task");
    let count = |of: &str| tables.count(of);
    let keyed = i64::try_from(taken.len()).expect("few");
    let tasks = keyed + i64::try_from(offered.len()).expect("few");
    let ours = "{tasks} t WHERE t.identifier = 'emcp_dispatch'";
    assert_eq!(count(ours), tasks);
    assert_eq!(count(&format!("{ours} AND status = 80 AND progress = 100 AND result IS NOT NULL")), tasks);
    assert_eq!(count("{keys} k JOIN {tasks} t ON t.id = k.task_id"), keyed, "one key for each task");
    assert_eq!(count("{leases} WHERE open = 0 AND holder IS NULL"), tasks, "nobody holds one any more");

    // A run begins when its lease does, and the next one when that has ended.
    let early = format!(
        "{{attempts}} a JOIN {{attempts}} b ON b.task_id = a.task_id AND b.run = a.run + 1 \
         WHERE a.outcome = 'lost' AND b.started_ms < a.started_ms + {}",
        LEASE.as_millis()
    );
    assert_eq!(count(&early), 0, "runs began while another worker had the task's lease");

    // One run finished, the last one; every earlier one has its reason.
    assert_eq!(count("{attempts} WHERE outcome = 'finished'"), tasks, "each task is completed once");
    assert_eq!(count("{attempts} WHERE outcome IS NULL OR outcome NOT IN ('finished', 'lost', 'again')"), 0);
    let last = "SELECT task_id, MAX(run) AS runs, COUNT(*) AS told, \
                MAX(CASE WHEN outcome = 'finished' THEN run ELSE 0 END) AS done FROM {attempts} GROUP BY task_id";
    let agree = format!(
        "({last}) a JOIN {{tasks}} t ON t.id = a.task_id JOIN {{leases}} l ON l.task_id = a.task_id \
         WHERE a.runs = a.told AND a.done = a.runs AND l.runs = a.runs AND t.attempts = a.runs"
    );
    assert_eq!(count(&agree), tasks, "runs, attempts and leases agree");

    // A worker that stood still and was killed had a task: it ran again, unless its end was already on the way.
    let mut again = BTreeMap::new();
    for id in cut {
        again.insert(id, count(&format!("{{attempts}} WHERE task_id = {id} AND outcome = 'lost'")));
    }
    assert!(again.values().any(|lost| *lost > 0), "{again:?}");
    let [lost, repeated] = ["lost", "again"].map(|how| count(&format!("{{attempts}} WHERE outcome = '{how}'")));
    println!("fleet: {tasks} tasks, {lost} lost leases, {repeated} runs repeated for want of the database");
}

/// sTask's own rows: what others put there has its right result, what is not ours is as it was, and our worker is in
/// the register once, however many there were.
pub fn stask(tables: &Tables, calls: &[Call], offered: &[Offered]) {
    if tables.stage.driver != Driver::Stask {
        assert!(offered.is_empty());
        return;
    }
    let mut results = HashMap::new();
    for task in tables.list() {
        let meta: Value = serde_json::from_str(&task.meta).expect("JSON");
        let id = meta["request_id"].as_str().expect("all are named").to_owned();
        assert!(results.insert(id, task).is_none(), "{} is there twice", meta["request_id"]);
    }
    for Offered { id, call } in offered {
        let task = &results[id];
        assert_eq!(task.status, Some(Status::Finished), "{id}: {}", task.message);
        let result: Value = serde_json::from_str(&task.result).expect("JSON");
        assert_eq!((&result["http_status"], calls[*call].wrong(id, &result["response"])), (&200.into(), None));
    }
    let count = |of: &str| tables.count(of);
    assert_eq!(count("{tasks} WHERE identifier = 'other' AND status = 10 AND attempts = 0"), 1);
    assert_eq!(count("evo_s_workers WHERE identifier = 'emcp_dispatch' AND scope = 'eMCP'"), 1);
    assert_eq!(count("evo_s_workers"), 1);
    println!("fleet: {} tasks of others", offered.len());
}
