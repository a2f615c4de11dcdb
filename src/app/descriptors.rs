use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard one, as a server that uses no `select` may, and says so when
/// even that is less than the connections that are configured.
pub fn raise(max_connections: usize) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // Refused where the hard limit is beyond what the kernel allows; what there is must do then.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    let files = getrlimit(Resource::Nofile).current;
    if let Some(files) = files.filter(|files| *files < max_connections as u64) {
        tracing::warn!(
            files,
            connections = max_connections,
            "this process may open fewer files than runtime.max_connections: raise its limit (LimitNOFILE, ulimit -n)"
        );
    }
}
