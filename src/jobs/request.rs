//! What a dispatch asks for (emcp.md 10.1), and what makes two of them the same (10.3).

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::protocol;

/// The longest idempotency key, in bytes.
const MAX_KEY_BYTES: usize = 256;

/// A dispatch, read.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub method: String,
    /// An object or an array; `None` when absent, empty, or anything else.
    pub params: Option<Value>,
    /// A string or a number.
    pub id: Option<Value>,
    /// The member `idempotency_key`.
    pub key: Option<String>,
}

/// The body is no dispatch, or its key is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a dispatch")]
pub struct Invalid;

impl Request {
    /// Reads a body: a JSON-RPC envelope, or the short form without `jsonrpc`.
    ///
    /// # Errors
    /// When it is none of both, or could be understood in two ways.
    pub fn read(body: &[u8]) -> Result<Self, Invalid> {
        let envelope = protocol::parse_submission(body).map_err(|_| Invalid)?;
        let mut members: Map<String, Value> = serde_json::from_slice(body).map_err(|_| Invalid)?;
        let params = members.remove("params").filter(|params| match params {
            Value::Object(members) => !members.is_empty(),
            Value::Array(items) => !items.is_empty(),
            _ => false,
        });
        let key = match members.remove("idempotency_key") {
            None | Some(Value::Null) => None,
            Some(Value::String(key)) => Self::key(&key)?,
            Some(_) => return Err(Invalid),
        };
        let id = members.remove("id").filter(|id| id.is_string() || id.is_number());
        Ok(Self { method: envelope.method.into_owned(), params, id, key })
    }

    /// A key as sent, trimmed; `None` when that leaves nothing.
    ///
    /// # Errors
    /// When it is too long or holds control characters.
    pub fn key(sent: &str) -> Result<Option<String>, Invalid> {
        let key = sent.trim();
        if key.len() > MAX_KEY_BYTES || key.chars().any(char::is_control) {
            return Err(Invalid);
        }
        Ok(Some(key.to_owned()).filter(|key| !key.is_empty()))
    }
}

/// The JSON-RPC request that a task runs.
#[must_use]
pub fn call(method: &str, params: Option<&Value>, id: &Value) -> Vec<u8> {
    let mut call = Map::new();
    call.insert("jsonrpc".to_owned(), "2.0".into());
    call.insert("id".to_owned(), id.clone());
    call.insert("method".to_owned(), method.into());
    if let Some(params) = params {
        call.insert("params".to_owned(), params.clone());
    }
    Value::Object(call).to_string().into_bytes()
}

/// Lower-case hex SHA-256 over what is asked of whom as whom.
#[must_use]
pub fn payload_hash(server: &str, method: &str, params: Option<&Value>, actor: Option<u64>) -> String {
    let payload = json!({
        "server_handle": server,
        "jsonrpc_method": method,
        "jsonrpc_params": params.unwrap_or(&json!([])),
        "actor_user_id": actor,
    });
    hex(&Sha256::digest(payload.to_string().as_bytes()))
}

/// JSON in ASCII, as PHP writes it: no table's character set can change it.
#[must_use]
pub fn ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let mut units = [0; 2];
    for letter in json.chars() {
        match letter.is_ascii() {
            true => out.push(letter),
            false => out.extend(letter.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}"))),
        }
    }
    out
}

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
