use crate::base::Secret;

/// Carries the caller's identity to our executor, as base64url JSON of [`Identity`].
pub const IDENTITY_HEADER: &str = "x-mcp-sidecar-identity";
/// Carries `t=<unix seconds>;v1=<hex HMAC-SHA256>` over the identity, the body digest and the time.
pub const SIGNATURE_HEADER: &str = "x-mcp-sidecar-signature";

/// What the sidecar tells its executor about a permitted call. Unknown members are refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// `api`, `mgr`, `cli`.
    pub context: String,
    /// `api:7`, `ip:…`.
    pub identity: String,
    pub user_id: Option<u64>,
    pub server: String,
    pub trace_id: String,
    pub request_id: String,
    /// Revision of the policy that permitted the call.
    pub policy_revision: u64,
    /// Whether an SSE answer is allowed (A4).
    pub streaming: bool,
}

/// Why an identity was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdentity {
    #[error("identity header is missing or not base64url JSON")]
    Malformed,
    #[error("identity signature is missing or wrong")]
    Signature,
    #[error("identity signature is older than 30 s or from the future")]
    Expired,
}

/// The identity header's value, and the signature header's value when there is a key (TCP).
#[must_use]
pub fn sign_identity(identity: &Identity, body: &[u8], key: Option<&Secret>, now_s: u64) -> (String, Option<String>) {
    let _ = (identity, body, key, now_s);
    unimplemented!()
}

/// Reads and, when there is a key, verifies an identity (constant time, 30 s).
///
/// # Errors
/// When it must not be trusted.
pub fn verify_identity(
    header: Option<&str>,
    signature: Option<&str>,
    body: &[u8],
    key: Option<&Secret>,
    now_s: u64,
) -> Result<Identity, InvalidIdentity> {
    let _ = (header, signature, body, key, now_s);
    unimplemented!()
}
