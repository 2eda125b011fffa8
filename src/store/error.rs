//! What goes wrong with a store, and what to do about it.

use std::io;
use std::path::PathBuf;

/// Why something could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("there is no store {}: a run with [store], or `gnomon replay --store`, makes it", path.display())]
    Missing { path: PathBuf },
    #[error("the folder {} of the store cannot be made: {source}; choose another [store] path", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("the store {} cannot be opened: {source}; check that it is a file gnomon made, and that this user may write it", path.display())]
    Open { path: PathBuf, source: sqlx::Error },
    #[error("the tables of the store {} cannot be brought up to date: {source}; a newer gnomon may have made it", path.display())]
    Tables { path: PathBuf, source: sqlx::migrate::MigrateError },
    #[error("the store {}: {source}", path.display())]
    Query { path: PathBuf, source: sqlx::Error },
    #[error("there is no model {id} in the store; `gnomon model list` shows which there are")]
    NoModel { id: i64 },
    #[error("model {id} is {state} already")]
    Already { id: i64, state: &'static str },
    #[error("model {id} is no longer a shadow beside the model it was compared with")]
    Overtaken { id: i64 },
    #[error("there is nothing to go back to: model {id} is the first of {scope}")]
    NoFormer { id: i64, scope: String },
    #[error("there is nothing to go back to: no model of {scope} is active")]
    NoActive { scope: String },
    #[error("there is a token `{name}`; choose another name, or `gnomon token revoke {name}` first")]
    TokenThere { name: String },
    #[error("there is no token `{name}`; `gnomon token list` shows which there are")]
    NoToken { name: String },
    #[error("model {id} in the store is damaged: {what}")]
    Damaged { id: i64, what: String },
}
