//! The real binary, end to end. `make test` installs what these need.

mod abort;
mod actor;
mod admin;
mod caps;
mod clients;
mod deny;
mod dispatch;
mod drain;
mod harness;
mod limits;
mod mcp;
mod metrics;
mod origin;
mod reload;
mod reserved;
mod secrets;
mod sse;
mod upstream;
mod wire;
