use std::path::{Path, PathBuf};

use crate::app::{Finding, Loaded, State, connect};
use crate::base::{Clock as _, SystemClock};
use crate::config::{
    Effective, Executor, Overrides, PolicyContext, Report, Sidecar, Source, Unkept, inspect_executor, inspect_policy,
    inspect_sidecar, mismatches, parse_set,
};
use crate::policy::Snapshot;

/// Where files are looked for that no option names.
const DIRECTORY: &str = "conf";

/// Validates the configuration files with the services' own loader.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without options, those of conf/sidecar.toml, conf/executor.toml and conf/policy.toml are read that \
                  exist.\n\nExamples:\n  mcp-sidecar check\n  mcp-sidecar check --policy new.toml --dump\n  mcp-sidecar check --connect"
)]
pub struct Args {
    /// sidecar.toml [default: conf/sidecar.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// executor.toml [default: conf/executor.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    executor: Option<PathBuf>,
    /// policy.toml [default: conf/policy.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Overrides: key.path=TOML-value
    #[arg(long, value_parser = parse_set)]
    set: Vec<(String, String)>,
    /// Show each effective value and where it came from
    #[arg(long)]
    dump: bool,
    /// Also ask what the files name: upstreams, Redis, the CMS (and whether it answers MCP itself), the database
    #[arg(long)]
    connect: bool,
}

/// What the files hold, and what is wrong with them.
#[derive(Default)]
struct Checked {
    report: Report,
    effective: Vec<Effective>,
    read: Vec<String>,
    absent: Vec<String>,
    sidecar: Option<Sidecar>,
    executor: Option<Executor>,
    policy: Option<Snapshot>,
}

/// Prints every problem; the exit code is 0 when there is none, else 1.
#[must_use]
pub fn run(args: Args) -> u8 {
    let overrides = Overrides::from_process(args.set);
    let mut checked = Checked::default();
    if let Some(source) = checked.source(args.config, "sidecar.toml") {
        let (result, values) = inspect_sidecar(&source, &overrides);
        checked.sidecar = checked.note(result, values);
    }
    if let Some(source) = checked.source(args.executor, "executor.toml") {
        let (result, values) = inspect_executor(&source, &overrides);
        checked.executor = checked.note(result, values);
    }
    if let Some(source) = checked.source(args.policy, "policy.toml") {
        let upstreams: Option<Vec<String>> =
            checked.sidecar.as_ref().map(|sidecar| sidecar.proxy.upstreams.keys().cloned().collect());
        let context = PolicyContext {
            revision: 1,
            now_ms: SystemClock.now_ms(),
            upstreams: upstreams.as_deref(),
            extra_secrets: &[],
        };
        let (result, values) = inspect_policy(&source, &overrides, context);
        // What `stdio` and `test` would refuse is told here as well.
        let local = Overrides { local_servers: true, ..overrides.clone() };
        if let Err(found) = inspect_policy(&source, &local, context).0 {
            checked.report.merge(found);
        }
        checked.policy = checked.note(result, values);
    }
    checked.look_for_the_queue();
    if args.dump {
        for value in &checked.effective {
            say!("{} = {}  # {}", value.key, value.value, value.origin);
        }
    }
    if checked.read.is_empty() && checked.report.problems.is_empty() {
        let fix = "run it where conf/ is, or name files: --config, --executor, --policy";
        checked.report = Report::of(DIRECTORY, "there is no file to check here", fix);
    }
    if !checked.read.is_empty() {
        say!("read       {}", checked.read.join(", "));
    }
    if !checked.absent.is_empty() {
        say!("not there  {}", checked.absent.join(", "));
    }
    if !checked.report.problems.is_empty() {
        eprint!("{}", checked.report.render());
        return 1;
    }
    for note in mismatches(checked.sidecar.as_ref(), checked.executor.as_ref(), checked.policy.as_ref()) {
        say!("warn       {note}");
    }
    if checked.serves_no_manager() {
        say!("note       mode.internal is true and manager.sources is empty: the manager routes answer 404");
    }
    say!("configuration is valid");
    if args.connect { ask(&checked) } else { 0 }
}

impl Checked {
    /// The file that an option names, or the one in `conf/` if there is one.
    fn source(&mut self, named: Option<PathBuf>, name: &str) -> Option<Source> {
        let path = named.clone().unwrap_or_else(|| Path::new(DIRECTORY).join(name));
        let shown = path.display().to_string();
        // A broken link is there: reading it says what is wrong.
        if named.is_none() && path.symlink_metadata().is_err() {
            self.absent.push(shown);
            return None;
        }
        match Source::read(&path) {
            Ok(source) => {
                self.read.push(shown);
                Some(source)
            }
            Err(report) => {
                self.report.merge(report);
                None
            }
        }
    }

    /// A policy whose calls would wait in a table that nobody here reaches is no working configuration.
    fn look_for_the_queue(&mut self) {
        let (Some(executor), Some(policy)) = (&self.executor, &self.policy) else { return };
        if let Some(unkept @ Unkept::Tasks) = Unkept::of(executor, policy) {
            self.report.merge(Report::of("executor.toml", unkept.as_str(), unkept.fix()));
        }
    }

    fn serves_no_manager(&self) -> bool {
        let internal = self.effective.iter().any(|value| value.key == "mode.internal" && value.value == "true");
        internal && self.policy.as_ref().is_some_and(|policy| policy.manager.sources.is_empty())
    }

    fn note<T>(&mut self, result: Result<T, Report>, values: Vec<Effective>) -> Option<T> {
        self.effective.extend(values);
        result.map_err(|found| self.report.merge(found)).ok()
    }
}

fn ask(checked: &Checked) -> u8 {
    let loaded = Loaded {
        sidecar: checked.sidecar.as_ref(),
        executor: checked.executor.as_ref(),
        policy: checked.policy.as_ref(),
    };
    let found = match connect(loaded) {
        Ok(found) => found,
        Err(error) => {
            eprintln!("error: cannot connect: {error}");
            return 1;
        }
    };
    let width = found.iter().map(|finding| finding.key.len()).max().unwrap_or(0);
    for Finding { state, key, text, fix } in &found {
        let word = match state {
            State::Ok => "ok",
            State::Warn => "warn",
            State::Failed => "failed",
        };
        say!("{word:<9}  {key:<width$}  {text}");
        if !fix.is_empty() {
            say!("{:<9}  {:<width$}  = fix: {fix}", "", "");
        }
    }
    u8::from(found.iter().any(|finding| finding.state == State::Failed))
}
