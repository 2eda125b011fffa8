//! Times in files and answers: nanoseconds since the Unix epoch here, ISO 8601 there.

use serde::{Deserialize, Deserializer, Serializer, de::Error};

pub(super) fn serialize<S: Serializer>(time: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&crate::export::iso8601(*time))
}

pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<u64, D::Error> {
    let text = String::deserialize(from)?;
    read(&text).map_err(D::Error::custom)
}

fn read(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a time; write it like 2026-01-31T12:00:00Z");
    crate::filter::instant(text).ok_or_else(wrong)
}

/// Of a time that may be missing.
pub(super) mod maybe {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(in crate::policy) fn serialize<S: Serializer>(time: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => super::serialize(time, to),
            None => to.serialize_none(),
        }
    }

    pub(in crate::policy) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Option<u64>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| super::read(&text).map_err(D::Error::custom)).transpose()
    }
}
