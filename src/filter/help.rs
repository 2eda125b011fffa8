//! The language of expressions in a page, for `--help`.

use std::fmt::Write;

use super::field::{Field, Kind, Schema};

const GRAMMAR: &str = "\
Expressions: tests such as `proto=tcp`, side by side (all of them), joined by `or`, turned round by `not`, grouped by ( ).
  field=value          equal; a list a,b,c is any of them; so is a range 8000-8100, or 10.0.0.0/8 for addresses
  field!=value         not so, also when there is no such field
  field>value          also >=, <, <=, for numbers and times
  field                it is there, and not zero
  tcp  10.0.0.0/8      short for proto=tcp, and for ip=10.0.0.0/8
Numbers take k, M, G (thousands) and Ki, Mi, Gi; times are 250us, 1.5s, 10m, or 2025-01-15T09:00 (UTC). In names * stands
for anything; names with odd characters go in quotation marks. A shell wants > < ( ) * quoted.
";

impl Schema {
    /// How to write expressions, and every field.
    pub fn help(&self) -> String {
        let mut text = GRAMMAR.to_owned();
        // Writing to a String does not fail.
        let _ = writeln!(text, "\nFields of {}:", self.what());
        for (names, [one, other]) in self.either() {
            let _ = writeln!(text, "  {:<22} {} or {}", names.join(", "), one.short(), other.short());
        }
        for field in self.fields() {
            let _ = writeln!(text, "  {:<22} {}{}", field.short(), field.text(), words(field));
        }
        text.push_str("The names in flows.jsonl, such as flow.bytes_toserver, do as well.");
        text
    }
}

/// The words of a field that are few.
fn words(field: Field) -> String {
    match field.kind() {
        Kind::Word(words) | Kind::Set(words) if words().len() <= 8 => format!(": {}", words().join(", ")),
        _ => String::new(),
    }
}
