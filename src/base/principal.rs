use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::client_network;

/// Where an identity comes from; the audit field `context`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// A bearer token on the API routes.
    Api,
    /// A session of the CMS's manager.
    Mgr,
    /// No identity: authentication is off, or the call is local.
    Cli,
}

impl Context {
    /// The word used in audit lines.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Mgr => "mgr",
            Self::Cli => "cli",
        }
    }
}

/// 128 bits that stand for a principal: equal digests mean equal principals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 16]);

impl Digest {
    /// Hashes length-prefixed parts, so that no two lists of parts collide by concatenation.
    #[must_use]
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let mut digest = [0; 16];
        digest.copy_from_slice(&hash.finalize()[..16]);
        Self(digest)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// Who is calling, as far as we verified it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    context: Context,
    subject: String,
    issuer: String,
    user_id: Option<u64>,
    scopes: Vec<String>,
    permissions: Option<Arc<[String]>>,
    expires_at_s: Option<u64>,
    identity: Arc<str>,
    digest: Digest,
}

impl Principal {
    /// A verified bearer of an API token. `expires_at_s` is the token's `exp` in Unix seconds.
    #[must_use]
    pub fn api(
        issuer: &str,
        subject: &str,
        user_id: Option<u64>,
        scopes: Vec<String>,
        expires_at_s: Option<u64>,
    ) -> Self {
        let (kind, id): (&[u8], String) = match user_id {
            Some(id) => (b"api-user", id.to_string()),
            None => (b"api-sub", subject.to_owned()),
        };
        Self {
            context: Context::Api,
            subject: subject.to_owned(),
            issuer: issuer.to_owned(),
            user_id,
            scopes,
            permissions: None,
            expires_at_s,
            identity: format!("api:{id}").into(),
            digest: Digest::of(&[issuer.as_bytes(), kind, id.as_bytes()]),
        }
    }

    /// Whether the credential says who calls. Callers without a name are told apart by address.
    #[must_use]
    pub const fn is_named(&self) -> bool {
        match self.context {
            Context::Api => self.user_id.is_some() || !self.subject.is_empty(),
            Context::Mgr => true,
            Context::Cli => false,
        }
    }

    /// The bearer of a token without a name, calling from this address; of one with a name, nothing else than before.
    #[must_use]
    pub fn at(self, address: IpAddr) -> Self {
        if self.is_named() {
            return self;
        }
        let network = client_network(address).to_string();
        Self {
            identity: format!("ip:{}", address.to_canonical()).into(),
            digest: Digest::of(&[self.issuer.as_bytes(), b"api-ip", network.as_bytes()]),
            ..self
        }
    }

    /// A user of the CMS's manager, with the permissions of the user's role.
    #[must_use]
    pub fn manager(user_id: u64, permissions: Arc<[String]>) -> Self {
        let id = user_id.to_string();
        Self {
            context: Context::Mgr,
            subject: String::new(),
            issuer: String::new(),
            user_id: Some(user_id),
            scopes: Vec::new(),
            permissions: Some(permissions),
            expires_at_s: None,
            digest: Digest::of(&[b"", b"mgr", id.as_bytes()]),
            identity: format!("mgr:{id}").into(),
        }
    }

    /// A caller without identity, told apart by address alone (`auth.mode = "none"`). Addresses of one IPv6 /64 are
    /// one principal: whoever has it can call from a new one each time.
    #[must_use]
    pub fn anonymous(address: IpAddr) -> Self {
        let id = address.to_canonical().to_string();
        Self {
            context: Context::Cli,
            subject: String::new(),
            issuer: String::new(),
            user_id: None,
            scopes: Vec::new(),
            permissions: None,
            expires_at_s: None,
            digest: Digest::of(&[b"", b"ip", client_network(address).to_string().as_bytes()]),
            identity: format!("ip:{id}").into(),
        }
    }

    /// The same, a user of the manager who has these permissions.
    #[must_use]
    pub fn with_permissions(self, permissions: Arc<[String]>) -> Self {
        Self { permissions: Some(permissions), ..self }
    }

    /// What is written down, to be judged again later. `jti` is the token's.
    #[must_use]
    pub fn record(&self, jti: Option<&str>) -> PrincipalRecord {
        PrincipalRecord {
            context: self.context.as_str().to_owned(),
            issuer: self.issuer.clone(),
            // An anonymous caller is its address.
            subject: match self.context {
                Context::Cli => self.identity.strip_prefix("ip:").unwrap_or_default().to_owned(),
                _ => self.subject.clone(),
            },
            user_id: self.user_id,
            scopes: self.scopes.clone(),
            jti: jti.map(str::to_owned),
        }
    }

    /// Where the identity comes from.
    #[must_use]
    pub const fn context(&self) -> Context {
        self.context
    }

    /// The token's `sub`; empty without a token.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The token's `iss`; empty when it has none.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The CMS's user, where the credential names one (audit field `actor_user_id`).
    #[must_use]
    pub const fn user_id(&self) -> Option<u64> {
        self.user_id
    }

    /// The scopes that the credential carries, as written.
    #[must_use]
    pub fn scopes(&self) -> &[String] {
        &self.scopes
    }

    /// The CMS's permissions that a manager's user has; empty for everybody else.
    #[must_use]
    pub fn permissions(&self) -> &[String] {
        self.permissions.as_deref().unwrap_or_default()
    }

    /// When the credential ends, in Unix seconds.
    #[must_use]
    pub const fn expires_at_s(&self) -> Option<u64> {
        self.expires_at_s
    }

    /// `api:7`, `api:alice`, `mgr:7`, `ip:203.0.113.1`: the audit field `rate_limit_identity`.
    #[must_use]
    pub const fn identity(&self) -> &Arc<str> {
        &self.identity
    }

    /// What stands for this principal in keys of limits and idempotency.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }
}

/// A principal as it is written down. Its credential's end is left out: it was good when it was used. So is what a
/// user of the manager may do: that is asked for again.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PrincipalRecord {
    /// `api`, `mgr`, `cli`.
    pub context: String,
    pub issuer: String,
    pub subject: String,
    pub user_id: Option<u64>,
    pub scopes: Vec<String>,
    pub jti: Option<String>,
}

impl PrincipalRecord {
    /// The principal; `None` when this is no record of one. A user of the manager has no permissions yet.
    #[must_use]
    pub fn restore(&self) -> Option<Principal> {
        match &*self.context {
            "api" => Some(Principal::api(&self.issuer, &self.subject, self.user_id, self.scopes.clone(), None)),
            "mgr" => self.user_id.map(|id| Principal::manager(id, Arc::default())),
            "cli" => self.subject.parse().ok().map(Principal::anonymous),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_one_client_can_choose_among_are_one_principal() {
        let digest = |text: &str| Principal::anonymous(text.parse().expect("an address")).digest();
        assert_eq!(digest("2001:db8::1"), digest("2001:db8::ffff:1"));
        assert_ne!(digest("2001:db8::1"), digest("2001:db8:0:1::1"));
        assert_eq!(digest("203.0.113.7"), digest("::ffff:203.0.113.7"));
        assert_ne!(digest("203.0.113.7"), digest("203.0.113.8"));
        assert_eq!(&**Principal::anonymous("2001:db8::1".parse().expect("an address")).identity(), "ip:2001:db8::1");
    }

    #[test]
    fn bearers_of_tokens_without_a_name_are_told_apart_by_address() {
        let token = |subject| Principal::api("i", subject, None, vec![], None);
        let at = |subject, address: &str| token(subject).at(address.parse().expect("an address"));
        assert_ne!(at("", "203.0.113.7").digest(), at("", "203.0.113.8").digest());
        assert_eq!(at("", "2001:db8::1").digest(), at("", "2001:db8::2").digest());
        assert_eq!(&**at("", "203.0.113.7").identity(), "ip:203.0.113.7");
        assert!(!at("", "203.0.113.7").is_named());
        assert_eq!(at("alice", "203.0.113.7"), token("alice"));
    }

    #[test]
    fn what_is_written_down_of_a_principal_is_that_principal_again() {
        let scopes = vec!["mcp:call".to_owned()];
        for principal in [
            Principal::api("i", "alice", Some(7), scopes.clone(), None),
            Principal::api("", "alice", None, scopes, None),
            Principal::anonymous(IpAddr::from([203, 0, 113, 1])),
        ] {
            assert_eq!(principal.record(None).restore(), Some(principal));
        }
        let permitted: Arc<[String]> = Arc::from(["emcp".to_owned()]);
        let manager = Principal::manager(7, Arc::clone(&permitted));
        let restored = manager.record(None).restore().expect("a record of one");
        assert!(restored.permissions().is_empty(), "what was permitted is not what is");
        assert_eq!((restored.digest(), restored.with_permissions(permitted)), (manager.digest(), manager));
        for context in ["root", "mgr"] {
            let record = PrincipalRecord { context: context.to_owned(), ..PrincipalRecord::default() };
            assert_eq!(record.restore(), None, "{context}");
        }
    }

    #[test]
    fn principals_that_only_look_alike_have_their_own_digests() {
        let digests = [
            Principal::api("", "7", None, vec![], None).digest(),
            Principal::api("", "x", Some(7), vec![], None).digest(),
            Principal::api("7", "", None, vec![], None).digest(),
            Principal::manager(7, Arc::default()).digest(),
            Principal::anonymous(IpAddr::from([0, 0, 0, 7])).digest(),
        ];
        for (i, left) in digests.iter().enumerate() {
            for right in &digests[i + 1..] {
                assert_ne!(left, right);
            }
        }
        assert_eq!(
            Principal::api("i", "a", Some(1), vec![], None).digest(),
            Principal::api("i", "b", Some(1), vec!["*".into()], Some(9)).digest(),
            "user_id is the identity when it is there"
        );
    }
}
