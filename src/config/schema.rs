//! The JSON schema of the file, and what it says in words.

use serde_json::Value;

use super::document::{Place, Step};
use super::raw::RawConfig;

/// JSON schema (draft 2020-12) of the configuration file, for editors and other programs. Published as
/// `config/gnomon.schema.json`; `gnomon check --schema` prints it.
#[must_use]
pub fn json_schema() -> Value {
    let mut schema = schemars::schema_for!(RawConfig).to_value();
    strip_null(&mut schema);
    rename_definitions(&mut schema);
    schema["title"] = Value::from("gnomon configuration");
    schema
}

/// TOML has no null: an optional field is one that may be left out.
fn strip_null(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|t| t != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    object.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(options)) = object.get_mut("enum") {
                options.retain(|option| !option.is_null());
            }
            if object.get("default").is_some_and(Value::is_null) {
                object.remove("default");
            }
            strip_null_variant(object);
            object.values_mut().for_each(strip_null);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_null),
        _ => {}
    }
}

fn strip_null_variant(object: &mut serde_json::Map<String, Value>) {
    let Some(Value::Array(variants)) = object.get_mut("anyOf") else { return };
    variants.retain(|variant| variant["type"] != "null");
    if let [Value::Object(only)] = variants.as_slice() {
        let only = only.clone();
        object.remove("anyOf");
        for (key, value) in only {
            object.entry(key).or_insert(value);
        }
    }
}

/// The structs' names start with `Raw`; nobody outside needs to see that.
fn rename_definitions(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::String(reference)) = object.get_mut("$ref") {
                *reference = reference.replace("/Raw", "/");
            }
            if let Some(Value::Object(definitions)) = object.get_mut("$defs") {
                let renamed = std::mem::take(definitions);
                let short = |name: String| name.strip_prefix("Raw").map(str::to_owned).unwrap_or(name);
                definitions.extend(renamed.into_iter().map(|(name, definition)| (short(name), definition)));
            }
            object.values_mut().for_each(rename_definitions);
        }
        Value::Array(items) => items.iter_mut().for_each(rename_definitions),
        _ => {}
    }
}

/// Questions to the schema.
pub(super) struct Schema<'s>(pub(super) &'s Value);

impl<'s> Schema<'s> {
    /// The part that rules the value at `place`.
    pub(super) fn at(&self, place: &Place) -> Option<&'s Value> {
        place.steps().iter().try_fold(self.0, |node, step| self.child(node, step))
    }

    /// Keys of the table at `place`.
    pub(super) fn keys(&self, place: &Place) -> Vec<&'s str> {
        let properties = self.at(place).and_then(|node| self.resolve(node)["properties"].as_object());
        properties.into_iter().flat_map(|p| p.keys()).map(String::as_str).collect()
    }

    /// Keys that the table at `place` must have.
    pub(super) fn required(&self, place: &Place) -> Vec<&'s str> {
        let required = self.at(place).and_then(|node| self.resolve(node)["required"].as_array());
        required.into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// In words, what may stand at `place`.
    pub(super) fn allowed(&self, place: &Place) -> String {
        self.at(place).map(|node| self.describe(node)).unwrap_or_default()
    }

    /// The words that may stand at `place`, if it takes words.
    pub(super) fn words(&self, place: &Place) -> Vec<&'s str> {
        let mut words = Vec::new();
        if let Some(node) = self.at(place) {
            self.collect_words(node, &mut words);
        }
        words
    }

    fn child(&self, node: &'s Value, step: &Step) -> Option<&'s Value> {
        let node = self.resolve(node);
        let here = match step {
            Step::Key(key) => node["properties"].get(key),
            Step::Index(_) => node.get("items"),
        };
        here.or_else(|| variants(node).find_map(|variant| self.child(variant, step)))
    }

    fn resolve(&self, node: &'s Value) -> &'s Value {
        let target = node["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
        target.and_then(|pointer| self.0.pointer(pointer)).unwrap_or(node)
    }

    fn collect_words(&self, node: &'s Value, words: &mut Vec<&'s str>) {
        let node = self.resolve(node);
        words.extend(node["const"].as_str());
        words.extend(node["enum"].as_array().into_iter().flatten().filter_map(Value::as_str));
        for variant in variants(node) {
            self.collect_words(variant, words);
        }
    }

    fn describe(&self, node: &'s Value) -> String {
        let node = self.resolve(node);
        let mut words = Vec::new();
        self.collect_words(node, &mut words);
        let mut parts: Vec<String> = Vec::new();
        if !words.is_empty() {
            parts.push(list_words(&words));
        }
        for variant in variants(node) {
            let mut own = Vec::new();
            self.collect_words(variant, &mut own);
            if own.is_empty() || !variants(self.resolve(variant)).all(|v| v.get("const").is_some()) {
                let text = if own.is_empty() { self.describe(variant) } else { self.describe_rest(variant) };
                parts.push(text);
            }
        }
        if parts.is_empty() {
            return self.describe_plain(node);
        }
        parts.retain(|part| !part.is_empty());
        parts.join(", or ")
    }

    /// A union without its words, which were listed before.
    fn describe_rest(&self, node: &'s Value) -> String {
        let others = variants(self.resolve(node)).filter(|variant| {
            let mut words = Vec::new();
            self.collect_words(variant, &mut words);
            words.is_empty()
        });
        others.map(|variant| self.describe(variant)).collect::<Vec<_>>().join(", or ")
    }

    fn describe_plain(&self, node: &'s Value) -> String {
        match node["type"].as_str().unwrap_or_default() {
            "string" => describe_string(node),
            "integer" => format!("an integer{}", describe_range(node)),
            "number" => format!("a number{}", describe_range(node)),
            "boolean" => "true or false".to_owned(),
            "array" => self.describe_list(node),
            "object" => "a table".to_owned(),
            other => other.to_owned(),
        }
    }

    fn describe_list(&self, node: &'s Value) -> String {
        let items = node.get("items").map(|items| self.describe(items)).unwrap_or_default();
        let count = match (node["minItems"].as_u64(), node["maxItems"].as_u64()) {
            (Some(min), Some(max)) if min == max => format!(" of {min} items"),
            (Some(min), Some(max)) => format!(" of {min} to {max} items"),
            (Some(1), None) => " with at least one item".to_owned(),
            _ => String::new(),
        };
        format!("a list{count}, each {items}")
    }
}

fn variants(node: &Value) -> impl Iterator<Item = &Value> {
    ["anyOf", "oneOf"].into_iter().filter_map(|key| node[key].as_array()).flatten()
}

fn describe_string(node: &Value) -> String {
    let title = node["title"].as_str().unwrap_or("a string");
    let examples: Vec<&str> = node["examples"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if examples.is_empty() { title.to_owned() } else { format!("{title} such as {}", list_words(&examples)) }
}

fn describe_range(node: &Value) -> String {
    match (node.get("minimum"), node.get("maximum")) {
        (Some(min), Some(max)) => format!(" from {min} to {max}"),
        (Some(min), None) => format!(" of at least {min}"),
        (None, Some(max)) => format!(" of at most {max}"),
        (None, None) => String::new(),
    }
}

/// `a`, `b` or `c`.
pub(super) fn list_words(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [rest @ .., last] => format!("{} or {last}", rest.join(", ")),
    }
}
