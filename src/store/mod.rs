//! The content site's database: the pool, the SQL dialects, and the statements that the tools run.
//!
//! Invariants: only `SELECT` runs here, except in [`demo`], which makes a new file; connections refuse writes. Every
//! statement is built by sea-query from typed parts, with values bound, never spliced; names come from closed lists.
//! The same builder speaks MySQL, PostgreSQL and SQLite. Nothing of a database error is meant for clients.
//!
//! Non-goals: document rights, template variables (they join [`content`] later), writing.

pub mod content;
pub mod demo;
mod dialect;
pub mod model;
mod pool;
pub mod settings;
#[cfg(test)]
mod tests;

pub use dialect::{Dialect, Tables};
pub use pool::{Error, Page, Pool, Reader, Row};
pub use settings::Settings;
