//! MCP on the wire: the JSON-RPC envelope, methods and headers, SSE framing, error bodies.
//!
//! Pure: bytes in, values out. The one strict reading of a request lives here ([`parse`]), so that what policy
//! judges is what an upstream acts on.
//!
//! Invariants: no input panics; the cost of reading is linear in the body, whatever keys, numbers or escapes it holds;
//! what leaves the SSE scanner is what entered it, cut between events only.
//!
//! Non-goals: judging arguments or methods (policy does), schemas, building results.

mod answer;
mod credentials;
mod envelope;
mod identity;
mod manager;
mod method;
mod parse;
mod refusal;
mod sse;

pub use answer::{rpc_error, rpc_error_event, transport_error};
pub use credentials::{CREDENTIALS_CONTEXT, CREDENTIALS_PATH, Credentials, CredentialsVerdict};
pub use envelope::{Arguments, Envelope, Id, Params};
pub use identity::{IDENTITY_HEADER, Identity, InvalidIdentity, SIGNATURE_HEADER, sign_identity, verify_identity};
pub use manager::{
    MANAGER_HANDLE, ManagerAnswer, ManagerQuestion, ManagerUser, csrf_digest, is_access_token, is_session_id,
};
pub use method::{Method, MethodClass};
pub use parse::{parse, parse_submission};
pub use refusal::{Refusal, Refused};
pub use sse::{Event, EventScanner, EventTooLarge, HEARTBEAT};
