//! `gnomon explain`: what would become of a packet, and why, stage by stage. Sends nothing.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};

use crate::config;
use crate::packet::Mac;
use crate::rules::{Compiled, Labels, Subject, explain, parse_flow};

/// Explain what becomes of a packet, stage by stage; nothing is sent.
#[derive(Args, Clone, Debug)]
pub struct ExplainArgs {
    /// The packet: `tcp 10.0.1.10:40000 > 10.0.2.20:5432`, `udp [fd00::1]:5000 > [fd00::2]:53`,
    /// `icmp 10.0.0.1 > 10.0.0.2 type 8 code 0`.
    #[arg(value_name = "FLOW", value_parser = parse_flow)]
    flow: Subject,
    /// Configuration to explain it by.
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// How to print the explanation.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Outermost VLAN id of the packet.
    #[arg(long, value_name = "ID", default_value_t = 0, hide_default_value = true,
          value_parser = clap::value_parser!(u16).range(0..=4094))]
    vlan: u16,
    /// Virtual network id of the tunnel around the packet.
    #[arg(long, value_name = "ID", default_value_t = 0, hide_default_value = true)]
    vni: u32,
    /// Source MAC address, such as 52:54:00:12:34:56.
    #[arg(long, value_name = "MAC")]
    src_mac: Option<Mac>,
    /// Destination MAC address.
    #[arg(long, value_name = "MAC")]
    dst_mac: Option<Mac>,
}

/// Form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Loads and compiles the configuration, then prints the explanation. Exit code 1 when the compiled rules
/// contradict it, which would be a fault of gnomon.
///
/// # Errors
/// If the configuration cannot be loaded or compiled, or standard output cannot be written.
pub fn run(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let config = config::load(&args.config)?;
    let labels = Labels::new(config.limits.rules);
    let compiled = Compiled::build(&config.policy, 1, &labels)
        .with_context(|| format!("{}: the policy does not compile", args.config.display()))?;
    let mut explanation = explain(&config.policy, &compiled, &labels, &args.subject());
    explanation.name_mirrors(config.mirrors.iter().map(|mirror| mirror.name.as_str()));
    let mut out = std::io::stdout().lock();
    match args.output {
        Output::Text if args.subject().has_neighbour_discovery_type() => {
            writeln!(out, "{explanation}")?;
            let decision = format!("{:?}", config.non_ip).to_lowercase();
            writeln!(
                out,
                "but          {decision}: neighbour discovery from the same link is judged by policy.non_ip,"
            )?;
            writeln!(out, "             like ARP; the rules above apply to what was routed or fragmented")?;
        }
        Output::Text => writeln!(out, "{explanation}")?,
        Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(&explanation)?)?,
    }
    Ok(if explanation.consistent { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl ExplainArgs {
    fn subject(&self) -> Subject {
        let mut subject = self.flow;
        subject.tuple.vlan = self.vlan;
        subject.tuple.vni = self.vni;
        subject.src_mac = self.src_mac.unwrap_or_default();
        subject.dst_mac = self.dst_mac.unwrap_or_default();
        subject
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ExplainArgs,
    }

    fn parse(line: &[&str]) -> Result<ExplainArgs, clap::Error> {
        Line::try_parse_from(line).map(|line| line.args)
    }

    #[test]
    fn options_complete_the_packet() {
        let line = ["explain", "tcp 10.0.0.1:1 > 10.0.0.2:2", "-c", "x.toml", "--vlan", "10", "--vni", "7"];
        let args = parse(&[&line[..], &["--src-mac", "02:00:00:00:00:01", "-o", "json"]].concat()).expect("good line");
        let subject = args.subject();
        assert_eq!((subject.tuple.vlan, subject.tuple.vni, subject.tuple.dst_port), (10, 7, 2));
        assert_eq!((subject.src_mac.to_string().as_str(), subject.dst_mac), ("02:00:00:00:00:01", Mac::default()));
        assert_eq!(args.output, Output::Json);
    }

    #[test]
    fn a_wrong_packet_is_wrong_use() {
        let error = parse(&["explain", "tpc 10.0.0.1:1 > 10.0.0.2:2", "-c", "x.toml"]).expect_err("no such protocol");
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("did you mean `tcp`"), "{error}");
        assert!(parse(&["explain", "tcp 10.0.0.1:1 > 10.0.0.2:2", "-c", "x", "--vlan", "4095"]).is_err());
    }
}
