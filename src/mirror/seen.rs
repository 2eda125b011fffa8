//! Packets that come by more than once: a router or bridge behind two ports, a VLAN and its translation.

/// The fingerprints of the last few packets, in a table that does not grow: each has four places, of which the oldest is
/// given up.
#[derive(Clone, Debug)]
pub struct Seen {
    window: u64,
    sets: Box<[[Sighting; WAYS]]>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sighting {
    print: u64,
    place: u64,
    clock: u64,
}

const WAYS: usize = 4;
/// Of 96 bytes.
const SETS: usize = 2048;

impl Seen {
    pub fn new(window: u64) -> Self {
        Self { window, sets: vec![[Sighting::default(); WAYS]; SETS].into() }
    }

    pub fn window(&self) -> u64 {
        self.window
    }

    /// Whether this packet was seen within the window at another place; one that comes again where it came first was sent
    /// again. `print` is not to be 0.
    pub fn is_again(&mut self, print: u64, place: u64, clock: u64) -> bool {
        let set = &mut self.sets[print as usize % SETS];
        let is_fresh = |of: &Sighting| of.print == print && clock.saturating_sub(of.clock) <= self.window;
        if let Some(first) = set.iter_mut().find(|sighting| is_fresh(sighting)) {
            if first.place != place {
                return true;
            }
            first.clock = clock;
            return false;
        }
        let oldest = set.iter_mut().min_by_key(|sighting| sighting.clock);
        if let Some(oldest) = oldest {
            *oldest = Sighting { print, place, clock };
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn again_is_elsewhere_and_soon() {
        let mut seen = Seen::new(50);
        assert!(!seen.is_again(7, 1, 1000));
        assert!(seen.is_again(7, 2, 1050), "at the end of the window");
        assert!(seen.is_again(7, 3, 1050), "at a third place");
        assert!(!seen.is_again(7, 1, 1050), "sent again");
        assert!(seen.is_again(7, 2, 1100), "and seen again");
        assert!(!seen.is_again(7, 2, 1101), "too late");
        assert!(seen.is_again(7, 1, 1101), "the other way round now");
    }

    #[test]
    fn of_many_the_oldest_is_forgotten() {
        let mut seen = Seen::new(1000);
        let same_set = |n: u64| 1 + n * SETS as u64;
        for n in 0..=WAYS as u64 {
            assert!(!seen.is_again(same_set(n), 1, 100 + n));
        }
        assert!(seen.is_again(same_set(1), 2, 110));
        assert!(!seen.is_again(same_set(0), 2, 110), "it gave way");
    }
}
