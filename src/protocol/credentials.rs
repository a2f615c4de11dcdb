//! What the sidecar asks its executor when somebody wants a token, and what that answers.

use serde::{Deserialize, Serialize};

/// Where the executor is asked.
pub const CREDENTIALS_PATH: &str = "/credentials";
/// [`Identity::context`](crate::protocol::Identity) of such a question: that of no call, so that neither passes for
/// the other.
pub const CREDENTIALS_CONTEXT: &str = "credentials";

/// The question. It holds a password, and is never shown.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    pub username: String,
    pub password: String,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case", deny_unknown_fields)]
pub enum CredentialsVerdict {
    /// Name and password are right, the user is not blocked and has a role that may have tokens.
    Granted {
        user_id: u64,
    },
    UnknownUser,
    WrongPassword,
    /// The password is right, and the user may not have a token: blocked, or of another role.
    NotPermitted,
}
