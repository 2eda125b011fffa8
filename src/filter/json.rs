//! Flow records as lines of JSON: everything by name.

use serde_json::Value as Json;

use super::field::{Field, Fields, Kind, Value};
use super::literal;
use crate::packet::from_ip_addr;

/// One line of `flows.jsonl`, read.
#[derive(Clone, Copy, Debug)]
pub struct JsonLine<'a>(pub &'a Json);

impl JsonLine<'_> {
    /// What stands at a dotted name.
    fn at(&self, name: &str) -> &Json {
        name.split('.').fold(self.0, |value, part| &value[part])
    }

    fn sum(&self, fields: [Field; 2]) -> Value<'_> {
        let mut total = None;
        for field in fields {
            if let Value::Number(n) = self.value(field) {
                total = Some(total.unwrap_or(0) + n);
            }
        }
        total.map_or(Value::Absent, Value::Number)
    }
}

impl Fields for JsonLine<'_> {
    fn value(&self, field: Field) -> Value<'_> {
        match field {
            Field::Packets => self.sum([Field::PacketsToServer, Field::PacketsToClient]),
            Field::Bytes => self.sum([Field::BytesToServer, Field::BytesToClient]),
            Field::Retransmissions => self.sum([Field::RetransmissionsToServer, Field::RetransmissionsToClient]),
            Field::OutOfWindow => {
                let ends = ["tcp.out_of_window_ts", "tcp.out_of_window_tc"].map(|name| self.at(name).as_u64());
                ends.into_iter().flatten().reduce(|a, b| a + b).map_or(Value::Absent, Value::Number)
            }
            Field::Age => match (self.value(Field::Start), self.value(Field::End)) {
                (Value::Number(start), Value::Number(end)) => Value::Number(end.saturating_sub(start)),
                _ => Value::Absent,
            },
            Field::TcpFlags => match (self.value(Field::TcpFlagsToServer), self.value(Field::TcpFlagsToClient)) {
                (Value::Number(there), Value::Number(back)) => Value::Number(there | back),
                (one, Value::Absent) | (_, one) => one,
            },
            Field::Version => match self.value(Field::Source) {
                Value::Address(version, _) => Value::Number(version.into()),
                _ => Value::Absent,
            },
            Field::Vlan => number(&self.at("vlan")[0]),
            other => converted(self.at(other.name()), other.kind()),
        }
    }
}

fn number(json: &Json) -> Value<'_> {
    json.as_u64().map_or(Value::Absent, Value::Number)
}

fn converted(json: &Json, kind: Kind) -> Value<'_> {
    if json.is_null() {
        return Value::Absent;
    }
    let text = json.as_str().unwrap_or_default();
    let read = match kind {
        Kind::Address => text.parse().ok().map(from_ip_addr).map(|(version, address)| Value::Address(version, address)),
        Kind::Protocol => literal::protocol(text).or_else(|| text.parse().ok()).map(|n| Value::Number(n.into())),
        Kind::Number(_) => json.as_u64().map(Value::Number),
        Kind::Time => literal::instant(text).map(Value::Number),
        Kind::Real => json.as_f64().map(Value::Real),
        // In microseconds.
        Kind::Duration => json.as_f64().map(|micros| Value::Number((micros * 1000.0).round() as u64)),
        Kind::Set(words) => match json {
            Json::Array(names) => Some(Value::Number(bits(names, &words()))),
            _ => u64::from_str_radix(text, 16).ok().map(Value::Number),
        },
        Kind::Mac | Kind::Word(_) | Kind::Text | Kind::Rule => json.as_str().map(Value::Text),
        Kind::Groups | Kind::Sessions => match json {
            Json::Array(names) if names.is_empty() => None,
            Json::Array(names) => Some(Value::Texts(names)),
            _ => None,
        },
    };
    read.unwrap_or(Value::Absent)
}

fn bits(names: &[Json], words: &[&str]) -> u64 {
    let at = |name: &Json| words.iter().position(|word| name.as_str() == Some(word));
    names.iter().filter_map(at).fold(0, |bits, at| bits | 1 << at)
}
