use crate::protocol::Refusal;

/// How a reason goes over the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// `{"error":{"code","message","trace_id"}}` with this status.
    Transport { status: u16 },
    /// A JSON-RPC error with HTTP 200 and `error.data.code`.
    Rpc { code: i32 },
}

/// Why a request was refused: the closed set that answers, audit lines and metric labels share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    BadRequest,
    Unauthenticated,
    Forbidden,
    ForeignOrigin,
    ScopeDenied,
    ServerDenied,
    ToolDenied,
    ResourceDenied,
    PromptDenied,
    StreamingDisabled,
    ServerNotFound,
    RouteNotFound,
    /// A session of a foreign server that was given to another caller, or by nobody.
    SessionNotFound,
    MethodNotAllowed,
    RequestTimeout,
    PayloadTooLarge,
    ResultTooLarge,
    UriTooLong,
    UnsupportedMediaType,
    RateLimited,
    HeadersTooLarge,
    InternalError,
    UpstreamFailed,
    Overloaded,
    LimitsUnavailable,
    AuditUnavailable,
    Draining,
    UpstreamTimeout,
    /// A dispatch that is none, or that asks for nothing that could be run.
    InvalidPayload,
    /// The key was used for another request.
    IdempotencyConflict,
    /// There is no queue, and no failover.
    AsyncUnavailable,
    /// The strict parse refused the body.
    Parse(Refusal),
    /// `params` is no object or array (-32602).
    BadParams,
    /// The method needs a name and has none (-32602).
    NameMissing,
    /// A name outside `[A-Za-z0-9_./:-]{1,128}` (-32602).
    NameInvalid,
    /// A resource's `uri` is missing, too long, or holds control characters or dot segments (-32602).
    UriInvalid,
    /// `arguments` is no object (-32602).
    BadArguments,
    /// A volunteered `Mcp-*` header contradicts the body (-32600).
    HeaderMismatch,
    /// -32601, answered without the upstream.
    MethodNotFound,
}

impl Reason {
    /// Every reason, for tables and metrics.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut all = vec![
            Self::BadRequest,
            Self::Unauthenticated,
            Self::Forbidden,
            Self::ForeignOrigin,
            Self::ScopeDenied,
            Self::ServerDenied,
            Self::ToolDenied,
            Self::ResourceDenied,
            Self::PromptDenied,
            Self::StreamingDisabled,
            Self::ServerNotFound,
            Self::RouteNotFound,
            Self::SessionNotFound,
            Self::MethodNotAllowed,
            Self::RequestTimeout,
            Self::PayloadTooLarge,
            Self::ResultTooLarge,
            Self::UriTooLong,
            Self::UnsupportedMediaType,
            Self::RateLimited,
            Self::HeadersTooLarge,
            Self::InternalError,
            Self::UpstreamFailed,
            Self::Overloaded,
            Self::LimitsUnavailable,
            Self::AuditUnavailable,
            Self::Draining,
            Self::UpstreamTimeout,
            Self::InvalidPayload,
            Self::IdempotencyConflict,
            Self::AsyncUnavailable,
            Self::BadParams,
            Self::NameMissing,
            Self::NameInvalid,
            Self::UriInvalid,
            Self::BadArguments,
            Self::HeaderMismatch,
            Self::MethodNotFound,
        ];
        all.extend(Refusal::ALL.into_iter().map(Self::Parse));
        all
    }

    /// The stable code: `error.code` or `error.data.code`, the audit field `deny_code`, the metric label.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::ForeignOrigin => "foreign_origin",
            Self::ScopeDenied => "scope_denied",
            Self::ServerDenied => "server_denied",
            Self::ToolDenied => "tool_denied",
            Self::ResourceDenied => "resource_denied",
            Self::PromptDenied => "prompt_denied",
            Self::StreamingDisabled => "streaming_disabled",
            Self::ServerNotFound => "server_not_found",
            Self::RouteNotFound => "route_not_found",
            Self::SessionNotFound => "session_not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::RequestTimeout => "request_timeout",
            Self::PayloadTooLarge => "payload_too_large",
            Self::ResultTooLarge => "result_too_large",
            Self::UriTooLong => "uri_too_long",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::RateLimited => "rate_limited",
            Self::HeadersTooLarge => "headers_too_large",
            Self::InternalError => "internal_error",
            Self::UpstreamFailed => "upstream_failed",
            Self::Overloaded => "overloaded",
            Self::LimitsUnavailable => "limits_unavailable",
            Self::AuditUnavailable => "audit_unavailable",
            Self::Draining => "draining",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::InvalidPayload => "invalid_payload",
            Self::IdempotencyConflict => "idempotency_conflict",
            Self::AsyncUnavailable => "async_unavailable",
            Self::Parse(refusal) => refusal.code(),
            Self::BadParams => "bad_params",
            Self::NameMissing => "name_missing",
            Self::NameInvalid => "name_invalid",
            Self::UriInvalid => "uri_invalid",
            Self::BadArguments => "bad_arguments",
            Self::HeaderMismatch => "header_mismatch",
            Self::MethodNotFound => "method_not_found",
        }
    }

    /// Transport error or JSON-RPC error, and its number.
    #[must_use]
    pub const fn wire(self) -> Wire {
        let status = match self {
            Self::BadRequest | Self::InvalidPayload => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden
            | Self::ForeignOrigin
            | Self::ScopeDenied
            | Self::ServerDenied
            | Self::ToolDenied
            | Self::ResourceDenied
            | Self::PromptDenied
            | Self::StreamingDisabled => 403,
            Self::ServerNotFound | Self::RouteNotFound | Self::SessionNotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::IdempotencyConflict => 409,
            Self::PayloadTooLarge | Self::ResultTooLarge => 413,
            Self::UriTooLong => 414,
            Self::UnsupportedMediaType => 415,
            Self::RateLimited => 429,
            Self::HeadersTooLarge => 431,
            Self::InternalError => 500,
            Self::UpstreamFailed => 502,
            Self::Overloaded
            | Self::LimitsUnavailable
            | Self::AuditUnavailable
            | Self::AsyncUnavailable
            | Self::Draining => 503,
            Self::UpstreamTimeout => 504,
            Self::Parse(refusal) => return Wire::Rpc { code: refusal.rpc_code() },
            Self::BadParams | Self::NameMissing | Self::NameInvalid | Self::UriInvalid | Self::BadArguments => {
                return Wire::Rpc { code: -32602 };
            }
            Self::HeaderMismatch => return Wire::Rpc { code: -32600 },
            Self::MethodNotFound => return Wire::Rpc { code: -32601 },
        };
        Wire::Transport { status }
    }

    /// The HTTP status of the answer.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self.wire() {
            Wire::Transport { status } => status,
            Wire::Rpc { .. } => 200,
        }
    }

    /// The public message, in English.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::BadRequest => "Bad request",
            Self::Unauthenticated => "Unauthenticated",
            Self::Forbidden => "Forbidden",
            Self::ForeignOrigin => "Origin is not allowed",
            Self::ScopeDenied => "Scope denied",
            Self::ServerDenied => "Server denied by policy",
            Self::ToolDenied => "Tool denied by policy",
            Self::ResourceDenied => "Resource denied by policy",
            Self::PromptDenied => "Prompt denied by policy",
            Self::StreamingDisabled => "Streaming is disabled",
            Self::ServerNotFound => "Server not found",
            Self::RouteNotFound => "No such route",
            Self::SessionNotFound => "No such session; initialize again",
            Self::MethodNotAllowed => "Method not allowed",
            Self::RequestTimeout => "The request took too long to arrive",
            Self::PayloadTooLarge => "Payload too large",
            Self::ResultTooLarge => "Result too large",
            Self::UriTooLong => "URI too long",
            Self::UnsupportedMediaType => "Unsupported media type",
            Self::RateLimited => "Too many requests",
            Self::HeadersTooLarge => "Request headers too large",
            Self::InternalError => "Internal server error",
            Self::UpstreamFailed => "The upstream failed",
            Self::Overloaded => "Overloaded, try again later",
            Self::LimitsUnavailable => "Rate limits cannot be checked",
            Self::AuditUnavailable => "The audit log cannot keep up",
            Self::Draining => "Shutting down",
            Self::UpstreamTimeout => "The upstream did not answer in time",
            Self::InvalidPayload => "Invalid payload",
            Self::IdempotencyConflict => "Idempotency key conflict",
            Self::AsyncUnavailable => "Async dispatch unavailable",
            Self::Parse(refusal) => match refusal {
                Refusal::EmptyBody => "Parse error: the body is empty",
                Refusal::NotJson => "Parse error: not a JSON document",
                Refusal::BadUtf8 => "Parse error: not UTF-8",
                Refusal::ByteOrderMark => "Parse error: byte order mark",
                Refusal::TrailingData => "Parse error: data after the document",
                Refusal::TooDeep => "Invalid request: more than 64 levels of nesting",
                Refusal::LoneSurrogate => "Invalid request: a string holds half a surrogate pair",
                Refusal::LossyNumber => "Invalid request: a number does not survive a double",
                Refusal::DuplicateKey => "Invalid request: a key stands twice in one object",
                Refusal::LookalikeKey => "Invalid request: a key only looks like a reserved one",
                Refusal::Batch => "Invalid request: batches are not supported",
                Refusal::NotAnObject => "Invalid request: not an object",
                Refusal::BadVersion => "Invalid request: jsonrpc must be \"2.0\"",
                Refusal::BadMethod => "Invalid request: method must be a string, spelled as the protocol spells it",
                Refusal::BadId => "Invalid request: id must be a string of at most 256 bytes or an integer",
            },
            Self::BadParams => "Invalid params: params must be an object",
            Self::NameMissing => "Invalid params: name is missing",
            Self::NameInvalid => "Invalid params: a name is 1 to 128 of A-Z a-z 0-9 _ . / : -",
            Self::UriInvalid => {
                "Invalid params: uri must be 1 to 2048 bytes without control characters or dot segments"
            }
            Self::BadArguments => "Invalid params: arguments must be an object",
            Self::HeaderMismatch => "Invalid request: an Mcp-* header contradicts the body",
            Self::MethodNotFound => "Method not found",
        }
    }

    /// Seconds after which a retry can help, where the reason itself knows.
    #[must_use]
    pub const fn default_retry_after_s(self) -> Option<u32> {
        match self {
            Self::Overloaded | Self::LimitsUnavailable | Self::AuditUnavailable | Self::Draining => Some(1),
            Self::UpstreamFailed | Self::UpstreamTimeout | Self::AsyncUnavailable => Some(2),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn codes_are_distinct() {
        let all = Reason::all();
        let codes: HashSet<_> = all.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes.len(), all.len());
    }
}
