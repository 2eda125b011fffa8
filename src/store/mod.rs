//! What outlives the process: one SQLite file.
//!
//! In: rows of the product's nouns, one file each (`models`, `policy`, `audit`, `tokens`). Out: the same. Used by threads that may
//! wait, never by workers or the scorer: every call blocks until the change is on the disk (write-ahead log, flushed at each commit), so
//! that a crash leaves either all of a change or nothing. When the file is in use by another process, calls wait for up
//! to five seconds and then fail.
//!
//! Queries keep to what SQLite and PostgreSQL have in common; what differs is in `migrations/`.

mod audit;
mod error;
mod models;
mod tokens;
mod policy;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::Transaction;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{Sqlite, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use tokio::runtime::{Builder, Runtime};

pub use audit::{Audit, Broken, NewAudit, Verified};
pub use error::StoreError;
pub use models::{NewModel, State, StoredEvent, StoredModel};
pub use policy::{StoredChange, StoredDraft, StoredGeneration, StoredItem, Writing};
pub use tokens::StoredToken;

/// How long a call waits for another process.
const PATIENCE: Duration = Duration::from_secs(5);

/// The file, open.
#[derive(Debug)]
pub struct Store {
    runtime: Runtime,
    pool: SqlitePool,
    path: PathBuf,
}

/// In order; a new change of the tables is a new file, never an edit of an old one.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "models", include_str!("migrations/0001_models.sql")),
    (2, "tokens", include_str!("migrations/0002_tokens.sql")),
    (3, "policy", include_str!("migrations/0003_policy.sql")),
];

fn migrator() -> Migrator {
    let migration = |(version, name, sql): &(i64, &'static str, &'static str)| {
        Migration::new(*version, Cow::Borrowed(name), MigrationType::Simple, Cow::Borrowed(sql), false)
    };
    Migrator { migrations: MIGRATIONS.iter().map(migration).collect(), ..Migrator::DEFAULT }
}

impl Store {
    /// Opens the file, or makes it with its folder, and brings its tables up to date.
    ///
    /// # Errors
    /// The file cannot be used: says why and what to do.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|source| StoreError::Folder { path: folder.to_owned(), source })?;
        }
        Self::connect(path, true)
    }

    /// As [`Store::open`], of a file that must be there.
    ///
    /// # Errors
    /// There is none, or it cannot be used.
    pub fn open_existing(path: &Path) -> Result<Self, StoreError> {
        if !path.exists() {
            return Err(StoreError::Missing { path: path.to_owned() });
        }
        Self::connect(path, false)
    }

    fn connect(path: &Path, create: bool) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Open { path: path.to_owned(), source };
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| failed(sqlx::Error::Io(error)))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(create)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(PATIENCE);
        let pool = SqlitePoolOptions::new().max_connections(1).acquire_timeout(2 * PATIENCE);
        let pool = runtime.block_on(pool.connect_with(options)).map_err(failed)?;
        let migrated = runtime.block_on(migrator().run(&pool));
        migrated.map_err(|source| StoreError::Tables { path: path.to_owned(), source })?;
        Ok(Self { runtime, pool, path: path.to_owned() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All of it or nothing.
    fn change<T>(&self, how: impl AsyncFnOnce(&mut Change<'_>) -> Result<T, sqlx::Error>) -> Result<T, StoreError> {
        let changed = self.runtime.block_on(async {
            // At once for writing: what is read first is then not changed by others.
            let mut change = self.pool.begin_with("BEGIN IMMEDIATE").await?;
            let value = how(&mut change).await?;
            change.commit().await?;
            Ok(value)
        });
        changed.map_err(|error| self.failed(error))
    }

    fn failed(&self, source: sqlx::Error) -> StoreError {
        StoreError::Query { path: self.path.clone(), source }
    }
}

type Change<'a> = Transaction<'a, Sqlite>;

impl Drop for Store {
    fn drop(&mut self) {
        // Otherwise the log stays beside the file.
        self.runtime.block_on(self.pool.close());
    }
}
