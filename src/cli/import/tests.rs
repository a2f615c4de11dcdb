//! What becomes of PHP's values, without PHP: each case is what the script prints of a file.

mod any;
mod server;
mod table;
mod value;

use serde_json::{Value, json};

use crate::cli::import::policy::{Made, convert};
use crate::cli::import::valid;
use crate::config::{Overrides, PolicyContext, Source, load_policy};
use crate::policy::Snapshot;

fn made(settings: Value, servers: Option<Value>) -> Made {
    convert(settings, servers, "executor", &|_| None, &valid).expect("makes a policy")
}

fn load(made: &Made) -> Snapshot {
    let source = Source::embedded("test", &made.text, std::path::Path::new("."));
    load_policy(&source, &Overrides::default(), PolicyContext::default()).expect("is valid")
}

/// The policy of these settings, and the notes, one a line.
fn of(settings: Value) -> (Snapshot, String) {
    let made = made(settings, None);
    (load(&made), made.notes.join("\n"))
}

#[track_caller]
fn noted(notes: &str, words: &[&str]) {
    let found = notes.lines().any(|note| words.iter().all(|word| note.contains(word)));
    assert!(found, "no note says {words:?}:\n{notes}");
}

fn content() -> Value {
    json!({"handle": "content", "transport": "web", "enabled": true,
        "class": "EvolutionCMS\\eMCP\\Servers\\ContentServer"})
}
