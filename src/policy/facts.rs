use crate::base::Principal;
use crate::policy::{Reason, RuleSite};
use crate::protocol::{Envelope, Refused};

/// The HTTP method, as far as MCP routes tell methods apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpMethod {
    Post,
    Other,
}

/// What became of the credential.
#[derive(Clone, Copy, Debug)]
pub enum Credential<'a> {
    /// Verified (or `auth.mode = "none"`: an anonymous principal).
    Principal(&'a Principal),
    /// Refused; the reason is what the token check said (`Unauthenticated`, `InternalError` without a secret, …).
    Refused(Reason),
    /// Valid, and on a deny list of the policy; where the entry stands.
    Denied(&'a RuleSite),
    /// Refused by a rule of the program itself, whose word is given.
    RefusedBy(Reason, &'static str),
}

/// What the request says its body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaType {
    /// Starts with `application/json` after lower-casing and trimming, charset absent or UTF-8, no content coding.
    Json,
    /// Anything else, a missing header and a foreign charset included.
    Other,
    /// A `Content-Encoding` other than identity.
    Encoded,
}

/// The body, read up to the server's limit and parsed once.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    /// Larger than the server's (or, for an unknown server, the global) limit.
    TooLarge,
    /// Could not be read whole (`RequestTimeout`, `BadRequest`, `Overloaded`).
    Unread(Reason),
    /// Read, and refused by the strict parse.
    Refused(&'a Refused<'a>),
    /// One request or notification.
    Call(&'a Envelope<'a>),
}

/// The `MCP-*` and `Mcp-*` request headers that repeat what the body says; values decoded.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProtocolHeaders<'a> {
    /// `MCP-Protocol-Version`.
    pub version: Option<&'a str>,
    /// `Mcp-Method`.
    pub method: Option<&'a str>,
    /// `Mcp-Name`.
    pub name: Option<&'a str>,
}

/// All that a decision is made from.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The handle in the path; may be unknown.
    pub server: &'a str,
    pub http_method: HttpMethod,
    /// Whether the call is to be run later.
    pub dispatch: bool,
    /// A singleton header came twice, `Origin` is foreign, `Host` is unknown, `Upgrade` was asked: found before
    /// anything else and refused at its place (before the credential).
    pub malformed: Option<Reason>,
    pub credential: Credential<'a>,
    pub media_type: MediaType,
    pub body: Body<'a>,
    pub headers: ProtocolHeaders<'a>,
}
