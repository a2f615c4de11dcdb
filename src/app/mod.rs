//! The composition root: builds the services from configuration, swaps policy snapshots, shuts down in order.
//!
//! Services do not import each other; what one needs of another is a trait or a handle that is made here.

mod alone;
mod client;
mod connect;
mod control;
mod descriptors;
mod executor;
mod jobs;
mod permission;
mod plan;
mod policy;
mod process;
mod sidecar;
mod signals;
mod tasks;
mod worker;

pub use client::{Endpoint, Reply, Trouble};
pub use connect::{Finding, Loaded, State, connect};
pub use executor::{RunningExecutor, demo_password, demo_site};
pub use permission::{PermissionChange, permissions};
pub use plan::{Files, Plan};
pub use policy::PolicyStore;
pub use process::{Up, run, run_until};
pub use tasks::{Wish, fulfil};
pub use worker::work;
