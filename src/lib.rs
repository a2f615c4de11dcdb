//! mcp-sidecar: the policy enforcement point for MCP traffic in front of a content site.
//!
//! See docs/ARCHITECTURE.md for the rooms and which may look into which.

pub mod admin;
pub mod app;
pub mod audit;
pub mod auth;
pub mod base;
pub mod cli;
pub mod config;
pub mod executor;
pub mod jobs;
pub mod limits;
pub mod origin;
pub mod policy;
pub mod protocol;
pub mod proxy;
pub mod redis;
pub mod store;
pub mod telemetry;
