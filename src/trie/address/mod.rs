//! Addresses → the values that rows look at.
//!
//! In go the nets of groups and rules. Out come tables that give every address one number, its class, with one
//! look-up, and the class gives the label of the address ([`labels`]) and that of its set of groups ([`sets`]). Rows
//! ask for prefixes of labels. Everything here is immutable.
mod endpoints;
mod few6;
mod kernel4;
mod kernel6;
pub mod labels;
mod many6;
mod nest;
pub mod sets;
mod v4;
mod v6;

pub use endpoints::{Class, Endpoints, Nets};
pub use labels::{Labels, TooDeep, label_prefixes};
pub use nest::Block;
pub use sets::{Sets, number_sets};
pub use v4::Table4;
pub use v6::Table6;

/// Largest value of a table.
pub const MAX_VALUE: u32 = (1 << 31) - 1;

/// The addresses whose first `len` bits are those of `prefix`, and what they get. `A` is `u32` for IPv4 and `u128` for
/// IPv6, both in host order; the other bits of `prefix` do not matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry<A> {
    pub prefix: A,
    pub len: u8,
    pub value: u32,
}

/// Why there is no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    #[error("an address table cannot hold {0}, only values up to {MAX_VALUE}")]
    Value(u32),
    #[error("an address table would need more than 4 GB; use fewer or wider prefixes")]
    Memory,
    #[error(transparent)]
    TooDeep(#[from] TooDeep),
}

/// An address as the first of a prefix.
trait Prefix: Copy + Ord {
    /// All but the first `len` bits set to zero.
    fn first(self, len: u8) -> Self;
}

impl Prefix for u32 {
    fn first(self, len: u8) -> Self {
        self & super::mask(len)
    }
}

impl Prefix for u128 {
    fn first(self, len: u8) -> Self {
        self & u128::MAX.checked_shl(128 - u32::from(len.min(128))).unwrap_or(0)
    }
}
