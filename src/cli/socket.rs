//! Where the running appliance is.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::config;
use crate::control::{Client, Place, candidates};

/// How to find the running appliance.
#[derive(Debug, Args)]
pub(super) struct SocketArgs {
    /// Control socket of the running appliance.
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    socket: Option<PathBuf>,
    /// Configuration of the running appliance, to find its socket by; not needed when one runs here.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl SocketArgs {
    pub(super) fn connect(&self) -> Result<Client> {
        let place = match (&self.socket, &self.config) {
            (Some(path), _) => Place::Socket(path.clone()),
            (None, Some(file)) => Place::Any(candidates(&config::load(file)?)),
            (None, None) => Place::Usual,
        };
        Ok(Client::connect(&place)?)
    }
}
