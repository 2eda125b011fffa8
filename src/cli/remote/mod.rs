//! Verbs that are clients of the API: where it is, who asks, and how its answers are shown.

mod client;

use std::path::PathBuf;

use clap::Args;

pub(super) use client::{Client, Reply, encoded};

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
