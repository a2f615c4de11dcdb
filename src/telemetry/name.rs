//! Every metric there is: the one list that the registry and docs/METRICS.md are held against.

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    /// The word of the exposition format.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

macro_rules! names {
    ($($variant:ident $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        /// The name of a metric.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Name {
            $(#[doc = $help] $variant,)*
        }

        impl Name {
            /// Every metric, in the order of docs/METRICS.md.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => concat!("mcp_sidecar_", $name),)* }
            }

            /// Counter, gauge or histogram.
            #[must_use]
            pub const fn kind(self) -> Kind {
                match self { $(Self::$variant => Kind::$kind,)* }
            }

            /// Names of its labels; their values come from closed sets.
            #[must_use]
            pub const fn labels(self) -> &'static [&'static str] {
                match self { $(Self::$variant => &[$($label),*],)* }
            }

            /// The `# HELP` text.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)* }
            }
        }
    };
}

names! {
    Requests Counter "requests_total" ["server", "method", "decision", "code"] "MCP requests by what was decided; code is ok or the stable reason.";
    Refusals Counter "refusals_total" ["code"] "Requests refused before they were anybody's: bad, or on a reserved path.";
    RequestDuration Histogram "request_duration_seconds" [] "Whole time of a request that was no stream, first byte to last.";
    UpstreamDuration Histogram "upstream_duration_seconds" [] "The upstream's share of it.";
    OwnDuration Histogram "own_duration_seconds" [] "Our share of it: whole less upstream.";
    StreamDuration Histogram "stream_duration_seconds" [] "Whole time of a streamed answer.";
    StreamsOpen Gauge "streams_open" [] "Streamed answers open now.";
    Streams Counter "streams_total" [] "Streamed answers begun.";
    StreamHeartbeats Counter "stream_heartbeats_total" [] "Comments sent into silent streams.";
    StreamEnds Counter "stream_ends_total" ["how"] "How streams ended: complete, aborts, cuts.";
    CmsRequests Counter "cms_requests_total" ["status"] "Requests for the CMS by class of status; none where no answer was begun.";
    UpstreamFailures Counter "upstream_failures_total" ["server", "kind"] "Failures of an MCP upstream, not of ours.";
    InternalErrors Counter "internal_errors_total" [] "Failures of our own.";
    RequestsInFlight Gauge "requests_in_flight" [] "Requests being served now, streams and CMS requests included.";
    ConnectionsOpen Gauge "connections_open" [] "Downstream connections open now.";
    Connections Counter "connections_total" [] "Downstream connections accepted.";
    ConnectionsLimit Gauge "connections_limit" [] "How many may be open: runtime.max_connections.";
    ConnectionsRefused Counter "connections_refused_total" ["why"] "Downstream connections refused.";
    InFlightBytes Gauge "in_flight_bytes" [] "Bytes of buffered bodies, all requests together.";
    InFlightLimit Gauge "in_flight_limit_bytes" [] "How many they may be: memory.in_flight_mb.";
    AccessLogDropped Counter "access_log_dropped_total" [] "Access log lines lost to a full queue.";
    LimitsMode Gauge "limits_store_mode" ["mode"] "1 for the mode the rate limits run in, 0 for the others.";
    LimitsBreaker Gauge "limits_breaker_state" ["state"] "1 for the state of the store's circuit breaker.";
    LimitsOpenings Counter "limits_breaker_openings_total" [] "How often that breaker opened.";
    LimitsFallbacks Counter "limits_fallbacks_total" [] "Requests that rate_limit.on_store_failure decided, because the store could not.";
    LimitsBuckets Gauge "limits_buckets" [] "Windows counted in this process.";
    LimitsDuration Histogram "limits_store_duration_seconds" [] "One round trip to the store of rate limits.";
    LimitsErrors Counter "limits_store_errors_total" ["kind"] "Failed round trips to that store.";
    AuditQueue Gauge "audit_queue_length" [] "Records that wait to be written.";
    AuditLag Gauge "audit_lag_seconds" [] "Age of the oldest record when its group was last written, or now while it cannot be.";
    AuditRecords Counter "audit_records_total" ["queue"] "Lines written.";
    AuditDropped Counter "audit_dropped_total" ["why"] "Records lost or slots given back unwritten.";
    AuditWriteErrors Counter "audit_write_errors_total" [] "Failed attempts to write or to open the file.";
    AuditDiskFree Gauge "audit_disk_free_bytes" [] "Bytes free where the audit file is.";
    PolicyRevision Gauge "policy_revision" [] "Revision of the policy in force.";
    PolicyInfo Gauge "policy_info" ["digest"] "1 for the digest of the policy in force.";
    PolicySuccess Gauge "policy_last_success_timestamp_seconds" [] "When a policy was last loaded, Unix time.";
    PolicyReloads Counter "policy_reloads_total" [] "Reloads that took effect.";
    PolicyFailures Counter "policy_reload_failures_total" [] "Reloads that were refused; the old policy stayed.";
    PolicyLooser Counter "policy_looser_reloads_total" [] "Reloads that loosened something.";
    PolicyMismatch Counter "policy_revision_mismatches_total" [] "Requests that the executor judged under another policy than the sidecar.";
    TokenCacheHits Counter "token_cache_hits_total" [] "Tokens found verified.";
    TokenCacheMisses Counter "token_cache_misses_total" [] "Tokens that had to be verified.";
    TokenCacheSize Gauge "token_cache_entries" [] "Verified tokens kept.";
    ExecutorRequests Counter "executor_requests_total" ["tool", "outcome"] "Requests to the executor by class of tool and how they ended.";
    ExecutorDuration Histogram "executor_request_duration_seconds" [] "Time from a request to its answer; for a stream, to its last event.";
    ExecutorConnections Gauge "executor_database_connections" ["state"] "Connections of the database pool.";
    ExecutorConnectionsLimit Gauge "executor_database_connections_limit" [] "How many it may hold: database.max_connections.";
    ExecutorStatements Counter "executor_database_statements_total" [] "Statements started.";
    ExecutorErrors Counter "executor_database_errors_total" ["kind"] "Failures of the database.";
    QueueSubmissions Counter "queue_submissions_total" ["outcome"] "Dispatched calls by what became of them.";
    QueueRuns Counter "queue_runs_total" ["outcome"] "Runs of tasks by how they ended.";
    QueueTasks Gauge "queue_tasks" ["state"] "Tasks in the queue.";
    QueueOldest Gauge "queue_oldest_wait_seconds" [] "For how long the task that waits longest has been due without a worker.";
    ResidentMemory Gauge "resident_memory_bytes" [] "Memory of the process that is in RAM.";
    OpenFds Gauge "open_fds" [] "Open file descriptors of the process.";
    MaxFds Gauge "max_fds" [] "How many it may open.";
    Draining Gauge "draining" [] "1 while the process takes no new work.";
    BuildInfo Gauge "build_info" ["version"] "1 for the version that runs.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_lists_each_metric_once_with_its_type_and_labels() {
        let page = include_str!("../../docs/METRICS.md");
        let rows: Vec<(String, String, String)> = page
            .lines()
            .filter(|line| line.starts_with("| `mcp_sidecar_"))
            .map(|line| {
                let mut cells = line.split('|').skip(1).map(|cell| cell.trim().replace('`', ""));
                let mut cell = || cells.next().unwrap_or_default();
                (cell(), cell(), cell())
            })
            .collect();
        let names: Vec<(String, String, String)> = Name::ALL
            .iter()
            .map(|name| (name.as_str().to_owned(), name.kind().as_str().to_owned(), name.labels().join(", ")))
            .collect();
        assert_eq!(rows, names);
    }
}
