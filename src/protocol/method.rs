use std::fmt;

/// The MCP methods that this project knows by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Method {
    Initialize,
    Ping,
    ToolsList,
    ToolsCall,
    ResourcesList,
    ResourcesRead,
    ResourceTemplatesList,
    ResourcesSubscribe,
    ResourcesUnsubscribe,
    PromptsList,
    PromptsGet,
    CompletionComplete,
    LoggingSetLevel,
    ServerDiscover,
    NotificationsInitialized,
    NotificationsCancelled,
    NotificationsProgress,
    NotificationsRootsListChanged,
}

impl Method {
    /// Every known method.
    pub const ALL: [Self; 18] = [
        Self::Initialize,
        Self::Ping,
        Self::ToolsList,
        Self::ToolsCall,
        Self::ResourcesList,
        Self::ResourcesRead,
        Self::ResourceTemplatesList,
        Self::ResourcesSubscribe,
        Self::ResourcesUnsubscribe,
        Self::PromptsList,
        Self::PromptsGet,
        Self::CompletionComplete,
        Self::LoggingSetLevel,
        Self::ServerDiscover,
        Self::NotificationsInitialized,
        Self::NotificationsCancelled,
        Self::NotificationsProgress,
        Self::NotificationsRootsListChanged,
    ];

    /// The method's name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Initialize => "initialize",
            Self::Ping => "ping",
            Self::ToolsList => "tools/list",
            Self::ToolsCall => "tools/call",
            Self::ResourcesList => "resources/list",
            Self::ResourcesRead => "resources/read",
            Self::ResourceTemplatesList => "resources/templates/list",
            Self::ResourcesSubscribe => "resources/subscribe",
            Self::ResourcesUnsubscribe => "resources/unsubscribe",
            Self::PromptsList => "prompts/list",
            Self::PromptsGet => "prompts/get",
            Self::CompletionComplete => "completion/complete",
            Self::LoggingSetLevel => "logging/setLevel",
            Self::ServerDiscover => "server/discover",
            Self::NotificationsInitialized => "notifications/initialized",
            Self::NotificationsCancelled => "notifications/cancelled",
            Self::NotificationsProgress => "notifications/progress",
            Self::NotificationsRootsListChanged => "notifications/roots/list_changed",
        }
    }

    /// The known method of this exact name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.as_str() == name)
    }

    /// Whether some reader might take `name` for a known method although it is none: another case, blanks or
    /// controls around or in it, doubled or other separators. Letters beyond ASCII make it one, too, since readers
    /// fold them in ways of their own.
    #[must_use]
    pub fn is_lookalike(name: &str) -> bool {
        if Self::from_name(name).is_some() {
            return false;
        }
        if !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return true;
        }
        Self::ALL.into_iter().any(|method| letters(name).eq(letters(method.as_str())))
    }
}

fn letters(name: &str) -> impl Iterator<Item = u8> {
    name.bytes().filter(u8::is_ascii_alphanumeric).map(|byte| byte.to_ascii_lowercase())
}

/// A method as far as keys and labels may tell methods apart: a closed set, so that a client cannot mint buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MethodClass {
    /// One of the known methods.
    Known(Method),
    /// A well-formed request with any other method.
    Other,
    /// No method could be read: the body is too large, of another type or unparsable.
    Unknown,
}

impl MethodClass {
    /// The class of a method name.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Method::from_name(name).map_or(Self::Other, Self::Known)
    }

    /// The word used in keys, labels and audit lines.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Known(method) => method.as_str(),
            Self::Other => "other",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for MethodClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
