use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use crate::base::{PrincipalRecord, Secret};

/// Carries the caller's identity to our executor, as base64url JSON of [`Identity`].
pub const IDENTITY_HEADER: &str = "x-mcp-sidecar-identity";
/// Carries `t=<unix seconds>;v1=<hex HMAC-SHA256>` over the identity, the body digest and the time.
pub const SIGNATURE_HEADER: &str = "x-mcp-sidecar-signature";

/// How long a signature holds, in seconds.
const LIFETIME_S: u64 = 30;
/// How far the signer's clock may run ahead of ours, in seconds: the time is cut to whole seconds on both sides.
const SKEW_S: u64 = 2;
/// The longest identity header that is looked at, in bytes.
const MAX_HEADER_BYTES: usize = 8 * 1024;
/// The first signed part; a change of what is signed changes it.
const SCHEME: &[u8] = b"mcp-sidecar identity v1";

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
    /// Digest of its text: revisions are counted by each process for itself.
    pub policy_digest: String,
    /// Whether an SSE answer is allowed (A4).
    pub streaming: bool,
    /// Whether the caller's scopes reach `tools/call`; told only where the policy hides denied tools.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub may_call_tools: bool,
    /// Who calls, to be judged again later; told only where that happens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<PrincipalRecord>,
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
    let json = serde_json::to_vec(identity).expect("an identity holds only strings, numbers and booleans");
    let header = URL_SAFE_NO_PAD.encode(json);
    let signature = key.map(|key| {
        let mut value = format!("t={now_s};v1=");
        for byte in mac(key, now_s, &header, body).finalize().into_bytes() {
            write!(value, "{byte:02x}").expect("a String takes every write");
        }
        value
    });
    (header, signature)
}

/// Reads and, when there is a key, verifies an identity (constant time, 30 s).
///
/// The signature is judged before anything that it protects is parsed. An empty key verifies nothing.
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
    let header = header.filter(|header| header.len() <= MAX_HEADER_BYTES).ok_or(InvalidIdentity::Malformed)?;
    if let Some(key) = key {
        let (signed_s, tag) = signature.and_then(read_signature).ok_or(InvalidIdentity::Signature)?;
        if key.is_empty() || mac(key, signed_s, header, body).verify_slice(&tag).is_err() {
            return Err(InvalidIdentity::Signature);
        }
        if signed_s > now_s.saturating_add(SKEW_S) || now_s.saturating_sub(signed_s) > LIFETIME_S {
            return Err(InvalidIdentity::Expired);
        }
    }
    let json = URL_SAFE_NO_PAD.decode(header).map_err(|_| InvalidIdentity::Malformed)?;
    serde_json::from_slice(&json).map_err(|_| InvalidIdentity::Malformed)
}

/// The code over the length-prefixed parts: scheme, time, identity header, digest of the body.
fn mac(key: &Secret, time_s: u64, header: &str, body: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose()).expect("HMAC takes keys of every length");
    for part in [SCHEME, &time_s.to_be_bytes(), header.as_bytes(), Sha256::digest(body).as_slice()] {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac
}

/// The time and the code of `t=<unix seconds>;v1=<64 lower-case hex digits>`, in this spelling only.
fn read_signature(value: &str) -> Option<(u64, [u8; 32])> {
    let (time, hex) = value.strip_prefix("t=")?.split_once(";v1=")?;
    let time_s: u64 = time.parse().ok()?;
    if time.starts_with('+') || (time.len() > 1 && time.starts_with('0')) {
        return None;
    }
    let digits: &[u8; 64] = hex.as_bytes().try_into().ok()?;
    let mut tag = [0; 32];
    for (byte, pair) in tag.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some((time_s, tag))
}

const fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            context: "api".into(),
            identity: "api:7".into(),
            user_id: Some(7),
            server: "content".into(),
            trace_id: "t".into(),
            request_id: "r".into(),
            policy_revision: 3,
            policy_digest: "0123456789abcdef".into(),
            streaming: true,
            may_call_tools: true,
            principal: None,
        }
    }

    #[test]
    fn what_was_signed_is_verified_within_its_time() {
        let key = Secret::new(*b"0123456789abcdef0123456789abcdef");
        let (header, signature) = sign_identity(&identity(), b"{}", Some(&key), 1000);
        for (now_s, expected) in [
            (1000, Ok(identity())),
            (1030, Ok(identity())),
            (998, Ok(identity())),
            (1031, Err(InvalidIdentity::Expired)),
            (997, Err(InvalidIdentity::Expired)),
        ] {
            let found = verify_identity(Some(&header), signature.as_deref(), b"{}", Some(&key), now_s);
            assert_eq!(found, expected, "{now_s}");
        }
    }

    #[test]
    fn whatever_differs_from_what_was_signed_is_refused() {
        let key = Secret::new(*b"0123456789abcdef0123456789abcdef");
        let other = Secret::new(*b"0123456789abcdef0123456789abcdeg");
        let (header, signature) = sign_identity(&identity(), b"{}", Some(&key), 1000);
        let signature = signature.expect("there is a key");
        let (foreign, _) = sign_identity(&Identity { user_id: Some(8), ..identity() }, b"{}", None, 1000);
        let later = signature.replace("t=1000", "t=1001");
        let padded = signature.replace("t=1000", "t=01000");
        let plus = signature.replace("t=1000", "t=+1000");
        let upper = signature.to_uppercase().replace("T=", "t=").replace("V1", "v1");
        let verify = |header: &str, signature: Option<&str>, body: &[u8], key: &Secret| {
            verify_identity(Some(header), signature, body, Some(key), 1000)
        };
        let refused = Err(InvalidIdentity::Signature);
        assert_eq!(verify(&header, Some(&signature), b"{ }", &key), refused, "body");
        assert_eq!(verify(&foreign, Some(&signature), b"{}", &key), refused, "identity");
        assert_eq!(verify(&header, Some(&signature), b"{}", &other), refused, "key");
        assert_eq!(verify(&header, None, b"{}", &key), refused, "no signature");
        for bad in [&later, &padded, &plus, &upper, "", "t=1000;v1=", &signature[..signature.len() - 1]] {
            assert_eq!(verify(&header, Some(bad), b"{}", &key), refused, "{bad}");
        }
        let empty = Secret::new(*b"");
        let (header, signature) = sign_identity(&identity(), b"{}", Some(&empty), 1000);
        assert_eq!(verify(&header, signature.as_deref(), b"{}", &empty), refused, "an empty key");
    }

    #[test]
    fn without_a_key_only_the_form_is_judged() {
        let (header, signature) = sign_identity(&identity(), b"", None, 0);
        assert_eq!(signature, None);
        assert_eq!(verify_identity(Some(&header), None, b"", None, 0), Ok(identity()));
        let unknown = URL_SAFE_NO_PAD.encode(br#"{"context":"api","admin":true}"#);
        let padded = format!("{header}=");
        let long = "A".repeat(MAX_HEADER_BYTES + 1);
        for bad in [None, Some(""), Some("e30"), Some("%"), Some(&*unknown), Some(&*padded), Some(&*long)] {
            assert_eq!(verify_identity(bad, None, b"", None, 0), Err(InvalidIdentity::Malformed), "{bad:?}");
        }
    }
}
