//! `gnomon override`: exceptions for single VMs.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde_json::{Map, Value};

use super::noun::{NounVerb, Thing, run as run_noun};
use super::shown::Column;
use super::{Access, given, until};

/// Overrides: exceptions for single VMs, before all rules, with a reason.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct OverrideArgs {
    #[command(subcommand)]
    verb: NounVerb<Fields>,
    #[command(flatten)]
    access: Access,
}

const EXAMPLES: &str = "\
Examples:
  gnomon override add web-1-debug --vm web-1 --direction to --peer 192.0.2.7 --protocol tcp --ports 22 \\
      --action allow --reason 'vendor looks at it' --expires 4h
  gnomon override add quarantine-7 --vm app-7 --action deny --reason 'incident 12' --now
  gnomon override remove quarantine-7 --now";

#[derive(Debug, Args)]
struct Fields {
    /// The VM.
    #[arg(long, value_name = "ID")]
    vm: Option<String>,
    /// Connections that it begins, that others begin to it, or both.
    #[arg(long, value_parser = ["from", "to", "both"])]
    direction: Option<String>,
    /// The other side: a group, a network, an address, or any; may be given several times.
    #[arg(long, value_name = "WHOM")]
    peer: Vec<String>,
    /// tcp, udp, icmp, …, or a number. Left out: any.
    #[arg(long, value_name = "PROTOCOL")]
    protocol: Option<String>,
    /// Destination ports: a number or a range such as 8000-8100; may be given several times.
    #[arg(long, value_name = "PORTS")]
    ports: Vec<String>,
    /// What becomes of them.
    #[arg(long, value_parser = ["allow", "deny", "reject", "log"])]
    action: Option<String>,
    /// Lowest first; 1000 if left out.
    #[arg(long, value_name = "NUMBER")]
    priority: Option<u32>,
    /// Why there is an exception.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// It goes by itself: after a time such as 8h, or at one such as 2027-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,
}

impl Thing for Fields {
    const PATH: &'static str = "/overrides";
    const NAME: &'static str = "id";
    const COLUMNS: &'static [Column] = &[
        ("id", "/id"),
        ("VM", "/vm"),
        ("direction", "/direction"),
        ("peer", "/peer"),
        ("protocol", "/protocol"),
        ("ports", "/ports"),
        ("action", "/action"),
        ("expires", "/expires"),
        ("reason", "/reason"),
    ];

    fn fields(&self) -> Result<Map<String, Value>> {
        let expires = self.expires.as_deref().map(until).transpose()?;
        Ok(given([
            ("vm", self.vm.as_ref().into()),
            ("direction", self.direction.as_ref().into()),
            ("peer", self.peer.as_slice().into()),
            ("protocol", self.protocol.as_ref().into()),
            ("ports", self.ports.as_slice().into()),
            ("action", self.action.as_ref().into()),
            ("priority", self.priority.into()),
            ("reason", self.reason.as_ref().into()),
            ("expires", expires.into()),
        ]))
    }
}

pub(in crate::cli) fn run(args: &OverrideArgs) -> Result<ExitCode> {
    run_noun(&args.access, &args.verb)
}
