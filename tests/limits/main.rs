//! Rate limits: one suite for every store, and what happens while Redis misbehaves.

mod chaos;
mod conformance;
mod failures;
#[path = "../it/harness/port.rs"]
mod port;
mod server;

use port::vacant;
