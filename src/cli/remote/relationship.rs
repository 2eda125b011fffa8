//! `gnomon relationship`: what becomes of connections from one group to another.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde_json::{Map, Value};

use super::noun::{NounVerb, Thing, run as run_noun};
use super::shown::Column;
use super::{Access, given, until};

/// Relationships: what becomes of connections from one group to another. What quarrels with another is told at once.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct RelationshipArgs {
    #[command(subcommand)]
    verb: NounVerb<Fields>,
    #[command(flatten)]
    access: Access,
}

const EXAMPLES: &str = "\
Examples:
  gnomon relationship add web-to-app --from web --to app --protocol tcp --ports 8080 --action allow
  gnomon relationship add lab-test --from lab --to db --action allow --expires 8h --now --why 'ticket 4711'
  gnomon relationship set web-to-app --ports 8080-8090 --mode shadow
  gnomon relationship list --running";

#[derive(Debug, Args)]
struct Fields {
    /// Source: a group, a network, an address, or any; may be given several times.
    #[arg(long, value_name = "WHOM")]
    from: Vec<String>,
    /// Destination, given like the source.
    #[arg(long, value_name = "WHOM")]
    to: Vec<String>,
    /// tcp, udp, icmp, …, or a number. Left out: any.
    #[arg(long, value_name = "PROTOCOL")]
    protocol: Option<String>,
    /// Destination ports: a number or a range such as 8000-8100; may be given several times.
    #[arg(long, value_name = "PORTS")]
    ports: Vec<String>,
    /// Type of ICMP messages, a number.
    #[arg(long, value_name = "TYPE")]
    icmp_type: Option<u8>,
    /// What becomes of them.
    #[arg(long, value_parser = ["allow", "deny", "reject", "log"])]
    action: Option<String>,
    /// Lowest first within the tier; 1000 if left out.
    #[arg(long, value_name = "NUMBER")]
    priority: Option<u32>,
    /// When it is asked; policy if left out.
    #[arg(long, value_parser = ["override", "threat", "policy", "learned"])]
    tier: Option<String>,
    /// enforce if left out; shadow counts what it would do, and does nothing.
    #[arg(long, value_parser = ["enforce", "shadow", "disabled"])]
    mode: Option<String>,
    /// It goes by itself: after a time such as 8h, or at one such as 2027-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,
    /// For people.
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
}

impl Thing for Fields {
    const PATH: &'static str = "/relationships";
    const NAME: &'static str = "id";
    const COLUMNS: &'static [Column] = &[
        ("id", "/id"),
        ("from", "/from"),
        ("to", "/to"),
        ("protocol", "/protocol"),
        ("ports", "/ports"),
        ("action", "/action"),
        ("priority", "/priority"),
        ("tier", "/tier"),
        ("mode", "/mode"),
        ("expires", "/expires"),
        ("origin", "/origin"),
        ("comment", "/comment"),
    ];

    fn fields(&self) -> Result<Map<String, Value>> {
        let expires = self.expires.as_deref().map(until).transpose()?;
        Ok(given([
            ("from", self.from.as_slice().into()),
            ("to", self.to.as_slice().into()),
            ("protocol", self.protocol.as_ref().into()),
            ("ports", self.ports.as_slice().into()),
            ("icmp_type", self.icmp_type.into()),
            ("action", self.action.as_ref().into()),
            ("priority", self.priority.into()),
            ("tier", self.tier.as_ref().into()),
            ("mode", self.mode.as_ref().into()),
            ("expires", expires.into()),
            ("comment", self.comment.as_ref().into()),
        ]))
    }
}

pub(in crate::cli) fn run(args: &RelationshipArgs) -> Result<ExitCode> {
    run_noun(&args.access, &args.verb)
}
