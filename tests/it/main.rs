//! The real binary, end to end. `make test` installs what these need.

mod abort;
mod caps;
mod admin;
mod clients;
mod deny;
mod drain;
mod harness;
mod limits;
mod mcp;
mod origin;
mod metrics;
mod reload;
mod reserved;
mod sse;
mod upstream;
mod wire;
