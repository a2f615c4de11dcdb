//! A slow reader of another make: serde's event stream, with every object's keys compared one by one.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Every)
    }
}

struct Every;

impl<'de> Visitor<'de> for Every {
    type Value = Unique;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_unit<E: Error>(self) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Unique, A::Error> {
        while elements.next_element::<Unique>()?.is_some() {}
        Ok(Unique)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Unique, A::Error> {
        let mut keys: Vec<String> = Vec::new();
        while let Some((key, Unique)) = members.next_entry::<String, Unique>()? {
            if keys.contains(&key) {
                return Err(A::Error::custom("a doubled key"));
            }
            keys.push(key);
        }
        Ok(Unique)
    }
}

/// Whether no object of the document, at any depth, holds a key twice. False also for what is no JSON.
pub(super) fn keys_are_unique(body: &[u8]) -> bool {
    serde_json::from_slice::<Unique>(body).is_ok() && serde_json::from_slice::<IgnoredAny>(body).is_ok()
}
