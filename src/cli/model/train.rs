//! Training and comparing on a file of flow records.

use std::path::Path;

use anyhow::{Error, Result, bail};
use serde_json::{Value, json};

use super::Common;
use super::source::{configuration, file};
use crate::appliance::{Library, PolicyHost, Targets};
use crate::behaviour::{Candidate, Comparison, ExpectSettings, Extractor, InUse, News, Rows, Scorer};
use crate::cli::progress::spinner;
use crate::config;
use crate::flow::FlowRecord;
use crate::ingest::FlowFile;
use crate::store::{State, Store};

/// Fewest records that make a model.
const LEAST: usize = 256;

/// Trains on all records of a file that belong to no attack, and stores a candidate or a shadow.
pub(super) fn on_file(on: &Path, shadow: bool, common: &Common) -> Result<Vec<Value>> {
    let config = configuration(common)?;
    let records = read(on)?;
    let candidate = train(&records, &config.scorer, config.seed)?;
    let names = PolicyHost::new(&config, Targets::ByPort, 0)?.names().clone();
    let library = Library::new(Store::open(&file(common)?)?, &config);
    let state = if shadow { State::Shadow } else { State::Candidate };
    let id = library.add(&candidate, &names, state)?;
    Ok(vec![json!({
        "id": id,
        "state": state,
        "records": candidate.records,
        "excluded": candidate.excluded,
        "store": library.store.path(),
    })])
}

/// A model of all records but those of attacks.
pub(in crate::cli) fn train(records: &[FlowRecord], settings: &config::Scorer, seed: u64) -> Result<Candidate> {
    if records.len() < LEAST {
        bail!("{} flow records are too few to train on: {LEAST} are needed", records.len());
    }
    let pairs = ExpectSettings { enabled: false, ..settings.pairs };
    let settings =
        config::Scorer { enabled: true, warmup_records: records.len(), retrain: None, pairs, ..settings.clone() };
    let mut scorer = Scorer::new(&settings, seed);
    for record in records {
        scorer.observe(*record, &mut |_| ());
        // Nobody looks at alerts here.
        scorer.drain_alerts();
    }
    let trained = scorer.drain_news().find_map(|news| match news {
        News::Trained { candidate, .. } => Some(Ok(*candidate)),
        News::Failed(failure) => Some(Err(failure.reason)),
        News::Drift { .. } | News::Judged { .. } => None,
    });
    match trained {
        Some(outcome) => outcome.map_err(Error::msg),
        None => {
            bail!("nearly all of the {} flow records belong to attacks: there is nothing to learn from", records.len())
        }
    }
}

/// How two stored models see the records of a file.
pub(super) fn compare(ids: &[i64], on: &Path, common: &Common) -> Result<Vec<Value>> {
    let [one, other] = ids else { bail!("two models are compared") };
    let store = Store::open_existing(&file(common)?)?;
    let seed = configuration(common)?.seed;
    let models = [crate::appliance::load_model(&store, *one)?.1, crate::appliance::load_model(&store, *other)?.1];
    let records = read(on)?;
    let mut extractor = Extractor::new(config::Detect::default().window.as_nanos() as u64, seed);
    let features: Vec<_> = records.iter().map(|record| extractor.extract(record)).collect();
    let scores = |in_use: &InUse| {
        let rows = Rows::new(features.as_flattened(), crate::behaviour::FEATURES);
        let mut raw = vec![0.0; rows.len()];
        in_use.model.score(rows, &mut in_use.model.scratch(), &mut raw);
        raw.into_iter().map(|raw| in_use.model.calibration().calibrate(raw)).collect::<Vec<f32>>()
    };
    let [a, b] = models.each_ref().map(scores);
    let mut comparison = Comparison::new(seed);
    a.iter().zip(&b).for_each(|(a, b)| comparison.note(*a, *b));
    Ok(vec![json!({ "scope": "all", "active": one, "shadow": other, "compared": comparison.compared() })])
}

fn read(path: &Path) -> Result<Vec<FlowRecord>> {
    let progress = spinner("reading");
    let mut records = Vec::new();
    for found in FlowFile::open(path)? {
        records.push(found?.0);
        progress.set_position(records.len() as u64);
    }
    progress.finish_and_clear();
    Ok(records)
}
