//! Text → tokens with their places.

use std::ops::Range;

use super::error::FilterError;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// A field, a value, or one of `and`, `or`, `not`.
    Word(String),
    /// In quotation marks: never a keyword or a field.
    Quoted(String),
    Compare(Comparison),
    Comma,
    Open,
    Close,
    And,
    Or,
    Not,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    AtMost,
    More,
    AtLeast,
}

pub(super) type Spanned = (Token, Range<usize>);

const SYMBOLS: [(&str, Token); 14] = [
    ("==", Token::Compare(Comparison::Equal)),
    ("!=", Token::Compare(Comparison::NotEqual)),
    ("<=", Token::Compare(Comparison::AtMost)),
    (">=", Token::Compare(Comparison::AtLeast)),
    ("&&", Token::And),
    ("||", Token::Or),
    ("=", Token::Compare(Comparison::Equal)),
    ("<", Token::Compare(Comparison::Less)),
    (">", Token::Compare(Comparison::More)),
    ("!", Token::Not),
    ("(", Token::Open),
    (")", Token::Close),
    (",", Token::Comma),
    ("|", Token::Or),
];

pub(super) fn tokens(text: &str) -> Result<Vec<Spanned>, Box<FilterError>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(next) = text[at..].chars().next() {
        let rest = &text[at..];
        if next.is_whitespace() || next.is_control() {
            at += next.len_utf8();
        } else if let Some((symbol, token)) = SYMBOLS.iter().find(|(symbol, _)| rest.starts_with(symbol)) {
            found.push((token.clone(), at..at + symbol.len()));
            at += symbol.len();
        } else if next == '"' || next == '\'' {
            let (word, end) = quoted(text, at, next)?;
            found.push((Token::Quoted(word), at..end));
            at = end;
        } else {
            let end = at + rest.find(ends_word).unwrap_or(rest.len()).max(next.len_utf8());
            found.push((word(&text[at..end]), at..end));
            at = end;
        }
    }
    Ok(found)
}

fn word(text: &str) -> Token {
    match text.to_ascii_lowercase().as_str() {
        "and" => Token::And,
        "or" => Token::Or,
        "not" => Token::Not,
        _ => Token::Word(text.to_owned()),
    }
}

fn ends_word(c: char) -> bool {
    c.is_whitespace() || c.is_control() || "=!<>(),\"'|&".contains(c)
}

/// The text between quotation marks; a backslash takes the next character as it is.
fn quoted(text: &str, start: usize, mark: char) -> Result<(String, usize), Box<FilterError>> {
    let mut word = String::new();
    let mut chars = text[start + 1..].char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            c if c == mark => return Ok((word, start + 1 + at + 1)),
            '\\' => word.extend(chars.next().map(|(_, c)| c)),
            c => word.push(c),
        }
    }
    let place = start..text.len();
    Err(FilterError::new(text, place, "the quotation mark is not closed").allowed(format!("another {mark} at the end")))
}
