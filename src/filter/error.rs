//! What is wrong with an expression, where, and what would be right.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// One thing wrong with an expression.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterError {
    /// The whole expression.
    pub expression: String,
    /// The part that is meant, in bytes; empty at the end when something is missing there.
    pub place: Range<usize>,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed: Option<String>,
    /// What was probably meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
}

impl FilterError {
    pub(super) fn new(expression: &str, place: Range<usize>, message: impl Into<String>) -> Box<Self> {
        let expression = expression.to_owned();
        Box::new(Self { expression, place, message: message.into(), allowed: None, suggestion: None })
    }

    pub(super) fn allowed(mut self: Box<Self>, allowed: impl Into<String>) -> Box<Self> {
        self.allowed = Some(allowed.into());
        self
    }

    pub(super) fn suggest(mut self: Box<Self>, suggestion: Option<String>) -> Box<Self> {
        self.suggestion = suggestion;
        self
    }
}

impl std::error::Error for FilterError {}

impl fmt::Display for FilterError {
    /// Message, the expression with the part marked, then what would be right.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = &self.expression;
        // What came over a socket may point anywhere.
        let before = text.get(..self.place.start).unwrap_or(text);
        let part = text.get(self.place.clone()).unwrap_or("");
        writeln!(f, "{}", self.message)?;
        writeln!(f, "  | {}", text.replace(char::is_control, " "))?;
        write!(f, "  | {}{}", " ".repeat(before.chars().count()), "^".repeat(part.chars().count().max(1)))?;
        if let Some(allowed) = &self.allowed {
            write!(f, "\n  = allowed: {allowed}")?;
        }
        if let Some(suggestion) = &self.suggestion {
            write!(f, "\n  = help: did you mean: {suggestion}")?;
        }
        Ok(())
    }
}
