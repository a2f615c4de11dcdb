use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use ::redis::Value;

use super::{Store, Verdict, length_ms, retry_after_s, share_principal};
use crate::base::Digest;
use crate::policy::{Charge, RateKey, Window};
use crate::redis::{Call, Connection, Probe, Script, Settings, Stats, Trouble};

/// Windows counted in Redis, shared exactly by all who use the same Redis and prefix.
///
/// A key is `prefix:{principal}:server:method:kind`, kind being `f60` for a window of 60 s from its first hit and
/// `a60` for an aligned one. The braces are the hash tag of Redis Cluster: one request's keys share a slot.
#[derive(Debug)]
pub struct RedisStore {
    connection: Connection,
    /// Up to and with the brace that opens the hash tag.
    prefix: String,
    script: Script,
}

impl RedisStore {
    /// A store that counts over `connection`.
    #[must_use]
    pub fn new(connection: Connection, settings: &Settings) -> Self {
        // A brace in the prefix would become the hash tag, and put every key there is into one slot.
        let prefix = format!("{}:{{", settings.prefix.replace(['{', '}'], "_"));
        Self { connection, prefix, script: Script::new(include_str!("redis.lua")) }
    }

    /// Connects the calling thread ahead of its first charge, as far as that is possible now.
    pub async fn connect(&self) {
        let _ = self.connection.connect().await;
    }

    /// Whether the breaker holds calls back.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.connection.is_open()
    }

    /// Takes a charge that nobody has, to see whether Redis counts: it fails like a request's own.
    pub async fn probe(&self) -> bool {
        let key = RateKey { principal: Digest([0; 16]), server: "probe".into(), method: None };
        let charge = Charge { key, limit: u32::MAX, window: Window::FromFirstHit { seconds: 1 } };
        self.reserve(&[charge], 0).await == Verdict::Admitted
    }

    /// What the connection did so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.connection.stats()
    }

    /// Runs the script over a connection made to try things out, on keys that no caller has; how long that took.
    ///
    /// # Errors
    /// Why Redis does not run it.
    pub async fn trial(&self, probe: &mut Probe) -> Result<Duration, Trouble> {
        let principal = Digest::of(&[b"", b"trial"]);
        let charge = |server, window| Charge {
            key: RateKey { principal, server: Arc::from(server), method: None },
            limit: u32::MAX,
            window,
        };
        let seconds = 1;
        let charges = [charge("trial", Window::FromFirstHit { seconds }), charge("trial", Window::Aligned { seconds })];
        probe.run(&self.call(&charges)).await
    }

    fn call(&self, charges: &[Charge]) -> Call<'_> {
        let mut call = self.script.call(charges.len());
        let mut key = String::with_capacity(self.prefix.len() + 96);
        for charge in charges {
            self.write_key(&mut key, charge);
            call.arg(key.as_str());
        }
        for charge in charges {
            let kind = if matches!(charge.window, Window::Aligned { .. }) { "a" } else { "f" };
            call.arg(charge.limit).arg(length_ms(charge.window)).arg(kind);
        }
        call
    }

    fn write_key(&self, key: &mut String, charge: &Charge) {
        key.clear();
        key.push_str(&self.prefix);
        for byte in charge.key.principal.0 {
            key.extend([byte >> 4, byte & 15].map(|nibble| char::from_digit(nibble.into(), 16).unwrap_or('0')));
        }
        key.push_str("}:");
        key.push_str(&charge.key.server);
        key.push(':');
        key.push_str(charge.key.method.as_ref().map_or("*", |method| method.as_str()));
        let kind = if matches!(charge.window, Window::Aligned { .. }) { 'a' } else { 'f' };
        // Writing to a string cannot fail.
        let _ = write!(key, ":{kind}{}", length_ms(charge.window) / 1_000);
    }
}

impl Store for RedisStore {
    async fn reserve(&self, charges: &[Charge], _now_ms: u64) -> Verdict {
        if charges.is_empty() {
            return Verdict::Admitted;
        }
        if !share_principal(charges) {
            return Verdict::Unavailable;
        }
        self.connection
            .run(&self.call(charges))
            .await
            .map_or(Verdict::Unavailable, |answer| verdict(&answer, charges.len()))
    }
}

/// Reads the script's answer; one that it cannot have given admits nobody.
fn verdict(answer: &Value, charges: usize) -> Verdict {
    match answer {
        Value::Int(0) => Verdict::Admitted,
        Value::Array(parts) => match parts[..] {
            [Value::Int(index), Value::Int(left_ms)] => match (usize::try_from(index), u64::try_from(left_ms)) {
                (Ok(charge), Ok(left_ms)) if charge < charges => {
                    Verdict::Refused { retry_after_s: retry_after_s(left_ms), charge }
                }
                _ => Verdict::Unavailable,
            },
            _ => Verdict::Unavailable,
        },
        _ => Verdict::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::Secret;

    #[test]
    fn keys_carry_the_principal_as_their_hash_tag() {
        let url = Secret::new("redis://localhost");
        let settings = Settings { url, timeout: Duration::from_millis(25), prefix: "a{b}c".into() };
        let store = RedisStore::new(Connection::open(&settings).expect("valid"), &settings);
        let key = RateKey { principal: Digest([0xa5; 16]), server: "content".into(), method: None };
        let mut text = String::new();
        for (window, kind) in [(Window::FromFirstHit { seconds: 60 }, "f60"), (Window::Aligned { seconds: 5 }, "a5")] {
            store.write_key(&mut text, &Charge { key: key.clone(), limit: 7, window });
            assert_eq!(text, format!("a_b_c:{{{}}}:content:*:{kind}", "a5".repeat(16)));
        }
    }

    #[test]
    fn an_answer_that_makes_no_sense_admits_nobody() {
        let array = |parts: &[i64]| Value::Array(parts.iter().map(|part| Value::Int(*part)).collect());
        let refused = |retry_after_s, charge| Verdict::Refused { retry_after_s, charge };
        let cases = [
            (Value::Int(0), Verdict::Admitted),
            (Value::Int(1), Verdict::Unavailable),
            (Value::Nil, Verdict::Unavailable),
            (array(&[0, 0]), refused(1, 0)),
            (array(&[1, 59_001]), refused(60, 1)),
            (array(&[2, 5]), Verdict::Unavailable),
            (array(&[-1, 5]), Verdict::Unavailable),
            (array(&[0, -1]), Verdict::Unavailable),
            (array(&[0]), Verdict::Unavailable),
        ];
        for (answer, expected) in cases {
            assert_eq!(verdict(&answer, 2), expected, "{answer:?}");
        }
    }
}
