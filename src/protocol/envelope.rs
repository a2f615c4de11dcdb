use std::borrow::Cow;

/// The `id` of a request, which decides whether an answer is owed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Id<'a> {
    /// No `id` member: a notification.
    Absent,
    /// `"id": null`: treated as a notification, judged like any call.
    Null,
    /// An integer within ±(2⁵³−1).
    Number(i64),
    /// A string of at most 256 bytes, unescaped.
    String(Cow<'a, str>),
}

impl Id<'_> {
    /// Whether the sender waits for an answer.
    #[must_use]
    pub const fn expects_answer(&self) -> bool {
        matches!(self, Self::Number(_) | Self::String(_))
    }
}

/// What `params` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Params {
    /// No `params` member, or `null`.
    Absent,
    /// An object.
    Object,
    /// An array (positional parameters).
    Array,
    /// A scalar, which no MCP method takes.
    Other,
}

/// What `params.arguments` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arguments {
    /// No `arguments` member.
    Absent,
    /// An object.
    Object,
    /// Anything else, `null` included.
    Other,
}

/// One JSON-RPC request or notification, strictly read. Borrows the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// Whom to answer.
    pub id: Id<'a>,
    /// The method, unescaped, as sent (never trimmed).
    pub method: Cow<'a, str>,
    /// The kind of `params`.
    pub params: Params,
    /// `params.name` when it is a string.
    pub name: Option<Cow<'a, str>>,
    /// `params.uri` when it is a string.
    pub uri: Option<Cow<'a, str>>,
    /// `params.ref.name` when it is a string: the prompt that a completion is for.
    pub ref_name: Option<Cow<'a, str>>,
    /// `params.ref.uri` when it is a string: the resource that a completion is for.
    pub ref_uri: Option<Cow<'a, str>>,
    /// The kind of `params.arguments`.
    pub arguments: Arguments,
    /// Whether `params._meta.progressToken` is an integer, or a string that is no longer than an id may be.
    pub has_progress_token: bool,
    /// `params._meta["io.modelcontextprotocol/protocolVersion"]` when it is a string.
    pub meta_version: Option<Cow<'a, str>>,
}
