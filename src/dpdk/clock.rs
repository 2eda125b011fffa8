//! Time from the CPU's time-stamp counter: no system call, one multiplication.

use std::time::{SystemTime, UNIX_EPOCH};

use super::ffi;

/// Raw counter value.
pub fn ticks() -> u64 {
    // SAFETY: reads a register.
    unsafe { ffi::gn_tsc() }
}

/// Tells the CPU that this is a waiting loop.
pub fn pause() {
    // SAFETY: executes one hint instruction.
    unsafe { ffi::gn_pause() };
}

/// Counter ticks per second.
pub fn hz() -> u64 {
    // SAFETY: reads a value measured at EAL start.
    unsafe { ffi::rte_get_tsc_hz() }
}

/// Turns counter values into nanoseconds since the Unix epoch. Monotone.
///
/// What is known of the counter's rate is rounded to ten megahertz, a quarter of a second in a minute at worst, and the
/// system's clock is itself put right now and then: whoever runs for long takes the time from [`follow`](Self::follow),
/// which compares the two once a second and makes up the difference in the second after.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The latest comparison: counter, time as told, and time by the system.
    base_ticks: u64,
    base_ns: u64,
    system_ns: u64,
    /// Nanoseconds per tick, 32 fractional bits: as the counter runs, and as time is told until the next comparison.
    rate: u64,
    scale: u64,
    /// Counter at the next comparison.
    next: u64,
    hz: u64,
}

/// Nanoseconds between comparisons, in which a difference is made up.
const PERIOD_NS: i128 = 1_000_000_000;
/// The first comparison comes sooner.
const FIRST: u64 = 100;
/// A time to come that is farther off than this is taken over at once.
const STEP_NS: i128 = 1_000_000_000;
/// A rate that differs by a larger part than this from the one before is none: the system's clock was set meanwhile.
const ODD: u64 = 64;
/// System time and counter belong together when reading took less than a period by this.
const TOGETHER: u64 = 50_000;

impl Clock {
    /// Reads the system clock once. The EAL must have been started.
    pub fn start() -> Self {
        Self::at(ticks(), system_ns(), hz())
    }

    fn at(ticks: u64, system_ns: u64, hz: u64) -> Self {
        let hz = hz.max(1);
        let scale = ((1_000_000_000_u128 << 32) / u128::from(hz)) as u64;
        Self { base_ticks: ticks, base_ns: system_ns, system_ns, rate: scale, scale, next: ticks + hz / FIRST, hz }
    }

    /// Nanoseconds since the Unix epoch.
    pub fn now(&self) -> u64 {
        self.told(ticks())
    }

    /// As [`now`](Self::now), compared with the system's clock when it is time for that.
    #[inline]
    pub fn follow(&mut self) -> u64 {
        let ticks = ticks();
        if ticks >= self.next {
            self.compare();
        }
        self.told(ticks)
    }

    fn told(&self, ticks: u64) -> u64 {
        let passed = u128::from(ticks.saturating_sub(self.base_ticks));
        self.base_ns + ((passed * u128::from(self.scale)) >> 32) as u64
    }

    #[cold]
    fn compare(&mut self) {
        let (before, system, after) = (ticks(), system_ns(), ticks());
        self.next = after + self.hz / FIRST;
        // Else something came between, and it is tried again soon.
        if after - before <= self.hz / TOGETHER {
            self.correct(before + (after - before) / 2, system);
        }
    }

    /// It is `system` when the counter is at `ticks`.
    fn correct(&mut self, ticks: u64, system: u64) {
        let told = self.told(ticks);
        let (ticks_passed, passed) = (ticks.saturating_sub(self.base_ticks), system.saturating_sub(self.system_ns));
        let measured = ((u128::from(passed) << 32) / u128::from(ticks_passed.max(1))) as u64;
        if measured.abs_diff(self.rate) < self.rate / ODD {
            self.rate = measured;
        }
        let behind = i128::from(system) - i128::from(told);
        let (base_ns, make_up) =
            if behind > STEP_NS { (system, 0) } else { (told, behind.clamp(-PERIOD_NS / 2, PERIOD_NS)) };
        let scale = (i128::from(self.rate) * (PERIOD_NS + make_up) / PERIOD_NS) as u64;
        let next = ticks + self.hz;
        *self = Self { base_ticks: ticks, base_ns, system_ns: system, scale, next, ..*self };
    }
}

fn system_ns() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds that the calling thread has run on a CPU: what it is charged, whoever else runs.
pub fn cpu_time_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the one value it is given; every Linux has this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: u64 = 1_700_000_000_000_000_000;
    /// What is said, and what is true.
    const SAID: u64 = 2_600_000_000;
    const HZ: u64 = 2_596_132_000;

    fn ticks_at(ns: u64) -> u64 {
        77 + (u128::from(ns) * u128::from(HZ) / 1_000_000_000) as u64
    }

    /// Compares when it is time, at `system(ns)`, for so many seconds; looks at the time told every millisecond.
    fn run(clock: &mut Clock, seconds: std::ops::Range<u64>, system: impl Fn(u64) -> u64) -> i64 {
        let mut before = 0;
        for ns in (seconds.start * 1000..seconds.end * 1000).map(|ms| ms * 1_000_000) {
            if ticks_at(ns) >= clock.next {
                clock.correct(ticks_at(ns), system(ns));
            }
            let told = clock.told(ticks_at(ns));
            assert!(told > before, "goes on");
            before = told;
        }
        before as i64 - system(seconds.end * 1_000_000_000 - 1_000_000) as i64
    }

    #[test]
    fn a_wrong_rate_is_found_out() {
        let mut clock = Clock::at(77, EPOCH, SAID);
        let alone = clock.told(ticks_at(60_000_000_000)) - EPOCH;
        assert!(alone < 59_920_000_000, "{alone}: 89 ms late after a minute");
        let off = run(&mut clock, 0..5, |ns| EPOCH + ns);
        assert!(off.abs() < 1000, "{off} ns");
        // The system's clock is slowed down by 100 millionths.
        let off = run(&mut clock, 5..60, |ns| EPOCH + ns - (ns - 5_000_000_000) / 10_000);
        assert!(off.abs() < 1000, "{off} ns");
    }

    #[test]
    fn a_clock_that_is_set_is_followed_without_going_back() {
        let mut clock = Clock::at(77, EPOCH, SAID);
        run(&mut clock, 0..3, |ns| EPOCH + ns);
        let hour = 3_600_000_000_000;
        let off = run(&mut clock, 3..6, |ns| EPOCH + ns + hour);
        assert!(off.abs() < 1000, "{off} ns after an hour forward");
        let off = run(&mut clock, 6..16, |ns| EPOCH + ns + hour - 2_500_000_000);
        assert!(off.abs() < 1000, "{off} ns after some seconds back");
    }
}
