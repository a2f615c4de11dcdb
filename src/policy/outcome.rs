use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::base::Digest;
use crate::policy::{Reason, Server};
use crate::protocol::MethodClass;

/// The kind of window that a charge counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Window {
    /// Opens with the first counted hit and ends `seconds` later.
    FromFirstHit { seconds: u32 },
    /// Aligned to the epoch.
    Aligned { seconds: u32 },
}

/// Which bucket a charge goes to. Server and method are from closed sets: a client cannot mint buckets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RateKey {
    /// Stands for the principal; all keys of one request share it.
    pub principal: Digest,
    /// The handle of a configured server, or `unknown`, or `*` for the bucket over everything.
    pub server: Arc<str>,
    /// The method's class; `None` in the bucket over all methods.
    pub method: Option<MethodClass>,
}

/// One unit to be taken from one bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    pub key: RateKey,
    /// How many units a window holds; at least 1.
    pub limit: u32,
    pub window: Window,
}

/// The charges of one request: reserved all or none.
pub type Charges = SmallVec<[Charge; 2]>;

/// The rule that made a decision, with its place for people: a key such as `servers[0].deny_tools[2]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Built into the order of checks (named by a static word such as `auth.exp`, `parse`, `route`).
    Builtin(&'static str),
    /// A key of the policy file.
    Key(RuleSite),
}

/// Where in the policy a rule stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSite {
    /// `security.deny_tools[3]`.
    pub key: Arc<str>,
    /// Line and column, from 1; 0 when the value is no text of a file.
    pub line: u32,
    pub column: u32,
}

impl Rule {
    /// The key or word, to be kept.
    #[must_use]
    pub fn name(&self) -> Arc<str> {
        match self {
            Self::Builtin(name) => Arc::from(*name),
            Self::Key(site) => Arc::clone(&site.key),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Builtin(name) => f.write_str(name),
            Self::Key(site) => f.write_str(&site.key),
        }
    }
}

/// A refusal, ready to be answered, audited and counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    pub reason: Reason,
    pub rule: Rule,
    /// Seconds, where a retry can help; at least 1.
    pub retry_after_s: Option<u32>,
    /// The scope that was missing.
    pub required_scope: Option<Arc<str>>,
}

impl Denial {
    /// A denial without the optional parts.
    #[must_use]
    pub fn new(reason: Reason, rule: Rule) -> Self {
        Self { reason, rule, retry_after_s: reason.default_retry_after_s(), required_scope: None }
    }
}

/// What the sidecar answers by itself to a permitted request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalAnswer {
    /// JSON-RPC -32601 with HTTP 200 (`server/discover` in the legacy era).
    MethodNotFound,
}

/// What to do once the charges hold.
#[derive(Clone, Debug)]
pub enum Outcome {
    Forward { server: Arc<Server>, rule: Rule },
    Answer { answer: LocalAnswer, rule: Rule },
    Deny(Denial),
}

/// The decision about one request.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Reserved before the outcome applies; empty when the request was refused before the charging stage.
    pub charges: Charges,
    pub(in crate::policy) outcome: Outcome,
    /// The class that keys, labels and audit lines use.
    pub method: MethodClass,
}

impl Decision {
    /// What would happen if the charges hold (for `explain`; forwarding needs [`Self::settle`]).
    #[must_use]
    pub const fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// Turns the decision into what happens, given what became of its charges.
    ///
    /// # Errors
    /// The denial to answer with: that of the charges first, then the decision's own.
    pub fn settle(self, charged: Result<(), Denial>) -> Result<Permit, Denial> {
        charged?;
        match self.outcome {
            Outcome::Forward { server, rule } => Ok(Permit { server, rule, method: self.method }),
            Outcome::Answer { answer, rule } => {
                Err(Denial { reason: answer.reason(), rule, retry_after_s: None, required_scope: None })
            }
            Outcome::Deny(denial) => Err(denial),
        }
    }
}

impl LocalAnswer {
    /// What answer, audit line and metric say.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::MethodNotFound => Reason::MethodNotFound,
        }
    }
}

/// The right to forward one request to one server's upstream. Made only by [`Decision::settle`].
#[derive(Debug)]
pub struct Permit {
    server: Arc<Server>,
    rule: Rule,
    method: MethodClass,
}

impl Permit {
    /// The server whose upstream may be called.
    #[must_use]
    pub const fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// The rule that allowed it.
    #[must_use]
    pub const fn rule(&self) -> &Rule {
        &self.rule
    }

    /// The method's class.
    #[must_use]
    pub const fn method(&self) -> MethodClass {
        self.method
    }
}
