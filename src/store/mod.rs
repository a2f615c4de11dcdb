//! The content site's database, MySQL or MariaDB, PostgreSQL, or SQLite: the pool, the SQL dialects, and the statements
//! that the tools run.
//!
//! Invariants: only `SELECT` runs here, except in [`demo`], which makes a new file, in [`permission`], which an
//! operator runs over a connection of its own, and in [`queue`], which has tables and connections of its own; all
//! others refuse writes, where the engine can. Every statement is built by sea-query from typed parts, with values
//! bound, never spliced; names come from closed lists, and from the schema that was read at the beginning, so that no
//! column is asked for which a version of the CMS lacks. The same call has the same answer on every engine ([`text`]).
//! A statement ends with whoever waits for it, and after its time. Nothing of a database error is meant for clients.
//!
//! Non-goals: document rights, writing to the site's own tables.

pub mod account;
mod below;
pub mod content;
pub mod demo;
mod dialect;
mod engine;
mod error;
pub mod identity;
pub mod model;
pub mod permission;
mod pool;
pub mod queue;
mod reader;
mod row;
mod schema;
pub mod settings;
#[cfg(test)]
mod tests;
pub mod text;
pub mod variable;

pub use dialect::{Dialect, Tables};
pub use error::Error;
pub use pool::{Page, Pool};
pub use reader::Reader;
pub use row::Row;
pub use schema::Schema;
pub use settings::Settings;
