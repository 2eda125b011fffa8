//! A parsed expression and its evaluation.

use std::collections::BTreeMap;
use std::fmt;

use super::check::{Check, Names, Numbers, Pattern, Sessions};
use super::error::FilterError;
use super::field::{Field, Fields, Kind, Schema};
use super::parser;
use crate::config::nearest;

/// A condition on flows or packets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expression {
    text: Box<str>,
    root: Node,
}

/// Tests joined by and, or, not.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Test(Test),
    Not(Box<Node>),
    All(Box<[Node]>),
    Any(Box<[Node]>),
}

impl Default for Node {
    fn default() -> Self {
        Node::All(Box::default())
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Test {
    /// The field, twice; or the two that one name stands for, of which one suffices.
    pub(super) fields: [Field; 2],
    pub(super) check: Check,
    /// Where its values stand in the text.
    pub(super) place: std::ops::Range<usize>,
}

/// The numbers behind names, where there are only numbers.
pub trait Vocabulary {
    /// Every rule id with its number, `default` among them.
    fn rules(&self, note: &mut dyn FnMut(u32, &str));
    /// Every set of groups with its number, and the names in it.
    fn group_sets(&self, note: &mut dyn FnMut(u32, &[&str]));
    /// Every group of the rules in force, in a set or not.
    fn groups(&self, note: &mut dyn FnMut(&str));
    /// From which generation on which bit stood for which mirror session, generations ascending.
    fn sessions(&self, note: &mut dyn FnMut(u32, u8, &str));
}

impl Expression {
    /// Reads an expression about what `schema` describes; nothing but white space is true of everything.
    ///
    /// # Errors
    /// Where the text makes no sense, and what would.
    pub fn parse(text: &str, schema: &Schema) -> Result<Self, Box<FilterError>> {
        Ok(Self { root: parser::parse(text, schema)?, text: text.trim().into() })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// True of everything.
    pub fn is_all(&self) -> bool {
        matches!(&self.root, Node::All(nodes) if nodes.is_empty())
    }

    /// Whether it is true; false when that cannot be said for what is unknown.
    #[inline]
    pub fn matches(&self, of: &impl Fields) -> bool {
        self.root.holds(of) == Some(true)
    }

    /// Whether it could be true, whatever the unknown values are.
    #[inline]
    pub fn may_match(&self, of: &impl Fields) -> bool {
        self.root.holds(of) != Some(false)
    }

    /// Whether any test asks about this field.
    pub fn asks_for(&self, field: Field) -> bool {
        let mut found = false;
        self.root.each_test(&mut |test| found |= test.fields.contains(&field));
        found
    }

    /// The same expression, which also understands rules, groups and mirror sessions given by number. Bind it again
    /// after new rules came in force: of numbers that are newer than it nothing is known.
    ///
    /// # Errors
    /// A rule, group or session of that name was never there.
    pub fn bind(&self, vocabulary: &dyn Vocabulary) -> Result<Self, Box<FilterError>> {
        let mut bound = self.clone();
        let text = &self.text;
        let mut result = Ok(());
        bound.root.each_test_mut(&mut |test| {
            if result.is_ok() {
                result = test.bind(text, vocabulary);
            }
        });
        result.map(|()| bound)
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Node {
    /// Three-valued: `None` is unknown.
    fn holds(&self, of: &impl Fields) -> Option<bool> {
        match self {
            Node::Test(test) => test.holds(of),
            Node::Not(node) => node.holds(of).map(|holds| !holds),
            Node::All(nodes) => first(nodes.iter().map(|node| node.holds(of)), false),
            Node::Any(nodes) => first(nodes.iter().map(|node| node.holds(of)), true),
        }
    }

    fn each_test(&self, visit: &mut dyn FnMut(&Test)) {
        match self {
            Node::Test(test) => visit(test),
            Node::Not(node) => node.each_test(visit),
            Node::All(nodes) | Node::Any(nodes) => nodes.iter().for_each(|node| node.each_test(visit)),
        }
    }

    fn each_test_mut(&mut self, visit: &mut dyn FnMut(&mut Test)) {
        match self {
            Node::Test(test) => visit(test),
            Node::Not(node) => node.each_test_mut(visit),
            Node::All(nodes) | Node::Any(nodes) => nodes.iter_mut().for_each(|node| node.each_test_mut(visit)),
        }
    }
}

/// Whether any is `wanted`: then that, else unknown if any is, else the opposite.
#[inline]
fn first(results: impl Iterator<Item = Option<bool>>, wanted: bool) -> Option<bool> {
    let mut outcome = Some(!wanted);
    for result in results {
        match result {
            Some(holds) if holds == wanted => return Some(wanted),
            Some(_) => {}
            None => outcome = None,
        }
    }
    outcome
}

impl Test {
    #[inline]
    fn holds(&self, of: &impl Fields) -> Option<bool> {
        let [one, other] = self.fields;
        if one == other {
            return self.check.holds(&of.value(one));
        }
        first([one, other].into_iter().map(|field| self.check.holds(&of.value(field))), true)
    }

    fn bind(&mut self, text: &str, vocabulary: &dyn Vocabulary) -> Result<(), Box<FilterError>> {
        let kind = self.fields[0].kind();
        let outcome = match (&mut self.check, kind) {
            (Check::Names(names), Kind::Rule) => bind_rules(names, vocabulary),
            (Check::Names(names), _) => bind_groups(names, vocabulary),
            (Check::Sessions(sessions), _) => bind_sessions(sessions, vocabulary),
            _ => Ok(()),
        };
        outcome.map_err(|missing| missing.told(text, self.place.clone()))
    }
}

/// A name that nothing has.
#[derive(Debug)]
struct Missing {
    what: &'static str,
    name: String,
    known: Vec<String>,
}

impl Missing {
    /// The first pattern without a star that is not among the known.
    fn among(what: &'static str, patterns: &[Pattern], known: Vec<String>) -> Result<(), Self> {
        let absent = patterns.iter().find(|p| p.is_literal() && !known.iter().any(|name| name == p.text()));
        match absent {
            None => Ok(()),
            Some(pattern) => Err(Self { what, name: pattern.text().to_owned(), known }),
        }
    }

    fn told(self, text: &str, place: std::ops::Range<usize>) -> Box<FilterError> {
        const SHOWN: usize = 12;
        let mut listed = self.known.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        match self.known.len().checked_sub(SHOWN) {
            Some(more) if more > 0 => listed += &format!(" and {more} more"),
            _ if self.known.is_empty() => listed = format!("there is no {}", self.what),
            _ => {}
        }
        let suggestion = nearest(&self.name, self.known.iter().map(String::as_str));
        let message = format!("there is no {} `{}`", self.what, self.name);
        FilterError::new(text, place, message).allowed(listed).suggest(suggestion)
    }
}

fn any(patterns: &[Pattern], name: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches(name))
}

fn bind_rules(names: &mut Names, vocabulary: &dyn Vocabulary) -> Result<(), Missing> {
    let (mut known, mut chosen, mut most) = (Vec::new(), Vec::new(), 0);
    vocabulary.rules(&mut |number, name| {
        most = most.max(number + 1);
        known.push(name.to_owned());
        if any(&names.patterns, name) {
            chosen.push(number);
        }
    });
    names.numbers = Some(numbers(most, &chosen));
    Missing::among("rule", &names.patterns, known)
}

fn bind_groups(names: &mut Names, vocabulary: &dyn Vocabulary) -> Result<(), Missing> {
    let (mut known, mut chosen, mut most) = (Vec::new(), Vec::new(), 0);
    vocabulary.groups(&mut |name| known.push(name.to_owned()));
    vocabulary.group_sets(&mut |number, set| {
        most = most.max(number + 1);
        if set.iter().any(|name| any(&names.patterns, name)) {
            chosen.push(number);
        }
    });
    names.numbers = Some(numbers(most, &chosen));
    Missing::among("group", &names.patterns, known)
}

fn numbers(known: u32, chosen: &[u32]) -> Numbers {
    let mut numbers = Numbers::new(known);
    chosen.iter().for_each(|number| numbers.insert(*number));
    numbers
}

fn bind_sessions(sessions: &mut Sessions, vocabulary: &dyn Vocabulary) -> Result<(), Missing> {
    let mut known = Vec::new();
    let mut masks: BTreeMap<u32, u64> = BTreeMap::new();
    vocabulary.sessions(&mut |generation, bit, name| {
        let mask = masks.entry(generation).or_default();
        if any(&sessions.patterns, name) {
            *mask |= 1 << (bit % 64);
        }
        if !known.iter().any(|other| other == name) {
            known.push(name.to_owned());
        }
    });
    sessions.masks = Some(masks.into_iter().collect());
    Missing::among("mirror session", &sessions.patterns, known)
}
