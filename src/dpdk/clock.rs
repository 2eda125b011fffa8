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

/// Turns counter values into nanoseconds since the Unix epoch. Monotone; not corrected after start.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    base_ticks: u64,
    base_ns: u64,
    /// Nanoseconds per tick, 32 fractional bits.
    scale: u64,
}

impl Clock {
    /// Reads the system clock once. The EAL must have been started.
    pub fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let base_ns = u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX);
        let scale = ((1_000_000_000_u128 << 32) / u128::from(hz().max(1))) as u64;
        Self { base_ticks: ticks(), base_ns, scale }
    }

    /// Nanoseconds since the Unix epoch.
    pub fn now(&self) -> u64 {
        let passed = u128::from(ticks().saturating_sub(self.base_ticks));
        self.base_ns + ((passed * u128::from(self.scale)) >> 32) as u64
    }
}

/// Nanoseconds that the calling thread has run on a CPU: what it is charged, whoever else runs.
pub fn cpu_time_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the one value it is given; every Linux has this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
