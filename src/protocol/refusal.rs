use crate::protocol::Id;

/// Why the strict reading refused a body. Each has a stable code (`error.data.code`) and a JSON-RPC error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// No bytes, or blanks only.
    EmptyBody,
    /// Not one JSON document (syntax, `NaN`, truncated, control characters in strings).
    NotJson,
    /// Bytes that are not UTF-8.
    BadUtf8,
    /// A byte order mark at the start.
    ByteOrderMark,
    /// Something follows the document.
    TrailingData,
    /// More than 64 levels of nesting.
    TooDeep,
    /// An escape that stands for half a surrogate pair.
    LoneSurrogate,
    /// A number that does not survive a double: overflow, a nonzero literal that becomes 0, or an integer beyond
    /// ±(2⁵³−1) written without fraction and exponent. Rounding of decimals is accepted.
    LossyNumber,
    /// The same key twice in one object, after unescaping.
    DuplicateKey,
    /// A key that equals a reserved key of the envelope, `params` or `_meta` only after case folding, cutting at a NUL
    /// or trimming blanks.
    LookalikeKey,
    /// An array as the document.
    Batch,
    /// A scalar or `null` as the document.
    NotAnObject,
    /// `jsonrpc` is missing or not "2.0".
    BadVersion,
    /// `method` is missing or not a string, or stands beside a `result` or `error`.
    BadMethod,
    /// `id` is neither a short string, nor an integer within range, nor `null`.
    BadId,
}

impl Refusal {
    /// Every refusal.
    pub const ALL: [Self; 15] = [
        Self::EmptyBody,
        Self::NotJson,
        Self::BadUtf8,
        Self::ByteOrderMark,
        Self::TrailingData,
        Self::TooDeep,
        Self::LoneSurrogate,
        Self::LossyNumber,
        Self::DuplicateKey,
        Self::LookalikeKey,
        Self::Batch,
        Self::NotAnObject,
        Self::BadVersion,
        Self::BadMethod,
        Self::BadId,
    ];

    /// The stable code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::EmptyBody => "empty_body",
            Self::NotJson => "not_json",
            Self::BadUtf8 => "bad_utf8",
            Self::ByteOrderMark => "byte_order_mark",
            Self::TrailingData => "trailing_data",
            Self::TooDeep => "too_deep",
            Self::LoneSurrogate => "lone_surrogate",
            Self::LossyNumber => "lossy_number",
            Self::DuplicateKey => "duplicate_key",
            Self::LookalikeKey => "lookalike_key",
            Self::Batch => "batch",
            Self::NotAnObject => "not_an_object",
            Self::BadVersion => "bad_version",
            Self::BadMethod => "bad_method",
            Self::BadId => "bad_id",
        }
    }

    /// -32700 for what is not one UTF-8 JSON document, -32600 for a document that is ambiguous or no request.
    #[must_use]
    pub const fn rpc_code(self) -> i32 {
        match self {
            Self::EmptyBody | Self::NotJson | Self::BadUtf8 | Self::ByteOrderMark | Self::TrailingData => -32700,
            _ => -32600,
        }
    }
}

/// A refused body, with the id to answer to where one could be read unambiguously.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused<'a> {
    /// Why.
    pub refusal: Refusal,
    /// [`Id::Absent`] when none could be told.
    pub id: Id<'a>,
}
