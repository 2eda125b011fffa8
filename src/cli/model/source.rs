//! Who is asked about models: a running appliance, or a file.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::Common;
use crate::appliance::{load_model, store_path, unix_nanoseconds};
use crate::config::{self, Config};
use crate::control::{Client, ClientError};
use crate::store::{State, Store};

/// Where the answer comes from.
pub(super) enum Source {
    Running(Box<Client>),
    File(Store),
}

impl Source {
    /// The file that was named; else the running appliance; else, with a configuration, the file that it names.
    pub(super) fn find(common: &Common, changes: bool) -> Result<Self> {
        if let Some(path) = &common.store {
            return Ok(Self::File(Store::open_existing(path)?));
        }
        let error = match common.appliance.connect() {
            Ok(client) => return Ok(Self::Running(Box::new(client))),
            Err(error) => error,
        };
        let nobody = matches!(error.downcast_ref(), Some(ClientError::NotRunning { .. } | ClientError::NoPlace(_)));
        let path = file(common)?;
        if nobody && path.exists() {
            if changes {
                log::info!("no appliance runs: {} is changed", path.display());
            }
            return Ok(Self::File(Store::open_existing(&path)?));
        }
        Err(error.context("no running appliance, and no --store FILE"))
    }

    pub(super) fn list(&mut self) -> Result<Vec<Value>> {
        match self {
            Self::Running(client) => Ok(client.ask_all(&json!({ "verb": "models" }))?),
            Self::File(store) => store.models()?.iter().map(|model| Ok(serde_json::to_value(model)?)).collect(),
        }
    }

    pub(super) fn show(&mut self, id: i64) -> Result<Vec<Value>> {
        match self {
            Self::Running(client) => Ok(client.ask_all(&json!({ "verb": "model_show", "id": id }))?),
            Self::File(store) => {
                let mut model = serde_json::to_value(store.model(id)?)?;
                model["history"] = serde_json::to_value(store.model_events(id)?)?;
                // Whether it can be used at all.
                model["usable"] = match load_model(store, id) {
                    Ok(_) => Value::Bool(true),
                    Err(error) => Value::String(format!("{error:#}")),
                };
                Ok(vec![model])
            }
        }
    }

    /// Promotes or rejects.
    pub(super) fn decide(&mut self, verb: &str, id: i64, who: &str, reason: &str) -> Result<Vec<Value>> {
        let store = match self {
            Self::Running(client) => {
                return Ok(client.ask_all(&json!({ "verb": verb, "id": id, "who": who, "reason": reason }))?);
            }
            Self::File(store) => store,
        };
        let now = unix_nanoseconds();
        if verb == "model_promote" {
            let (about, _) = load_model(store, id)?;
            store.set_model_state(id, State::Active, now, who, reason)?;
            return Ok(vec![json!({ "active": id, "scope": about.scope, "file": store.path() })]);
        }
        if store.model(id)?.state == State::Active {
            bail!("model {id} is active: `gnomon model rollback` puts the one before it in its place");
        }
        store.set_model_state(id, State::Rejected, now, who, reason)?;
        Ok(vec![json!({ "rejected": id })])
    }

    pub(super) fn roll_back(&mut self, scope: &str, who: &str, reason: &str) -> Result<Vec<Value>> {
        match self {
            Self::Running(client) => {
                let request = json!({ "verb": "model_rollback", "scope": scope, "who": who, "reason": reason });
                Ok(client.ask_all(&request)?)
            }
            Self::File(store) => {
                let active = store.models_in(State::Active)?.into_iter().find(|model| model.scope == scope);
                if let Some(former) = active.and_then(|model| model.replaces) {
                    load_model(store, former)?;
                }
                let id = store.roll_model_back(scope, unix_nanoseconds(), who, reason)?;
                Ok(vec![json!({ "active": id, "scope": scope, "file": store.path() })])
            }
        }
    }
}

/// What only a running appliance can do.
pub(super) fn ask_running(common: &Common, request: &Value, what: &str) -> Result<Vec<Value>> {
    if common.store.is_some() {
        bail!("{what} needs a running appliance: leave out --store, or say --on FILE");
    }
    let mut client = common.appliance.connect().with_context(|| format!("{what} needs a running appliance"))?;
    Ok(client.ask_all(request)?)
}

/// The configuration that was named, or one without a word.
pub(super) fn configuration(common: &Common) -> Result<Config> {
    Ok(match common.appliance.configuration() {
        Some(path) => config::load(path)?,
        None => Config::default_pair(),
    })
}

/// The store's file.
pub(super) fn file(common: &Common) -> Result<PathBuf> {
    Ok(match &common.store {
        Some(path) => path.clone(),
        None => store_path(&configuration(common)?),
    })
}
