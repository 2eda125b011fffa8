//! Things in TOML files: what `export` writes and `apply` reads.

use serde::{Deserialize, Serialize};

use super::noun::{Group, Learned, Noun, Override, Profile, Relationship, Vm};

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
    let file: File = toml::from_str(text)?;
    let vms = file.vm.into_iter().map(Noun::Vm).chain(file.group.into_iter().map(Noun::Group));
    let rules = file.relationship.into_iter().map(|mut it| {
        it.name_it();
        Noun::Relationship(it)
    });
    let rest = file.profile.into_iter().map(Noun::Profile).chain(file.exception.into_iter().map(Noun::Override));
    Ok(vms.chain(rules).chain(file.learned.into_iter().map(Noun::Learned)).chain(rest).collect())
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
