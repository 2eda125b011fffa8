//! `gnomon vm`: workloads.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde_json::{Map, Value};

use super::noun::{NounVerb, Thing, run as run_noun};
use super::shown::Column;
use super::{Access, given};

/// VMs: workloads with addresses and tags, by which groups pick them.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct VmArgs {
    #[command(subcommand)]
    verb: NounVerb<Fields>,
    #[command(flatten)]
    access: Access,
}

const EXAMPLES: &str = "\
Examples:
  gnomon vm add web-1 --address 10.0.1.10 --tag role=web
  gnomon vm set web-1 --tag role=web --tag env=prod      its tags are these then
  gnomon vm list -o json
  gnomon vm remove web-1 --dry-run";

#[derive(Debug, Args)]
struct Fields {
    /// IPv4, IPv6 or MAC address; may be given several times.
    #[arg(short, long, value_name = "ADDRESS")]
    address: Vec<String>,
    /// What groups pick it by; may be given several times.
    #[arg(short, long, value_name = "TAG")]
    tag: Vec<String>,
    /// For people.
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
}

impl Thing for Fields {
    const PATH: &'static str = "/vms";
    const NAME: &'static str = "id";
    const COLUMNS: &'static [Column] =
        &[("id", "/id"), ("addresses", "/addresses"), ("tags", "/tags"), ("comment", "/comment")];

    fn fields(&self) -> Result<Map<String, Value>> {
        Ok(given([
            ("addresses", self.address.as_slice().into()),
            ("tags", self.tag.as_slice().into()),
            ("comment", self.comment.as_ref().into()),
        ]))
    }
}

pub(in crate::cli) fn run(args: &VmArgs) -> Result<ExitCode> {
    run_noun(&args.access, &args.verb)
}
