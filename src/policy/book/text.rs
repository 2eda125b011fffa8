//! Fields that may be one word or several, and what the words mean.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::schema::{ArrayBuilder, OneOfBuilder, Type};
use utoipa::openapi::{ObjectBuilder, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::packet::Mac;
use crate::rules::parse_protocol;

/// One word or number, or a list of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words(pub Vec<String>);

/// One address of a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    Ip(IpAddr),
    Mac([u8; 6]),
}

/// One side of a match, by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum End {
    Group(String),
    Net(IpNet),
}

impl Words {
    pub fn any() -> Self {
        Self(vec!["any".to_owned()])
    }

    pub fn one(word: impl Into<String>) -> Self {
        Self(vec![word.into()])
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Groups and networks; nothing for `any`.
    pub(super) fn ends(&self) -> Result<Vec<End>, String> {
        if self.0.iter().any(|word| word == "any") {
            return match self.0.len() {
                1 => Ok(Vec::new()),
                _ => Err("`any` stands beside other words; write it alone".to_owned()),
            };
        }
        if self.is_empty() {
            return Err("the list is empty; write at least one group, network or address, or `any`".to_owned());
        }
        self.0.iter().map(|word| end(word)).collect()
    }

    pub(super) fn protocol(&self) -> Result<Option<u8>, String> {
        match &self.0[..] {
            [] => Ok(None),
            [word] if word == "any" => Ok(None),
            [word] => parse_protocol(word).map(Some),
            _ => Err("one protocol, or `any`".to_owned()),
        }
    }

    pub(super) fn ports(&self) -> Result<Vec<RangeInclusive<u16>>, String> {
        let mut ranges: Vec<RangeInclusive<u16>> = Vec::new();
        for word in self.0.iter().flat_map(|word| word.split(',')).filter(|word| *word != "any") {
            let range = range(word.trim()).ok_or_else(|| {
                format!("`{word}` is no port; write a number from 0 to 65535 or a range such as 8000-8100")
            })?;
            if !ranges.contains(&range) {
                ranges.push(range);
            }
        }
        Ok(ranges)
    }
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first <= last).then_some(first..=last)
}

fn end(word: &str) -> Result<End, String> {
    let numeric = word.contains('.') && word.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if word.contains(['/', ':']) || numeric { network(word).map(End::Net) } else { Ok(End::Group(word.to_owned())) }
}

/// A network or an address.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address));
    }
    let net: IpNet = text.parse().map_err(|_| {
        format!("`{text}` is no network; write one such as 10.0.0.0/8, fd00::/64, or an address such as 10.0.1.10")
    })?;
    if net.trunc() == net {
        Ok(net)
    } else {
        Err(format!("`{text}` has address bits beyond its prefix; did you mean {}?", net.trunc()))
    }
}

/// Of one machine.
pub(super) fn address(text: &str) -> Result<Address, String> {
    let not_one = || format!("`{text}` is not the address of one machine");
    if let Ok(mac) = text.parse::<Mac>() {
        return if mac.0[0] & 1 != 0 || mac == Mac::default() { Err(not_one()) } else { Ok(Address::Mac(mac.0)) };
    }
    let ip: IpAddr = text
        .parse()
        .map_err(|_| format!("`{text}` is no address; write one such as 10.0.1.10, fd00::10 or 52:54:00:12:34:56"))?;
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    if ip.is_multicast() || ip.is_unspecified() || broadcast { Err(not_one()) } else { Ok(Address::Ip(ip)) }
}

pub(super) fn mac(text: &str) -> Result<Mac, String> {
    text.parse::<Mac>().map_err(|error| error.to_string())
}

/// Of VMs, groups and profiles.
pub(super) fn name(text: &str) -> Result<(), String> {
    let wanted = "at most 64 letters, digits, `_`, `-` and `.`, starting with a letter or digit";
    let sound = begins_well(text) && text.len() <= 64 && text.bytes().all(|b| is_plain(b) || b"_.-".contains(&b));
    if sound { Ok(()) } else { Err(format!("`{text}` is no name: {wanted}")) }
}

/// In sides of rules, a group's name must not be mistaken for something else.
pub(super) fn group_name(text: &str) -> Result<(), String> {
    name(text)?;
    let taken = text == "any" || !matches!(end(text), Ok(End::Group(_)));
    if taken { Err(format!("a group cannot be called `{text}`, which means something else in rules")) } else { Ok(()) }
}

/// Of rules, a little freer.
pub(super) fn rule_id(text: &str) -> Result<(), String> {
    let wanted = "at most 128 letters, digits and `_-.:/@+`, starting with a letter or digit";
    let sound = begins_well(text) && text.len() <= 128 && text.bytes().all(|b| is_plain(b) || b"_.:/@+-".contains(&b));
    match text {
        "default" => Err("the id `default` stands for packets that no rule decided; choose another".to_owned()),
        _ if sound => Ok(()),
        _ => Err(format!("`{text}` is no rule id: {wanted}")),
    }
}

pub(super) fn tags(tags: &BTreeSet<String>) -> Result<(), String> {
    let sound = |tag: &&String| {
        !tag.is_empty() && tag.chars().count() <= 128 && !tag.chars().any(|c| c.is_whitespace() || c.is_control())
    };
    match tags.iter().find(|tag| !sound(tag)) {
        Some(tag) => Err(format!("`{tag}` is no tag: 1 to 128 characters without spaces")),
        None => Ok(()),
    }
}

fn begins_well(text: &str) -> bool {
    text.bytes().next().is_some_and(is_plain)
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

impl Serialize for Words {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match &self.0[..] {
            [word] => to.serialize_str(word),
            words => words.serialize(to),
        }
    }
}

impl<'a> Deserialize<'a> for Words {
    fn deserialize<D: Deserializer<'a>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a word, a number, or a list of them")]
        enum Written {
            Word(Word),
            Words(Vec<Word>),
        }
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a word or a number")]
        enum Word {
            Number(u32),
            Text(String),
        }
        let text = |word: Word| match word {
            Word::Number(number) => number.to_string(),
            Word::Text(text) => text,
        };
        Ok(match Written::deserialize(from)? {
            Written::Word(word) => Self(vec![text(word)]),
            Written::Words(words) => Self(words.into_iter().map(text).collect()),
        })
    }
}

impl PartialSchema for Words {
    fn schema() -> RefOr<Schema> {
        let text = || ObjectBuilder::new().schema_type(Type::String).build();
        let number =
            || ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).maximum(Some(u32::MAX)).build();
        let word = || OneOfBuilder::new().item(text()).item(number()).build();
        let list = ArrayBuilder::new().items(RefOr::T(Schema::OneOf(word()))).build();
        OneOfBuilder::new().item(text()).item(number()).item(list).into()
    }
}

impl ToSchema for Words {}
