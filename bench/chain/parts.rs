//! What each part of the chain costs on one core, on records that were made before; and the most records a second.

use std::hint::black_box;

use anyhow::{Result, ensure};
use gnomon::appliance::PolicyNames;
use gnomon::behaviour::{Extractor, ScoredRecord, Scorer};
use gnomon::dpdk::cpu_time_ns;
use gnomon::export::{Files, write_flow};
use gnomon::flow::FlowRecord;

use crate::common::Results;
use crate::reader::config;

/// Records that teach, and are not counted.
const WARM: usize = 30_000;

pub fn measure(records: &[FlowRecord], names: &PolicyNames, quick: bool, results: &mut Results) -> Result<()> {
    ensure!(records.len() > 2 * WARM, "only {} records", records.len());
    let rounds = if quick { 2 } else { 5 };
    let mut times: [Vec<f64>; 5] = Default::default();
    for _ in 0..rounds {
        let features = features(records);
        let untrained = scorer(records, usize::MAX / 4, |_| {});
        let trained = scorer(records, config().scorer.warmup_records, |_| {});
        let line = lines(records, names);
        let whole = whole(records, names)?;
        let parts = [features, untrained - features, trained - untrained, line, whole];
        times.iter_mut().zip(parts).for_each(|(all, part)| all.push(part));
    }
    let [features, detectors, model, line, whole] = times;
    let rate = |times: &[f64]| times.iter().map(|time| 1e9 / time).collect::<Vec<f64>>();
    let scorer: Vec<f64> = (0..rounds).map(|i| features[i] + detectors[i] + model[i]).collect();
    results.measured("features", "ns/record", features);
    results.measured("detectors", "ns/record", detectors);
    results.measured("model, watch of outliers", "ns/record", model);
    results.measured("line of flows.jsonl", "ns/record", line);
    results.measured("most, without flows.jsonl", "records/s", rate(&scorer));
    results.measured("most, with flows.jsonl", "records/s", rate(&whole));
    Ok(())
}

/// Nanoseconds of CPU time a record, of those after the first [`WARM`].
fn each(records: &[FlowRecord], mut work: impl FnMut(&FlowRecord)) -> f64 {
    records[..WARM].iter().for_each(&mut work);
    let began = cpu_time_ns();
    records[WARM..].iter().for_each(work);
    (cpu_time_ns() - began) as f64 / (records.len() - WARM) as f64
}

fn features(records: &[FlowRecord]) -> f64 {
    let mut extractor = Extractor::new(config().scorer.detect.window.as_nanos() as u64, 1);
    each(records, |record| {
        black_box(extractor.extract(record));
    })
}

fn scorer(records: &[FlowRecord], warmup_records: usize, mut out: impl FnMut(ScoredRecord)) -> f64 {
    let mut settings = config().scorer;
    settings.warmup_records = warmup_records;
    let mut scorer = Scorer::new(&settings, 1);
    let mut pass = |record: ScoredRecord| out(black_box(record));
    each(records, |record| {
        scorer.observe(*record, &mut pass);
        black_box(scorer.drain_alerts().count());
    })
}

fn lines(records: &[FlowRecord], names: &PolicyNames) -> f64 {
    let mut block = Vec::with_capacity(1 << 16);
    each(records, |record| {
        let scored = ScoredRecord { record: *record, score: Some(0.37), flags: Default::default() };
        write_flow(&mut block, &scored, Some(record.sequence), names).expect("memory takes all");
        if block.len() > 1 << 15 {
            black_box(&block);
            block.clear();
        }
    })
}

/// All of it, into a file. The thread that gives blocks to the file is another one.
fn whole(records: &[FlowRecord], names: &PolicyNames) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let mut files = Files::create(folder.path(), false)?;
    let mut failed = None;
    let write = |record: ScoredRecord| {
        failed = files.record(&record, record.record.sequence, names).err().or(failed.take());
    };
    let time = scorer(records, config().scorer.warmup_records, write);
    files.finish()?;
    failed.map_or(Ok(time), |error| Err(error.into()))
}
