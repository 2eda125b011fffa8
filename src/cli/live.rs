//! What verbs that talk to a running appliance have in common.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;

use crate::config;
use crate::control::{Client, Place, candidates};

/// Which appliance is meant; without either the only one of this machine.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Appliance {
    /// Its control socket.
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    socket: Option<PathBuf>,
    /// The configuration that it runs with.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Who gives an order, for the log.
pub(super) fn user() -> String {
    let uid = nix::unistd::Uid::current();
    let name = nix::unistd::User::from_uid(uid).ok().flatten().map(|user| user.name);
    name.unwrap_or_else(|| format!("user {uid}"))
}

impl Appliance {
    /// The configuration, where it was named.
    pub(super) fn configuration(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    pub(super) fn connect(&self) -> Result<Client> {
        let place = match (&self.socket, &self.config) {
            (Some(path), _) => Place::Socket(path.clone()),
            (None, None) => Place::Usual,
            (None, Some(file)) => {
                let config = config::load(file)?;
                if !config.control.enabled {
                    bail!(
                        "{}: [control] enabled = false: a gnomon with this configuration cannot be asked",
                        file.display()
                    );
                }
                Place::Any(candidates(&config))
            }
        };
        Ok(Client::connect(&place)?)
    }
}
