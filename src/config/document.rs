//! TOML text → values with their places in the text.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Deeper nesting than any valid file has; what is below is not looked at.
const MAX_DEPTH: usize = 16;

/// Characters of a line that a message shows.
const MAX_EXCERPT: usize = 160;

/// A parsed file: the value for serde, and where each part of it stands in the text.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) file: String,
    pub(super) json: Value,
    text: String,
    root: Node,
    /// Byte offset of the start of each line.
    lines: Vec<usize>,
}

/// A syntax error and its bytes.
pub(super) type SyntaxError = (Range<usize>, String);

/// Where a byte range starts, for people.
#[derive(Debug)]
pub(super) struct Spot {
    pub(super) line: usize,
    pub(super) column: usize,
    /// The line, or of a very long one the part around the range.
    pub(super) text: String,
    /// Characters before the range in `text`.
    pub(super) indent: usize,
    /// Characters of the range on this line.
    pub(super) width: usize,
}

#[derive(Debug)]
struct Node {
    key: Option<Range<usize>>,
    value: Range<usize>,
    children: Children,
}

#[derive(Debug)]
enum Children {
    Table(BTreeMap<String, Node>),
    List(Vec<Node>),
    None,
}

/// The way from the root to a value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

impl Place {
    pub(super) fn root() -> Self {
        Self::default()
    }

    #[must_use]
    pub(super) fn key(&self, key: &str) -> Self {
        self.with(Step::Key(key.to_owned()))
    }

    #[must_use]
    pub(super) fn index(&self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    #[must_use]
    pub(super) fn with(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }

    pub(super) fn steps(&self) -> &[Step] {
        &self.0
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if position == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

impl Document {
    /// Reads as much as can be read; with syntax errors the value is only good for reporting them.
    pub(super) fn parse(text: &str, file: &str) -> (Self, Vec<SyntaxError>) {
        let (table, errors) = DeTable::parse_recoverable(text);
        let errors = errors.iter().map(|e| (e.span().unwrap_or(0..0), e.message().to_owned())).collect();
        let (root, json) = table_node(table.get_ref(), None, 0..0, 0);
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        (Self { file: file.to_owned(), json, text: text.to_owned(), root, lines }, errors)
    }

    /// Bytes of the value at `place`, or of the nearest thing above it that has some.
    pub(super) fn value_span(&self, place: &Place) -> Range<usize> {
        let mut span = 0..0;
        let mut node = &self.root;
        for step in place.steps() {
            match node.child(step) {
                Some(child) => node = child,
                None => break,
            }
            span = node.value.clone();
        }
        span
    }

    /// Bytes of the key at `place`; for a table of an array, of its header.
    pub(super) fn key_span(&self, place: &Place) -> Range<usize> {
        self.node(place).and_then(|n| n.key.clone()).unwrap_or_else(|| self.value_span(place))
    }

    pub(super) fn line_of(&self, place: &Place) -> usize {
        self.spot(&self.value_span(place)).line
    }

    /// The value as written, on one line and not too long.
    pub(super) fn source(&self, place: &Place) -> String {
        let text = self.text.get(self.value_span(place)).unwrap_or_default();
        let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        match one_line.char_indices().nth(60) {
            Some((cut, _)) => format!("{} ...", &one_line[..cut]),
            None => one_line,
        }
    }

    pub(super) fn contains(&self, place: &Place) -> bool {
        self.node(place).is_some()
    }

    /// True for numbers too large to hold, dates, and what is nested too deep.
    pub(super) fn is_unreadable(&self, place: &Place) -> bool {
        let value = place.steps().iter().try_fold(&self.json, |value, step| match step {
            Step::Key(key) => value.get(key),
            Step::Index(index) => value.get(*index),
        });
        value.is_some_and(Value::is_null)
    }

    pub(super) fn spot(&self, span: &Range<usize>) -> Spot {
        let start = floor_boundary(&self.text, span.start);
        let end = floor_boundary(&self.text, span.end).max(start);
        let line = self.lines.partition_point(|at| *at <= start).max(1);
        let line_start = self.lines[line - 1];
        let rest = &self.text[line_start..];
        let whole = rest.split('\n').next().unwrap_or_default().trim_end_matches('\r');
        let line_end = line_start + whole.len();
        let column = self.text[line_start..start.min(line_end)].chars().count() + 1;
        let width = self.text[start.min(line_end)..end.min(line_end)].chars().count();
        // Of a very long line, the part around the mark.
        let hidden = if whole.chars().count() > MAX_EXCERPT { column.saturating_sub(MAX_EXCERPT / 2) } else { 0 };
        let shown = whole.chars().skip(hidden).take(MAX_EXCERPT);
        Spot {
            line,
            column,
            text: shown.map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect(),
            indent: column - 1 - hidden,
            width: width.min(MAX_EXCERPT / 2),
        }
    }

    fn node(&self, place: &Place) -> Option<&Node> {
        place.steps().iter().try_fold(&self.root, |node, step| node.child(step))
    }
}

impl Node {
    fn child(&self, step: &Step) -> Option<&Node> {
        match (&self.children, step) {
            (Children::Table(entries), Step::Key(key)) => entries.get(key),
            (Children::List(items), Step::Index(index)) => items.get(*index),
            _ => None,
        }
    }
}

fn floor_boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0)
}

fn table_node(table: &DeTable<'_>, key: Option<Range<usize>>, value: Range<usize>, depth: usize) -> (Node, Value) {
    let mut entries = BTreeMap::new();
    let mut object = serde_json::Map::new();
    for (name, item) in table {
        let (node, json) = node(item, Some(name.span()), depth + 1);
        entries.insert(name.get_ref().to_string(), node);
        object.insert(name.get_ref().to_string(), json);
    }
    (Node { key, value, children: Children::Table(entries) }, Value::Object(object))
}

fn node(item: &Spanned<DeValue<'_>>, key: Option<Range<usize>>, depth: usize) -> (Node, Value) {
    let value = item.span();
    let json = match item.get_ref() {
        DeValue::Table(table) if depth < MAX_DEPTH => return table_node(table, key, value, depth),
        DeValue::Array(list) if depth < MAX_DEPTH => {
            let (nodes, values): (Vec<_>, Vec<_>) = list.iter().map(|item| node(item, None, depth + 1)).unzip();
            return (Node { key, value, children: Children::List(nodes) }, Value::Array(values));
        }
        DeValue::String(text) => Value::from(text.as_ref()),
        DeValue::Boolean(flag) => Value::from(*flag),
        // Numbers that do not fit become null, which no field takes; the message quotes the text.
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).map_or(Value::Null, Value::from)
        }
        DeValue::Float(number) => number.as_str().parse::<f64>().map_or(Value::Null, Value::from),
        DeValue::Table(_) | DeValue::Array(_) | DeValue::Datetime(_) => Value::Null,
    };
    (Node { key, value, children: Children::None }, json)
}
