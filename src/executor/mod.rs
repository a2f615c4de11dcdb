//! The MCP server behind the sidecar: the content tools, and what resources and prompts are registered, over HTTP on a
//! unix socket or keyed TCP.
//!
//! Invariants: nobody is answered without an identity that the sidecar vouched for; tools, resources and prompts are
//! refused here again by the same lists; arguments are validated before anything is queried; what fails inside is
//! logged here and told to clients in general words only; a caller that leaves ends its query.
//!
//! A tool is one file with its stages in order (validate, authorize, query, map, paginate, respond; those that all
//! tools share are in [`pipeline`]), and one line in [`registry`]; so are a resource and a prompt.
//!
//! Non-goals: tokens, scopes, rates and caps on bytes (the sidecar's), writing.

mod argument;
mod content;
mod credentials;
mod dispatch;
mod handshake;
mod http;
mod listener;
mod listing;
mod manager;
mod models;
mod observation;
mod password;
mod pipeline;
mod prompts;
mod registry;
mod resources;
mod rpc;
pub mod settings;
mod stream;
#[cfg(test)]
mod tests;

pub use dispatch::{Called, Dispatch, Submission};
pub use http::{Executor, router, serve};
pub use listener::Listener;
pub use settings::{AuthRequest, Listen, Sessions, Settings};
