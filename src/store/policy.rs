//! The policy, generation by generation; drafts; what waits for an answer; what was learnt.

use serde_json::Value;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::audit::{self, NewAudit};
use super::{Change, Store, StoreError};

/// A generation's row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredGeneration {
    pub number: u32,
    /// Nanoseconds since the Unix epoch.
    pub at: u64,
    pub who: String,
    pub why: String,
    pub changes: u64,
    pub back_to: Option<u32>,
    pub confirm_by: Option<u64>,
}

/// One thing that a generation changes; no body: it is gone.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredChange {
    pub kind: String,
    pub name: String,
    pub body: Option<Value>,
}

/// A change that nobody has committed.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredDraft {
    pub number: i64,
    pub at: u64,
    pub who: String,
    pub change: Value,
}

/// Something that waits for an answer, or has one.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredItem {
    pub id: String,
    pub state: String,
    pub at: u64,
    pub body: Value,
}

/// All that is written at once.
#[derive(Clone, Debug, Default)]
pub struct Writing {
    pub generation: Option<(StoredGeneration, Vec<StoredChange>)>,
    /// Drafts up to this number are part of the generation, or given up.
    pub drafts_done: Option<i64>,
    pub drafts: Vec<StoredDraft>,
    /// Kind of item, and the items.
    pub items: Vec<(&'static str, StoredItem)>,
    pub facts: Vec<(String, u64, Value)>,
    pub confirmed: Option<u32>,
    pub audit: Vec<NewAudit>,
}

impl Store {
    /// All of it or nothing.
    pub fn write(&self, writing: &Writing) -> Result<(), StoreError> {
        self.change(async |change| {
            if let Some((generation, changes)) = &writing.generation {
                add_generation(change, generation, changes).await?;
            }
            if let Some(last) = writing.drafts_done {
                sqlx::query("DELETE FROM drafts WHERE number <= $1").bind(last).execute(&mut **change).await?;
            }
            for draft in &writing.drafts {
                let sql = "INSERT INTO drafts (number, at, who, change) VALUES ($1, $2, $3, $4)";
                let query = sqlx::query(sql).bind(draft.number).bind(draft.at as i64).bind(&draft.who);
                query.bind(draft.change.to_string()).execute(&mut **change).await?;
            }
            for (kind, item) in &writing.items {
                let sql = "INSERT INTO items (kind, id, state, at, body) VALUES ($1, $2, $3, $4, $5) \
                    ON CONFLICT (kind, id) DO UPDATE SET state = excluded.state, at = excluded.at, body = excluded.body";
                let query = sqlx::query(sql).bind(kind).bind(&item.id).bind(&item.state).bind(item.at as i64);
                query.bind(item.body.to_string()).execute(&mut **change).await?;
            }
            for (name, at, body) in &writing.facts {
                let sql = "INSERT INTO facts (name, at, body) VALUES ($1, $2, $3) \
                    ON CONFLICT (name) DO UPDATE SET at = excluded.at, body = excluded.body";
                let query = sqlx::query(sql).bind(name).bind(*at as i64).bind(body.to_string());
                query.execute(&mut **change).await?;
            }
            if let Some(number) = writing.confirmed {
                let sql = "UPDATE generations SET confirm_by = NULL WHERE number = $1";
                sqlx::query(sql).bind(i64::from(number)).execute(&mut **change).await?;
            }
            audit::append(change, &writing.audit).await
        })
    }

    /// The generation that waits for somebody to confirm it.
    pub fn unconfirmed(&self) -> Result<Option<StoredGeneration>, StoreError> {
        let sql = "SELECT number, at, who, why, changes, back_to, confirm_by FROM generations \
            WHERE confirm_by IS NOT NULL ORDER BY number DESC LIMIT 1";
        let rows = self.runtime.block_on(sqlx::query(sql).fetch_all(&self.pool));
        Ok(self.all(rows, generation)?.pop())
    }

    /// The latest generations before one, the newest first.
    pub fn generations(&self, before: Option<u32>, limit: usize) -> Result<Vec<StoredGeneration>, StoreError> {
        let sql = "SELECT number, at, who, why, changes, back_to, confirm_by FROM generations \
            WHERE number < $1 ORDER BY number DESC LIMIT $2";
        let before = before.map_or(i64::MAX, i64::from);
        let rows = self.runtime.block_on(sqlx::query(sql).bind(before).bind(limit as i64).fetch_all(&self.pool));
        self.all(rows, generation)
    }

    /// Everything that was there in a generation, as kind and body.
    pub fn nouns_at(&self, generation: u32) -> Result<Vec<(String, Value)>, StoreError> {
        let sql = "SELECT kind, body FROM nouns WHERE born <= $1 AND (gone IS NULL OR gone > $1)";
        let rows = self.runtime.block_on(sqlx::query(sql).bind(i64::from(generation)).fetch_all(&self.pool));
        self.all(rows, |row| Ok((row.try_get(0)?, json(row.try_get(1)?)?)))
    }

    /// Kinds and names of things that changed after a generation, up to another.
    pub fn nouns_changed(&self, after: u32, until: u32) -> Result<Vec<(String, String)>, StoreError> {
        let sql = "SELECT DISTINCT kind, name FROM nouns WHERE (born > $1 AND born <= $2) OR (gone > $1 AND gone <= $2) \
            ORDER BY kind, name";
        let query = sqlx::query(sql).bind(i64::from(after)).bind(i64::from(until));
        let rows = self.runtime.block_on(query.fetch_all(&self.pool));
        self.all(rows, |row| Ok((row.try_get(0)?, row.try_get(1)?)))
    }

    /// A thing as it was in a generation.
    pub fn noun_at(&self, kind: &str, name: &str, generation: u32) -> Result<Option<Value>, StoreError> {
        let sql = "SELECT body FROM nouns WHERE kind = $1 AND name = $2 AND born <= $3 AND (gone IS NULL OR gone > $3)";
        let query = sqlx::query(sql).bind(kind).bind(name).bind(i64::from(generation));
        let rows = self.runtime.block_on(query.fetch_all(&self.pool));
        Ok(self.all(rows, |row| json(row.try_get(0)?))?.pop())
    }

    pub fn drafts(&self) -> Result<Vec<StoredDraft>, StoreError> {
        let sql = "SELECT number, at, who, change FROM drafts ORDER BY number";
        let rows = self.runtime.block_on(sqlx::query(sql).fetch_all(&self.pool));
        self.all(rows, |row| {
            let (number, at) = (row.try_get(0)?, row.try_get::<i64, _>(1)? as u64);
            Ok(StoredDraft { number, at, who: row.try_get(2)?, change: json(row.try_get(3)?)? })
        })
    }

    /// Items of a kind in the order of their ids.
    pub fn items(&self, kind: &str) -> Result<Vec<StoredItem>, StoreError> {
        let sql = "SELECT id, state, at, body FROM items WHERE kind = $1 ORDER BY id";
        let rows = self.runtime.block_on(sqlx::query(sql).bind(kind).fetch_all(&self.pool));
        self.all(rows, |row| {
            let (id, state) = (row.try_get(0)?, row.try_get(1)?);
            Ok(StoredItem { id, state, at: row.try_get::<i64, _>(2)? as u64, body: json(row.try_get(3)?)? })
        })
    }

    pub fn fact(&self, name: &str) -> Result<Option<Value>, StoreError> {
        let rows = self
            .runtime
            .block_on(sqlx::query("SELECT body FROM facts WHERE name = $1").bind(name).fetch_all(&self.pool));
        Ok(self.all(rows, |row| json(row.try_get(0)?))?.pop())
    }

    fn all<T>(
        &self,
        rows: Result<Vec<SqliteRow>, sqlx::Error>,
        read: impl Fn(&SqliteRow) -> Result<T, sqlx::Error>,
    ) -> Result<Vec<T>, StoreError> {
        let rows = rows.map_err(|error| self.failed(error))?;
        rows.iter().map(|row| read(row).map_err(|error| self.failed(error))).collect()
    }
}

async fn add_generation(
    change: &mut Change<'_>,
    generation: &StoredGeneration,
    changes: &[StoredChange],
) -> Result<(), sqlx::Error> {
    let number = i64::from(generation.number);
    let sql = "INSERT INTO generations (number, at, who, why, changes, back_to, confirm_by) \
        VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let query = sqlx::query(sql).bind(number).bind(generation.at as i64).bind(&generation.who).bind(&generation.why);
    let query = query.bind(generation.changes as i64).bind(generation.back_to.map(i64::from));
    query.bind(generation.confirm_by.map(|time| time as i64)).execute(&mut **change).await?;
    for StoredChange { kind, name, body } in changes {
        let sql = "UPDATE nouns SET gone = $1 WHERE kind = $2 AND name = $3 AND gone IS NULL";
        sqlx::query(sql).bind(number).bind(kind).bind(name).execute(&mut **change).await?;
        if let Some(body) = body {
            let sql = "INSERT INTO nouns (kind, name, born, body) VALUES ($1, $2, $3, $4)";
            let query = sqlx::query(sql).bind(kind).bind(name).bind(number).bind(body.to_string());
            query.execute(&mut **change).await?;
        }
    }
    Ok(())
}

fn generation(row: &SqliteRow) -> Result<StoredGeneration, sqlx::Error> {
    let maybe = |at: usize| row.try_get::<Option<i64>, _>(at);
    Ok(StoredGeneration {
        number: row.try_get::<i64, _>(0)? as u32,
        at: row.try_get::<i64, _>(1)? as u64,
        who: row.try_get(2)?,
        why: row.try_get(3)?,
        changes: row.try_get::<i64, _>(4)? as u64,
        back_to: maybe(5)?.map(|number| number as u32),
        confirm_by: maybe(6)?.map(|time| time as u64),
    })
}

fn json(text: &str) -> Result<Value, sqlx::Error> {
    serde_json::from_str(text).map_err(|error| sqlx::Error::Decode(error.into()))
}
