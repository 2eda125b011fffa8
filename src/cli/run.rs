//! `gnomon run`: the appliance on live ports.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::report::Report;
use crate::api::ApiServer;
use crate::appliance::{Appliance, Summary, store_path};
use crate::config;
use crate::control::{Listening, Server};
use crate::policy::book::Kind;
use crate::policy::service::View;
use crate::store::Store;

/// Run the appliance on live ports until SIGINT or SIGTERM.
///
/// SIGHUP reads the configuration again and puts its groups, rules and mirrors in force without losing a packet;
/// a configuration with errors changes nothing. Flow records, alerts and counters are appended to files in the export
/// folder, which are put aside when they are large or old if [export] says so, and summary.json is written there at the
/// end. Files that other programs rename are noticed within a second and made anew, without a signal.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// Configuration.
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Stop after this many seconds.
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
    /// Print counters every so many seconds; 0 for never.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    interval: u64,
}

const TEND_EVERY: Duration = Duration::from_millis(50);

#[derive(Debug)]
struct Signals {
    stop: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
}

pub(super) fn run(args: &RunArgs) -> Result<ExitCode> {
    let config = config::load(&args.config)?;
    let signals = Signals::listen()?;
    // Before the ports open: a second gnomon with the same configuration ends here and disturbs nothing.
    let listening = config.control.enabled.then(|| Listening::open(&config)).transpose()?;
    let mut appliance = Appliance::start(config)?;
    let server = listening.map(|listening| Server::start(listening, appliance.live().clone())).transpose()?;
    let api = serve_policy(&appliance)?;
    say(&started(&appliance, server.as_ref(), api.as_ref()))?;
    let outcome = watch(args, &signals, &mut appliance);
    // Nobody may ask workers that are about to end.
    drop((server, api));
    let finished = appliance.stop()?;
    outcome?;
    let path = finished.write_summary()?;
    say(&Report::of_run(&finished, &path).to_string())?;
    Ok(ExitCode::SUCCESS)
}

fn watch(args: &RunArgs, signals: &Signals, appliance: &mut Appliance) -> Result<()> {
    let started = Instant::now();
    let mut last = (Instant::now(), appliance.summary());
    while !signals.stop.load(Ordering::Relaxed) {
        appliance.tend()?;
        if signals.reload.swap(false, Ordering::Relaxed) {
            say(&reload(args, appliance))?;
        }
        if args.seconds.is_some_and(|limit| started.elapsed() >= Duration::from_secs(limit)) {
            break;
        }
        if args.interval > 0 && last.0.elapsed() >= Duration::from_secs(args.interval) {
            let now = appliance.summary();
            say(&line(&last.1, &now, last.0.elapsed()))?;
            last = (Instant::now(), now);
        }
        std::thread::sleep(TEND_EVERY);
    }
    Ok(())
}

fn reload(args: &RunArgs, appliance: &mut Appliance) -> String {
    let loaded = config::load(&args.config).map_err(anyhow::Error::from);
    match loaded.and_then(|config| appliance.reload(config)) {
        Ok(generation) => format!("reloaded {}: generation {generation} is in force\n", args.config.display()),
        Err(error) => format!("not reloaded, generation {} stays: {error:#}\n", appliance.summary().generation),
    }
}

/// The API, where the configuration asks for it.
fn serve_policy(appliance: &Appliance) -> Result<Option<ApiServer>> {
    let (Some(service), config) = (appliance.policy_service(), appliance.config()) else { return Ok(None) };
    let Some(address) = config.api.listen else { return Ok(None) };
    // The tokens are looked after through a connection of their own: nobody waits for a commit to be let in.
    let tokens = Store::open(&store_path(config))?;
    Ok(Some(ApiServer::start(&config.api, address, tokens, service.clone())?))
}

fn started(appliance: &Appliance, server: Option<&Server>, api: Option<&ApiServer>) -> String {
    let config = appliance.config();
    let mut text = format!("gnomon runs on {}\n", crate::dpdk::version());
    for (live, port) in appliance.ports().iter().zip(&config.ports) {
        let link = live.port.link();
        let role = match live.paired_with {
            Some(other) => format!("pair with {}", config.ports[other].name),
            None => "mirror".into(),
        };
        let state = if link.up { "up" } else { "down" };
        text.push_str(&format!("  port {:<12} {:<36} link {state:<5} {role}\n", port.name, port.device));
    }
    let (groups, rules) = match appliance.policy_service() {
        Some(service) => (service.counts()[&Kind::Group], service.rules(View::Running, None, usize::MAX).len()),
        None => (config.policy.groups.len(), config.policy.rules.len()),
    };
    let control = server.map_or(String::new(), |server| format!("  control socket {}\n", server.path().display()));
    let (workers, mirrors) = (config.cores.workers.len(), config.mirrors.len());
    text.push_str(&format!(
        "{control}  {workers} workers, {groups} groups, {rules} rules, {mirrors} mirror sessions, generation {}; records go to {}\n",
        appliance.summary().generation,
        config.export.directory.display()
    ));
    if let Some(api) = api {
        let url = api.url();
        text.push_str(&format!("  policy API at {url}; {url}/api/v1/docs describes it\n"));
    }
    if let Some(address) = appliance.metrics_address() {
        text.push_str(&format!("  metrics at http://{address}/metrics\n"));
    }
    text
}

fn line(before: &Summary, now: &Summary, passed: Duration) -> String {
    let rate = |a: u64, b: u64| (b.saturating_sub(a)) as f64 / passed.as_secs_f64();
    let dropped = |s: &Summary| s.drops.values().sum::<u64>();
    format!(
        "rx {:.0} pps  tx {:.0} pps  dropped {:.0} pps  flows {}  records {} (lost {})  generation {}\n",
        rate(before.rx, now.rx),
        rate(before.tx, now.tx),
        rate(dropped(before), dropped(now)),
        now.flows,
        now.records,
        now.records_lost,
        now.generation
    )
}

fn say(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).context("writing to standard output")
}

impl Signals {
    fn listen() -> Result<Self> {
        let signals = Self { stop: Arc::default(), reload: Arc::default() };
        for signal in [SIGINT, SIGTERM] {
            // A second one ends the process at once, should an orderly stop hang.
            signal_hook::flag::register_conditional_shutdown(signal, 1, signals.stop.clone())?;
            signal_hook::flag::register(signal, signals.stop.clone())?;
        }
        signal_hook::flag::register(SIGHUP, signals.reload.clone())?;
        Ok(signals)
    }
}
