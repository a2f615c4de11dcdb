//! The real binary, end to end. `make test` installs what these need.

mod abort;
mod admin;
mod caps;
mod clients;
mod deny;
mod drain;
mod harness;
mod limits;
mod mcp;
mod metrics;
mod origin;
mod reload;
mod reserved;
mod sse;
mod upstream;
mod wire;
