//! Verbs that are clients of the API: where it is, who asks, and how its answers are shown.

pub(super) mod audit;
mod client;
pub(super) mod exception;
pub(super) mod group;
pub(super) mod inbox;
pub(super) mod learn;
mod noun;
pub(super) mod policy;
pub(super) mod profile;
pub(super) mod relationship;
pub(super) mod rule;
pub(super) mod suggestion;
mod shown;
pub(super) mod tag;
pub(super) mod vm;

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use clap::Args;
use serde_json::{Map, Value};

use super::units;
use crate::api::percent_encoded as encoded;
use crate::appliance::unix_nanoseconds;
use crate::export::iso8601;
use crate::filter::instant;

use client::Client;

/// Where the API is, and who asks.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "API")]
pub(super) struct Access {
    /// Of the API. Left out: $GNOMON_URL, or http://127.0.0.1:8443.
    #[arg(long, value_name = "URL", global = true)]
    url: Option<String>,
    /// Left out: $GNOMON_TOKEN, or what is in --token-file.
    #[arg(long, value_name = "TOKEN", global = true)]
    token: Option<String>,
    /// Left out: $GNOMON_TOKEN_FILE, or ~/.config/gnomon/token, where `gnomon token create --save` writes it.
    #[arg(long, value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
    /// Certificates of authorities that the API's certificate may be of (PEM). Left out: $GNOMON_CA, or the system's.
    #[arg(long, value_name = "FILE", global = true)]
    ca: Option<PathBuf>,
    /// Own certificate to show (PEM).
    #[arg(long, value_name = "FILE", requires = "key", global = true)]
    cert: Option<PathBuf>,
    /// Private key of --cert (PEM).
    #[arg(long, value_name = "FILE", requires = "cert", global = true)]
    key: Option<PathBuf>,
    /// Form of the output; JSON is what the API answered, a line for each item of a list.
    #[arg(short, long, value_name = "FORM", value_parser = ["table", "json"], default_value = "table", global = true)]
    output: String,
}

impl Access {
    pub(super) fn wants_json(&self) -> bool {
        self.output == "json"
    }
}

/// Where tokens of this user are kept.
pub(super) fn token_file() -> Option<PathBuf> {
    let of = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = of("XDG_CONFIG_HOME").or_else(|| of("HOME").map(|home| home.join(".config")));
    of("GNOMON_TOKEN_FILE").or_else(|| folder.map(|folder| folder.join("gnomon/token")))
}

/// What was given for a field on the command line, if anything.
struct Given(Option<Value>);

/// Lists that were not given are not meant to be empty; one that holds nothing but an empty word is.
impl<T: Clone + Into<Value>> From<&[T]> for Given {
    fn from(list: &[T]) -> Self {
        let values: Vec<Value> = list.iter().cloned().map(Into::into).collect();
        Self(match values.as_slice() {
            [] => None,
            [Value::String(only)] if only.is_empty() => Some(Value::Array(Vec::new())),
            _ => Some(Value::Array(values)),
        })
    }
}

impl From<Option<&String>> for Given {
    fn from(text: Option<&String>) -> Self {
        Self(text.map(|text| text.as_str().into()))
    }
}

impl From<Option<String>> for Given {
    fn from(text: Option<String>) -> Self {
        Self(text.map(Into::into))
    }
}

impl From<Option<u8>> for Given {
    fn from(number: Option<u8>) -> Self {
        Self(number.map(Into::into))
    }
}

impl From<Option<u32>> for Given {
    fn from(number: Option<u32>) -> Self {
        Self(number.map(Into::into))
    }
}

impl From<Option<u64>> for Given {
    fn from(number: Option<u64>) -> Self {
        Self(number.map(Into::into))
    }
}

impl From<Option<f64>> for Given {
    fn from(number: Option<f64>) -> Self {
        Self(number.map(Into::into))
    }
}

/// Fields of a body, without those that were not given.
fn given<const N: usize>(fields: [(&str, Given); N]) -> Map<String, Value> {
    fields.into_iter().filter_map(|(name, Given(value))| Some((name.to_owned(), value?))).collect()
}

/// A time in the future as the API takes it: `8h` from now, or a time itself.
fn until(text: &str) -> Result<String> {
    if let Some(at) = instant(text) {
        return Ok(iso8601(at));
    }
    let after = units::time(text).map_err(|_| anyhow!("`{text}` is not a time such as 8h or 2027-01-31T12:00:00Z"))?;
    Ok(iso8601(unix_nanoseconds().saturating_add(after.as_nanos() as u64)))
}
