//! Models of the scorer, by number, with all that became of them.

use serde::Serialize;
use sha1::{Digest, Sha1};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Change, Store, StoreError};

/// Retired and rejected models of a scope that stay; the oldest go.
const KEPT: i64 = 20;

/// What a model is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Trained, and nothing more.
    Candidate,
    /// Its scores count. One of each scope.
    Active,
    /// Scores side by side with the active one. One of each scope.
    Shadow,
    /// Was active, or a shadow that another took the place of.
    Retired,
    /// A gate or a person did not want it.
    Rejected,
}

impl State {
    pub const ALL: [State; 5] = [State::Candidate, State::Active, State::Shadow, State::Retired, State::Rejected];

    pub fn name(self) -> &'static str {
        match self {
            State::Candidate => "candidate",
            State::Active => "active",
            State::Shadow => "shadow",
            State::Retired => "retired",
            State::Rejected => "rejected",
        }
    }

    fn read(text: &str) -> Self {
        // The table takes no other words.
        State::ALL.into_iter().find(|state| state.name() == text).unwrap_or(State::Candidate)
    }
}

/// A model to be stored. Times are nanoseconds since the Unix epoch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewModel {
    /// `all`, or `group:` and names.
    pub scope: String,
    pub feature_schema: u32,
    pub created: u64,
    /// From when to when the records are that it was trained on.
    pub window: (u64, u64),
    pub records: u64,
    pub excluded: u64,
    pub seed: u64,
    /// JSON objects.
    pub settings: String,
    pub metrics: String,
    pub who: String,
    pub reason: String,
    pub blob: Vec<u8>,
    /// Rows of ordinary traffic, 32-bit floats, little-endian.
    pub reference: Vec<u8>,
}

/// A model in the store, without its bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StoredModel {
    pub id: i64,
    pub scope: String,
    pub state: State,
    pub replaces: Option<i64>,
    pub feature_schema: u32,
    pub created: u64,
    pub window_from: u64,
    pub window_to: u64,
    pub records: u64,
    pub excluded: u64,
    pub seed: u64,
    pub settings: serde_json::Value,
    pub metrics: serde_json::Value,
    pub who: String,
    pub reason: String,
    pub checksum: String,
}

/// One step of a model's life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoredEvent {
    pub model: i64,
    pub at: u64,
    pub state: String,
    pub who: String,
    pub reason: String,
}

/// Why a state changes, and when.
#[derive(Clone, Copy, Debug)]
struct Cause<'a> {
    at: u64,
    who: &'a str,
    reason: &'a str,
}

const COLUMNS: &str = "id, scope, state, replaces, feature_schema, created, window_from, window_to, records, \
    excluded, seed, settings, metrics, who, reason, checksum";

impl Store {
    /// Stores a model in a state, and returns its number. An active one takes the place of the one before it, a shadow
    /// likewise.
    pub fn add_model(&self, new: &NewModel, state: State) -> Result<i64, StoreError> {
        let cause = Cause { at: new.created, who: &new.who, reason: &new.reason };
        self.change(async |change| {
            let id = next(change).await?;
            insert(change, id, new).await?;
            settle(change, id, &new.scope, state, cause).await?;
            prune(change, &new.scope).await?;
            Ok(id)
        })
    }

    /// The number that the next model gets, unless another process is first.
    pub fn next_model(&self) -> Result<i64, StoreError> {
        self.change(async |change| next(change).await)
    }

    /// All of them, the newest first.
    pub fn models(&self) -> Result<Vec<StoredModel>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM models ORDER BY id DESC");
        let rows = self.runtime.block_on(sqlx::query(&sql).fetch_all(&self.pool));
        rows.map_err(|error| self.failed(error))?.iter().map(|row| read(row).map_err(|e| self.failed(e))).collect()
    }

    /// One of them.
    pub fn model(&self, id: i64) -> Result<StoredModel, StoreError> {
        self.models()?.into_iter().find(|model| model.id == id).ok_or(StoreError::NoModel { id })
    }

    /// The active models or shadows, by scope.
    pub fn models_in(&self, state: State) -> Result<Vec<StoredModel>, StoreError> {
        let mut models = self.models()?;
        models.retain(|model| model.state == state);
        models.sort_by(|a, b| a.scope.cmp(&b.scope));
        Ok(models)
    }

    /// Bytes and reference of a model, as they were stored.
    pub fn model_bytes(&self, id: i64) -> Result<(Vec<u8>, Vec<u8>), StoreError> {
        let query = sqlx::query("SELECT blob, reference, checksum FROM models WHERE id = $1").bind(id);
        let row = self.runtime.block_on(query.fetch_optional(&self.pool)).map_err(|error| self.failed(error))?;
        let row = row.ok_or(StoreError::NoModel { id })?;
        let read = || Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
        let (blob, reference, sum): (Vec<u8>, Vec<u8>, String) = read().map_err(|error| self.failed(error))?;
        if checksum(&blob, &reference) != sum {
            return Err(StoreError::Damaged { id, what: "its checksum does not match".to_owned() });
        }
        Ok((blob, reference))
    }

    /// What became of a model, in order.
    pub fn model_events(&self, id: i64) -> Result<Vec<StoredEvent>, StoreError> {
        let sql = "SELECT model, at, state, who, reason FROM model_events WHERE model = $1 ORDER BY number";
        let rows = self.runtime.block_on(sqlx::query(sql).bind(id).fetch_all(&self.pool));
        let event = |row: &SqliteRow| -> Result<StoredEvent, sqlx::Error> {
            Ok(StoredEvent {
                model: row.try_get(0)?,
                at: row.try_get::<i64, _>(1)? as u64,
                state: row.try_get(2)?,
                who: row.try_get(3)?,
                reason: row.try_get(4)?,
            })
        };
        let rows = rows.map_err(|error| self.failed(error))?;
        rows.iter().map(|row| event(row).map_err(|error| self.failed(error))).collect()
    }

    /// Notes what happened to a model without changing its state, such as drift.
    pub fn note_model(&self, id: i64, what: &str, at: u64, who: &str, reason: &str) -> Result<(), StoreError> {
        self.change(async |change| note(change, id, what, Cause { at, who, reason }).await)
    }

    /// Puts a model in another state. An active one takes the place of the one before it.
    pub fn set_model_state(&self, id: i64, to: State, at: u64, who: &str, reason: &str) -> Result<(), StoreError> {
        let model = self.model(id)?;
        if model.state == to {
            return Err(StoreError::Already { id, state: to.name() });
        }
        let cause = Cause { at, who, reason };
        self.change(async |change| settle(change, id, &model.scope, to, cause).await)
    }

    /// What comes of comparing a shadow with the active model. `against`: the number of that one, where it is known.
    ///
    /// # Errors
    /// The model is no shadow any more, or another one is active: nothing is changed then.
    pub fn decide_shadow(
        &self,
        (id, against): (i64, Option<i64>),
        to: State,
        (at, who, reason): (u64, &str, &str),
    ) -> Result<(), StoreError> {
        let model = self.model(id)?;
        let holds = self.change(async |change| {
            let shadow = holder(change, &model.scope, State::Shadow).await?;
            let active = holder(change, &model.scope, State::Active).await?;
            let holds = shadow == Some(id) && (against.is_none() || against == active);
            if holds {
                settle(change, id, &model.scope, to, Cause { at, who, reason }).await?;
            }
            Ok(holds)
        })?;
        if holds { Ok(()) } else { Err(StoreError::Overtaken { id }) }
    }

    /// Makes the model active that the active one took the place of; returns the number that is active then.
    pub fn roll_model_back(&self, scope: &str, at: u64, who: &str, reason: &str) -> Result<i64, StoreError> {
        let scope = scope.to_owned();
        let active = self.models_in(State::Active)?.into_iter().find(|model| model.scope == scope);
        let Some(StoredModel { id, replaces, .. }) = active else { return Err(StoreError::NoActive { scope }) };
        let Some(former) = replaces else { return Err(StoreError::NoFormer { id, scope }) };
        self.model(former)?;
        let cause = Cause { at, who, reason };
        self.change(async |change| {
            set(change, id, State::Retired, cause).await?;
            set(change, former, State::Active, cause).await
        })?;
        Ok(former)
    }
}

/// Numbers of models that were deleted are not used again.
async fn next(change: &mut Change<'_>) -> Result<i64, sqlx::Error> {
    let sql = "SELECT max(last) FROM (SELECT max(id) AS last FROM models UNION SELECT max(model) FROM model_events) AS all_ids";
    let last: Option<i64> = sqlx::query_scalar(sql).fetch_one(&mut **change).await?;
    Ok(last.unwrap_or(0) + 1)
}

async fn insert(change: &mut Change<'_>, id: i64, new: &NewModel) -> Result<(), sqlx::Error> {
    let sql = "INSERT INTO models (id, scope, state, feature_schema, created, window_from, window_to, records, \
        excluded, seed, settings, metrics, who, reason, checksum, blob, reference) \
        VALUES ($1, $2, 'candidate', $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)";
    let numbers = [new.created, new.window.0, new.window.1, new.records, new.excluded, new.seed];
    let mut query = sqlx::query(sql).bind(id).bind(&new.scope).bind(i64::from(new.feature_schema));
    for number in numbers {
        query = query.bind(number as i64);
    }
    let query = query.bind(&new.settings).bind(&new.metrics).bind(&new.who).bind(&new.reason);
    let query = query.bind(checksum(&new.blob, &new.reference)).bind(&new.blob).bind(&new.reference);
    query.execute(&mut **change).await.map(drop)
}

/// The model of a scope that has a state which only one can have.
async fn holder(change: &mut Change<'_>, scope: &str, state: State) -> Result<Option<i64>, sqlx::Error> {
    let sql = "SELECT id FROM models WHERE scope = $1 AND state = $2";
    sqlx::query_scalar(sql).bind(scope).bind(state.name()).fetch_optional(&mut **change).await
}

/// Puts a model in a state that perhaps only one of its scope can have.
async fn settle(change: &mut Change<'_>, id: i64, scope: &str, to: State, cause: Cause<'_>) -> Result<(), sqlx::Error> {
    if matches!(to, State::Active | State::Shadow)
        && let Some(before) = holder(change, scope, to).await?
    {
        let reason = format!("model {id} took its place");
        set(change, before, State::Retired, Cause { reason: &reason, ..cause }).await?;
        if to == State::Active {
            let sql = "UPDATE models SET replaces = $1 WHERE id = $2";
            sqlx::query(sql).bind(before).bind(id).execute(&mut **change).await?;
        }
    }
    set(change, id, to, cause).await
}

async fn set(change: &mut Change<'_>, id: i64, to: State, cause: Cause<'_>) -> Result<(), sqlx::Error> {
    let query = sqlx::query("UPDATE models SET state = $1, who = $2, reason = $3 WHERE id = $4");
    query.bind(to.name()).bind(cause.who).bind(cause.reason).bind(id).execute(&mut **change).await?;
    note(change, id, to.name(), cause).await
}

async fn note(change: &mut Change<'_>, id: i64, what: &str, cause: Cause<'_>) -> Result<(), sqlx::Error> {
    let sql = "INSERT INTO model_events (number, model, at, state, who, reason) \
        SELECT coalesce(max(number), 0) + 1, $1, $2, $3, $4, $5 FROM model_events";
    let query = sqlx::query(sql).bind(id).bind(cause.at as i64).bind(what).bind(cause.who).bind(cause.reason);
    query.execute(&mut **change).await.map(drop)
}

/// Deletes the oldest of those that are over, never one that a rollback from the active one would need.
async fn prune(change: &mut Change<'_>, scope: &str) -> Result<(), sqlx::Error> {
    let sql = "DELETE FROM models WHERE scope = $1 AND state IN ('retired', 'rejected') \
        AND id NOT IN (SELECT id FROM models WHERE scope = $1 AND state IN ('retired', 'rejected') \
        ORDER BY id DESC LIMIT $2) \
        AND id NOT IN (SELECT replaces FROM models WHERE state = 'active' AND replaces IS NOT NULL)";
    sqlx::query(sql).bind(scope).bind(KEPT).execute(&mut **change).await.map(drop)
}

fn read(row: &SqliteRow) -> Result<StoredModel, sqlx::Error> {
    let number = |name: &str| row.try_get::<i64, _>(name).map(|n| n as u64);
    let json = |name: &str| -> Result<serde_json::Value, sqlx::Error> {
        serde_json::from_str(row.try_get(name)?).map_err(|error| sqlx::Error::Decode(error.into()))
    };
    Ok(StoredModel {
        id: row.try_get("id")?,
        scope: row.try_get("scope")?,
        state: State::read(row.try_get("state")?),
        replaces: row.try_get("replaces")?,
        feature_schema: number("feature_schema")? as u32,
        created: number("created")?,
        window_from: number("window_from")?,
        window_to: number("window_to")?,
        records: number("records")?,
        excluded: number("excluded")?,
        seed: number("seed")?,
        settings: json("settings")?,
        metrics: json("metrics")?,
        who: row.try_get("who")?,
        reason: row.try_get("reason")?,
        checksum: row.try_get("checksum")?,
    })
}

fn checksum(blob: &[u8], reference: &[u8]) -> String {
    let sum = Sha1::new().chain_update(blob).chain_update(reference).finalize();
    sum.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn new(scope: &str, n: u8) -> NewModel {
        NewModel {
            scope: scope.to_owned(),
            feature_schema: 1,
            created: 1000 + u64::from(n),
            window: (10, 20),
            records: 500,
            seed: u64::MAX >> 1,
            settings: "{}".to_owned(),
            metrics: "{\"a\":1}".to_owned(),
            who: "gnomon".to_owned(),
            reason: "interval".to_owned(),
            blob: vec![n; 100],
            reference: vec![n, 1],
            ..NewModel::default()
        }
    }

    fn states(store: &Store) -> Vec<(i64, &'static str)> {
        let mut all: Vec<_> = store.models().unwrap().iter().map(|m| (m.id, m.state.name())).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn one_is_active_and_the_way_back_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/gnomon.db");
        let store = Store::open(&path).unwrap();
        assert!(matches!(store.roll_model_back("all", 1, "me", ""), Err(StoreError::NoActive { .. })));
        for n in 1..=3 {
            assert_eq!(store.add_model(&new("all", n), State::Active).unwrap(), i64::from(n));
        }
        store.add_model(&new("group:web", 4), State::Active).unwrap();
        store.add_model(&new("all", 5), State::Shadow).unwrap();
        store.add_model(&new("all", 6), State::Rejected).unwrap();
        let at = [(1, "retired"), (2, "retired"), (3, "active"), (4, "active"), (5, "shadow"), (6, "rejected")];
        assert_eq!(states(&store), at);
        assert_eq!(store.roll_model_back("all", 7, "me", "worse").unwrap(), 2);
        assert_eq!(store.roll_model_back("all", 8, "me", "worse").unwrap(), 1);
        let nothing = store.roll_model_back("all", 9, "me", "").unwrap_err();
        assert!(nothing.to_string().contains("model 1 is the first of all"), "{nothing}");
        store.set_model_state(5, State::Active, 10, "me", "better").unwrap();
        let twice = store.set_model_state(5, State::Active, 11, "me", "").unwrap_err();
        assert_eq!(twice.to_string(), "model 5 is active already");
        assert_eq!(store.roll_model_back("all", 12, "me", "").unwrap(), 1);
        let told: Vec<_> = store.model_events(2).unwrap().into_iter().map(|e| (e.at, e.state)).collect();
        let told: Vec<_> = told.iter().map(|(at, state)| (*at, state.as_str())).collect();
        assert_eq!(told, [(1002, "active"), (1003, "retired"), (7, "active"), (8, "retired")]);
        store.add_model(&new("all", 7), State::Shadow).unwrap();
        for (id, against) in [(7, Some(2)), (5, None), (3, Some(1))] {
            let late = store.decide_shadow((id, against), State::Active, (13, "gnomon", "calm"));
            assert!(matches!(late, Err(StoreError::Overtaken { .. })), "{id} beside {against:?}: {late:?}");
        }
        store.decide_shadow((7, Some(1)), State::Active, (14, "gnomon", "calm")).unwrap();
        assert_eq!(store.model(7).unwrap().state, State::Active);
        assert_eq!(store.roll_model_back("all", 15, "me", "").unwrap(), 1);
        drop(store);
        let again = Store::open_existing(&path).unwrap();
        assert_eq!(states(&again)[0], (1, "active"));
        assert_eq!(again.model_bytes(3).unwrap(), (vec![3; 100], vec![3, 1]));
        assert_eq!(again.model(3).unwrap().seed, u64::MAX >> 1);
    }

    #[test]
    fn old_ones_go_and_numbers_are_never_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("x.db")).unwrap();
        store.add_model(&new("all", 1), State::Active).unwrap();
        store.add_model(&new("all", 2), State::Active).unwrap();
        (3..=60).for_each(|n| assert_eq!(store.add_model(&new("all", n), State::Rejected).unwrap(), i64::from(n)));
        let left = states(&store);
        assert_eq!(left.len(), 2 + KEPT as usize, "active, the way back, and the latest: {left:?}");
        assert_eq!(left[..2], [(1, "retired"), (2, "active")]);
        assert_eq!(store.add_model(&new("all", 61), State::Candidate).unwrap(), 61);
    }

    #[test]
    fn damage_missing_files_and_foreign_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        let missing = Store::open_existing(&path).unwrap_err().to_string();
        assert!(missing.contains("gnomon replay --store"), "{missing}");
        let store = Store::open(&path).unwrap();
        store.add_model(&new("all", 1), State::Active).unwrap();
        let changed = sqlx::query("UPDATE models SET blob = X'00'").execute(&store.pool);
        store.runtime.block_on(changed).unwrap();
        let damaged = store.model_bytes(1).unwrap_err();
        assert_eq!(damaged.to_string(), "model 1 in the store is damaged: its checksum does not match");
        assert!(matches!(store.model_bytes(9), Err(StoreError::NoModel { id: 9 })));
        let other = folder.path().join("notes.txt");
        std::fs::write(&other, "no database, but long enough to be looked at".repeat(40)).unwrap();
        assert!(Store::open(&other).is_err());
    }

    #[test]
    fn two_processes_can_have_it_open() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        let (one, other) = (Store::open(&path).unwrap(), Store::open(&path).unwrap());
        let writers: Vec<_> = [one, other]
            .into_iter()
            .map(|store| {
                std::thread::spawn(move || {
                    (0..20).map(|n| store.add_model(&new("all", n), State::Candidate).unwrap()).collect::<Vec<_>>()
                })
            })
            .collect();
        let mut ids: Vec<i64> = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
        ids.sort_unstable();
        assert_eq!(ids, (1..=40).collect::<Vec<_>>());
    }
}
