//! Tokens → nodes. `and` may be left out; `not` binds closest, `or` least.

use std::ops::Range;

use super::error::FilterError;
use super::expression::{Node, Test};
use super::field::{Field, Schema};
use super::lexer::{Comparison, Spanned, Token, tokens};
use super::literal;
use crate::config::nearest;

/// Bounds for text from anybody.
const MOST_BYTES: usize = 8192;
const DEEPEST: usize = 32;
const MOST_VALUES: usize = 1024;

pub(super) fn parse(text: &str, schema: &Schema) -> Result<Node, Box<FilterError>> {
    if text.len() > MOST_BYTES {
        let mut end = 60;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let error = FilterError::new(&text[..end], 0..0, format!("the expression has {} bytes", text.len()));
        return Err(error.allowed(format!("at most {MOST_BYTES}")));
    }
    let tokens = tokens(text)?;
    let mut parser = Parser { text, schema, tokens, at: 0, values: 0 };
    if parser.tokens.is_empty() {
        return Ok(Node::default());
    }
    let node = parser.any(0)?;
    match parser.peek() {
        None => Ok(node),
        Some(_) => Err(parser.unexpected("the end, or another test")),
    }
}

struct Parser<'t> {
    text: &'t str,
    schema: &'t Schema,
    tokens: Vec<Spanned>,
    at: usize,
    values: usize,
}

impl Parser<'_> {
    fn any(&mut self, depth: usize) -> Result<Node, Box<FilterError>> {
        let mut nodes = vec![self.all(depth)?];
        while self.take(&Token::Or) {
            nodes.push(self.all(depth)?);
        }
        Ok(joined(nodes, Node::Any))
    }

    fn all(&mut self, depth: usize) -> Result<Node, Box<FilterError>> {
        let mut nodes = vec![self.one(depth)?];
        while self.take(&Token::And) || self.begins_test() {
            nodes.push(self.one(depth)?);
        }
        Ok(joined(nodes, Node::All))
    }

    fn one(&mut self, depth: usize) -> Result<Node, Box<FilterError>> {
        if depth > DEEPEST {
            let place = self.place();
            return Err(FilterError::new(self.text, place, format!("nested more than {DEEPEST} deep")));
        }
        if self.take(&Token::Not) {
            return Ok(Node::Not(Box::new(self.one(depth + 1)?)));
        }
        if self.take(&Token::Open) {
            let node = self.any(depth + 1)?;
            if !self.take(&Token::Close) {
                return Err(self.unexpected("`)`"));
            }
            return Ok(node);
        }
        self.test()
    }

    fn test(&mut self) -> Result<Node, Box<FilterError>> {
        let Some((Token::Word(word), place)) = self.peek().cloned() else {
            return Err(self.unexpected("a test such as `proto=tcp`, `not`, or `(`"));
        };
        self.at += 1;
        let Some((Token::Compare(comparison), _)) = self.peek().cloned() else {
            return self.bare(&word, place);
        };
        let Some(fields) = self.schema.lookup(&word) else {
            return Err(self.unknown_field(&word, place));
        };
        self.at += 1;
        self.comparison(fields, comparison)
    }

    /// `field=a,b,c` from the first value on.
    fn comparison(&mut self, fields: [Field; 2], comparison: Comparison) -> Result<Node, Box<FilterError>> {
        let from = self.place().start;
        let mut values = vec![self.value(fields[0])?];
        while self.take(&Token::Comma) {
            values.push(self.value(fields[0])?);
        }
        self.values += values.len();
        let place = from..values.last().map_or(from, |(_, place)| place.end);
        if self.values > MOST_VALUES {
            return Err(FilterError::new(self.text, place, "too many values").allowed(format!("at most {MOST_VALUES}")));
        }
        let check = literal::check(self.text, fields[0], comparison, &values)?;
        let test = Node::Test(Test { fields, check, place });
        Ok(if comparison == Comparison::NotEqual { Node::Not(Box::new(test)) } else { test })
    }

    fn value(&mut self, field: Field) -> Result<(String, Range<usize>), Box<FilterError>> {
        match self.peek().cloned() {
            Some((Token::Word(text) | Token::Quoted(text), place)) => {
                self.at += 1;
                Ok((text, place))
            }
            _ => Err(self.unexpected(&format!("a value of `{}`: {}", field.short(), literal::allowed(field)))),
        }
    }

    /// A word without a comparison: a field that is there and not zero, or short for a protocol or address.
    fn bare(&mut self, word: &str, place: Range<usize>) -> Result<Node, Box<FilterError>> {
        if let Some(fields) = self.schema.lookup(word) {
            return Ok(Node::Test(Test { fields, check: super::check::Check::Present, place }));
        }
        for name in ["proto", "ip"] {
            let fields = self.schema.lookup(name).filter(|_| word.parse::<u64>().is_err());
            let values = [(word.to_owned(), place.clone())];
            if let Some(fields) = fields
                && let Ok(check) = literal::check(self.text, fields[0], Comparison::Equal, &values)
            {
                return Ok(Node::Test(Test { fields, check, place }));
            }
        }
        Err(self.unknown_field(word, place))
    }

    fn unknown_field(&self, word: &str, place: Range<usize>) -> Box<FilterError> {
        let lower = word.to_ascii_lowercase();
        let suggestion = match word.parse::<u16>() {
            Ok(port) if self.schema.lookup("port").is_some() => Some(format!("port={port}")),
            _ => nearest(&lower, self.schema.names()),
        };
        let names: Vec<&str> = self.schema.fields().map(Field::short).collect();
        let message = format!("{} have no field `{word}`", self.schema.what());
        let either = self.schema.either().map(|(names, _)| names[0]).collect::<Vec<_>>().join(", ");
        FilterError::new(self.text, place, message)
            .allowed(format!("{}; of either end {either}", names.join(", ")))
            .suggest(suggestion)
    }

    fn peek(&self) -> Option<&Spanned> {
        self.tokens.get(self.at)
    }

    fn take(&mut self, token: &Token) -> bool {
        let there = self.peek().is_some_and(|(next, _)| next == token);
        self.at += usize::from(there);
        there
    }

    fn begins_test(&self) -> bool {
        matches!(self.peek(), Some((Token::Word(_) | Token::Open | Token::Not, _)))
    }

    /// Of the next token, or the end of the text.
    fn place(&self) -> Range<usize> {
        let end = self.text.trim_end().len();
        self.peek().map_or(end..end, |(_, place)| place.clone())
    }

    fn unexpected(&self, wanted: &str) -> Box<FilterError> {
        let place = self.place();
        let message = match self.text.get(place.clone()) {
            Some(found) if !found.is_empty() => format!("`{found}` does not belong here"),
            _ => "something is missing at the end".to_owned(),
        };
        FilterError::new(self.text, place, message).allowed(wanted)
    }
}

fn joined(mut nodes: Vec<Node>, join: fn(Box<[Node]>) -> Node) -> Node {
    match nodes.len() {
        1 => nodes.remove(0),
        _ => join(nodes.into()),
    }
}
