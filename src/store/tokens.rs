//! Tokens of the API: their names, roles and digests, never the tokens themselves.

use serde::Serialize;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Store, StoreError};
use crate::api::Role;

/// A token in the store. Times are nanoseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoredToken {
    pub name: String,
    pub role: Role,
    /// SHA-256 in hexadecimal digits.
    #[serde(skip)]
    pub digest: String,
    pub created: u64,
    /// `None`: never.
    pub expires: Option<u64>,
    pub last_used: Option<u64>,
}

impl StoredToken {
    /// Whether it counts at a time.
    #[must_use]
    pub fn is_valid(&self, at: u64) -> bool {
        self.expires.is_none_or(|expires| at < expires)
    }
}

impl Store {
    /// Adds a token.
    ///
    /// # Errors
    /// There is one with this name.
    pub fn add_token(&self, token: &StoredToken) -> Result<(), StoreError> {
        let sql = "INSERT INTO tokens (name, role, digest, created, expires) VALUES ($1, $2, $3, $4, $5) \
            ON CONFLICT (name) DO NOTHING";
        let query = sqlx::query(sql).bind(&token.name).bind(token.role.name()).bind(&token.digest);
        let query = query.bind(token.created as i64).bind(token.expires.map(|expires| expires as i64));
        let done = self.runtime.block_on(query.execute(&self.pool)).map_err(|error| self.failed(error))?;
        if done.rows_affected() == 0 { Err(StoreError::TokenThere { name: token.name.clone() }) } else { Ok(()) }
    }

    /// All of them by name, expired ones too.
    pub fn tokens(&self) -> Result<Vec<StoredToken>, StoreError> {
        let sql = "SELECT name, role, digest, created, expires, last_used FROM tokens ORDER BY name";
        let rows = self.runtime.block_on(sqlx::query(sql).fetch_all(&self.pool));
        rows.map_err(|error| self.failed(error))?.iter().map(|row| read(row).map_err(|e| self.failed(e))).collect()
    }

    /// Removes a token.
    ///
    /// # Errors
    /// There is none with this name.
    pub fn revoke_token(&self, name: &str) -> Result<(), StoreError> {
        let query = sqlx::query("DELETE FROM tokens WHERE name = $1").bind(name);
        let done = self.runtime.block_on(query.execute(&self.pool)).map_err(|error| self.failed(error))?;
        if done.rows_affected() == 0 { Err(StoreError::NoToken { name: name.to_owned() }) } else { Ok(()) }
    }

    /// Notes when tokens were last used. Names that are gone are passed over.
    pub fn note_token_uses(&self, uses: &[(String, u64)]) -> Result<(), StoreError> {
        let noted = self.runtime.block_on(async {
            let mut change = self.pool.begin_with("BEGIN IMMEDIATE").await?;
            for (name, at) in uses {
                let query = sqlx::query("UPDATE tokens SET last_used = $1 WHERE name = $2").bind(*at as i64).bind(name);
                query.execute(&mut *change).await?;
            }
            change.commit().await
        });
        noted.map_err(|error| self.failed(error))
    }
}

fn read(row: &SqliteRow) -> Result<StoredToken, sqlx::Error> {
    let time = |name: &str| row.try_get::<Option<i64>, _>(name).map(|at| at.map(|at| at as u64));
    Ok(StoredToken {
        name: row.try_get("name")?,
        // The table takes no other words.
        role: Role::read(row.try_get("role")?).unwrap_or(Role::Viewer),
        digest: row.try_get("digest")?,
        created: row.try_get::<i64, _>("created")? as u64,
        expires: time("expires")?,
        last_used: time("last_used")?,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn token(name: &str, role: Role, expires: Option<u64>) -> StoredToken {
        StoredToken { name: name.into(), role, digest: format!("of {name}"), created: 5, expires, last_used: None }
    }

    #[test]
    fn tokens_come_and_go() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("x.db")).unwrap();
        let (ops, ci) = (token("ops", Role::Admin, None), token("ci", Role::Viewer, Some(100)));
        store.add_token(&ops).unwrap();
        store.add_token(&ci).unwrap();
        let twice = store.add_token(&token("ci", Role::Admin, None)).unwrap_err().to_string();
        assert!(twice.contains("a token `ci`") && twice.contains("gnomon token revoke ci"), "{twice}");
        assert_eq!(store.tokens().unwrap(), [ci.clone(), ops.clone()]);
        assert!(ci.is_valid(99) && !ci.is_valid(100) && ops.is_valid(u64::MAX));
        store.note_token_uses(&[("ops".into(), 77), ("gone".into(), 78)]).unwrap();
        assert_eq!(store.tokens().unwrap()[1].last_used, Some(77));
        store.revoke_token("ci").unwrap();
        assert!(matches!(store.revoke_token("ci"), Err(StoreError::NoToken { .. })));
        assert_eq!(store.tokens().unwrap().len(), 1);
    }
}
