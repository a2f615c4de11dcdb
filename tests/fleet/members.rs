//! The fleet: what runs, how it is killed and started again.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use mcp_sidecar::store::queue::Driver;

use crate::harness::{Redis, eventually, vacant};
use crate::part::{Files, Part, SOON, START, get, program};
use crate::tables::{LEASE, Stage, Tables};

/// What a caller may do in a minute at the server `narrow`, over both sidecars.
pub const NARROW: usize = 20;

/// One process of the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    Executor(usize),
    Sidecar(usize),
    Worker(usize),
}

pub struct Fleet {
    pub tables: Tables,
    redis: Redis,
    /// Of each sidecar and its executor; workers use the first two's.
    pub files: [Files; 2],
    pub doors: [SocketAddr; 2],
    executors: [Part; 2],
    sidecars: [Part; 2],
    workers: [Part; 3],
}

impl Fleet {
    /// Starts everything.
    pub fn start(runtime: tokio::runtime::Runtime, stage: Stage) -> Self {
        let tables = Tables::start(runtime, stage);
        let redis = Redis::start();
        let doors = [vacant(), vacant()];
        let files = doors.map(|door| files(door, &tables, &redis));
        over_tcp(&files[1]);
        let executors = files.each_ref().map(|files| Part::ready(executor(files)));
        let sidecars = files.each_ref().map(|files| Part::ready(sidecar(files)));
        let workers = [0, 1, 2].map(|index| working(worker(&files[index % 2])));
        Self { tables, redis, files, doors, executors, sidecars, workers }
    }

    fn part(&mut self, member: Member) -> &mut Part {
        match member {
            Member::Executor(index) => &mut self.executors[index],
            Member::Sidecar(index) => &mut self.sidecars[index],
            Member::Worker(index) => &mut self.workers[index],
        }
    }

    /// As `kill -9` does, by its own pid.
    pub fn kill(&mut self, member: Member) {
        self.part(member).kill();
    }

    /// Starts a killed one again; it says that it is ready.
    pub fn restart(&mut self, member: Member) {
        let started = match member {
            Member::Executor(index) => Part::ready(executor(&self.files[index])),
            Member::Sidecar(index) => Part::ready(sidecar(&self.files[index])),
            Member::Worker(index) => working(worker(&self.files[index % 2])),
        };
        *self.part(member) = started;
    }

    /// Stops a worker that has a task at this moment, as a machine does that has lost its power; the task's id.
    pub fn freeze_at_work(&mut self, index: usize) -> i64 {
        let worker = &self.workers[index];
        let name = name(worker);
        eventually("the worker is met at work", START, || {
            worker.signal(Signal::STOP);
            // What it holds now, it holds until it goes on or dies; unless it has just said that it is done, which the
            // database takes a moment to do.
            let task = self.tables.at_work(&name);
            let holds = task != 0 && (0..5).all(|_| self.tables.at_work(&name) == task);
            if !holds {
                worker.signal(Signal::CONT);
            }
            holds.then_some(task)
        })
    }

    /// Lets a stopped worker go on, as if no time had passed.
    pub fn thaw(&mut self, index: usize) {
        self.workers[index].signal(Signal::CONT);
    }

    /// Has a worker settle a task when it has lost it; the task, and the run that lost it.
    pub fn overtake(&self, index: usize) -> (i64, i64) {
        let name = name(&self.workers[index]);
        eventually("the worker settles too late", START, || self.tables.overtake(&name))
    }

    pub fn kill_redis(&mut self) {
        self.redis.kill();
    }

    /// Starts another one in its place, which knows nothing.
    pub fn restart_redis(&mut self) {
        self.redis = Redis::at(self.redis.address());
    }

    /// The sum of the series of this process's metric that hold a text.
    pub fn metric(&self, member: Member, name: &str, holding: &str) -> usize {
        let part = match member {
            Member::Executor(index) => &self.executors[index],
            Member::Sidecar(index) => &self.sidecars[index],
            Member::Worker(index) => &self.workers[index],
        };
        let metrics = get(part.address("admin listening"), "/metrics").text();
        let lines = metrics.lines().filter(|line| line.starts_with(name) && line.contains(holding));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as usize
    }

    /// Whether this sidecar counts in Redis.
    pub fn counts_in_redis(&self, index: usize) -> bool {
        self.metric(Member::Sidecar(index), "mcp_sidecar_limits_store_mode{", "mode=\"redis\"") == 1
    }
}

/// The files of one sidecar and its executor: the shipped ones, for this fleet.
fn files(door: SocketAddr, tables: &Tables, redis: &Redis) -> Files {
    let files = Files::shipped();
    files.edit("sidecar.toml", "http = [\"127.0.0.1:0\"]", &format!("http = [\"{door}\"]"));
    files.edit("sidecar.toml", "durability = \"buffered\"", "durability = \"written\"");
    // The machine is busy and the binary not optimised: a Redis that lives is never slow.
    let shared = format!("[redis]\nurl = \"redis://{}\"\ntimeout_ms = 5000\n\n[audit]\n", redis.address());
    files.edit("sidecar.toml", "[audit]\n", &shared);

    let database = tables.url();
    files.edit("executor.toml", "sqlite://emcp.sqlite", &database);
    let queue = format!(
        "\n[queue_worker]\nurl = \"{database}\"\nkey_env = \"QUEUE_KEY\"\nlease = \"{}ms\"\npoll = \"100ms\"\n\
         backoff = \"200ms\"\naudit = {{ dir = \"runs\" }}\nacquire_timeout = \"2s\"\nstatement_timeout = \"5s\"\n",
        LEASE.as_millis()
    );
    files.append("executor.toml", &queue);

    files.edit("policy.toml", "replicas = 1 ", "replicas = 2 ");
    files.edit("policy.toml", "rate_limit = { per_minute = 30 }", "rate_limit = { per_minute = 1000000 }");
    // A tool has one server.
    files.edit("policy.toml", "\"evo.model.*\"]", "\"evo.model.list\"]");
    let driver = match tables.stage.driver {
        Driver::Own => "driver = \"own\"",
        // What PHP puts into its table is run, too.
        Driver::Stask => "driver = \"stask\"\naccept_foreign = true",
    };
    // As often as members die, and more: here no task may run out of attempts.
    let more = format!(
        "[queue]\n{driver}\nfailover = \"fail\"\nmax_attempts = 20\n\n[[servers]]\nhandle = \"narrow\"\n\
         enabled = true\ntransport = \"web\"\nkind = \"content\"\nupstream = \"executor\"\n\
         allow_tools = [\"evo.model.get\"]\nsecurity = {{ deny_tools = [] }}\nrate_limit = {{ per_minute = {NARROW} }}\n\n[end]\n"
    );
    files.edit("policy.toml", "[end]\n", &more);
    files
}

/// The second pair talks over TCP with a key, the first one over a socket.
fn over_tcp(files: &Files) {
    let address = vacant();
    let key = "key_env = \"EXECUTOR_KEY\"";
    files.edit("executor.toml", "socket = \"run/executor.sock\"", &format!("listen = \"{address}\"\n{key}"));
    files.edit("sidecar.toml", "socket = \"run/executor.sock\"", &format!("url = \"http://{address}\"\n{key}"));
}

fn keyed(mut command: Command) -> Command {
    command.env("EXECUTOR_KEY", "a-key-of-the-two-processes-0123456789abcdef");
    command.env("QUEUE_KEY", "a-key-of-the-queue-0123456789abcdef0123456789");
    command
}

fn executor(files: &Files) -> Command {
    keyed(files.service("executor"))
}

fn sidecar(files: &Files) -> Command {
    keyed(files.service("proxy"))
}

fn worker(files: &Files) -> Command {
    let mut command = keyed(program());
    command.arg("worker").arg("--config").arg(files.path("executor.toml"));
    command.arg("--policy").arg(files.path("policy.toml")).args(["--admin", "127.0.0.1:0"]);
    command
}

/// A worker that has begun to look for tasks.
fn working(command: Command) -> Part {
    let mut part = Part::spawn(command);
    eventually("the worker starts", START, || {
        let exited = part.exited();
        assert!(exited.is_none(), "{exited:?}: {}", part.output());
        part.output().contains("jobs: worker started").then_some(())
    });
    part
}

/// What a worker calls itself in leases and attempts.
fn name(worker: &Part) -> String {
    let output = worker.output();
    let line = output.lines().find(|line| line.contains("jobs: worker started")).expect("it has started");
    let name = line.split("worker=").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("is named");
    name.trim_matches('"').to_owned()
}

/// The audit lines of a directory, by request: how many, and with which status and decision. Lines that a killed
/// process left half are counted apart.
pub fn audit(files: &Files) -> (Vec<serde_json::Value>, usize) {
    let dir = files.path("logs");
    let names = std::fs::read_dir(&dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let texts = names.map(|file| String::from_utf8_lossy(&std::fs::read(file).expect("is readable")).into_owned());
    let (mut whole, mut torn) = (Vec::new(), 0);
    for text in texts {
        for line in text.lines() {
            match serde_json::from_str(line) {
                Ok(record) => whole.push(record),
                Err(_) => torn += 1,
            }
        }
    }
    (whole, torn)
}

/// Reads until the number has not changed for a while, and is the last one.
pub fn settled(mut read: impl FnMut() -> usize) -> usize {
    let (mut last, mut same) = (read(), 0);
    eventually("the number stands still", SOON, || {
        let now = read();
        same = if now == last { same + 1 } else { 0 };
        last = now;
        (same == 40).then_some(())
    });
    last
}

/// Puts text at the end of a file of these.
trait Append {
    fn append(&self, name: &str, text: &str);
}

impl Append for Files {
    fn append(&self, name: &str, text: &str) {
        let path: &Path = &self.path(name);
        let before = std::fs::read_to_string(path).expect("is there");
        std::fs::write(path, before + text).expect("is written");
    }
}
