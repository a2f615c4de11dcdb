use crate::base::Digest;

/// Where the executor is asked who uses the manager, in place of a handle; no handle holds this letter.
pub const MANAGER_HANDLE: &str = "@manager";

/// What a request to a manager route came with: exactly one of the two.
#[derive(Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManagerQuestion {
    /// The value of the session's cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// A bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// Whose it is; `None`: nobody's who may use the manager.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManagerAnswer {
    pub user: Option<ManagerUser>,
}

/// A user of the manager.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManagerUser {
    pub id: u64,
    pub role: i64,
    /// What the role permits.
    pub permissions: Vec<String>,
    /// [`csrf_digest`] of the session's token, where it could be read.
    pub csrf: Option<String>,
}

/// Stands for a CSRF token, which itself is told to nobody.
#[must_use]
pub fn csrf_digest(token: &str) -> String {
    Digest::of(&[b"csrf", token.as_bytes()]).to_string()
}

/// Whether a text has the form of a session's id, as PHP and the CMS make them. Nothing else may touch a path or a key.
#[must_use]
pub fn is_session_id(text: &str) -> bool {
    (22..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b','))
}

/// Whether a text may be an access token.
#[must_use]
pub fn is_access_token(text: &str) -> bool {
    (16..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_form_of_an_id_is_an_id() {
        for good in ["0123456789abcdefghijkl", "AZaz09-,AZaz09-,AZaz09-,", &"a".repeat(128)] {
            assert!(is_session_id(good), "{good}");
        }
        let bad = [
            "",
            "../x",
            "../../../../../etc/passwd",
            "0123456789abcdefghijk",
            "0123456789abcdefghijkl/",
            "0123456789abcdefghijk\0l",
        ];
        for bad in bad.into_iter().chain([
            &*"a".repeat(129),
            "0123456789abcdefghijkl.",
            "0123456789abcdefghijklé",
            "%2e%2e%2f0123456789abcdefg",
        ]) {
            assert!(!is_session_id(bad), "{bad}");
        }
        assert!(
            is_access_token("0123456789abcdef.g")
                && !is_access_token("short")
                && !is_access_token("0123456789abcdef g")
        );
    }
}
