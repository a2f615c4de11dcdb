//! The real binary, end to end. `make test` installs what these need.

mod actor;
mod clients;
mod deny;
mod drain;
mod harness;
mod limits;
mod mcp;
mod reload;
mod reserved;
mod sse;
mod wire;
