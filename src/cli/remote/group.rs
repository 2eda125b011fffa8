//! `gnomon group`: sets of VMs and networks.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde_json::{Map, Value};

use super::noun::{NounVerb, Thing, run as run_noun};
use super::shown::Column;
use super::{Access, given};

/// Groups: VMs by tags or id, networks, VLANs and virtual networks under one name.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct GroupArgs {
    #[command(subcommand)]
    verb: NounVerb<Fields>,
    #[command(flatten)]
    access: Access,
}

const EXAMPLES: &str = "\
Examples:
  gnomon group add web --tag role=web                    all VMs that carry the tag
  gnomon group add office --cidr 192.0.2.0/24 --cidr 2001:db8::/48
  gnomon group show web
  gnomon group remove office";

#[derive(Debug, Args)]
struct Fields {
    /// VMs that carry this tag, and all others that are given.
    #[arg(short, long, value_name = "TAG")]
    tag: Vec<String>,
    /// A VM by id.
    #[arg(long, value_name = "ID")]
    vm: Vec<String>,
    /// A network or an address.
    #[arg(long, value_name = "CIDR")]
    cidr: Vec<String>,
    /// A MAC address that belongs to no VM.
    #[arg(long, value_name = "MAC")]
    mac: Vec<String>,
    /// Everything on this outermost VLAN.
    #[arg(long, value_name = "VLAN")]
    vlan: Vec<u16>,
    /// Everything in tunnels with this network id.
    #[arg(long, value_name = "VNI")]
    vni: Vec<u32>,
    /// For people.
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
}

impl Thing for Fields {
    const PATH: &'static str = "/groups";
    const COLUMNS: &'static [Column] = &[
        ("name", "/name"),
        ("tags", "/tags"),
        ("VMs", "/vms"),
        ("networks", "/cidrs"),
        ("MACs", "/macs"),
        ("VLANs", "/vlans"),
        ("VNIs", "/vnis"),
        ("learning", "/learning/state"),
        ("comment", "/comment"),
    ];

    fn fields(&self) -> Result<Map<String, Value>> {
        Ok(given([
            ("tags", self.tag.as_slice().into()),
            ("vms", self.vm.as_slice().into()),
            ("cidrs", self.cidr.as_slice().into()),
            ("macs", self.mac.as_slice().into()),
            ("vlans", self.vlan.as_slice().into()),
            ("vnis", self.vni.as_slice().into()),
            ("comment", self.comment.as_ref().into()),
        ]))
    }
}

pub(in crate::cli) fn run(args: &GroupArgs) -> Result<ExitCode> {
    run_noun(&args.access, &args.verb)
}
