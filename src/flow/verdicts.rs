//! Verdicts as small numbers: a policy gives few distinct ones, and an entry has no room for two of 48 bytes.
//!
//! Each is counted by the entries that hold it and forgotten with the last of them, so verdicts of an earlier generation
//! stay exactly as long as a flow was judged by it. Fixed room: when it is used up (more distinct verdicts at a time than
//! [`MOST`]), new ones are refused and counted, and their flows are judged packet by packet.

use crate::packet::hash_words;
use crate::rules::{Standing, Verdict};

/// Handles are this wide; 0 stands for none.
pub(super) const HANDLE_BITS: u32 = 21;
/// Most distinct verdicts.
pub(super) const MOST: usize = (1 << HANDLE_BITS) - 2;
const NONE: u32 = 0;

pub(super) struct Verdicts {
    /// By handle minus one. Reserved once.
    kept: Vec<Kept>,
    capacity: usize,
    /// First handle of each chain.
    heads: Box<[u32]>,
    free: u32,
    refused: u64,
}

struct Kept {
    verdict: Verdict,
    users: u32,
    /// In its chain, or in the list of free ones.
    next: u32,
}

impl Verdicts {
    /// Three for each of `flows`, but no more than [`MOST`].
    pub(super) fn new(flows: usize) -> Self {
        let capacity = flows.saturating_mul(3).clamp(3, MOST);
        let heads = vec![NONE; capacity.next_power_of_two()].into();
        Self { kept: Vec::with_capacity(capacity), capacity, heads, free: NONE, refused: 0 }
    }

    #[inline]
    pub(super) fn get(&self, handle: u32) -> Option<&Verdict> {
        self.kept.get((handle as usize).wrapping_sub(1)).map(|kept| &kept.verdict)
    }

    /// A handle that the caller releases when it has no use for it any more; 0 when there is no room.
    pub(super) fn intern(&mut self, verdict: &Verdict) -> u32 {
        let chain = self.chain(verdict);
        let mut handle = self.heads[chain];
        while let Some(kept) = self.kept.get_mut((handle as usize).wrapping_sub(1)) {
            if kept.verdict == *verdict {
                kept.users += 1;
                return handle;
            }
            handle = kept.next;
        }
        let kept = Kept { verdict: *verdict, users: 1, next: self.heads[chain] };
        let handle = if self.free != NONE {
            let handle = self.free;
            let place = &mut self.kept[handle as usize - 1];
            self.free = place.next;
            *place = kept;
            handle
        } else if self.kept.len() < self.capacity {
            self.kept.push(kept);
            self.kept.len() as u32
        } else {
            self.refused += 1;
            return NONE;
        };
        self.heads[chain] = handle;
        handle
    }

    pub(super) fn release(&mut self, handle: u32) {
        let Some(kept) = self.kept.get_mut((handle as usize).wrapping_sub(1)) else { return };
        kept.users -= 1;
        if kept.users > 0 {
            return;
        }
        let (next, chain) = (kept.next, self.chain(&self.kept[handle as usize - 1].verdict));
        if self.heads[chain] == handle {
            self.heads[chain] = next;
        } else {
            let mut at = self.heads[chain];
            while self.kept[at as usize - 1].next != handle {
                at = self.kept[at as usize - 1].next;
            }
            self.kept[at as usize - 1].next = next;
        }
        self.kept[handle as usize - 1].next = self.free;
        self.free = handle;
    }

    /// Verdicts that found no room.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// Memory touched so far, in bytes; chains are counted whole where there are many.
    pub(super) fn memory_bytes(&self) -> usize {
        self.kept.len() * size_of::<Kept>() + size_of_val(&*self.heads).min(self.kept.len() * 4096)
    }

    fn chain(&self, verdict: &Verdict) -> usize {
        let groups = u64::from(verdict.src_groups.0) << 32 | u64::from(verdict.dst_groups.0);
        let rule = u64::from(verdict.rule.0) << 32 | u64::from(verdict.generation);
        let rest = verdict.mirrors ^ u64::from(verdict.logged.0) << 40;
        let Standing { watchlist, flags, score, share, cut, diversion, class } = verdict.standing;
        let standing = u64::from(watchlist) << 32 ^ u64::from(flags) << 8 ^ u64::from(class);
        let shares = u64::from(score) << 48 | u64::from(share) << 32 | u64::from(cut) << 16 | u64::from(diversion);
        let words = [groups, rule, rest ^ standing.rotate_left(17), shares ^ (verdict.decision as u64) << 60];
        hash_words(words) as usize & (self.heads.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::rules::{GroupSetHandle, RuleHandle};

    fn verdict(n: u32) -> Verdict {
        Verdict {
            rule: RuleHandle(n % 7),
            generation: n % 3,
            src_groups: GroupSetHandle(n),
            mirrors: (n % 2).into(),
            ..Verdict::default()
        }
    }

    #[test]
    fn counted_as_a_map_of_lists_does() {
        let (mut table, mut held) = (Verdicts::new(10), Vec::new());
        let mut dice = 1u32;
        for _ in 0..20_000 {
            dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let n = (dice >> 8) % 90;
            if dice >> 30 != 0 || held.is_empty() {
                let handle = table.intern(&verdict(n));
                let distinct = held.iter().map(|(n, _)| n).collect::<std::collections::BTreeSet<_>>();
                assert_eq!(handle == NONE, distinct.len() == 30 && !distinct.contains(&n));
                if handle != NONE {
                    held.push((n, handle));
                }
            }
            if dice >> 30 != 1 && !held.is_empty() {
                let (_, handle) = held.swap_remove((dice >> 4) as usize % held.len());
                table.release(handle);
            }
            let mut handles = HashMap::new();
            for (n, handle) in &held {
                assert_eq!(table.get(*handle), Some(&verdict(*n)));
                assert_eq!(*handles.entry(*n).or_insert(*handle), *handle, "one handle a verdict");
            }
        }
        assert!(table.refused() > 0);
        held.into_iter().for_each(|(_, handle)| table.release(handle));
        assert!(table.heads.iter().all(|head| *head == NONE) && table.get(NONE).is_none());
    }
}
