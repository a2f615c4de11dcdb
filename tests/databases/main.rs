//! The same answers from SQLite, MariaDB and PostgreSQL: real servers with throw-away data directories, one schema, one
//! set of rows, one corpus of calls. And what happens while a database misbehaves.

mod accounts;
mod corpus;
mod data;
mod failures;
mod models;
mod schema;
mod server;
mod site;
mod trees;
mod variables;
