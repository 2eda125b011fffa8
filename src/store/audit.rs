//! Who did what: rows that are only added, each with a hash over itself and the hash before it.

use serde::Serialize;
use sha2::{Digest, Sha256};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use utoipa::ToSchema;

use super::{Change, Store, StoreError};

/// What somebody did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewAudit {
    /// Nanoseconds since the Unix epoch.
    pub at: u64,
    pub who: String,
    pub role: String,
    /// A verb, such as `commit`.
    pub action: String,
    /// What it was done to, such as `generation 7`.
    pub object: String,
    /// JSON, or text.
    pub detail: String,
}

/// A row of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Audit {
    pub number: i64,
    /// Nanoseconds since the Unix epoch.
    #[serde(serialize_with = "time")]
    #[schema(value_type = String, format = DateTime)]
    pub at: u64,
    pub who: String,
    pub role: String,
    pub action: String,
    pub object: String,
    pub detail: String,
    /// Hash of the row before; of the first, sixty-four zeros.
    pub previous: String,
    /// SHA-256 over `previous` and all fields above, each with its length before it.
    pub hash: String,
}

/// What came of checking the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Verified {
    pub rows: i64,
    /// Hash of the last row: written down elsewhere, it shows later that no row is missing at the end.
    pub head: String,
    /// First row that is not what it was, and why.
    pub broken: Option<Broken>,
}

/// Where a chain does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Broken {
    pub number: i64,
    pub reason: String,
}

const FIRST: &str = "0000000000000000000000000000000000000000000000000000000000000000";
const COLUMNS: &str = "number, at, who, role, action, object, detail, previous, hash";
/// Rows that are checked at a time.
const PAGE: i64 = 1000;

fn time<S: serde::Serializer>(at: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&crate::export::iso8601(*at))
}

impl Audit {
    fn computed(&self) -> String {
        let mut sum = Sha256::new();
        let numbers = [self.number.to_string(), self.at.to_string()];
        let texts = [&self.previous, &numbers[0], &numbers[1], &self.who, &self.role, &self.action, &self.object];
        for text in texts.into_iter().chain([&self.detail]) {
            sum.update((text.len() as u64).to_be_bytes());
            sum.update(text.as_bytes());
        }
        sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Adds rows within a change, so that what is done and that it was done are one.
pub(super) async fn append(change: &mut Change<'_>, rows: &[NewAudit]) -> Result<(), sqlx::Error> {
    let last = sqlx::query("SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1");
    let last = last.fetch_optional(&mut **change).await?;
    let (mut number, mut previous) = match last {
        Some(row) => (row.try_get(0)?, row.try_get(1)?),
        None => (0_i64, FIRST.to_owned()),
    };
    for new in rows {
        number += 1;
        let NewAudit { at, who, role, action, object, detail } = new.clone();
        let mut row = Audit { number, at, who, role, action, object, detail, previous, hash: String::new() };
        row.hash = row.computed();
        let sql = format!("INSERT INTO audit ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)");
        let query = sqlx::query(&sql).bind(row.number).bind(row.at as i64).bind(&row.who).bind(&row.role);
        let query = query.bind(&row.action).bind(&row.object).bind(&row.detail).bind(&row.previous).bind(&row.hash);
        query.execute(&mut **change).await?;
        previous = row.hash;
    }
    Ok(())
}

impl Store {
    /// Notes something that changes nothing else.
    pub fn audit(&self, row: &NewAudit) -> Result<(), StoreError> {
        self.change(async |change| append(change, std::slice::from_ref(row)).await)
    }

    /// The latest rows before one, the newest first.
    pub fn audits(&self, before: Option<i64>, limit: usize) -> Result<Vec<Audit>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM audit WHERE number < $1 ORDER BY number DESC LIMIT $2");
        self.audit_rows(&sql, before.unwrap_or(i64::MAX), limit as i64)
    }

    /// Goes through the whole log.
    pub fn verify_audit(&self) -> Result<Verified, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM audit WHERE number > $1 ORDER BY number LIMIT $2");
        let mut verified = Verified { rows: 0, head: FIRST.to_owned(), broken: None };
        loop {
            let page = self.audit_rows(&sql, verified.rows, PAGE)?;
            for row in &page {
                let expected = verified.rows + 1;
                let reason = match () {
                    () if row.number != expected => format!("row {expected} is missing"),
                    () if row.previous != verified.head => "it does not follow the row before it".to_owned(),
                    () if row.computed() != row.hash => "it was changed after it was written".to_owned(),
                    () => {
                        verified.rows = row.number;
                        verified.head.clone_from(&row.hash);
                        continue;
                    }
                };
                verified.broken = Some(Broken { number: row.number, reason });
                return Ok(verified);
            }
            if page.len() < PAGE as usize {
                return Ok(verified);
            }
        }
    }

    fn audit_rows(&self, sql: &str, bound: i64, limit: i64) -> Result<Vec<Audit>, StoreError> {
        let rows = self.runtime.block_on(sqlx::query(sql).bind(bound).bind(limit).fetch_all(&self.pool));
        let rows = rows.map_err(|error| self.failed(error))?;
        rows.iter().map(|row| read(row).map_err(|error| self.failed(error))).collect()
    }
}

fn read(row: &SqliteRow) -> Result<Audit, sqlx::Error> {
    Ok(Audit {
        number: row.try_get(0)?,
        at: row.try_get::<i64, _>(1)? as u64,
        who: row.try_get(2)?,
        role: row.try_get(3)?,
        action: row.try_get(4)?,
        object: row.try_get(5)?,
        detail: row.try_get(6)?,
        previous: row.try_get(7)?,
        hash: row.try_get(8)?,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn row(n: u64) -> NewAudit {
        NewAudit {
            at: n,
            who: "anna".into(),
            role: "admin".into(),
            action: "commit".into(),
            object: format!("generation {n}"),
            detail: "{}".into(),
        }
    }

    #[test]
    fn every_meddling_shows() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("x.db")).unwrap();
        assert_eq!(store.verify_audit().unwrap(), Verified { rows: 0, head: FIRST.into(), broken: None });
        (1..=1500).for_each(|n| store.audit(&row(n)).unwrap());
        let whole = store.verify_audit().unwrap();
        assert_eq!((whole.rows, whole.broken.clone()), (1500, None));
        assert_eq!(store.audits(None, 2).unwrap().iter().map(|row| row.number).collect::<Vec<_>>(), [1500, 1499]);
        assert_eq!(store.audits(Some(3), 9).unwrap().len(), 2);
        let meddle = |sql: &str| store.runtime.block_on(sqlx::query(sql).execute(&store.pool)).map(drop).unwrap();
        let broken = || store.verify_audit().unwrap().broken.map(|broken| (broken.number, broken.reason));
        meddle("UPDATE audit SET who = 'bert' WHERE number = 1200");
        assert_eq!(broken(), Some((1200, "it was changed after it was written".into())));
        meddle("UPDATE audit SET who = 'anna' WHERE number = 1200");
        assert_eq!(broken(), None);
        meddle("UPDATE audit SET previous = hash WHERE number = 7");
        assert_eq!(broken(), Some((7, "it does not follow the row before it".into())));
        meddle("DELETE FROM audit WHERE number = 5");
        assert_eq!(broken(), Some((6, "row 5 is missing".into())));
        meddle("DELETE FROM audit WHERE number >= 5");
        let cut = store.verify_audit().unwrap();
        assert!(cut.broken.is_none() && cut.head != whole.head, "the end is known by its hash alone");
    }
}
