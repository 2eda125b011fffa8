//! What is unexpected is not learnt, so that a burst does not become normal; what stays, or comes back, is.
//!
//! An interval of a service that made its pair unexpected is held: nothing is learnt from it. Two things end that.
//! *A new level*: held for six hours, six intervals of them at least, and never two hours between two of these. Then
//! what was learnt before counts for next to nothing, and for a day nothing is held. *A habit*: held in the same hour of
//! the day on three days, none of them two weeks after the one before. From the fourth on that hour is learnt like any
//! other.
//!
//! What a detector flags as an attack is not learnt, however long it lasts: that is left out before. Records that came before
//! the first flag of their interval count as others do.

/// How long a new level must last, how many held intervals there must be, and how long it may be gone meanwhile.
const LEVEL_SECONDS: u64 = 6 * 3600;
const LEVEL_INTERVALS: u32 = 6;
/// And what comes after a pause this long is another burst.
pub(super) const PAUSE: u64 = 2 * 3600;
const DAY_SECONDS: u64 = 86_400;
/// Days on which a habit is held before it is one, and how many may lie between two of them.
const HABIT_DAYS: u8 = 3;
const HABIT_WITHIN: u32 = 14;

/// The account of held intervals of one service.
#[derive(Clone, Debug, Default)]
pub(super) struct Hold {
    /// Seconds: the first and last held interval of this run of them, and how many there were.
    since: u64,
    last: u64,
    held: u32,
    /// Nothing is held before.
    free_until: u64,
    hours: Option<Box<[Habit; 24]>>,
}

/// An hour of day in which intervals were held.
#[derive(Clone, Copy, Debug, Default)]
struct Habit {
    day: u32,
    days: u8,
}

/// What is to be done with an unexpected interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ruling {
    Hold,
    Learn,
    /// Learn, and let go of what was learnt before.
    Loosen,
}

impl Hold {
    /// An interval at `seconds` since 1970 is unexpected.
    pub(super) fn rule(&mut self, seconds: u64) -> Ruling {
        if seconds < self.free_until || self.is_habit(seconds) {
            return Ruling::Learn;
        }
        if self.held == 0 || seconds.saturating_sub(self.last) > PAUSE {
            (self.since, self.held) = (seconds, 0);
        }
        (self.last, self.held) = (seconds, self.held + 1);
        if seconds - self.since >= LEVEL_SECONDS && self.held >= LEVEL_INTERVALS {
            (self.held, self.free_until) = (0, seconds + DAY_SECONDS);
            return Ruling::Loosen;
        }
        Ruling::Hold
    }

    fn is_habit(&mut self, seconds: u64) -> bool {
        let (day, hour) = ((seconds / DAY_SECONDS) as u32, (seconds / 3600 % 24) as usize);
        let habit = &mut self.hours.get_or_insert_default()[hour];
        if day.saturating_sub(habit.day) > HABIT_WITHIN {
            habit.days = 0;
        }
        if habit.days == 0 || day != habit.day {
            habit.days = habit.days.saturating_add(1);
        }
        habit.day = day;
        habit.days > HABIT_DAYS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_held_and_a_level_that_stays_is_learnt() {
        let mut hold = Hold::default();
        for minute in (0..360).step_by(5) {
            assert_eq!(hold.rule(minute * 60), Ruling::Hold, "{minute}");
        }
        assert_eq!(hold.rule(360 * 60), Ruling::Loosen);
        assert_eq!(hold.rule(365 * 60), Ruling::Learn);
        assert_eq!(hold.rule(360 * 60 + DAY_SECONDS - 1), Ruling::Learn);
        assert_eq!(hold.rule(9 * DAY_SECONDS), Ruling::Hold, "the next one is new");
    }

    #[test]
    fn few_unexpected_intervals_do_not_make_a_level() {
        let mut hold = Hold::default();
        let rulings: Vec<Ruling> = (0..8).map(|n| hold.rule(n * 3 * 3600)).collect();
        assert_eq!(rulings, [Ruling::Hold; 8]);
    }

    #[test]
    fn what_comes_every_night_is_a_habit() {
        let mut hold = Hold::default();
        let night = |day: u64| day * DAY_SECONDS + 2 * 3600;
        assert_eq!([hold.rule(night(1)), hold.rule(night(1) + 300)], [Ruling::Hold; 2]);
        assert_eq!([hold.rule(night(2)), hold.rule(night(3))], [Ruling::Hold; 2]);
        assert_eq!(hold.rule(night(4)), Ruling::Learn);
        assert_eq!(hold.rule(night(4) + 4 * 3600), Ruling::Hold, "not at another hour");
        let mut rare = Hold::default();
        assert_eq!([1, 20, 40, 60].map(|day| rare.rule(night(day))), [Ruling::Hold; 4]);
    }
}
