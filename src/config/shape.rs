//! First check: keys, types, words and ranges, by the JSON schema. What is wrong is reported and cut out, so that
//! the meaning of the rest can still be checked.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use jsonschema::error::{ValidationError, ValidationErrorKind as Kind};
use jsonschema::paths::LocationSegment;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::document::{Place, Step};
use super::problem::{Problems, nearest};
use super::schema::{Schema, json_schema, list_words};
use super::spelling::spelling;

/// A table of an array, with its place in the file.
#[derive(Debug)]
pub(super) struct Entry<T> {
    pub(super) place: Place,
    pub(super) raw: T,
    pub(super) wrong: WrongKeys,
}

/// Keys of one table whose values were wrong and cut out or replaced: what contradicts them is no error.
#[derive(Clone, Debug, Default)]
pub(super) struct WrongKeys(BTreeSet<String>);

impl WrongKeys {
    pub(super) fn none_of(&self, keys: &[&str]) -> bool {
        !keys.iter().any(|key| self.0.contains(*key))
    }
}

/// What is left of a document after the first check.
#[derive(Debug)]
pub(super) struct Shaped {
    json: Value,
    /// Places of errors.
    wrong: BTreeSet<Place>,
}

/// The schema and its compiled form; the schema is a constant, so it always compiles.
fn validator() -> &'static (Value, jsonschema::Validator) {
    static VALIDATOR: OnceLock<(Value, jsonschema::Validator)> = OnceLock::new();
    VALIDATOR.get_or_init(|| {
        let schema = json_schema();
        let validator = jsonschema::validator_for(&schema).expect("the schema generated from the structs is valid");
        (schema, validator)
    })
}

/// Reports everything the schema does not allow.
pub(super) fn check(problems: &mut Problems<'_>) -> Shaped {
    let (schema, validator) = validator();
    let document = problems.document;
    let mut check = Check { problems, schema: Schema(schema), wrong: BTreeSet::new() };
    for error in validator.iter_errors(&document.json) {
        check.report(&error);
    }
    let wrong = check.wrong;
    let mut json = document.json.clone();
    for place in &wrong {
        cut(&mut json, place);
    }
    for place in &wrong {
        stand_in(&mut json, &Schema(schema), place);
    }
    Shaped { json, wrong }
}

impl Shaped {
    /// A table that stands once, or its default.
    pub(super) fn section<T: DeserializeOwned + Default>(&mut self, problems: &mut Problems<'_>, key: &str) -> T {
        let place = Place::root().key(key);
        let Some(value) = self.json.get_mut(key).map(Value::take) else { return T::default() };
        serde_json::from_value(value).unwrap_or_else(|error| {
            if !self.touched(&place) {
                problems.error(&place, error.to_string());
            }
            T::default()
        })
    }

    /// The tables of an array that can be read.
    pub(super) fn list<T: DeserializeOwned>(&mut self, problems: &mut Problems<'_>, key: &str) -> Vec<Entry<T>> {
        let mut entries = Vec::new();
        let list = self.json.get_mut(key).map(Value::take);
        let Some(Value::Array(items)) = list else { return entries };
        for (index, item) in items.into_iter().enumerate() {
            let place = Place::root().key(key).index(index);
            match serde_json::from_value(item) {
                Ok(raw) => entries.push(Entry { raw, wrong: self.wrong_keys(&place), place }),
                Err(error) if !self.touched(&place) => {
                    problems.error(&place, error.to_string());
                }
                Err(_) => {}
            }
        }
        entries
    }

    /// True when something at or below `place` was wrong.
    pub(super) fn touched(&self, place: &Place) -> bool {
        self.below(place).next().is_some()
    }

    /// True when `place` itself was wrong, so that nothing below it is left.
    pub(super) fn is_wrong(&self, place: &Place) -> bool {
        self.wrong.contains(place)
    }

    /// True when the `field` of every table of array `key` could be read, so that a name not found there is wrong.
    pub(super) fn names_known(&self, key: &str, field: &str) -> bool {
        self.below(&Place::root().key(key)).all(|wrong| match wrong.steps() {
            [_, _, Step::Key(key), ..] => key != field,
            _ => false,
        })
    }

    fn wrong_keys(&self, table: &Place) -> WrongKeys {
        let depth = table.steps().len();
        let keys = self.below(table).filter_map(|wrong| match wrong.steps().get(depth) {
            Some(Step::Key(key)) => Some(key.clone()),
            _ => None,
        });
        WrongKeys(keys.collect())
    }

    fn below<'s>(&'s self, place: &'s Place) -> impl Iterator<Item = &'s Place> {
        self.wrong.range(place..).take_while(|wrong| wrong.steps().starts_with(place.steps()))
    }
}

struct Check<'p, 'd> {
    problems: &'p mut Problems<'d>,
    schema: Schema<'static>,
    wrong: BTreeSet<Place>,
}

impl Check<'_, '_> {
    fn report(&mut self, error: &ValidationError<'_>) {
        let place = place_of(error);
        match error.kind() {
            Kind::AdditionalProperties { unexpected } => {
                unexpected.iter().for_each(|key| self.unknown_key(&place, key))
            }
            Kind::Required { property } => self.missing_key(&place, property.as_str().unwrap_or_default()),
            Kind::AnyOf { context } | Kind::OneOfNotValid { context } => self.no_variant(&place, context),
            kind => self.wrong_value(&place, kind),
        }
    }

    fn unknown_key(&mut self, table: &Place, key: &str) {
        let place = table.key(key);
        let keys = self.schema.keys(table);
        let what = if table.steps().is_empty() { "table or key" } else { "key" };
        self.problems
            .error_at_key(&place, format!("unknown {what} `{key}`"))
            .found(format!("`{key}`"))
            .allowed(list_words(&keys))
            .suggest(nearest(key, keys.iter().copied()));
        self.wrong.insert(place);
    }

    fn missing_key(&mut self, table: &Place, key: &str) {
        let place = table.key(key);
        let allowed = self.schema.allowed(&place);
        let problem = self.problems.error(&place, format!("`{key}` is missing"));
        problem.allowed(allowed);
        self.wrong.insert(place);
    }

    /// None of several forms fits: tells of the one that was probably meant.
    fn no_variant(&mut self, place: &Place, context: &[Vec<ValidationError<'static>>]) {
        let depth = place.steps().len();
        let inside = context
            .iter()
            .find(|errors| !errors.is_empty() && errors.iter().all(|error| place_of(error).steps().len() > depth));
        if let Some(errors) = inside {
            errors.iter().for_each(|error| self.report(error));
            return;
        }
        let right_type = context
            .iter()
            .flatten()
            .find(|error| !matches!(error.kind(), Kind::Type { .. } | Kind::Enum { .. } | Kind::Constant { .. }));
        match right_type {
            Some(error) if matches!(error.kind(), Kind::AnyOf { .. } | Kind::OneOfNotValid { .. }) => {
                self.report(error)
            }
            Some(error) => self.wrong_value(place, error.kind()),
            None if self.schema.words(place).is_empty() => self.wrong_value(place, &Kind::FalseSchema),
            None => self.wrong_value(place, &Kind::Enum { options: Value::Null.into() }),
        }
    }

    fn wrong_value(&mut self, place: &Place, kind: &Kind) {
        if !self.wrong.insert(place.clone()) {
            return;
        }
        let found = self.problems.document.source(place);
        let name = place.steps().iter().rev().find_map(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::Index(_) => None,
        });
        let name = name.unwrap_or_default();
        let words = self.schema.words(place);
        let bare = found.trim_matches(['"', '\'']);
        let suggestion = self.brackets(place, name).or_else(|| nearest(bare, words)).or_else(|| spelling(name, &found));
        let digits = found.trim_start_matches(['+', '-']);
        let too_large = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || b == b'_');
        let message = match kind {
            Kind::Minimum { .. } | Kind::Maximum { .. } => format!("`{name}` is out of range"),
            Kind::Type { .. } if too_large && self.problems.document.is_unreadable(place) => {
                format!("`{name}` is out of range")
            }
            Kind::MinItems { .. } | Kind::MaxItems { .. } => format!("`{name}` has the wrong number of items"),
            Kind::Enum { .. } | Kind::Constant { .. } => format!("`{name}` cannot be `{bare}`"),
            Kind::Pattern { .. } | Kind::MinLength { .. } | Kind::MaxLength { .. } => {
                format!("`{name}` does not have the right form")
            }
            _ => format!("`{name}` has the wrong type"),
        };
        let allowed = self.schema.allowed(place);
        self.problems.error(place, message).found(found).allowed(allowed).suggest(suggestion);
    }

    /// `[rule]` for `[[rule]]` and the other way round.
    fn brackets(&self, place: &Place, name: &str) -> Option<String> {
        let [Step::Key(key)] = place.steps() else { return None };
        let wants_list = self.schema.at(place)?["type"] == "array";
        match self.problems.document.json.get(key)? {
            Value::Object(_) if wants_list => Some(format!("[[{name}]]")),
            Value::Array(_) if !wants_list => Some(format!("[{name}]")),
            _ => None,
        }
    }
}

fn place_of(error: &ValidationError<'_>) -> Place {
    error.instance_path().segments().fold(Place::root(), |place, segment| match segment {
        LocationSegment::Property(key) => place.key(&key),
        LocationSegment::Index(index) => place.index(index),
    })
}

/// Takes the value at `place` out; within a list, the whole list, because the places of its other items would
/// move. Tables of the top-level arrays become null instead, so that the others keep their number.
fn cut(json: &mut Value, place: &Place) {
    let steps = place.steps();
    let head = if matches!(steps, [Step::Key(_), Step::Index(_), ..]) { 2 } else { 0 };
    let keys = steps[head..].iter().take_while(|step| matches!(step, Step::Key(_))).count();
    let Some((last, parents)) = steps[..head + keys].split_last() else { return };
    let parent = parents.iter().try_fold(json, child_mut);
    match (last, parent) {
        (Step::Key(key), Some(Value::Object(table))) => {
            table.remove(key);
        }
        (step, Some(parent)) => {
            if let Some(item) = child_mut(parent, step) {
                *item = Value::Null;
            }
        }
        _ => {}
    }
}

/// Puts something harmless where a required value is missing or was cut out, so that the rest of its table can be
/// checked. Names get one that nobody can write.
fn stand_in(json: &mut Value, schema: &Schema<'_>, place: &Place) {
    let [section @ Step::Key(_), index @ Step::Index(_), Step::Key(key)] = place.steps() else { return };
    let table = Place::root().with(section.clone()).with(index.clone());
    if !schema.required(&table).contains(&key.as_str()) {
        return;
    }
    let value = schema.words(place).first().map_or_else(|| Value::from(format!("?{place}")), |word| Value::from(*word));
    let list = schema.at(place).is_some_and(|node| node["type"] == "array");
    let object = child_mut(json, section).and_then(|list| child_mut(list, index)).and_then(Value::as_object_mut);
    if let Some(object) = object {
        object.insert(key.clone(), if list { Value::Array(Vec::new()) } else { value });
    }
}

fn child_mut<'v>(node: &'v mut Value, step: &Step) -> Option<&'v mut Value> {
    match step {
        Step::Key(key) => node.get_mut(key),
        Step::Index(index) => node.get_mut(*index),
    }
}
