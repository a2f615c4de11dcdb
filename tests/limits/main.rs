//! Rate limits: one suite for every store, and what happens while Redis misbehaves.

mod chaos;
mod conformance;
mod failures;
mod server;
