//! `gnomon serve`: the policy service alone, without a data path.

use std::io::{SeekFrom, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::tail::Tail;
use crate::api::ApiServer;
use crate::appliance::{imported, store_path, unix_nanoseconds};
use crate::config::{self, Config};
use crate::filter::JsonLine;
use crate::policy::service::{CompileOnly, Service, TICK};
use crate::store::Store;

/// Serve the policy API without a data path, until SIGINT or SIGTERM.
///
/// Policies are kept, compiled and versioned as with `gnomon run`, and act on no packet. Where the store has no policy
/// yet, it begins with what the configuration says. Learning and the inbox take the flow records of --records.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ServeArgs {
    /// Configuration with [api] and [store].
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Another store than the configuration's.
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
    /// Another address and port than the configuration's; 127.0.0.1:8443 where it has none. Port 0: any that is free.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Flow records (flows.jsonl) that another gnomon writes, to learn from: what is in the file, and what is appended.
    #[arg(long, value_name = "FILE")]
    records: Option<PathBuf>,
    /// Stop after this many seconds.
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
}

const EXAMPLES: &str = "\
Examples:
  gnomon token create me --role admin --save --store policy.db
  gnomon serve --store policy.db
  gnomon vm add web-1 --address 10.0.1.10 --tag role=web
  gnomon serve -c gateway.toml --records /var/log/gnomon/flows.jsonl
The API describes itself: http://127.0.0.1:8443/api/v1/docs";

const USUAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8443);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Records that are taken between two looks at what else there is to do.
const BATCH: usize = 4096;

pub(super) fn run(args: &ServeArgs) -> Result<ExitCode> {
    let config = args.config.as_deref().map_or_else(|| Ok(Config::default_pair()), config::load)?;
    if !config.store.enabled && args.store.is_none() {
        bail!("[store] enabled = false: there is no place for policies; --store FILE names one");
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, stop.clone()).context("listening for signals")?;
    }
    let path = args.store.clone().unwrap_or_else(|| store_path(&config));
    let plane = CompileOnly::new(config.limits.rules, config.policy.default)?;
    let store = Arc::new(Store::open(&path)?);
    let first = imported(&config)?;
    let service = Arc::new(Service::open(store, Box::new(plane), || first, unix_nanoseconds)?);
    let address = args.listen.or(config.api.listen).unwrap_or(USUAL);
    // The tokens are looked after through a connection of their own: nobody waits for a commit to be let in.
    let server = ApiServer::start(&config.api, address, Store::open(&path)?, service.clone())?;
    let mut out = std::io::stdout();
    let (url, generation) = (server.url(), service.generation());
    writeln!(out, "policy service at {url}, generation {generation}, store {}; {url}/api/v1/docs", path.display())?;
    out.flush()?;
    work(args, &service, &stop)?;
    drop(server);
    service.close()?;
    Ok(ExitCode::SUCCESS)
}

fn work(args: &ServeArgs, service: &Service, stop: &AtomicBool) -> Result<()> {
    let (started, mut ticked, mut tail) = (Instant::now(), Instant::now(), None);
    while !stop.load(Ordering::Relaxed) && args.seconds.is_none_or(|limit| started.elapsed().as_secs() < limit) {
        let taken = args.records.as_deref().map_or(Ok(0), |path| learn(path, &mut tail, service))?;
        if ticked.elapsed() >= TICK {
            ticked = Instant::now();
            if let Err(error) = service.tick() {
                log::warn!("the policy service: {error}");
            }
        }
        if taken == 0 {
            std::thread::sleep(LOOK_EVERY);
        }
    }
    Ok(())
}

/// Gives the service what was appended since the last call; how many lines that was.
fn learn(path: &Path, tail: &mut Option<Tail>, service: &Service) -> Result<usize> {
    if tail.is_none() && path.exists() {
        *tail = Some(Tail::open(path, SeekFrom::Start(0))?);
    }
    let Some(tail) = tail else { return Ok(0) };
    let (mut lines, mut records) = (0, Vec::new());
    while lines < BATCH
        && let Some(line) = tail.next()?
    {
        lines += 1;
        match serde_json::from_slice::<Value>(&line) {
            Ok(value) => records.push(value),
            Err(error) => log::warn!("{}: a line is no flow record: {error}", path.display()),
        }
    }
    service.observe(records.iter().map(JsonLine));
    Ok(lines)
}
