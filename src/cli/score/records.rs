//! Flow records, of a file or made from a capture.

use std::collections::VecDeque;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::ScoreArgs;
use super::top::{Entry, Reasons, Top, reasons, reasons_json};
use super::{Form, form};
use crate::appliance::{PolicyNames, load_model};
use crate::behaviour::{ExpectSettings, Extractor, Features, InUse, NAMES, Scope, ScoredRecord, Scorer};
use crate::cli::model::train;
use crate::cli::progress::spinner;
use crate::cli::replay::Replayer;
use crate::config::{self, Config};
use crate::export::write_flow;
use crate::flow::FlowRecord;
use crate::ingest::FlowFile;
use crate::store::{State, Store};

/// Scores from here on have reasons in JSON.
const UNUSUAL: f32 = 0.99;

/// A record, and its line where it comes from a file.
type Item = (FlowRecord, Value);

/// Scores the flow records of a file.
pub(super) fn flows(args: &ScoreArgs, config: &Config) -> Result<()> {
    let items = read(&args.file)?;
    if args.store.is_some() {
        log::warn!(
            "payload sizes are not in {}: they are reckoned from bytes, so scores are near those of the appliance, not the same",
            args.file.display()
        );
    }
    score(args, config, items, None, &mut None)
}

/// Scores the flows of a capture.
pub(super) fn capture(args: &ScoreArgs, config: &Config) -> Result<()> {
    let mut replayer = None;
    let (records, names) = of_capture(&args.file, config, &mut replayer)?;
    let items = records.into_iter().map(|record| (record, Value::Null)).collect();
    score(args, config, items, Some(names), &mut replayer)
}

fn read(path: &Path) -> Result<Vec<Item>> {
    let progress = spinner("reading");
    let mut items = Vec::new();
    for item in FlowFile::open(path)? {
        items.push(item?);
        progress.set_position(items.len() as u64);
    }
    progress.finish_and_clear();
    if items.is_empty() {
        bail!("{} has no flow records", path.display());
    }
    Ok(items)
}

/// The records of a capture, by the same workers as live, with nothing scored there.
fn of_capture(
    path: &Path,
    config: &Config,
    replayer: &mut Option<Replayer>,
) -> Result<(Vec<FlowRecord>, Arc<PolicyNames>)> {
    let folder = Folder::new()?;
    let quiet = Config { scorer: config::Scorer { enabled: false, ..config.scorer.clone() }, ..config.clone() };
    let started = match replayer.take() {
        Some(started) => started,
        None => Replayer::start()?,
    };
    replayer.insert(started).records(&quiet, path, &folder.0)
}

/// For files of a replay that nobody asked for; removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("gnomon-score-{}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            log::warn!("removing {}: {error}", self.0.display());
        }
    }
}

/// The model to score with, from which record on, and where it comes from.
fn model(
    args: &ScoreArgs,
    config: &Config,
    items: &[Item],
    replayer: &mut Option<Replayer>,
) -> Result<(InUse, usize, String)> {
    if let Some(path) = &args.store {
        let store = Store::open_existing(path)?;
        let active = || -> Result<i64> {
            let all = store.models_in(State::Active)?.into_iter().find(|model| model.scope == "all");
            Ok(all.with_context(|| format!("{} has no active model; `gnomon model list --store`", path.display()))?.id)
        };
        let id = args.model.map_or_else(active, Ok)?;
        let (_, in_use) = load_model(&store, id)?;
        return Ok((in_use, 0, format!("model {id} of {}", path.display())));
    }
    let progress = spinner("learning");
    let (records, from, told): (Vec<FlowRecord>, usize, String) = match &args.train {
        Some(path) => {
            let records = match form(path)? {
                Form::Flows => read(path)?.into_iter().map(|item| item.0).collect(),
                Form::Capture => of_capture(path, config, replayer)?.0,
                Form::Columns => bail!("{} is a table, {} has flow records", path.display(), args.file.display()),
            };
            (records, 0, path.display().to_string())
        }
        None => {
            let head = args.head.of(items.len());
            let from = if head == items.len() { 0 } else { head };
            (items[..head].iter().map(|item| item.0).collect(), from, format!("the first {head} of the file"))
        }
    };
    let candidate = train(&records, &config.scorer, config.seed)
        .context("what is ordinary is not known: give more with --head, or --train FILE, or --store FILE")?;
    progress.finish_and_clear();
    let told =
        format!("learnt from {} records of {told}, {} left out as attacks", candidate.records, candidate.excluded);
    Ok((candidate.in_use(0), from, told))
}

fn score(
    args: &ScoreArgs,
    config: &Config,
    items: Vec<Item>,
    names: Option<Arc<PolicyNames>>,
    replayer: &mut Option<Replayer>,
) -> Result<()> {
    let (in_use, from, learnt) = model(args, config, &items, replayer)?;
    let pairs = ExpectSettings { enabled: false, ..config.scorer.pairs };
    let settings = config::Scorer { enabled: true, retrain: None, pairs, per_group: false, ..config.scorer.clone() };
    let mut scorer = Scorer::new(&settings, config.seed);
    scorer.activate(Scope::All, in_use.clone(), &mut |_| ());
    // The scorer keeps its features to itself; the same records give the same.
    let mut extractor = Extractor::new(settings.detect.window.as_nanos() as u64, config.seed);
    let mut teller = Teller::new(args, in_use, names);
    let mut waiting: VecDeque<(Features, Value, bool)> = VecDeque::new();
    let mut result = Ok(());
    let progress = spinner("scoring");
    for (at, (record, line)) in items.into_iter().enumerate() {
        waiting.push_back((extractor.extract(&record), line, at >= from));
        let mut tell = |scored| teller.next(&mut waiting, scored, &mut result);
        scorer.observe(record, &mut tell);
        scorer.drain_alerts();
        progress.set_position(at as u64);
    }
    scorer.flush(&mut |scored| teller.next(&mut waiting, scored, &mut result));
    progress.finish_and_clear();
    result?;
    teller.finish(&learnt)
}

/// Writes scored records, or keeps the most unusual.
struct Teller<'a> {
    args: &'a ScoreArgs,
    in_use: InUse,
    names: Option<Arc<PolicyNames>>,
    top: Top,
    out: BufWriter<io::Stdout>,
}

impl<'a> Teller<'a> {
    fn new(args: &'a ScoreArgs, in_use: InUse, names: Option<Arc<PolicyNames>>) -> Self {
        Self { args, in_use, names, top: Top::new(args.top), out: BufWriter::new(io::stdout()) }
    }

    fn next(&mut self, waiting: &mut VecDeque<(Features, Value, bool)>, scored: ScoredRecord, result: &mut Result<()>) {
        if let Some((features, line, wanted)) = waiting.pop_front()
            && wanted
            && result.is_ok()
        {
            *result = self.tell(&features, line, &scored);
        }
    }

    fn tell(&mut self, features: &Features, line: Value, scored: &ScoredRecord) -> Result<()> {
        let Some(score) = scored.score.filter(|score| *score >= self.args.min_score) else { return Ok(()) };
        if self.args.output == "json" {
            let why = if score >= UNUSUAL { self.reasons(features) } else { Vec::new() };
            let line = self.line(line, scored, &why)?;
            writeln!(self.out, "{line}")?;
        } else if self.top.wants(score) {
            let cells = cells(&scored.record, scored);
            self.top.add(Entry { score, cells, reasons: self.reasons(features) });
        }
        Ok(())
    }

    fn reasons(&self, features: &Features) -> Reasons {
        let parts = self.in_use.model.contributions(features, &mut self.in_use.model.scratch());
        reasons(&parts, |at| NAMES[at])
    }

    /// The record as in `flows.jsonl`, with this score.
    fn line(&self, mut line: Value, scored: &ScoredRecord, why: &Reasons) -> Result<Value> {
        if let Some(names) = &self.names {
            let mut bytes = Vec::new();
            write_flow(&mut bytes, scored, None, &**names)?;
            line = serde_json::from_slice(&bytes)?;
        }
        let score = scored.score.map(|score| (f64::from(score) * 1e6).round() / 1e6);
        line["gnomon"]["score"] = score.into();
        line["gnomon"]["flags"] = scored.flags.names().collect();
        if !why.is_empty() {
            line["gnomon"]["reasons"] = reasons_json(why);
        }
        Ok(line)
    }

    fn finish(mut self, learnt: &str) -> Result<()> {
        if self.args.output != "json" {
            self.top.show(&mut self.out, &["time", "source", "destination", "flags"], learnt)?;
        }
        self.out.flush()?;
        Ok(())
    }
}

fn cells(record: &FlowRecord, scored: &ScoredRecord) -> Vec<String> {
    let t = &record.tuple;
    let end = |ip: std::net::IpAddr, port: u16| match crate::packet::has_ports(t.protocol) {
        true => std::net::SocketAddr::new(ip, port).to_string(),
        false => ip.to_string(),
    };
    let time = crate::export::iso8601(record.start);
    let protocol = crate::export::protocol_name(t.protocol).to_ascii_lowercase();
    vec![
        time.get(..19).unwrap_or_default().replace('T', " "),
        end(t.src_ip(), t.src_port),
        format!("{} {protocol}", end(t.dst_ip(), t.dst_port)),
        scored.flags.names().filter(|name| *name != "outlier").collect::<Vec<_>>().join(","),
    ]
}
