//! What database, audit, metrics and executors say when all is over, against what clients have seen.
//!
//! A killed sidecar takes its counters along, and what it had permitted but not answered has no line. So of the whole
//! time it is asserted that each answer a client got has its one line (`audit.durability = "written"`), and the equation
//! of the harness (upstream saw = audit lines that allow = metric) for the last life of each sidecar, which begins under
//! load and in which its executor lives throughout.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

use crate::harness::eventually;
use crate::load::Taken;
use crate::members::{DATABASE, Fleet, Member, audit, settled};
use crate::part::SOON;
use crate::tally::Answered;

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

/// Each answer that a client got has one line of its sidecar, and the line tells its status.
pub fn answers(fleet: &Fleet, answers: &[Answered], kills: usize) {
    for door in 0..2 {
        let (records, torn) = audit(&fleet.files[door]);
        assert!(torn <= kills, "{torn} lines are torn");
        let mut lines: HashMap<&str, Vec<&Value>> = HashMap::new();
        for record in &records {
            lines.entry(record["request_id"].as_str().unwrap_or_default()).or_default().push(record);
        }
        for answer in answers.iter().filter(|answer| answer.door == door) {
            let told = lines.get(&*answer.request_id).map_or(&[][..], Vec::as_slice);
            assert_eq!(told.len(), 1, "{answer:?}: {told:?}");
            let decision = if answer.status == 429 { "deny" } else { "allow" };
            assert_eq!((&told[0]["status"], &told[0]["decision"]), (&answer.status.into(), &decision.into()));
        }
    }
}

/// No task is lost, none is there that nobody asked for, each completed once, and each further run is accounted for.
/// `cut` are the tasks whose workers were killed with them in hands.
pub fn tasks(fleet: &Fleet, taken: &[Taken], cut: &[i64]) {
    let ids: BTreeSet<i64> = taken.iter().map(|taken| taken.task_id).collect();
    assert_eq!(ids.len(), taken.len(), "two keys have one task");
    let count =
        |of: &str| fleet.number(&format!("SELECT COUNT(*) FROM {of}").replace("evo_", &format!("{DATABASE}.evo_")));
    let tasks = i64::try_from(taken.len()).expect("few");
    assert_eq!(count("evo_mcp_tasks"), tasks);
    assert_eq!(count("evo_mcp_tasks WHERE status = 80 AND progress = 100 AND result IS NOT NULL"), tasks);
    assert_eq!(count("evo_mcp_keys k JOIN evo_mcp_tasks t ON t.id = k.task_id"), tasks, "one key for each task");
    assert_eq!(count("evo_mcp_leases WHERE open = 0 AND holder IS NULL"), tasks, "nobody holds one any more");

    // One run finished, the last one; every earlier one has its reason.
    assert_eq!(count("evo_mcp_attempts WHERE outcome = 'finished'"), tasks);
    assert_eq!(count("evo_mcp_attempts WHERE outcome IS NULL OR outcome NOT IN ('finished', 'lost', 'again')"), 0);
    let last = "SELECT task_id, MAX(run) AS runs, COUNT(*) AS told, MAX(IF(outcome = 'finished', run, 0)) AS done \
                FROM evo_mcp_attempts GROUP BY task_id";
    let agree = format!(
        "({last}) a JOIN evo_mcp_tasks t ON t.id = a.task_id JOIN evo_mcp_leases l ON l.task_id = a.task_id \
         WHERE a.runs = a.told AND a.done = a.runs AND l.runs = a.runs AND t.attempts = a.runs"
    );
    assert_eq!(count(&agree), tasks, "runs, attempts and leases agree");

    // A worker that stood still and was killed had a task: it ran again, unless its end was already on the way.
    let mut again = BTreeMap::new();
    for id in cut {
        again.insert(id, count(&format!("evo_mcp_attempts WHERE task_id = {id} AND outcome = 'lost'")));
    }
    assert!(again.values().any(|lost| *lost > 0), "{again:?}");
    let [lost, repeated] = ["lost", "again"].map(|how| count(&format!("evo_mcp_attempts WHERE outcome = '{how}'")));
    println!("fleet: {tasks} tasks, {lost} lost leases, {repeated} runs repeated for want of the database");
}
