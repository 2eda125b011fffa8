//! Models of the scorer and the store: what is in one becomes what is in the other.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::json;

use super::keeper;
use super::policy::PolicyNames;
use crate::behaviour::{
    Candidate, FEATURES, Failure, Figures, InUse, Member, Model, News, Role, SCHEMA, Scope, Scorer,
};
use crate::config::{self, Config};
use crate::rules::Labels;
use crate::store::{NewModel, State, Store, StoredModel};

const FOLDER: &str = "/var/lib/gnomon";
/// Who does what nobody asked for.
const GNOMON: &str = "gnomon";
/// Models that could not be stored have numbers from here on; those of stores are far below.
pub const UNSTORED: u64 = 1 << 40;

/// Where the store of a configuration is: what it names, or the usual place if that can be written.
pub fn store_path(config: &Config) -> PathBuf {
    if let Some(path) = &config.store.path {
        return path.clone();
    }
    let name = format!("{}.db", config.eal.file_prefix);
    let usual = Path::new(FOLDER);
    let can_write = |path: &Path| nix::unistd::access(path, nix::unistd::AccessFlags::W_OK).is_ok();
    // Nobody but the superuser makes the folder.
    let ours = if usual.exists() { can_write(usual) } else { usual.parent().is_some_and(can_write) };
    if ours { usual.join(name) } else { config.export.directory.join(name) }
}

/// How a scope is called.
pub fn scope_name(scope: Scope, labels: &Labels) -> String {
    match scope {
        Scope::All => "all".to_owned(),
        Scope::Group(set) => format!("group:{}", labels.groups(set).join(",")),
    }
}

/// The scope of a name; `None` where the groups are unknown to the policy.
pub fn scope_of(name: &str, labels: &Labels) -> Option<Scope> {
    match name.strip_prefix("group:") {
        Some(groups) => labels.group_set(&groups.split(',').collect::<Vec<_>>()).map(Scope::Group),
        None => (name == "all").then_some(Scope::All),
    }
}

/// A store with models in it.
#[derive(Debug)]
pub struct Library {
    pub store: Store,
    settings: config::Scorer,
    seed: u64,
}

/// A model that was read, and what it does.
#[derive(Debug)]
pub struct Restored {
    pub scope: Scope,
    pub in_use: InUse,
    pub role: Role,
}

impl Library {
    pub fn new(store: Store, config: &Config) -> Self {
        Self { store, settings: config.scorer.clone(), seed: config.seed }
    }

    /// Number of the next model.
    pub fn next(&self) -> Result<u64> {
        Ok(self.store.next_model()? as u64)
    }

    /// The scope of a name, where a model of it scores here.
    pub fn scope_of(&self, name: &str, labels: &Labels) -> Option<Scope> {
        scope_of(name, labels).filter(|scope| *scope == Scope::All || self.settings.per_group)
    }

    /// Reads a model.
    ///
    /// # Errors
    /// It is of other features, damaged, or not there.
    pub fn load(&self, id: i64) -> Result<(StoredModel, InUse)> {
        load(&self.store, id)
    }

    /// The active models and shadows of scopes that the policy knows and models are used for, and for each that cannot be used why.
    pub fn restore(&self, names: &PolicyNames) -> Result<(Vec<Restored>, Vec<anyhow::Error>)> {
        let (mut restored, mut failed) = (Vec::new(), Vec::new());
        for (state, role) in [(State::Active, Role::Active), (State::Shadow, Role::Shadow)] {
            for model in self.store.models_in(state)? {
                let (id, known) = (model.id, scope_of(&model.scope, &names.labels));
                match self.scope_of(&model.scope, &names.labels).map(|scope| (scope, load(&self.store, id))) {
                    Some((scope, Ok((_, in_use)))) => restored.push(Restored { scope, in_use, role }),
                    Some((_, Err(error))) => failed.push(error),
                    None if known.is_some() => log::info!("model {id} is for {}: per_group = false", model.scope),
                    None => log::info!("model {id} is for {}, which is no group now", model.scope),
                }
            }
        }
        Ok((restored, failed))
    }

    /// Stores a candidate, and returns its number.
    pub fn add(&self, candidate: &Candidate, names: &PolicyNames, state: State) -> Result<u64> {
        let reason = match &candidate.objection {
            Some(objection) => format!("{}: {objection}", candidate.cause.name()),
            None => candidate.cause.name().to_owned(),
        };
        let new = NewModel {
            records: candidate.records,
            excluded: candidate.excluded,
            blob: candidate.model.to_bytes(),
            reference: candidate.reference.iter().flat_map(|x| x.to_le_bytes()).collect(),
            ..self.new_model(candidate.scope, names, (candidate.at, candidate.span), &candidate.figures, reason)?
        };
        Ok(self.store.add_model(&new, state)? as u64)
    }

    /// Stores that a training broke off, as a rejected model without bytes, and returns its number.
    pub fn add_failure(&self, failure: &Failure, names: &PolicyNames) -> Result<u64> {
        let Failure { scope, cause, at, span, figures, reason } = failure;
        let reason = format!("{}: {reason}", cause.name());
        let new = self.new_model(*scope, names, (*at, *span), figures, reason)?;
        Ok(self.store.add_model(&new, State::Rejected)? as u64)
    }

    fn new_model(
        &self,
        scope: Scope,
        names: &PolicyNames,
        (created, window): (u64, (u64, u64)),
        figures: &Figures,
        reason: String,
    ) -> Result<NewModel> {
        let members: Vec<&str> = self.settings.members.iter().map(Member::name).collect();
        let settings = json!({
            "members": members,
            "trees": self.settings.trees,
            "sample": self.settings.sample,
            "contamination": self.settings.contamination,
            "warmup_records": self.settings.warmup_records,
            "group_records": self.settings.group_records,
            "detect_window_seconds": self.settings.detect.window.as_secs_f64(),
        });
        Ok(NewModel {
            scope: scope_name(scope, &names.labels),
            feature_schema: SCHEMA,
            created,
            window,
            seed: self.seed,
            settings: settings.to_string(),
            metrics: serde_json::to_string(figures)?,
            who: GNOMON.to_owned(),
            reason,
            ..NewModel::default()
        })
    }

    /// Stores what happened, but of models that are in the store only; what was trained with the number that it gets
    /// here, which is returned.
    ///
    /// # Errors
    /// The store fails, or has other models by now than those that were judged.
    pub fn note(&self, news: &News, names: &PolicyNames) -> Result<Option<u64>> {
        match news {
            News::Trained { candidate, .. } => return self.add(candidate, names, state(candidate.role())).map(Some),
            News::Failed(failure) => return self.add_failure(failure, names).map(Some),
            News::Drift { model: id, .. } | News::Judged { id, .. } if *id >= UNSTORED => {}
            News::Drift { model, at, change, .. } => {
                let told = format!("mean score {:.3}, was {:.3}", change.after, change.before);
                self.store.note_model(*model as i64, "drift", *at, GNOMON, &told)?;
            }
            News::Judged { id, against, at, role, reason, .. } => {
                let against = (*against < UNSTORED).then_some(*against as i64);
                self.store.decide_shadow((*id as i64, against), state(*role), (*at, GNOMON, reason))?;
            }
        }
        Ok(None)
    }
}

/// Stores and tells what a scorer that trains by itself has done. Its models get the numbers of the store.
///
/// # Errors
/// The store fails, or a training broke off.
pub fn keep(library: Option<&Library>, scorer: &mut Scorer, names: &PolicyNames) -> Result<()> {
    let news: Vec<News> = scorer.drain_news().collect();
    for mut news in news {
        let noted = library.map_or(Ok(None), |library| library.note(&news, names));
        let stored = noted.context("what became of a model is not stored, and nothing after it would be")?;
        if let (News::Trained { candidate, id }, Some(stored)) = (&mut news, stored) {
            scorer.renumber(candidate.scope, *id, stored);
            *id = stored;
        }
        keeper::tell(&news, names);
        if let News::Failed(failure) = news {
            bail!("no model for {}: {}", scope_name(failure.scope, &names.labels), failure.reason);
        }
    }
    Ok(())
}

/// Reads a model of a store.
///
/// # Errors
/// It is of other features, damaged, or not there.
pub fn load(store: &Store, id: i64) -> Result<(StoredModel, InUse)> {
    let about = store.model(id)?;
    if about.feature_schema != SCHEMA {
        bail!(
            "model {id} is of features version {}, this gnomon has version {SCHEMA}: train a new one (`gnomon model train`)",
            about.feature_schema
        );
    }
    let (blob, reference) = store.model_bytes(id)?;
    let model = Model::from_bytes(&blob).with_context(|| format!("model {id} of {}", store.path().display()))?;
    if model.width() != FEATURES || !reference.len().is_multiple_of(4 * FEATURES) {
        return Err(anyhow!("model {id} is of {} features, this gnomon has {FEATURES}", model.width()));
    }
    let reference = reference.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let (records, trained_to) = (about.records, about.window_to);
    Ok((about, InUse { id: id as u64, model: model.into(), reference, records, trained_to }))
}

/// In the store.
pub fn state(role: Role) -> State {
    match role {
        Role::Active => State::Active,
        Role::Shadow => State::Shadow,
        Role::Rejected => State::Rejected,
    }
}
