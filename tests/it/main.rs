//! The real binary, end to end. `make test` installs what these need.

mod admin;
mod clients;
mod deny;
mod drain;
mod harness;
mod limits;
mod mcp;
mod metrics;
mod reload;
mod reserved;
mod sse;
mod wire;
