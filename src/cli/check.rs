use std::path::PathBuf;

use crate::config::{
    Effective, Overrides, PolicyContext, Report, Source, inspect_executor, inspect_policy, inspect_sidecar, parse_set,
};

/// Validates the configuration files with the services' own loader.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: mcp-sidecar check --policy conf/policy.toml --dump")]
pub struct Args {
    /// sidecar.toml
    #[arg(long, default_value = "conf/sidecar.toml")]
    config: PathBuf,
    /// executor.toml
    #[arg(long, default_value = "conf/executor.toml")]
    executor: PathBuf,
    /// policy.toml
    #[arg(long, default_value = "conf/policy.toml")]
    policy: PathBuf,
    /// Overrides: key.path=TOML-value
    #[arg(long, value_parser = parse_set)]
    set: Vec<(String, String)>,
    /// Show each effective value and where it came from
    #[arg(long)]
    dump: bool,
}

/// Prints every problem; the exit code is 0 when there is none, else 1.
#[must_use]
pub fn run(args: Args) -> u8 {
    let overrides = Overrides::from_process(args.set);
    let mut report = Report::default();
    let mut effective: Vec<Effective> = Vec::new();
    let mut note = |(result, values): (Result<(), Report>, Vec<Effective>)| {
        effective.extend(values);
        if let Err(found) = result {
            report.merge(found);
        }
    };
    let mut upstreams: Option<Vec<String>> = None;
    match Source::read(&args.config) {
        Ok(source) => {
            let (result, values) = inspect_sidecar(&source, &overrides);
            upstreams = result.as_ref().ok().map(|sidecar| sidecar.proxy.upstreams.keys().cloned().collect());
            note((result.map(drop), values));
        }
        Err(found) => note((Err(found), Vec::new())),
    }
    match Source::read(&args.executor) {
        Ok(source) => {
            let (result, values) = inspect_executor(&source, &overrides);
            note((result.map(drop), values));
        }
        Err(found) => note((Err(found), Vec::new())),
    }
    match Source::read(&args.policy) {
        Ok(source) => {
            let context = PolicyContext { upstreams: upstreams.as_deref(), ..PolicyContext::default() };
            let (result, values) = inspect_policy(&source, &overrides, context);
            note((result.map(drop), values));
        }
        Err(found) => note((Err(found), Vec::new())),
    }
    if args.dump {
        for value in &effective {
            println!("{} = {}  # {}", value.key, value.value, value.origin);
        }
    }
    if report.problems.is_empty() {
        println!("configuration is valid");
        return 0;
    }
    eprint!("{}", report.render());
    1
}
