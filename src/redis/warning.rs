use super::Connection;

/// What an operator should know about this Redis before relying on it: one sentence each, without secrets.
///
/// Meant for start-up and `check --connect`; waits up to a second. Never fails: a Redis that cannot be asked is
/// itself a warning.
pub async fn warnings(connection: &Connection) -> Vec<String> {
    match connection.info("memory").await {
        Ok(info) => eviction(&info).into_iter().collect(),
        Err(_) => vec![
            "redis does not answer, or may not be asked for INFO memory; cannot tell whether it evicts keys".to_owned(),
        ],
    }
}

/// A counter that is evicted gives its caller a fresh window: an evicting Redis weakens limits silently.
pub(in crate::redis) fn eviction(info: &str) -> Option<String> {
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let policy = field("maxmemory_policy")?;
    let bounded = field("maxmemory").is_none_or(|bytes| bytes != "0");
    (bounded && policy != "noeviction").then(|| {
        format!(
            "redis may evict rate limit counters (maxmemory-policy {}); an evicted counter starts a new window, set \
             noeviction",
            policy.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(32).collect::<String>()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_redis_that_may_evict_is_warned_about() {
        let cases = [
            ("maxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n", false),
            ("maxmemory:1048576\r\nmaxmemory_policy:noeviction\r\n", false),
            ("maxmemory:1048576\r\nmaxmemory_policy:allkeys-lru\r\n", true),
            ("maxmemory:1048576\r\nmaxmemory_policy:volatile-ttl\r\n", true),
            ("maxmemory_policy:allkeys-lfu\r\n", true),
            ("# Memory\r\n", false),
        ];
        for (info, expected) in cases {
            assert_eq!(eviction(info).is_some(), expected, "{info:?}");
        }
    }
}
