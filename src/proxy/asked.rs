//! What an MCP request's headers say, taken before its body is read.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::{HeaderMap, HeaderValue};
use smallvec::SmallVec;

use crate::policy::{MediaType, Snapshot};
use crate::proxy::exchange::Exchange;
use crate::proxy::headers;
use crate::proxy::media::media_type;

/// Names a session of a server, until the protocol of 2025-11-25.
pub const SESSION_ID: &str = "mcp-session-id";
/// Request headers that an MCP upstream gets as the client sent them; nothing else passes.
const PASSED: [&str; 4] = [SESSION_ID, "mcp-protocol-version", "mcp-method", "mcp-name"];

/// The headers that a call needs later, and the ids that it goes by.
pub struct Asked {
    /// Minted by us.
    pub request_id: Arc<str>,
    /// The client's, else our request id; empty when the policy wants none.
    pub trace_id: Arc<str>,
    pub client_request_id: Option<HeaderValue>,
    pub media_type: MediaType,
    /// Those of [`PASSED`] that came.
    pub passed: SmallVec<[(&'static str, HeaderValue); 4]>,
}

impl Asked {
    /// Reads the headers, in which singletons are known to come once, and names the exchange for the access log.
    pub fn of(exchange: &mut Exchange, policy: &Snapshot) -> Self {
        let asked = Self::read(exchange.headers(), policy);
        exchange.trace(&asked.trace_id);
        asked
    }

    fn read(headers: &HeaderMap, policy: &Snapshot) -> Self {
        let request_id = headers::new_id();
        let mut passed = SmallVec::new();
        let mut client_request_id = None;
        for (name, value) in headers {
            let name = name.as_str();
            if name == "x-request-id" {
                client_request_id = Some(value.clone());
            } else if let Some(name) = PASSED.iter().find(|known| **known == name) {
                passed.push((*name, value.clone()));
            }
        }
        Self {
            trace_id: headers::trace_id(headers, &policy.trace, &request_id),
            request_id,
            client_request_id,
            media_type: media_type(headers),
            passed,
        }
    }

    /// The readable text of a passed header; empty when it is none.
    pub fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        let (_, value) = self.passed.iter().find(|(known, _)| *known == name)?;
        Some(headers::decoded(value).unwrap_or_default())
    }
}
