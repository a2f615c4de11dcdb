//! What a task's row says (emcp.md 10.2), and the code that proves that it was made here.

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;

use crate::base::{PrincipalRecord, Secret};
use crate::jobs::request::{self, hex};
use crate::protocol::Identity;
use crate::store::queue::{Driver, IDENTIFIER};

/// The first part of what the code covers; a change of what is covered changes it.
const SCHEME: &[u8] = b"mcp-sidecar task v1";

/// The column `meta`, in eMCP's members and one of our own.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Meta {
    pub server_handle: String,
    pub jsonrpc_method: String,
    pub jsonrpc_params: Value,
    /// The JSON-RPC id.
    pub request_id: Value,
    pub session_id: String,
    pub trace_id: String,
    /// Empty without a key.
    pub idempotency_key: String,
    pub actor_user_id: Option<u64>,
    pub initiated_by_user_id: Option<u64>,
    pub context: String,
    pub attempts: u32,
    pub max_attempts: u32,
    pub payload_hash: String,
    /// What eMCP's tools pass over; absent in what PHP wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcp_sidecar: Option<Own>,
}

/// What only we read.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Own {
    /// Who asked, so that the policy can be asked again.
    pub principal: PrincipalRecord,
    /// As the audit line has it.
    pub identity: String,
    /// The row in the keys table; empty without a key.
    pub key: String,
    /// The policy under which it was taken.
    pub policy_digest: String,
}

impl Meta {
    /// The JSON-RPC request to run.
    #[must_use]
    pub fn call(&self) -> Vec<u8> {
        let params = Some(&self.jsonrpc_params).filter(|params| !params.as_array().is_some_and(Vec::is_empty));
        request::call(&self.jsonrpc_method, params, &self.request_id)
    }

    /// Who asked. Of a task that was made elsewhere, the user whom it names: one of the manager with what the role
    /// permits, any other with the scopes that a call needs.
    #[must_use]
    pub fn principal(&self) -> PrincipalRecord {
        let context = if self.context == "mgr" { "mgr" } else { "api" };
        self.mcp_sidecar.as_ref().map_or_else(
            || PrincipalRecord {
                context: context.to_owned(),
                user_id: self.actor_user_id,
                scopes: ["mcp:read", "mcp:call"].map(str::to_owned).to_vec(),
                ..PrincipalRecord::default()
            },
            |own| own.principal.clone(),
        )
    }

    /// The caller, as the executor takes one.
    #[must_use]
    pub fn caller(&self) -> Identity {
        Identity {
            context: self.context.clone(),
            identity: self.mcp_sidecar.as_ref().map_or_else(|| "task".to_owned(), |own| own.identity.clone()),
            user_id: self.actor_user_id,
            server: self.server_handle.clone(),
            trace_id: self.trace_id.clone(),
            request_id: String::new(),
            policy_digest: self.mcp_sidecar.as_ref().map(|own| own.policy_digest.clone()).unwrap_or_default(),
            ..Identity::default()
        }
    }
}

/// The code over a row: whose table, which id, what it says.
#[must_use]
pub fn seal(key: &Secret, driver: Driver, id: i64, meta: &str) -> String {
    hex(&mac(key, driver, id, meta).finalize().into_bytes())
}

/// Whether the code is that of the row, compared in constant time.
#[must_use]
pub fn is_sealed(key: &Secret, driver: Driver, id: i64, meta: &str, code: &str) -> bool {
    let mut tag = [0; 32];
    let digits = code.as_bytes();
    if digits.len() != 64 {
        return false;
    }
    for (byte, pair) in tag.iter_mut().zip(digits.chunks_exact(2)) {
        let text = std::str::from_utf8(pair).unwrap_or_default();
        let Ok(value) = u8::from_str_radix(text, 16) else { return false };
        *byte = value;
    }
    mac(key, driver, id, meta).verify_slice(&tag).is_ok()
}

fn mac(key: &Secret, driver: Driver, id: i64, meta: &str) -> Hmac<Sha256> {
    let table: &[u8] = match driver {
        Driver::Own => b"own",
        Driver::Stask => b"stask",
    };
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose()).expect("HMAC takes keys of every length");
    for part in [SCHEME, table, IDENTIFIER.as_bytes(), &id.to_be_bytes(), meta.as_bytes()] {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac
}
