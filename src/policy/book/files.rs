//! Things in TOML files: what `export` writes and `apply` reads.

use serde::{Deserialize, Serialize};

use super::noun::{Group, Learned, Noun, Override, Profile, Relationship, Vm};

use crate::rules::Policy;

/// A file: lists of things by kind. `rule` is what configurations call relationships.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    vm: Vec<Vm>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    group: Vec<Group>,
    #[serde(default, skip_serializing_if = "Vec::is_empty", alias = "rule")]
    relationship: Vec<Relationship>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    learned: Vec<Learned>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    profile: Vec<Profile>,
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "override")]
    exception: Vec<Override>,
}

/// What a file has, in an order in which it can be put into a book.
///
/// # Errors
/// It is no such file: says where and why.
pub fn read(text: &str) -> Result<Vec<Noun>, toml::de::Error> {
    toml::from_str(text).map(nouns)
}

fn nouns(file: File) -> Vec<Noun> {
    let vms = file.vm.into_iter().map(Noun::Vm).chain(file.group.into_iter().map(Noun::Group));
    let rules = file.relationship.into_iter().map(|mut it| {
        it.name_it();
        Noun::Relationship(it)
    });
    let rest = file.profile.into_iter().map(Noun::Profile).chain(file.exception.into_iter().map(Noun::Override));
    vms.chain(rules).chain(file.learned.into_iter().map(Noun::Learned)).chain(rest).collect()
}

/// VMs, groups and rules of a configuration, which was found to be right. `policy` is what it was resolved to.
///
/// # Errors
/// It has something that things of a book cannot say.
pub fn of_configuration(text: &str, policy: &Policy) -> Result<Vec<Noun>, toml::de::Error> {
    let mut document: toml::Table = toml::from_str(text)?;
    document.retain(|name, _| ["vm", "group", "rule"].contains(&name));
    let rules = document.get_mut("rule").and_then(toml::Value::as_array_mut).into_iter().flatten();
    for rule in rules.filter_map(toml::Value::as_table_mut) {
        // Messages have names there, and sometimes a code in the name.
        let id = rule.get("id").and_then(toml::Value::as_str);
        let icmp = policy.rules.iter().find(|resolved| Some(resolved.id.as_str()) == id).and_then(|it| it.matches.icmp);
        if let Some((kind, code)) = icmp {
            rule.insert("icmp_type".to_owned(), i64::from(kind).into());
            code.map(|code| rule.insert("icmp_code".to_owned(), i64::from(code).into()));
        }
    }
    let file = document.try_into()?;
    Ok(nouns(file))
}

/// As a file that [`read`] reads.
pub fn write<'n>(nouns: impl Iterator<Item = &'n Noun>) -> Result<String, toml::ser::Error> {
    let mut file = File::default();
    for noun in nouns.cloned() {
        match noun {
            Noun::Vm(it) => file.vm.push(it),
            Noun::Group(it) => file.group.push(it),
            Noun::Relationship(it) => file.relationship.push(it),
            Noun::Learned(it) => file.learned.push(it),
            Noun::Profile(it) => file.profile.push(it),
            Noun::Override(it) => file.exception.push(it),
        }
    }
    toml::to_string(&file)
}
