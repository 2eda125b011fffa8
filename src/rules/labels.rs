//! Rule ids and group names behind the numbers in verdicts.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::checks::CompileError;
use super::rule::{GroupSetHandle, RuleHandle};

/// What [`Labels::rule`] answers for [`RuleHandle::DEFAULT`]: no rule decided.
const DEFAULT_LABEL: &str = "default";

/// Most distinct group sets over the life of a process.
const MAX_GROUP_SETS: usize = 1 << 20;

/// The names of one group set, sorted.
type Names = Arc<[Arc<str>]>;

/// Append-only dictionary shared by all generations of a process: rule id ↔ [`RuleHandle`], set of group
/// names ↔ [`GroupSetHandle`]. A number once given keeps its meaning, so records of an old generation stay
/// readable.
///
/// Written by the control thread while it compiles, read by exporters. Workers only carry the numbers and
/// never come here, hence the lock.
#[derive(Debug)]
pub struct Labels {
    max_rules: usize,
    inner: RwLock<Inner>,
}

#[derive(Debug)]
struct Inner {
    rules: Vec<Arc<str>>,
    rule_numbers: HashMap<Arc<str>, RuleHandle>,
    sets: Vec<Names>,
    set_numbers: HashMap<Names, GroupSetHandle>,
}

impl Labels {
    /// `max_rules`: most distinct rule ids over the life of the process.
    pub fn new(max_rules: usize) -> Self {
        let empty: Names = Arc::from(Vec::new());
        let inner = Inner {
            rules: vec![Arc::from(DEFAULT_LABEL)],
            rule_numbers: HashMap::new(),
            sets: vec![empty.clone()],
            set_numbers: HashMap::from([(empty, GroupSetHandle(0))]),
        };
        Self { max_rules, inner: RwLock::new(inner) }
    }

    /// The id of a rule; `default` for [`RuleHandle::DEFAULT`], and `?` for a number that was never given.
    pub fn rule(&self, handle: RuleHandle) -> Arc<str> {
        let found = self.read().rules.get(handle.0 as usize).cloned();
        found.unwrap_or_else(|| Arc::from("?"))
    }

    /// The number of a rule id, if a compiled policy ever contained it.
    pub fn rule_handle(&self, id: &str) -> Option<RuleHandle> {
        self.read().rule_numbers.get(id).copied()
    }

    /// The names in a group set, sorted; empty for a number that was never given.
    pub fn groups(&self, handle: GroupSetHandle) -> Arc<[Arc<str>]> {
        let found = self.read().sets.get(handle.0 as usize).cloned();
        found.unwrap_or_else(|| Arc::from(Vec::new()))
    }

    /// The number of a set of group names, in any order, if it was ever given one.
    pub fn group_set(&self, names: &[&str]) -> Option<GroupSetHandle> {
        let mut names: Vec<Arc<str>> = names.iter().map(|name| Arc::from(*name)).collect();
        names.sort_unstable();
        names.dedup();
        self.read().set_numbers.get(names.as_slice()).copied()
    }

    /// Every rule id with its number, [`RuleHandle::DEFAULT`] among them.
    pub fn each_rule(&self, visit: &mut dyn FnMut(RuleHandle, &str)) {
        self.read().rules.iter().zip(0..).for_each(|(id, number)| visit(RuleHandle(number), id));
    }

    /// Every set of group names with its number.
    pub fn each_group_set(&self, visit: &mut dyn FnMut(GroupSetHandle, &[Arc<str>])) {
        self.read().sets.iter().zip(0..).for_each(|(set, number)| visit(GroupSetHandle(number), set));
    }

    /// Distinct rule ids so far.
    pub fn rule_count(&self) -> usize {
        self.read().rule_numbers.len()
    }

    /// Numbers for rule ids, in the order given. All or nothing: an error leaves no trace.
    pub(super) fn intern_rules(&self, ids: &[&str]) -> Result<Vec<RuleHandle>, CompileError> {
        let mut inner = self.write();
        let fresh = ids.iter().filter(|id| !inner.rule_numbers.contains_key(**id)).count();
        let known = inner.rule_numbers.len();
        if known + fresh > self.max_rules || known + fresh >= u32::MAX as usize {
            return Err(CompileError::TooManyRules { known, fresh, limit: self.max_rules });
        }
        Ok(ids.iter().map(|id| inner.rule(id)).collect())
    }

    /// Numbers for sets of group names, in the order given. All or nothing.
    pub(super) fn intern_sets(&self, sets: Vec<Vec<Arc<str>>>) -> Result<Vec<GroupSetHandle>, CompileError> {
        let sets: Vec<Names> = sets
            .into_iter()
            .map(|mut names| {
                names.sort_unstable();
                names.dedup();
                Arc::from(names)
            })
            .collect();
        let mut inner = self.write();
        let fresh = sets.iter().filter(|set| !inner.set_numbers.contains_key(*set)).count();
        let known = inner.sets.len();
        if known + fresh > MAX_GROUP_SETS {
            return Err(CompileError::TooManyGroupSets { known, fresh, limit: MAX_GROUP_SETS });
        }
        Ok(sets.into_iter().map(|set| inner.set(set)).collect())
    }

    /// A writer cannot leave the dictionary half-changed in a way that matters (a panic between two pushes
    /// loses a name at most), so a poisoned lock is still good.
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn rule(&mut self, id: &str) -> RuleHandle {
        if let Some(handle) = self.rule_numbers.get(id) {
            return *handle;
        }
        let handle = RuleHandle(self.rules.len() as u32);
        let id: Arc<str> = Arc::from(id);
        self.rules.push(id.clone());
        self.rule_numbers.insert(id, handle);
        handle
    }

    fn set(&mut self, names: Names) -> GroupSetHandle {
        if let Some(handle) = self.set_numbers.get(&names) {
            return *handle;
        }
        let handle = GroupSetHandle(self.sets.len() as u32);
        self.sets.push(names.clone());
        self.set_numbers.insert(names, handle);
        handle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_stable_and_zero_is_the_default() {
        let labels = Labels::new(10);
        let first = labels.intern_rules(&["a", "b"]).expect("within the limit");
        let again = labels.intern_rules(&["b", "c", "a"]).expect("within the limit");
        assert_eq!((first[0], first[1]), (again[2], again[0]));
        assert_eq!(&*labels.rule(RuleHandle::DEFAULT), "default");
        assert_eq!(&*labels.rule(again[1]), "c");
        assert_eq!(&*labels.rule(RuleHandle(99)), "?");
        assert_eq!(labels.rule_handle("c"), Some(again[1]));
        assert_eq!(labels.rule_handle("default"), None);
    }

    #[test]
    fn a_rule_called_default_is_not_the_default() {
        let labels = Labels::new(10);
        let handles = labels.intern_rules(&["default"]).expect("within the limit");
        assert_ne!(handles[0], RuleHandle::DEFAULT);
    }

    #[test]
    fn the_limit_counts_distinct_ids_and_leaves_no_trace() {
        let labels = Labels::new(2);
        labels.intern_rules(&["a"]).expect("within the limit");
        let error = labels.intern_rules(&["a", "b", "c"]).expect_err("three ids");
        assert_eq!(error, CompileError::TooManyRules { known: 1, fresh: 2, limit: 2 });
        assert_eq!(labels.rule_handle("b"), None);
        labels.intern_rules(&["b", "a"]).expect("two ids fit");
    }

    #[test]
    fn sets_do_not_depend_on_order() {
        let labels = Labels::new(1);
        let (x, y): (Arc<str>, Arc<str>) = (Arc::from("x"), Arc::from("y"));
        let sets = vec![vec![x.clone(), y.clone()], vec![y.clone(), x.clone(), x.clone()], vec![], vec![y]];
        let handles = labels.intern_sets(sets).expect("few sets");
        assert_eq!(handles[0], handles[1]);
        assert_eq!(handles[2], GroupSetHandle(0));
        assert_ne!(handles[3], handles[0]);
        assert_eq!(labels.group_set(&["y", "x"]), Some(handles[0]));
        assert_eq!(labels.groups(handles[0]).iter().map(|n| &**n).collect::<Vec<_>>(), ["x", "y"]);
        assert!(labels.groups(GroupSetHandle(77)).is_empty());
    }
}
