//! `gnomon scenario`: makes a labelled capture with a truth and a configuration.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::scenario::{self, DEFAULT_START, Files, Options, Summary, Wishes};

/// Make a labelled synthetic capture, its truth, and a configuration to replay it with
///
/// Groups of VMs work through the day (web, application, database, name, time and backup servers,
/// administrators, devices, clients outside), over IPv4 and IPv6, with correct TCP, checksums,
/// neighbour resolution and some loss. Attacks are placed among them. Packets are in order of time, and
/// the same options and seed give the same bytes.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = after_help())]
pub struct ScenarioArgs {
    /// Folder for scenario.pcap, truth.json, truth-flows.csv and scenario.toml; made if it is missing
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,

    /// Seed of everything random
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Simulated minutes
    #[arg(long, default_value_t = 30.0)]
    pub minutes: f64,

    /// New flows per second at the busiest hour (two in the afternoon)
    ///
    /// Other hours have less: about half at nine in the morning, an eighth at two at night, weekends two fifths. Time
    /// synchronisation, monitoring and backups run on their own timetables besides.
    #[arg(long, default_value_t = 5.0)]
    pub rate: f64,

    /// Groups that take part, each with an optional size, as in web=5,app,db [default: all]
    #[arg(long, value_delimiter = ',', value_name = "NAME[=SIZE]")]
    pub groups: Vec<String>,

    /// Attacks, each with an optional minute, as in port_scan@5,beacon@2; or all, none, every, daily=N
    ///
    /// Attacks without a minute are spread evenly over the time. `all` is one of each that shows within half an hour,
    /// `every` one of each; `daily=N` are so many a day, of all kinds in turn, at any time.
    #[arg(long, value_delimiter = ',', value_name = "KIND[@MINUTE]", default_value = "all")]
    pub attacks: Vec<String>,

    /// Harmless oddities: like attacks
    #[arg(long, value_delimiter = ',', value_name = "KIND[@MINUTE]", default_value = "none")]
    pub oddities: Vec<String>,

    /// When it starts (UTC): a date and time, or a time like 01:50 of the default day
    ///
    /// Small backups run at ten past each hour, full ones in the two o'clock hour of the night.
    #[arg(long, value_name = "TIME", default_value = DEFAULT_START)]
    pub start: String,

    /// Share of flows that use IPv6, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.2)]
    pub ipv6_share: f64,

    /// Probability that a packet is lost and sent again, 0 to 0.3
    #[arg(long, value_name = "PROBABILITY", default_value_t = 0.001)]
    pub loss: f64,
}

/// Makes the scenario and prints a summary. Wrong options give exit code 2.
///
/// # Errors
/// When a file cannot be written.
pub fn run(args: &ScenarioArgs) -> anyhow::Result<ExitCode> {
    let options = match Options::new(wishes(args)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("error: {error}");
            return Ok(ExitCode::from(2));
        }
    };
    std::fs::create_dir_all(&args.output).with_context(|| format!("cannot make {}", args.output.display()))?;
    let files = Files::within(&args.output);
    let bar = ProgressBar::new(options.length_ns() / 1_000_000_000);
    bar.set_style(ProgressStyle::with_template("{bar:40} {percent:>3}%  {pos}/{len} simulated seconds, {eta} left")?);
    let begun = Instant::now();
    let summary = scenario::generate(&options, &files, |done_ns| bar.set_position(done_ns / 1_000_000_000))?;
    bar.finish_and_clear();
    print(&summary, &files, begun.elapsed().as_secs_f64());
    Ok(ExitCode::SUCCESS)
}

fn wishes(args: &ScenarioArgs) -> Wishes {
    Wishes {
        seed: args.seed,
        minutes: args.minutes,
        rate: args.rate,
        groups: args.groups.clone(),
        attacks: args.attacks.clone(),
        oddities: args.oddities.clone(),
        start: args.start.clone(),
        ipv6_share: args.ipv6_share,
        loss: args.loss,
    }
}

fn print(summary: &Summary, files: &Files, seconds: f64) {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(["", "flows", "packets", "bytes"]);
    let attacks: Vec<&str> = summary.attacks.iter().map(|(kind, _)| *kind).collect();
    let services = summary.by_label.iter().filter(|(name, _)| !attacks.contains(name));
    let rows = services.map(|(name, totals)| ((*name).to_owned(), totals));
    let rows = rows.chain(summary.attacks.iter().map(|(kind, totals)| (format!("attack {kind}"), totals)));
    for (name, totals) in rows.chain([("total".to_owned(), &summary.totals)]) {
        table.add_row([name, totals.flows.to_string(), totals.packets.to_string(), totals.bytes.to_string()]);
    }
    println!("{table}\n");
    println!("capture        {}", files.capture.display());
    println!("truth          {}", files.truth.display());
    println!("flows          {}", files.flows.display());
    println!("configuration  {}", files.configuration.display());
    let rate = summary.totals.packets as f64 / seconds.max(1e-9);
    println!("\n{} packets in {seconds:.1} s ({rate:.0} packets/s)", summary.totals.packets);
    let (capture, configuration) = (files.capture.display(), files.configuration.display());
    println!("Next: gnomon replay {capture} -c {configuration} -o results");
}

fn after_help() -> String {
    let mut text = String::from("Groups and their usual sizes:\n ");
    for (name, size) in scenario::group_names() {
        text.push_str(&format!(" {name}={size}"));
    }
    text.push_str("\n\nAttacks:\n");
    for (name, story) in scenario::attack_names() {
        text.push_str(&format!("  {name:<17} {story}\n"));
    }
    text.push_str("\nHarmless oddities:\n");
    for (name, story) in scenario::oddity_names() {
        text.push_str(&format!("  {name:<17} {story}\n"));
    }
    text.push_str(
        "\nExamples:\n  gnomon scenario -o demo\n  \
         gnomon scenario -o night --start 01:50 --minutes 60 --attacks exfiltration@40,beacon\n  \
         gnomon scenario -o week --minutes 10080 --rate 0.3 --attacks daily=6 --oddities daily=2\n  \
         gnomon scenario -o quiet --groups web=2,app=2,db,dns,clients=20 --attacks none --seed 7\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::FromArgMatches as _;

    fn parse(words: &[&str]) -> ScenarioArgs {
        let command = ScenarioArgs::augment_args(clap::Command::new("scenario"));
        let matches = command.try_get_matches_from([&["scenario"], words].concat()).unwrap();
        ScenarioArgs::from_arg_matches(&matches).unwrap()
    }

    #[test]
    fn defaults_are_those_of_the_library() {
        assert_eq!(wishes(&parse(&["-o", "x"])), Wishes::default());
    }

    #[test]
    fn wrong_options_are_wrong_use_and_write_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("new");
        let args = parse(&["-o", target.to_str().unwrap(), "--attacks", "portscan"]);
        assert_eq!(run(&args).unwrap(), ExitCode::from(2));
        assert!(!target.exists());
    }

    #[test]
    fn files_are_made() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a/b");
        let args = parse(&["-o", target.to_str().unwrap(), "--minutes", "0.5", "--groups", "web=1,clients=2"]);
        assert_eq!(run(&args).unwrap(), ExitCode::SUCCESS);
        let files = Files::within(&target);
        assert!([files.capture, files.truth, files.flows, files.configuration].iter().all(|f| f.exists()));
    }
}
