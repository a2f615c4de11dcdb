//! The same answers from SQLite, MariaDB and PostgreSQL: real servers with throw-away data directories, one schema, one
//! set of rows, one corpus of calls. And what happens while a database misbehaves.

mod accounts;
mod corpus;
mod data;
mod failures;
mod identity;
mod models;
mod permissions;
mod queue;
mod schema;
mod server;
mod site;
mod tls;
mod trees;
mod variables;
