//! Answers as people read them.

use std::io::Write;

use anyhow::Result;
use serde_json::Value;

use super::Access;
use crate::cli::report::table;

/// A column of a list: its heading, and where the value is (a JSON pointer).
pub(super) type Column = (&'static str, &'static str);

/// A table, or a line of JSON for each item.
pub(super) fn list(out: &mut impl Write, access: &Access, items: &[Value], columns: &[Column]) -> Result<()> {
    if access.wants_json() {
        for item in items {
            writeln!(out, "{item}")?;
        }
        return Ok(());
    }
    if items.is_empty() {
        writeln!(out, "none")?;
        return Ok(());
    }
    let used = |column: &&Column| items.iter().any(|item| item.pointer(column.1).is_some_and(|value| !is_empty(value)));
    let columns: Vec<&Column> = columns.iter().filter(used).collect();
    let headings: Vec<&str> = columns.iter().map(|(heading, _)| *heading).collect();
    let mut rows = table(&headings);
    for item in items {
        rows.add_row(columns.iter().map(|(_, pointer)| item.pointer(pointer).map(text).unwrap_or_default()));
    }
    writeln!(out, "{rows}")?;
    Ok(())
}

/// A field a line.
pub(super) fn one(out: &mut impl Write, access: &Access, item: &Value) -> Result<()> {
    if access.wants_json() {
        writeln!(out, "{item}")?;
        return Ok(());
    }
    fields(out, item, 0)
}

fn fields(out: &mut impl Write, item: &Value, depth: usize) -> Result<()> {
    let Value::Object(object) = item else {
        writeln!(out, "{}", text(item))?;
        return Ok(());
    };
    let indent = "  ".repeat(depth);
    let width = object.keys().map(String::len).max().unwrap_or(0);
    for (name, value) in object.iter().filter(|(_, value)| !is_empty(value)) {
        match value {
            Value::Object(_) => {
                writeln!(out, "{indent}{name}")?;
                fields(out, value, depth + 1)?;
            }
            Value::Array(items) if items.iter().any(Value::is_object) => {
                writeln!(out, "{indent}{name}")?;
                for item in items {
                    let line = match item {
                        Value::Object(object) => told(object),
                        other => text(other),
                    };
                    writeln!(out, "{indent}  {line}")?;
                }
            }
            value => writeln!(out, "{indent}{name:<width$}  {}", text(value))?,
        }
    }
    Ok(())
}

/// An object in one line.
fn told(object: &serde_json::Map<String, Value>) -> String {
    let parts = object.iter().filter(|(_, value)| !is_empty(value));
    parts.map(|(name, value)| format!("{name} {}", text(value))).collect::<Vec<_>>().join(", ")
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(object) => object.is_empty(),
        _ => false,
    }
}

/// A value in a cell.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => time(text).unwrap_or_else(|| text.clone()),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(", "),
        Value::Object(object) => told(object),
        other => other.to_string(),
    }
}

/// Times to the second, in UTC.
fn time(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let is_time = bytes.len() >= 20 && bytes[4] == b'-' && bytes[7] == b'-' && bytes[10] == b'T' && bytes[13] == b':';
    is_time.then(|| text.get(..19).map(|text| text.replace('T', " "))).flatten()
}
