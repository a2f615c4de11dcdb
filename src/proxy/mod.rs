//! The proxy: HTTP/1.1 around one decision.
//!
//! A request is read ([`connection`], [`request`]) and routed by its canonical path ([`path`]). MCP routes are served
//! here in full ([`call`]): credential, body, strict parse, decision, charges, permit, audit slot, upstream, answer
//! ([`exchange`]). Everything else takes Pingora's way to the CMS ([`gateway`]), which cannot reach an MCP upstream.
//! The token endpoint ([`issue`]) asks the executor, and that about credentials only.
//!
//! Invariants: one policy snapshot per request; no upstream is called without a [`crate::policy::Permit`] and an
//! audit slot; nothing is read from a caller whom the header alone refuses; what is forwarded are the bytes that
//! were judged.

pub mod access_log;
mod asked;
mod body;
mod budget;
mod call;
mod channel;
mod chunk_lines;
mod client_address;
mod connection;
mod dispatch;
mod exchange;
mod form;
mod framing;
mod front;
mod gate;
mod gateway;
mod headers;
mod issue;
mod ledger;
mod loan;
mod manager;
mod media;
mod pace;
pub mod path;
mod pool;
mod pump;
mod redaction;
mod request;
mod respond;
mod response;
mod server;
mod session;
pub mod settings;
mod upstream;

pub use gateway::{Gateway, Parts};
pub use server::{Workers, listen};
pub use settings::Settings;
