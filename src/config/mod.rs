//! TOML → [`Config`], valid by construction.
//!
//! Comes in: a file. Goes out: a [`Config`] that needs no further checking, and warnings; or all errors of the file
//! at once, each with its line, what was found, what is allowed and what was probably meant. Runs on the main core,
//! at start and when the file is read again; never on the packet path.
//!
//! ```text
//!   text ── document ──► values and their places in the text      (TOML syntax)
//!             shape  ──► the tables of raw.rs                     (keys, types, words, ranges: JSON schema)
//!             resolve ─► Config                                   (addresses, references, contradictions)
//! ```
mod adaptive;
mod api;
mod defaults;
mod detect;
mod document;
mod model;
mod problem;
mod raw;
mod raw_adaptive;
mod raw_api;
mod raw_detect;
mod raw_mirrors;
mod raw_models;
mod resolve;
mod schema;
mod shape;
mod spelling;
mod text;

use std::path::Path;

pub use adaptive::{Adaptive, Escalation, Graylist, Honeypot, Level};
pub use api::{Api, ApiClient, ApiTls};
pub use detect::{Detect, DetectException, DetectSide};
pub use model::{
    Config, Control, Cores, Eal, EventKind, EventSocket, Export, Flow, Ipfix, IpfixTransport, Limits, Metrics, Port,
    Rotation, Scorer, SocketKind, Store, Timeouts, Vm,
};
pub use problem::{ConfigError, ConfigErrors, Problem, Related, Severity, Warning};
pub use schema::json_schema;

use document::Document;
use problem::Problems;
pub(crate) use problem::nearest;

/// Reads and checks a file; warnings go to the log.
///
/// # Errors
/// Everything that is wrong with the file.
pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
    let (config, warnings) = check_file(path)?;
    for warning in &warnings {
        log::warn!("{warning}");
    }
    Ok(config)
}

/// Checks a configuration that is given as text; `file_name` is for the messages. Never panics, whatever the text.
///
/// # Errors
/// Everything that is wrong with the text.
pub fn parse(text: &str, file_name: &str) -> Result<Config, ConfigErrors> {
    check_text(text, file_name).map(|(config, _)| config)
}

/// As [`load`], with the warnings.
///
/// # Errors
/// Everything that is wrong with the file.
pub fn check_file(path: &Path) -> Result<(Config, Vec<Warning>), ConfigErrors> {
    let name = path.display().to_string();
    let fail = |message| ConfigErrors { errors: vec![Problem::of_file(&name, message)] };
    let bytes = std::fs::read(path).map_err(|error| fail(format!("cannot read the configuration: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        fail(format!("line {line} is not UTF-8, as TOML must be"))
    })?;
    check_text(&text, &name)
}

/// As [`parse`], with the warnings.
///
/// # Errors
/// Everything that is wrong with the text.
pub fn check_text(text: &str, file_name: &str) -> Result<(Config, Vec<Warning>), ConfigErrors> {
    let (document, syntax) = Document::parse(text, file_name);
    let mut problems = Problems::new(&document);
    if !syntax.is_empty() {
        for (span, message) in syntax {
            problems.syntax_error(span, message);
        }
        return Err(ConfigErrors { errors: problems.finish().0 });
    }
    let shaped = shape::check(&mut problems);
    let config = Config { source: Some(text.into()), ..resolve::resolve(&mut problems, shaped) };
    let (errors, warnings) = problems.finish();
    if errors.is_empty() { Ok((config, warnings)) } else { Err(ConfigErrors { errors }) }
}
