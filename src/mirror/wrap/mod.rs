//! Copies → frames for a collector that is not on the wire: an outer Ethernet and IP header and a tunnel header before
//! the copied frame.
//!
//! ```text
//!   ┌ Ethernet (802.1Q) ┬ IPv4 or IPv6 ┬ UDP ┬ VXLAN  RFC 7348 ──────────────┬ copied frame ┐
//!   │                   │              │     └ GENEVE RFC 8926 and options ──┤              │
//!   │                   │              └ GRE RFC 2784, 2890 ┬ nothing more ──┤              │
//!   │                   │                                   ├ ERSPAN II ─────┤              │
//!   └───────────────────┴──────────────────────────────────└ ERSPAN III ────┴──────────────┘
//! ```
//! All that does not depend on the copy is made once, as an [`Envelope`]; a copy costs one `memcpy` of 50 to 110 bytes
//! and a few stores. The copied frame itself is not touched: the header is a buffer of its own, chained before it, or
//! has a short frame's bytes copied behind it.
//!
//! [`unwrap()`] is the way back, for whoever receives.
mod geneve;
mod outer;
mod reassembly;
mod tunnel;
mod unwrap;

pub use geneve::Detail;
pub use outer::Outer;
pub use reassembly::Reassembly;
pub use tunnel::Tunnel;
pub use unwrap::{NotWrapped, Origin, Wrapped, unwrap};

use crate::packet::{DropReason, Mac};
use crate::rules::{Decision, RuleHandle};

/// Most bytes that an envelope puts before a frame.
pub const MAX_HEADER: usize = 128;

/// What an envelope says of the copy in it, as far as its tunnel has room for that.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Copy {
    /// Bytes of the frame that follow, and its length before it was cut.
    pub len: u32,
    pub original_len: u32,
    /// Number of this copy among those of its session at its worker; wraps.
    pub sequence: u32,
    /// When the packet was received, in nanoseconds since the Unix epoch.
    pub clock_ns: u64,
    /// The same for both directions of a flow; spreads flows over the paths and queues of the collector.
    pub flow_hash: u64,
    pub rule: RuleHandle,
    pub generation: u32,
    pub decision: Decision,
    pub problem: Option<DropReason>,
    /// Outermost VLAN id of the frame.
    pub vlan: u16,
    /// The score in force, if there is one.
    pub score: Option<f32>,
    /// One copy stands for so many packets, as 1/share; 0 when not known.
    pub sampling: f32,
}

/// A header but for what differs from copy to copy.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    outer: Outer,
    tunnel: Tunnel,
    /// Session and worker, as tunnels carry them.
    stream: Stream,
    head: [u8; MAX_HEADER],
    /// Where the IP header begins, what follows it, and where all ends.
    ip_at: usize,
    l4_at: usize,
    end: usize,
    /// Of the IP header's words, but for its length.
    ip_sum: u32,
}

/// How a copy is sent in several IP packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pieces {
    /// Bytes that follow the IP header, in all of them together.
    whole: u32,
    /// Of these, in each but the last: a multiple of eight.
    room: u32,
}

/// One of these packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The same in all packets of a copy.
    pub id: u32,
    /// Bytes before its own, of those that follow the IP header, and how many its own are.
    pub offset: u32,
    pub len: u32,
    pub is_last: bool,
}

impl Pieces {
    pub fn count(&self) -> u32 {
        self.whole.div_ceil(self.room)
    }

    pub fn each(self, id: u32) -> impl Iterator<Item = Piece> {
        (0..self.count()).map(move |n| {
            let offset = n * self.room;
            let len = self.room.min(self.whole - offset);
            Piece { id, offset, len, is_last: offset + len == self.whole }
        })
    }
}

/// Whose sequence numbers these are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stream {
    /// VXLAN and GENEVE network id (24 bits), GRE key, or ERSPAN session (10 bits).
    pub id: u32,
    /// Each worker numbers its own copies.
    pub worker: u8,
}

impl Envelope {
    /// # Errors
    /// When the id does not fit the tunnel, or the outer addresses are of different families.
    pub fn new(outer: Outer, tunnel: Tunnel, stream: Stream) -> Result<Self, String> {
        tunnel.check(stream)?;
        let mut head = [0; MAX_HEADER];
        let (ip_at, l4_at) = outer.write(tunnel.ip_protocol(), &mut head)?;
        let end = l4_at + tunnel.write(stream, &mut head[l4_at..]);
        let ip_sum = outer::sum(&head[ip_at..l4_at]);
        Ok(Self { outer, tunnel, stream, head, ip_at, l4_at, end, ip_sum })
    }

    /// Bytes that it puts before a frame.
    #[allow(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.end
    }

    /// Bytes of IP packet that it puts before a frame: what counts against the MTU.
    pub fn ip_len(&self) -> usize {
        self.end - self.ip_at
    }

    /// From now on copies go to this next hop.
    pub fn set_next_hop(&mut self, mac: Mac) {
        self.outer.dst_mac = mac;
        self.head[..6].copy_from_slice(&mac.0);
    }

    pub fn stream(&self) -> Stream {
        self.stream
    }

    /// How a copy of `len` bytes is sent in IP packets of at most `mtu` bytes: how much of what follows the IP header is
    /// in each but the last; `None` when it fits one.
    pub fn pieces(&self, len: u32, mtu: u32) -> Option<Pieces> {
        let whole = (self.end - self.l4_at) as u32 + len;
        let header = self.outer.piece_header() as u32;
        let room = mtu.saturating_sub(header) & !7;
        let fits = self.ip_len() as u32 + len <= mtu || room <= (self.end - self.l4_at) as u32;
        (!fits).then_some(Pieces { whole, room })
    }

    /// Bytes that it puts before a piece, the first one or another.
    pub fn piece_len(&self, is_first: bool) -> usize {
        let tunnel = if is_first { self.end - self.l4_at } else { 0 };
        self.ip_at + self.outer.piece_header() + tunnel
    }

    /// Which bytes of the frame are in a piece: from where, how many.
    pub fn piece_of_frame(&self, piece: &Piece) -> (u32, u32) {
        let tunnel = (self.end - self.l4_at) as u32;
        let from = piece.offset.saturating_sub(tunnel);
        (from, piece.offset + piece.len - tunnel - from)
    }

    /// As [`write`](Self::write), the header for one piece; its part of the frame is to follow.
    ///
    /// # Panics
    /// When there are less than [`Envelope::piece_len`] bytes.
    pub fn write_piece(&self, copy: &Copy, piece: &Piece, to: &mut [u8]) -> usize {
        to[..self.l4_at].copy_from_slice(&self.head[..self.l4_at]);
        let at = self.ip_at + self.outer.finish_piece(piece, &mut to[self.ip_at..]);
        if piece.offset > 0 {
            return at;
        }
        let tunnel = self.end - self.l4_at;
        to[at..at + tunnel].copy_from_slice(&self.head[self.l4_at..self.end]);
        self.tunnel.finish(copy, tunnel as u32 + copy.len, &mut to[at..at + tunnel]);
        at + tunnel
    }

    /// Writes the header for a copy; the frame is to follow. Returns its length.
    ///
    /// # Panics
    /// When there are less than [`Envelope::len`] bytes.
    #[inline]
    pub fn write(&self, copy: &Copy, to: &mut [u8]) -> usize {
        let to = &mut to[..self.end];
        to.copy_from_slice(&self.head[..self.end]);
        let after_ip = (self.end - self.l4_at) as u32 + copy.len;
        self.outer.finish(after_ip, self.ip_sum, &mut to[self.ip_at..]);
        self.tunnel.finish(copy, after_ip, &mut to[self.l4_at..]);
        self.end
    }
}

fn put16(to: &mut [u8], at: usize, value: u16) {
    to[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

fn put32(to: &mut [u8], at: usize, value: u32) {
    to[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

fn get16(from: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(from.get(at..at + 2)?.try_into().ok()?))
}

fn get32(from: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(from.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
