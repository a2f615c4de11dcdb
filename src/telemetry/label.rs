//! The closed sets that label values come from.

macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Their texts, in the same order.
            pub const WORDS: &'static [&'static str] = &[$($text),*];

            /// The label's value.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

label! {
    /// How a streamed answer ended.
    StreamEnd {
        Complete = "complete",
        /// At `max_stream_seconds`.
        Deadline = "deadline",
        ClientGone = "client_gone",
        /// The client stopped reading.
        Stalled = "stalled",
        /// At the byte cap, or an event over its bound.
        TooLarge = "too_large",
        TokenExpired = "token_expired",
        /// The memory budget does not hold the event in progress.
        Overloaded = "overloaded",
        UpstreamFailed = "upstream_failed",
        Draining = "draining",
    }
}

label! {
    /// What an MCP upstream did wrong.
    UpstreamFailure {
        Connect = "connect",
        Timeout = "timeout",
        /// Closed before its answer was whole.
        Closed = "closed",
        /// Answered what is no valid answer.
        Garbage = "garbage",
        TooLarge = "too_large",
    }
}

label! {
    /// Where the rate limits are counted, or what happens while they cannot be.
    StoreMode {
        Memory = "memory",
        Redis = "redis",
        Local = "local",
        Deny = "deny",
        Allow = "allow",
    }
}

label! {
    /// The circuit breaker in front of the shared store.
    Breaker {
        Closed = "closed",
        /// Calls are held back, but for one probe each second.
        Open = "open",
    }
}

label! {
    /// Why a round trip to the shared store failed.
    StoreError {
        Timeout = "timeout",
        Connection = "connection",
        /// Read-only, or refusing writes because it cannot save or misses its replicas.
        ReadOnly = "read_only",
        OutOfMemory = "out_of_memory",
        Script = "script",
        Other = "other",
    }
}

label! {
    /// Why a downstream connection was refused.
    ConnectionRefusal {
        Limit = "limit",
        PerAddress = "per_address",
        /// Accepting it failed.
        Error = "error",
    }
}

label! {
    /// Which kind of audit line.
    AuditQueue {
        /// One decision.
        Decision = "decision",
        /// A denial before authentication.
        Denial = "denial",
        /// The repeats of such a denial within one second.
        Summary = "summary",
    }
}

label! {
    /// Why an audit line is missing.
    AuditDrop {
        /// A slot was given back without a record.
        Abandoned = "abandoned",
        /// A record came after the log was closed.
        Closed = "closed",
        /// Too many denials before authentication wait.
        DenialQueue = "denial_queue",
    }
}

label! {
    /// What the executor was asked for.
    ToolClass {
        /// `evo.content.*`
        Content = "content",
        /// `evo.model.*`
        Model = "model",
        /// A tool that is not served.
        Unknown = "unknown",
        /// Something else than a tool call.
        None = "none",
    }
}

label! {
    /// How a request to the executor ended.
    ExecutorOutcome {
        Ok = "ok",
        /// The arguments or the request were refused.
        Refused = "refused",
        /// By the executor's own look at the policy.
        Denied = "denied",
        /// No identity that the sidecar vouched for.
        Unauthenticated = "unauthenticated",
        /// The database or we failed.
        Failed = "failed",
        /// The caller left before the end.
        Abandoned = "abandoned",
    }
}

label! {
    /// What a connection of the database pool does.
    PoolState {
        InUse = "in_use",
        Idle = "idle",
    }
}

label! {
    /// How the database failed.
    DatabaseError {
        /// No connection became free in time.
        PoolTimeout = "pool_timeout",
        /// It cannot be reached or broke off.
        Connection = "connection",
        /// It refused or could not finish a statement.
        Statement = "statement",
    }
}

label! {
    /// What became of a dispatched call.
    Submission {
        Accepted = "accepted",
        /// It came before.
        Reused = "reused",
        /// Answered at once, for want of a queue.
        Sync = "sync",
        /// Its key was another request's.
        Conflict = "conflict",
        /// Neither queue nor failover.
        Unavailable = "unavailable",
    }
}

label! {
    /// How a task's run ended.
    RunOutcome {
        Finished = "finished",
        /// The infrastructure failed too often.
        Failed = "failed",
        /// The infrastructure failed, or the worker was stopped; it will run again.
        Again = "again",
        /// The policy of the day denies it.
        Denied = "denied",
        /// Its row is not as it was made here.
        Forged = "forged",
        /// The lease ended first, or the task was cancelled.
        Lost = "lost",
    }
}

label! {
    /// The states of a task, in sTask's words.
    TaskStatus {
        Pending = "pending",
        Preparing = "preparing",
        Running = "running",
        Completed = "completed",
        Failed = "failed",
    }
}
