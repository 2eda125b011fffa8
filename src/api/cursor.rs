//! Long lists in pieces: `limit`, `after`, and `next` of the answer before.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Serialize;

use super::call::{Call, Parameter};
use super::problem::Problem;

pub(super) const LIMIT: Parameter =
    Parameter::number("limit", 1, MOST as u64, "Most items of the answer; 100 if left out.");
pub(super) const AFTER: Parameter =
    Parameter::text("after", "`next` of the answer before; the list goes on behind it, whatever was changed since.");
const MOST: usize = 1000;
const USUAL: usize = 100;

/// A piece of a list.
#[derive(Debug, Serialize)]
pub(super) struct Page<T> {
    pub(super) items: Vec<T>,
    /// There are more behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
}

/// Where a piece begins, and how long it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// Key of the last item before it.
    pub(super) after: Option<String>,
    pub(super) limit: usize,
}

impl Cut {
    pub(super) fn of(call: &Call) -> Result<Self, Problem> {
        let limit = call.number(&LIMIT).map_or(USUAL, |limit| limit as usize);
        let after = call.text(&AFTER).map(decoded).transpose()?;
        Ok(Self { after, limit })
    }

    /// As [`Cut::of`], of lists in order of a number.
    pub(super) fn after_number(&self) -> Result<Option<u64>, Problem> {
        self.after.as_deref().map(|text| text.parse().map_err(|_| wrong())).transpose()
    }

    /// A piece of what begins behind `after`, and may be one longer than `limit`; `key` is what a cursor holds.
    pub(super) fn page<T>(&self, mut items: Vec<T>, key: impl Fn(&T) -> String) -> Page<T> {
        let more = items.len() > self.limit;
        items.truncate(self.limit);
        let next = if more { items.last().map(|last| BASE64_URL_SAFE_NO_PAD.encode(key(last))) } else { None };
        Page { items, next }
    }

    /// A piece of a whole list in order of its keys.
    pub(super) fn of_sorted<T>(&self, items: impl Iterator<Item = T>, key: impl Fn(&T) -> String) -> Page<T> {
        let behind = items.filter(|item| self.after.as_ref().is_none_or(|after| key(item) > *after));
        self.page(behind.take(self.limit + 1).collect(), key)
    }
}

fn decoded(cursor: &str) -> Result<String, Problem> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).map_err(|_| wrong())?;
    String::from_utf8(bytes).map_err(|_| wrong())
}

fn wrong() -> Problem {
    Problem::bad_request("`after` is not the `next` of an answer")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn pieces_together_are_the_list() {
        let all: Vec<String> = (0..25).map(|n| format!("vm-{n:02}")).collect();
        let (mut seen, mut after, mut pieces) = (Vec::new(), None, 0);
        loop {
            let cut = Cut { after, limit: 10 };
            let page = cut.of_sorted(all.iter().cloned(), Clone::clone);
            seen.extend(page.items);
            pieces += 1;
            let Some(next) = page.next else { break };
            after = Some(decoded(&next).unwrap());
        }
        assert_eq!((seen, pieces), (all.clone(), 3));
        let exact = Cut { after: Some("vm-14".into()), limit: 10 }.of_sorted(all.into_iter(), Clone::clone);
        assert_eq!((exact.items.len(), exact.next), (10, None));
        assert!(decoded("!").is_err() && decoded("_w").is_err());
    }
}
