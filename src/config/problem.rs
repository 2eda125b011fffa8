//! What is wrong with a file, where, and what would be right.

use std::fmt;

use serde::Serialize;

use super::document::{Document, Place};

/// Whether the file can be used all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Error,
    /// The file is used, but probably does not say what was meant.
    Warning,
}

/// One thing wrong with a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub severity: Severity,
    pub file: String,
    /// From 1; 0 when the file as a whole is meant.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// Such as `rule[3].ports`; tables of an array count from 0. Empty for the file as a whole.
    pub field: String,
    pub message: String,
    /// As written in the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed: Option<String>,
    /// What was probably meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
    /// Another line that has to do with it, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub related: Option<Related>,
    /// For display.
    #[serde(skip)]
    excerpt: Option<Excerpt>,
}

/// The line of the file with the part to mark, in characters.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Excerpt {
    text: String,
    indent: usize,
    width: usize,
}

/// A second place in the same file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Related {
    pub line: usize,
    pub note: String,
}

/// Prevents a configuration from being used.
pub type ConfigError = Problem;
/// Does not prevent it.
pub type Warning = Problem;

/// All errors of a file, in the order of its lines; never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct ConfigErrors {
    pub errors: Vec<ConfigError>,
}

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for error in &self.errors {
            writeln!(f, "{error}")?;
        }
        let file = self.errors.first().map_or("", |e| e.file.as_str());
        match self.errors.len() {
            1 => write!(f, "{file}: 1 error"),
            n => write!(f, "{file}: {n} errors"),
        }
    }
}

impl Problem {
    /// About the file as a whole.
    pub(super) fn of_file(file: &str, message: String) -> Self {
        Self {
            severity: Severity::Error,
            file: file.to_owned(),
            line: 0,
            column: 0,
            field: String::new(),
            message,
            found: None,
            allowed: None,
            suggestion: None,
            related: None,
            excerpt: None,
        }
    }

    pub(super) fn found(&mut self, found: impl Into<String>) -> &mut Self {
        self.found = Some(found.into());
        self
    }

    pub(super) fn allowed(&mut self, allowed: impl Into<String>) -> &mut Self {
        self.allowed = Some(allowed.into());
        self
    }

    pub(super) fn suggest(&mut self, suggestion: impl Into<Option<String>>) -> &mut Self {
        self.suggestion = suggestion.into();
        self
    }

    pub(super) fn related(&mut self, line: usize, note: impl Into<String>) -> &mut Self {
        self.related = Some(Related { line, note: note.into() });
        self
    }
}

impl fmt::Display for Problem {
    /// Like a compiler: message, place, the line with the part marked, then what would be right.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        writeln!(f, "{severity}: {}", self.message)?;
        let margin = self.line.to_string().len();
        write!(f, "{:margin$}--> {}", "", self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.field.is_empty() {
            write!(f, " ({})", self.field)?;
        }
        writeln!(f)?;
        if let Some(Excerpt { text: line, indent, width }) = &self.excerpt {
            let pad: String = line.chars().take(*indent).map(blank).collect();
            writeln!(f, "{:margin$} |", "")?;
            writeln!(f, "{} | {line}", self.line)?;
            writeln!(f, "{:margin$} | {pad}{}", "", "^".repeat((*width).max(1)))?;
        }
        let notes = [("found", &self.found), ("allowed", &self.allowed), ("help: did you mean", &self.suggestion)];
        for (word, text) in notes {
            if let Some(text) = text {
                writeln!(f, "{:margin$} = {word}: {text}", "")?;
            }
        }
        if let Some(Related { line, note }) = &self.related {
            writeln!(f, "{:margin$} = note: line {line}: {note}", "")?;
        }
        Ok(())
    }
}

/// Tabs stay tabs, so that the mark stands below what it marks.
fn blank(c: char) -> char {
    if c == '\t' { '\t' } else { ' ' }
}

/// Collects problems of one document.
#[derive(Debug)]
pub(super) struct Problems<'d> {
    pub(super) document: &'d Document,
    pub(super) errors: Vec<ConfigError>,
    pub(super) warnings: Vec<Warning>,
}

impl<'d> Problems<'d> {
    pub(super) fn new(document: &'d Document) -> Self {
        Self { document, errors: Vec::new(), warnings: Vec::new() }
    }

    /// An error about the value at `place`.
    pub(super) fn error(&mut self, place: &Place, message: impl Into<String>) -> &mut Problem {
        let span = self.document.value_span(place);
        self.errors.push(located(self.document, Severity::Error, place, span, message.into()));
        last(&mut self.errors)
    }

    /// An error about the key at `place` rather than its value.
    pub(super) fn error_at_key(&mut self, place: &Place, message: impl Into<String>) -> &mut Problem {
        let span = self.document.key_span(place);
        self.errors.push(located(self.document, Severity::Error, place, span, message.into()));
        last(&mut self.errors)
    }

    pub(super) fn warning(&mut self, place: &Place, message: impl Into<String>) -> &mut Problem {
        let span = self.document.value_span(place);
        self.warnings.push(located(self.document, Severity::Warning, place, span, message.into()));
        last(&mut self.warnings)
    }

    pub(super) fn syntax_error(&mut self, span: std::ops::Range<usize>, message: String) {
        let problem = located(self.document, Severity::Error, &Place::root(), span, message);
        self.errors.push(problem);
    }

    /// Sorted by place.
    pub(super) fn finish(mut self) -> (Vec<ConfigError>, Vec<Warning>) {
        for list in [&mut self.errors, &mut self.warnings] {
            list.sort_by(|a, b| (a.line, a.column, &a.message).cmp(&(b.line, b.column, &b.message)));
            list.dedup();
        }
        (self.errors, self.warnings)
    }
}

fn last(list: &mut [Problem]) -> &mut Problem {
    list.last_mut().expect("an element was pushed just before")
}

fn located(
    document: &Document,
    severity: Severity,
    place: &Place,
    span: std::ops::Range<usize>,
    message: String,
) -> Problem {
    let spot = document.spot(&span);
    Problem {
        severity,
        line: spot.line,
        column: spot.column,
        field: place.to_string(),
        excerpt: Some(Excerpt { text: spot.text, indent: spot.indent, width: spot.width }),
        ..Problem::of_file(&document.file, message)
    }
}

/// The candidate that `word` was probably meant to be.
pub(crate) fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<String> {
    let lower = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (likeness(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(likeness, _)| *likeness >= 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(a.1)))
        .map(|(_, candidate)| candidate.to_owned())
}

/// 0 to 1. One slip of the finger counts as near also in short words, which the measure alone is too strict on.
fn likeness(a: &str, b: &str) -> f64 {
    let near = strsim::jaro_winkler(a, b);
    let slip = a.chars().count() >= 3 && strsim::damerau_levenshtein(a, b) == 1;
    if slip { near.max(0.9) } else { near }
}
