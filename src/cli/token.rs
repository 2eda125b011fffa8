//! `gnomon token`: who may use the API. Works on the store itself: whoever may write that file may make tokens.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::builder::PossibleValue;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::live::user;
use super::remote::token_file;
use super::report::table;
use super::units;
use crate::api::{Role, new_token, token_digest};
use crate::appliance::{store_path, unix_nanoseconds};
use crate::config::{self, Config};
use crate::export::iso8601;
use crate::store::{NewAudit, Store, StoredToken};

const EXAMPLES: &str = "\
Examples:
  gnomon token create anna --role admin --save       and keep it where the other verbs look for it
  gnomon token create grafana --role viewer --expires 90d
  gnomon token list
  gnomon token revoke grafana";

/// Who may use the API: make, list and revoke tokens. They are in the store; only their digests are.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct TokenArgs {
    #[command(subcommand)]
    verb: TokenVerb,
}

#[derive(Debug, Subcommand)]
enum TokenVerb {
    /// Make a token and print it, once.
    Create {
        /// For the audit log: who, or what program, has it.
        name: String,
        /// viewer reads; operator changes drafts and answers the inbox; admin commits, rolls back, begins and ends learning, answers suggestions.
        #[arg(short, long)]
        role: Role,
        /// After how long it is not valid any more, such as 90d. Left out: never.
        #[arg(long, value_name = "TIME", value_parser = units::time)]
        expires: Option<Duration>,
        /// Write it to the file where `gnomon vm` and the like look for it, instead of printing it.
        #[arg(long)]
        save: bool,
        #[command(flatten)]
        place: StorePlace,
    },
    /// All tokens by name.
    List {
        #[command(flatten)]
        place: StorePlace,
        /// Form of the output; JSON is a line for each token.
        #[arg(short, long, value_name = "FORM", value_parser = ["table", "json"], default_value = "table")]
        output: String,
    },
    /// Make a token worthless, within a second.
    Revoke {
        name: String,
        #[command(flatten)]
        place: StorePlace,
    },
}

/// Which store is meant; without either that of a configuration that names none.
#[derive(Debug, Args)]
pub(super) struct StorePlace {
    /// The store.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    store: Option<PathBuf>,
    /// The configuration that names it.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ValueEnum for Role {
    fn value_variants<'a>() -> &'a [Self] {
        &Role::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

impl StorePlace {
    pub(super) fn path(&self) -> Result<PathBuf> {
        if let Some(path) = &self.store {
            return Ok(path.clone());
        }
        let config = self.config.as_deref().map_or_else(|| Ok(Config::default_pair()), config::load)?;
        if !config.store.enabled {
            bail!("[store] enabled = false: there is no place for tokens");
        }
        Ok(store_path(&config))
    }
}

pub(super) fn run(args: &TokenArgs) -> Result<ExitCode> {
    match &args.verb {
        TokenVerb::Create { name, role, expires, save, place } => create(name, *role, *expires, *save, place)?,
        TokenVerb::List { place, output } => list(place, output == "json")?,
        TokenVerb::Revoke { name, place } => {
            let store = Store::open_existing(&place.path()?)?;
            store.revoke_token(name)?;
            note(&store, "revoke token", name, "")?;
            writeln!(std::io::stderr(), "token `{name}` is revoked; a running gnomon knows within a second")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn create(name: &str, role: Role, expires: Option<Duration>, save: bool, place: &StorePlace) -> Result<()> {
    if name.is_empty() || name.len() > 64 || name.chars().any(|letter| letter.is_control() || letter.is_whitespace()) {
        bail!("`{name}` is not a name for a token: 1 to 64 characters without spaces");
    }
    let store = Store::open(&place.path()?)?;
    let token = new_token().map_err(|_| anyhow!("the operating system gives no random numbers"))?;
    let now = unix_nanoseconds();
    let expires = expires.map(|after| now.saturating_add(after.as_nanos() as u64));
    let digest = token_digest(&token);
    store.add_token(&StoredToken { name: name.to_owned(), role, digest, created: now, expires, last_used: None })?;
    note(&store, "create token", name, role.name())?;
    let until = expires.map_or(String::new(), |at| format!(", until {}", shown(Some(at))));
    let what = format!("token `{name}`, {}{until}, in {}", role.name(), store.path().display());
    if save {
        let path = token_file().context("no place for it: neither XDG_CONFIG_HOME nor HOME is set")?;
        keep(&path, &token).with_context(|| format!("writing {}; the token is {token}", path.display()))?;
        writeln!(std::io::stderr(), "{what}; written to {}", path.display())?;
        return Ok(());
    }
    writeln!(std::io::stderr(), "{what}; it is shown this once:")?;
    writeln!(std::io::stdout(), "{token}")?;
    Ok(())
}

/// Who made or revoked a token stands in the audit log, as everything else does.
fn note(store: &Store, action: &str, name: &str, detail: &str) -> Result<()> {
    let row = NewAudit {
        at: unix_nanoseconds(),
        who: user(),
        role: "owner of the store".to_owned(),
        action: action.to_owned(),
        object: name.to_owned(),
        detail: detail.to_owned(),
    };
    Ok(store.audit(&row)?)
}

/// Only its owner may read it, from the beginning.
fn keep(path: &std::path::Path, token: &str) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    if let Some(folder) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{token}")
}

fn list(place: &StorePlace, as_json: bool) -> Result<()> {
    let tokens = Store::open_existing(&place.path()?)?.tokens()?;
    let mut out = std::io::stdout().lock();
    let iso = |at: Option<u64>| at.map(iso8601);
    if as_json {
        for StoredToken { name, role, created, expires, last_used, .. } in tokens {
            let (created, expires, last_used) = (iso8601(created), iso(expires), iso(last_used));
            let line =
                json!({ "name": name, "role": role, "created": created, "expires": expires, "last_used": last_used });
            writeln!(out, "{line}")?;
        }
        return Ok(());
    }
    let mut rows = table(&["name", "role", "created", "expires", "last used"]);
    for token in &tokens {
        let never = |at| if at == Some(0) { String::new() } else { shown(at) };
        let expired = if token.is_valid(unix_nanoseconds()) { "" } else { ", expired" };
        rows.add_row([
            token.name.clone(),
            format!("{}{expired}", token.role.name()),
            shown(Some(token.created)),
            token.expires.map_or("never".to_owned(), |at| shown(Some(at))),
            never(token.last_used.or(Some(0))),
        ]);
    }
    match tokens.is_empty() {
        true => writeln!(out, "no tokens")?,
        false => writeln!(out, "{rows}")?,
    }
    Ok(())
}

/// To the second.
fn shown(at: Option<u64>) -> String {
    let text = at.map(iso8601).unwrap_or_default();
    text.get(..19).unwrap_or(&text).replace('T', " ")
}
