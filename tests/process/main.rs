//! Processes as an operator runs them, and what stress does to them. Slower than `tests/it`, whose harness it shares.

#[expect(dead_code, unused_imports, reason = "made for tests/it, which uses all of it")]
#[path = "../it/harness/mod.rs"]
mod harness;

mod bodies;
mod commands;
mod control;
mod disk;
mod drain;
mod explain;
mod import;
mod logs;
mod make;
mod pages;
mod pair;
mod part;
mod queue;
mod settings;
mod smoke;
mod soak;
mod start;

/// Held by tests that load the machine, so that they do not disturb each other's deadlines.
static LOAD: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// One load at a time; a test that failed under load does not fail the next one.
fn load() -> std::sync::MutexGuard<'static, ()> {
    LOAD.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
