//! The rooms under test, from their own sources.

#![allow(dead_code, reason = "the targets look at parts of each room")]

#[path = "../../src/base/mod.rs"]
pub mod base;
#[path = "../../src/policy/mod.rs"]
pub mod policy;
#[path = "../../src/protocol/mod.rs"]
pub mod protocol;
/// Only the reading of paths.
#[path = "../../src/proxy"]
pub mod proxy {
    pub mod path;
}
