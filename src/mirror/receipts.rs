//! What a receiver knows of the copies it got, and of those it did not get.

use std::collections::BTreeMap;

use super::wrap::{Origin, Wrapped};

/// Copies that may arrive out of order by less than this without being taken for lost.
pub const WINDOW: u32 = 1024;
const WORDS: usize = WINDOW as usize / 64;

/// Accounts of all streams that were seen.
#[derive(Debug, Default)]
pub struct Receipts {
    streams: BTreeMap<Origin, Account>,
}

/// One stream's account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    pub packets: u64,
    pub bytes: u64,
    /// Numbers that did not come, of those between the first and the last that came.
    pub lost: u64,
    /// Numbers that came again.
    pub duplicates: u64,
    /// Numbers that came after a larger one.
    pub reordered: u64,
    /// The stream began anew: the sender was restarted.
    pub restarts: u64,
    /// Copies without a number.
    pub unnumbered: u64,
    window: Option<Window>,
}

/// The last [`WINDOW`] numbers up to and with the largest, as bits: whether they came.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Window {
    largest: u32,
    /// Numbers before the first one count as come.
    came: [u64; WORDS],
}

impl Receipts {
    /// Enters a copy.
    pub fn enter(&mut self, copy: &Wrapped<'_>) {
        let account = self.streams.entry(copy.origin()).or_default();
        account.packets += 1;
        account.bytes += copy.frame.len() as u64;
        match copy.sequence {
            Some(number) => account.number(number),
            None => account.unnumbered += 1,
        }
    }

    /// The accounts so far; numbers that may still come are counted as lost.
    pub fn accounts(&self) -> impl Iterator<Item = (&Origin, Account)> {
        self.streams.iter().map(|(origin, account)| (origin, account.settled()))
    }

    /// Numbers lost in all streams.
    pub fn lost(&self) -> u64 {
        self.accounts().map(|(_, account)| account.lost).sum()
    }
}

impl Account {
    fn number(&mut self, number: u32) {
        let Some(window) = &mut self.window else {
            self.window = Some(Window { largest: number, came: [u64::MAX; WORDS] });
            return;
        };
        let ahead = number.wrapping_sub(window.largest);
        if ahead == 0 {
            self.duplicates += 1;
        } else if ahead < 1 << 31 {
            self.lost += window.advance(number);
        } else if ahead.wrapping_neg() >= WINDOW {
            // So far back only after a restart.
            self.lost += window.holes();
            self.restarts += 1;
            *window = Window { largest: number, came: [u64::MAX; WORDS] };
        } else if window.has(number) {
            self.duplicates += 1;
        } else {
            self.reordered += 1;
            window.set(number, true);
        }
    }

    fn settled(&self) -> Self {
        let holes = self.window.as_ref().map_or(0, Window::holes);
        Self { lost: self.lost + holes, ..self.clone() }
    }
}

impl Window {
    /// Moves on to a larger number; how many numbers that never came fall out of the window.
    fn advance(&mut self, number: u32) -> u64 {
        let steps = number.wrapping_sub(self.largest);
        if steps >= WINDOW {
            let lost = self.holes() + u64::from(steps - WINDOW);
            self.came = [0; WORDS];
            self.largest = number;
            self.set(number, true);
            return lost;
        }
        let mut lost = 0;
        for next in 1..=steps {
            let number = self.largest.wrapping_add(next);
            lost += u64::from(!self.has(number));
            self.set(number, false);
        }
        self.largest = number;
        self.set(number, true);
        lost
    }

    fn has(&self, number: u32) -> bool {
        let at = number % WINDOW;
        self.came[at as usize / 64] >> (at % 64) & 1 != 0
    }

    fn set(&mut self, number: u32, came: bool) {
        let at = number % WINDOW;
        let (word, bit) = (&mut self.came[at as usize / 64], 1 << (at % 64));
        *word = if came { *word | bit } else { *word & !bit };
    }

    fn holes(&self) -> u64 {
        self.came.iter().map(|word| u64::from(word.count_zeros())).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn account(numbers: impl IntoIterator<Item = u32>) -> Account {
        let mut account = Account::default();
        numbers.into_iter().for_each(|number| account.number(number));
        account.settled()
    }

    #[test]
    fn gaps_repeats_and_restarts() {
        let of = |a: &Account| (a.lost, a.duplicates, a.reordered, a.restarts);
        assert_eq!(of(&account(5..100_000)), (0, 0, 0, 0), "the first number may be any");
        assert_eq!(of(&account((0..5000).filter(|n| n % 10 != 3))), (500, 0, 0, 0));
        assert_eq!(of(&account([0, 5_000_000])), (4_999_999, 0, 0, 0));
        assert_eq!(of(&account((u32::MAX - 50..=u32::MAX).chain(0..50))), (0, 0, 0, 0), "numbers wrap");
        assert_eq!(of(&account([1, 2, 2, 3, 1])), (0, 2, 0, 0));
        assert_eq!(of(&account([1, 4, 3, 2, 5])), (0, 0, 2, 0));
        assert_eq!(of(&account((0..5000).chain(0..100))), (0, 0, 0, 1));
    }

    proptest! {
        #[test]
        fn what_is_missing_is_counted(
            start: u32, kept in proptest::collection::vec(any::<bool>(), 2..6000), swaps in proptest::collection::vec((0usize..6000, 1usize..500), 0..20),
        ) {
            let mut numbers: Vec<u32> = kept.iter().enumerate().filter(|(_, kept)| **kept).map(|(n, _)| start.wrapping_add(n as u32)).collect();
            prop_assume!(numbers.len() > 2);
            let first = numbers.remove(0);
            // Out of order by less than the window.
            for (at, by) in swaps {
                if at + by < numbers.len() && numbers[at + by].wrapping_sub(numbers[at]) < 400 {
                    numbers[at..=at + by].rotate_left(1);
                }
            }
            numbers.insert(0, first);
            let largest = numbers.iter().map(|n| n.wrapping_sub(start)).max().unwrap_or(0);
            let distinct: BTreeSet<u32> = numbers.iter().copied().collect();
            let span = u64::from(largest - first.wrapping_sub(start)) + 1;
            let got = account(numbers);
            prop_assert_eq!((got.lost, got.duplicates, got.restarts), (span - distinct.len() as u64, 0, 0));
        }
    }
}
