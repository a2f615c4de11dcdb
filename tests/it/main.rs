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
mod i18n;
mod issue;
mod limits;
mod manager;
mod mcp;
mod metrics;
mod origin;
mod overrides;
mod permissions;
mod presets;
mod reload;
mod reserved;
mod secrets;
mod sse;
mod tools;
mod upstream;
mod wire;
