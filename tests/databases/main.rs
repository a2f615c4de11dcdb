//! The same answers from SQLite, MariaDB and PostgreSQL: real servers with throw-away data directories, one schema, one
//! set of rows, one corpus of calls. And what happens while a database misbehaves.

#[expect(dead_code, unused_imports, reason = "made for tests/it, which uses all of it")]
#[path = "../it/harness/mod.rs"]
mod harness;

mod accounts;
mod alike;
mod away;
mod charsets;
mod clients;
mod corpus;
mod data;
mod failures;
mod forged;
mod hostile;
mod identity;
mod large;
mod manager;
mod models;
mod oldest;
mod permissions;
mod queue;
mod schema;
mod server;
mod site;
mod stask;
mod tls;
mod trees;
mod variables;
