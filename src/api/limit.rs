//! How many requests somebody may make: a bucket for each token, certificate and address, filled at a constant rate.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Whose requests are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Counted {
    /// Somebody who is known, by the name of the token or certificate.
    Known(String),
    /// Nobody yet.
    Address(IpAddr),
}

/// Buckets that are remembered; when there are more, those that are full are forgotten, and then all.
const MOST: usize = 16_384;
/// A bucket holds what comes in so many seconds.
const DEPTH: f64 = 2.0;

/// All buckets.
#[derive(Debug)]
pub(super) struct Limiter {
    rate: f64,
    buckets: HashMap<Counted, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    /// What is in it at a time.
    fn level(&self, rate: f64, now: Instant) -> f64 {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        (self.left + elapsed * rate).min(rate * DEPTH)
    }
}

impl Limiter {
    /// `rate`: requests a second in the long run.
    pub(super) fn new(rate: u32) -> Self {
        Self { rate: f64::from(rate), buckets: HashMap::new() }
    }

    /// Counts a request, or says after how long one would be possible.
    pub(super) fn take(&mut self, whose: Counted, now: Instant) -> Result<(), Duration> {
        let rate = self.rate;
        if self.buckets.len() >= MOST && !self.buckets.contains_key(&whose) {
            self.buckets.retain(|_, bucket| bucket.level(rate, now) < rate * DEPTH);
            if self.buckets.len() >= MOST {
                self.buckets.clear();
            }
        }
        let bucket = self.buckets.entry(whose).or_insert(Bucket { left: rate * DEPTH, at: now });
        let level = bucket.level(rate, now);
        let taken = level >= 1.0;
        *bucket = Bucket { left: if taken { level - 1.0 } else { level }, at: now };
        if taken { Ok(()) } else { Err(Duration::from_secs_f64((1.0 - level) / rate)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate_each_for_itself() {
        let (mut limiter, start) = (Limiter::new(10), Instant::now());
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let one = || Counted::Known("one".into());
        assert_eq!((0..30).filter(|_| limiter.take(one(), at(0)).is_ok()).count(), 20, "two seconds' worth at once");
        assert_eq!(limiter.take(one(), at(0)), Err(Duration::from_millis(100)));
        assert_eq!(limiter.take(Counted::Address([10, 0, 0, 1].into()), at(0)), Ok(()), "others have their own");
        let passed = (1..=1000).filter(|n| limiter.take(one(), at(n * 10)).is_ok()).count();
        assert!((99..=101).contains(&passed), "{passed} in ten seconds, of 100 a second that were tried");
    }

    #[test]
    fn memory_is_bounded() {
        let (mut limiter, start) = (Limiter::new(1), Instant::now());
        for n in 0..3 * MOST as u32 {
            let _ = limiter.take(Counted::Address(std::net::Ipv4Addr::from(n).into()), start);
        }
        assert!(limiter.buckets.len() <= MOST);
    }
}
