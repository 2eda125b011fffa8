//! Names of one kind, and references to them.

use std::collections::HashMap;

use crate::config::document::Place;
use crate::config::problem::{Problems, nearest};

/// Names of ports, VMs, groups, rules or mirrors, each with its position.
#[derive(Debug)]
pub(super) struct Names {
    /// As in messages: "group", "VM".
    kind: &'static str,
    defined: HashMap<String, (usize, Place)>,
    /// False when a table could not be read: a name that is not found may have been in there.
    complete: bool,
}

impl Names {
    pub(super) fn new(kind: &'static str, complete: bool) -> Self {
        Self { kind, defined: HashMap::new(), complete }
    }

    /// Notes a name; reports it when it is taken.
    pub(super) fn define(&mut self, problems: &mut Problems<'_>, place: &Place, name: &str, position: usize) {
        if let Some((_, first)) = self.defined.get(name) {
            let line = problems.document.line_of(first);
            let message = format!("{} `{name}` is defined twice", self.kind);
            problems.error(place, message).found(format!("`{name}`")).related(line, "first defined here");
            return;
        }
        self.defined.insert(name.to_owned(), (position, place.clone()));
    }

    pub(super) fn get(&self, name: &str) -> Option<usize> {
        self.defined.get(name).map(|(position, _)| *position)
    }

    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Position of a name; reports it when unknown.
    pub(super) fn lookup(&self, problems: &mut Problems<'_>, place: &Place, name: &str) -> Option<usize> {
        let found = self.get(name);
        if found.is_none() && self.complete {
            let message = format!("unknown {} `{name}`", self.kind);
            problems
                .error(place, message)
                .found(format!("`{name}`"))
                .allowed(self.listed())
                .suggest(self.nearest(name));
        }
        found
    }

    pub(super) fn nearest(&self, name: &str) -> Option<String> {
        nearest(name, self.defined.keys().map(String::as_str))
    }

    /// In the order of the file, cut when there are many.
    pub(super) fn listed(&self) -> String {
        const SHOWN: usize = 12;
        if self.defined.is_empty() {
            return format!("the file defines no {}", self.kind);
        }
        let mut names: Vec<_> = self.defined.iter().map(|(name, (position, _))| (*position, name.as_str())).collect();
        names.sort_unstable();
        let shown: Vec<_> = names.iter().take(SHOWN).map(|(_, name)| format!("`{name}`")).collect();
        match names.len().checked_sub(SHOWN) {
            Some(more) if more > 0 => format!("{} and {more} more", shown.join(", ")),
            _ => shown.join(", "),
        }
    }
}
