//! Shannon entropy of the first payload bytes of a flow, quantised to one byte: text lies near 4 to 5 bits per byte,
//! what is compressed or encrypted close to the most that so few bytes can have.

/// Bytes looked at. 256 of them can show at most 8 bits per byte, `n` at most log₂ n.
pub const SAMPLE: usize = 256;

/// Entropy in steps of 8⁄254 bits per byte; unknown by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Entropy(u8);

impl Entropy {
    /// Of the first [`SAMPLE`] bytes; unknown if there are none.
    pub fn of(payload: &[u8]) -> Self {
        let bytes = &payload[..payload.len().min(SAMPLE)];
        // Σ c·log₂ c over the bytes' counts c, kept up as each count grows by one: it is at most 255 before.
        let mut counts = [0u8; 256];
        let mut sum = 0u32;
        for byte in bytes {
            let count = &mut counts[usize::from(*byte)];
            sum += GROWTH[usize::from(*count)];
            *count = count.wrapping_add(1);
        }
        let n = bytes.len() as u32;
        match n {
            0 => Self::default(),
            // H = log₂ n − Σ/n, and n·log₂ n is what one value alone would have grown to.
            _ => {
                let scaled = u64::from(TOTAL[bytes.len()].saturating_sub(sum));
                let per = u64::from(n) * (8 << FRACTION);
                Self(1 + ((scaled * 254 + per / 2) / per).min(254) as u8)
            }
        }
    }

    /// 0 when unknown.
    pub(super) fn to_byte(self) -> u8 {
        self.0
    }

    pub(super) fn from_byte(byte: u8) -> Self {
        Self(byte)
    }

    /// Bits per byte.
    pub fn bits(self) -> Option<f32> {
        self.0.checked_sub(1).map(|steps| f32::from(steps) * (8.0 / 254.0))
    }
}

/// Binary places of the tables: sums of 256 entries stay below 2³².
const FRACTION: u32 = 20;

/// c·log₂ c.
const TOTAL: [u32; SAMPLE + 1] = {
    let mut table = [0; SAMPLE + 1];
    let mut c = 1;
    while c <= SAMPLE {
        table[c] = ((c as u64 * log2(c as u64)) >> (WORK - FRACTION)) as u32;
        c += 1;
    }
    table
};

/// What c·log₂ c grows by when c does by one.
const GROWTH: [u32; SAMPLE] = {
    let mut table = [0; SAMPLE];
    let mut c = 0;
    while c < SAMPLE {
        table[c] = TOTAL[c + 1] - TOTAL[c];
        c += 1;
    }
    table
};

/// Binary places of [`log2`].
const WORK: u32 = 30;

/// log₂ of an integer, bit by bit: squaring doubles it, and each doubling past 2 is one more bit.
const fn log2(value: u64) -> u64 {
    let whole = value.ilog2();
    let mut mantissa = value << (WORK - whole);
    let mut log = (whole as u64) << WORK;
    let mut bit = 1 << WORK;
    while bit > 1 {
        bit >>= 1;
        mantissa = (mantissa * mantissa) >> WORK;
        if mantissa >= 2 << WORK {
            mantissa >>= 1;
            log += bit;
        }
    }
    log
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn naive(bytes: &[u8]) -> f64 {
        let n = bytes.len() as f64;
        let share = |value: u8| bytes.iter().filter(|b| **b == value).count() as f64 / n;
        (0..=255).map(share).filter(|p| *p > 0.0).map(|p| -p * p.log2()).sum()
    }

    proptest! {
        #[test]
        fn it_is_shannons(bytes in prop::collection::vec(prop_oneof![Just(0u8), 0u8..4, any::<u8>()], 1..400)) {
            let found = Entropy::of(&bytes).bits().expect("bytes");
            let expected = naive(&bytes[..bytes.len().min(SAMPLE)]);
            prop_assert!((f64::from(found) - expected).abs() <= 8.0 / 254.0 / 2.0 + 1e-4, "{found} {expected}");
        }
    }

    #[test]
    fn extremes() {
        assert_eq!(Entropy::of(&[]).bits(), None);
        assert_eq!(Entropy::of(&[7; 1000]).bits(), Some(0.0));
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(Entropy::of(&all).bits(), Some(8.0));
        assert_eq!(Entropy::of(b"x").bits(), Some(0.0));
    }
}
