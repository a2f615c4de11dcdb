//! One turn after the other: somebody dies under load, the others carry on, it comes back and serves.

use std::time::Instant;

use mcp_sidecar::store::queue::Driver;

use crate::books::{self, Before, Offered};
use crate::corpus::{self, Call};
use crate::limited::Limited;
use crate::load::{Load, Taken};
use crate::members::{Fleet, Member};
use crate::server::Kind;
use crate::tables::Stage;
use crate::tally::{Over, Tally, Turn};

/// Clients of each kind.
const CLIENTS: usize = 2;
/// Answers that show that the load runs.
const SOME: usize = 20;
/// What others put into sTask's table in each turn.
const OFFERS: usize = 3;

/// The fleet under its load.
struct Play<'a> {
    fleet: &'a mut Fleet,
    calls: &'a [Call],
    tally: &'a Tally,
    limited: &'a Limited,
    /// Tasks that were in the hands of killed workers.
    cut: Vec<i64>,
    offered: Vec<Offered>,
    before: [Option<Before>; 2],
}

impl Play<'_> {
    fn turn(&mut self, turn: Turn) {
        let began = Instant::now();
        self.tally.begin(turn);
        self.tally.until("calls and tasks flow", |from, now| {
            (0..2).all(|door| now.right[door] > from.right[door] + SOME) && now.completed > from.completed + 3
        });
        if self.fleet.tables.stage.driver == Driver::Stask {
            self.offer();
        }
        match turn {
            Turn::Nobody => {}
            Turn::Database => self.database(),
            Turn::Redis => self.redis(),
            Turn::Member(Member::Worker(index)) => self.worker(index),
            Turn::Frozen(index) => self.frozen(index),
            Turn::Late(index) => self.late(index),
            Turn::Member(member @ Member::Executor(index)) => {
                self.fleet.kill(member);
                let from = self.tally.mark();
                self.tally
                    .until("the proxy before it says so", |_, _| self.tally.has_failed(&from, "502 upstream_failed"));
                self.without(index);
                self.fleet.restart(member);
                self.back(index);
            }
            Turn::Member(member @ Member::Sidecar(index)) => {
                self.fleet.kill(member);
                self.without(index);
                self.before[index] = Some(Before::take(self.fleet, index));
                self.fleet.restart(member);
                self.back(index);
            }
        }
        let this = self.tally.turn();
        self.tally.until("the limit is met", |_, _| self.limited.is_full(this));
        println!("fleet: {turn:?} {:?}", began.elapsed());
    }

    /// The other half serves alone.
    fn without(&self, index: usize) {
        self.tally.until("the others carry on", |from, now| {
            now.right[1 - index] > from.right[1 - index] + SOME && now.accepted > from.accepted + 3
        });
    }

    /// What was dead serves again.
    fn back(&self, index: usize) {
        self.tally.until("it serves again", |from, now| now.right[index] > from.right[index] + SOME);
    }

    fn database(&mut self) {
        let from = self.tally.mark();
        self.fleet.tables.kill();
        self.tally.until("calls fail as documented", |_, _| {
            ["-32603", "503 async_unavailable"].iter().all(|how| self.tally.has_failed(&from, how))
        });
        self.fleet.tables.restart();
        for index in [0, 1] {
            self.back(index);
        }
        self.tally.until("tasks complete again", |from, now| now.completed > from.completed + 3);
    }

    fn redis(&mut self) {
        self.fleet.kill_redis();
        let fallbacks = |index| self.fleet.metric(Member::Sidecar(index), "mcp_sidecar_limits_fallbacks_total", "");
        self.tally.until("each sidecar counts for itself", |_, _| (0..2).all(|index| fallbacks(index) > 0));
        for index in [0, 1] {
            self.without(index);
        }
        self.fleet.restart_redis();
        self.tally.until("both count in Redis again", |_, _| (0..2).all(|index| self.fleet.counts_in_redis(index)));
    }

    fn worker(&mut self, index: usize) {
        let task = self.fleet.freeze_at_work(index);
        self.fleet.kill(Member::Worker(index));
        self.taken_over(task);
        self.fleet.restart(Member::Worker(index));
        self.tally.until("it works again", |_, _| self.runs(index, "finished") > 0);
    }

    /// A worker whose task others have ended by the time it goes on completes nothing.
    fn frozen(&mut self, index: usize) {
        let lost = self.runs(index, "lost");
        let task = self.fleet.freeze_at_work(index);
        self.taken_over(task);
        self.fleet.thaw(index);
        self.tally.until("it notices", |_, _| self.runs(index, "lost") > lost);
        let finished = self.runs(index, "finished");
        self.tally.until("it works again", |_, _| self.runs(index, "finished") > finished);
    }

    /// A worker whose word comes too late completes nothing, though the task is neither completed nor free.
    fn late(&mut self, index: usize) {
        let lost = self.runs(index, "lost");
        let (task, run) = self.fleet.overtake(index);
        let done = format!("{{attempts}} WHERE task_id = {task} AND run <= {run} AND outcome = 'finished'");
        self.tally.until("it is refused", |_, _| {
            assert_eq!(self.fleet.tables.count(&done), 0, "task {task} was completed by run {run}, which had lost it");
            self.runs(index, "lost") > lost
        });
        self.taken_over(task);
    }

    /// As PHP does: a row in sTask's table, and nothing else.
    fn offer(&mut self) {
        for _ in 0..OFFERS {
            let number = self.offered.len();
            let (id, call) = (format!("offered-{number}"), number * 7 % self.calls.len());
            self.fleet.tables.offer(&id, corpus::METHOD, &self.calls[call].params());
            self.offered.push(Offered { id, call });
        }
    }

    fn all_offers_are_done(&self) {
        let ended = "{tasks} WHERE status IN (80, 100) AND meta LIKE '%offered-%'";
        let all = self.offered.len();
        self.tally.until("what others put there is done", |_, _| self.fleet.tables.count(ended) == all as i64);
    }

    fn taken_over(&mut self, task: i64) {
        self.cut.push(task);
        let ended = format!("{{tasks}} WHERE id = {task} AND status = 80");
        self.tally.until("another worker ends its task", |_, _| self.fleet.tables.count(&ended) == 1);
        self.tally.until("the others carry on", |from, now| now.completed > from.completed + 3);
    }

    /// How many runs of this worker's process ended so.
    fn runs(&self, index: usize, outcome: &str) -> usize {
        let series = format!("outcome=\"{outcome}\"");
        self.fleet.metric(Member::Worker(index), "mcp_sidecar_queue_runs_total{", &series)
    }
}

/// Starts a fleet and its load, plays the turns, and compares the books.
fn play(stage: Stage, turns: Vec<Turn>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let began = Instant::now();
    let (calls, narrow) = runtime.block_on(corpus::calls());
    let mut fleet = Fleet::start(runtime, stage);
    println!("fleet: {stage:?} started within {:?}", began.elapsed());
    let (tally, limited) = (Tally::default(), Limited::default());
    tally.begin(Turn::Nobody);
    let load = Load { doors: fleet.doors, calls: &calls, tally: &tally };
    let played = turns.clone();

    let (taken, offered, cut, before) = std::thread::scope(|scope| {
        let over = Over(&tally);
        let tasks: Vec<_> = (0..CLIENTS)
            .map(|client| {
                scope.spawn({
                    let load = &load;
                    move || load.dispatch(client)
                })
            })
            .collect();
        for client in 0..CLIENTS {
            let load = &load;
            scope.spawn(move || load.direct(client));
        }
        scope.spawn(|| limited.ask(&load, &narrow));
        let mut play = Play {
            fleet: &mut fleet,
            calls: &calls,
            tally: &tally,
            limited: &limited,
            cut: Vec::new(),
            offered: Vec::new(),
            before: [None; 2],
        };
        for turn in turns.into_iter().chain([Turn::Nobody]) {
            play.turn(turn);
        }
        play.all_offers_are_done();
        let (cut, offered, before) = (play.cut, play.offered, play.before);
        drop(over);
        let taken: Vec<Taken> = tasks.into_iter().flat_map(|task| task.join().expect("each task ended")).collect();
        (taken, offered, cut, before)
    });

    for taken in &taken {
        load.confirm(taken);
    }
    let mark = tally.mark();
    println!(
        "fleet: {} right answers, {} answers; excused: {:?}",
        mark.right[0] + mark.right[1],
        tally.answers().len(),
        tally.excused()
    );
    for (turn, count) in tally.turns().into_iter().zip(limited.counts()).skip(1) {
        count.check(turn);
    }
    books::tasks(&fleet.tables, &taken, &offered, &cut);
    books::stask(&fleet.tables, &calls, &offered);
    books::answers(&fleet, &tally.answers(), &played);
    for (index, before) in before.into_iter().enumerate() {
        if let Some(before) = before {
            before.check(&fleet, index);
        }
    }
    println!("fleet: {:?}", began.elapsed());
}

/// How often everyone is killed.
fn rounds() -> usize {
    std::env::var("FLEET_ROUNDS").map_or(1, |rounds| rounds.parse().expect("FLEET_ROUNDS is a number"))
}

#[test]
fn each_member_may_be_killed_under_load() {
    let mut turns = Vec::new();
    for _ in 0..rounds() {
        turns.extend([Turn::Database, Turn::Redis]);
        turns.extend([0, 1].map(|index| Turn::Member(Member::Executor(index))));
        turns.extend([0, 1, 2].map(|index| Turn::Member(Member::Worker(index))));
        turns.extend([Turn::Frozen(2), Turn::Late(0)]);
        // Last, so that the executors before them live as long as they do from then on.
        turns.extend([0, 1].map(|index| Turn::Member(Member::Sidecar(index))));
    }
    play(Stage { engine: Kind::MariaDb, driver: Driver::Own }, turns);
}

/// What touches the tasks, over sTask's tables on the other engine.
#[test]
fn stasks_tables_lose_no_task_either() {
    let mut turns = Vec::new();
    for _ in 0..rounds() {
        turns.extend([Turn::Database, Turn::Member(Member::Executor(0))]);
        turns.extend([0, 1, 2].map(|index| Turn::Member(Member::Worker(index))));
        turns.extend([Turn::Frozen(1), Turn::Late(2)]);
    }
    play(Stage { engine: Kind::Postgres, driver: Driver::Stask }, turns);
}
