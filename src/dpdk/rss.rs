//! Symmetric receive-side scaling: both directions of a flow on one queue, proved at start.
//!
//! Queues are chosen from addresses alone. Hashing ports too would spread better, but fragments and
//! tunnels would then reach another queue than the rest of their flow.

use super::ffi;

/// A Toeplitz key of one repeated 16-bit word: swapping source and destination does not change the hash
/// (Woo and Park, "Scalable TCP session monitoring with symmetric receive-side scaling", 2012).
pub(super) const SYMMETRIC_KEY: [u8; 52] = {
    let mut key = [0u8; 52];
    let mut i = 0;
    while i < key.len() {
        key[i] = if i % 2 == 0 { 0x6d } else { 0x5a };
        i += 1;
    }
    key
};

/// How flows are spread over a port's receive queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// One queue; nothing to spread.
    Single,
    /// The device does it, symmetrically: key and table read back as set.
    Device,
    /// The device cannot, or what was read back differs: workers redistribute in software.
    Software,
}

/// What decides on a packet's queue: the key as far as two addresses reach, and the redirection table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheme {
    key: Vec<u8>,
    table: Vec<u16>,
}

impl Scheme {
    /// With this key, and a redirection table that gives the queues in turn.
    pub fn in_turn(queues: u16, places: u16) -> Self {
        let table = (0..places.max(1)).map(|place| place % queues.max(1)).collect();
        Self { key: SYMMETRIC_KEY[..KEY_USED].to_vec(), table }
    }

    /// Queue of a packet between these addresses, IPv6 as it is, IPv4 in the low 32 bits. Devices take the low bits of
    /// the hash as the place in the table.
    pub fn queue(&self, version: u8, src: u128, dst: u128) -> u16 {
        let hash = if version == 4 {
            toeplitz(&self.key, &(src << 32 | dst & 0xffff_ffff).to_be_bytes()[8..])
        } else {
            toeplitz(&self.key, &[src.to_be_bytes(), dst.to_be_bytes()].concat())
        };
        self.table.get(hash as usize % self.table.len().max(1)).copied().unwrap_or(0)
    }
}

/// Bytes of key that the hash of two IPv6 addresses uses.
const KEY_USED: usize = 36;

/// Reads key and redirection table back from a started port and checks that they give symmetric,
/// complete spreading; the scheme only if they do.
pub(super) fn self_test(port: u16, info: &ffi::rte_eth_dev_info, queues: u16) -> (Spread, Option<Scheme>) {
    if queues <= 1 {
        return (Spread::Single, None);
    }
    let key = read_key(port, info).filter(|key| is_symmetric(key));
    match key.zip(read_table(port, info.reta_size).filter(|table| covers(table, queues))) {
        Some((mut key, table)) => {
            key.truncate(KEY_USED);
            (Spread::Device, Some(Scheme { key, table }))
        }
        None => (Spread::Software, None),
    }
}

/// Toeplitz hash of `input` (at most 36 bytes with the usual keys).
pub fn toeplitz(key: &[u8], input: &[u8]) -> u32 {
    let mut hash = 0u32;
    for (index, byte) in input.iter().enumerate() {
        for bit in 0..8 {
            if byte & (0x80 >> bit) != 0 {
                hash ^= key_window(key, index * 8 + bit);
            }
        }
    }
    hash
}

fn key_window(key: &[u8], bit: usize) -> u32 {
    let mut window = 0u64;
    for i in 0..5 {
        window = window << 8 | u64::from(key.get(bit / 8 + i).copied().unwrap_or(0));
    }
    (window >> (8 - bit % 8)) as u32
}

fn is_symmetric(key: &[u8]) -> bool {
    // Probe pairs from a fixed multiplicative sequence; any asymmetric key fails at once.
    let mut state = 0x1234_5678_9abc_def1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()
    };
    (0..64).all(|_| {
        let (a, b) = (next(), next());
        let four = |s: &[u8; 8], d: &[u8; 8]| [s[0], s[1], s[2], s[3], d[0], d[1], d[2], d[3]];
        let six = |s: &[u8; 8], d: &[u8; 8]| [*s, *s, *d, *d].concat();
        toeplitz(key, &four(&a, &b)) == toeplitz(key, &four(&b, &a))
            && toeplitz(key, &six(&a, &b)) == toeplitz(key, &six(&b, &a))
    })
}

fn read_key(port: u16, info: &ffi::rte_eth_dev_info) -> Option<Vec<u8>> {
    if info.flow_type_rss_offloads & ffi::GN_RSS_ADDRESSES == 0 || info.hash_key_size == 0 {
        return None;
    }
    let mut key = vec![0u8; usize::from(info.hash_key_size)];
    let mut conf = empty_conf();
    (conf.rss_key, conf.rss_key_len) = (key.as_mut_ptr(), info.hash_key_size);
    // SAFETY: a started port; the key buffer has the length stated.
    let code = unsafe { ffi::rte_eth_dev_rss_hash_conf_get(port, &mut conf) };
    let covers_addresses = conf.rss_hf & ffi::GN_RSS_WHOLE != 0 && conf.rss_hf & !ffi::GN_RSS_ADDRESSES == 0;
    (code == 0 && covers_addresses).then_some(key)
}

/// Newer DPDK has more fields than the two set by the caller.
fn empty_conf() -> ffi::rte_eth_rss_conf {
    ffi::rte_eth_rss_conf::default()
}

fn read_table(port: u16, size: u16) -> Option<Vec<u16>> {
    let groups = usize::from(size).div_ceil(64);
    let mut table = vec![ffi::rte_eth_rss_reta_entry64 { mask: u64::MAX, ..Default::default() }; groups];
    // SAFETY: a started port; the table has room for `size` entries.
    if size == 0 || unsafe { ffi::rte_eth_dev_rss_reta_query(port, table.as_mut_ptr(), size) } != 0 {
        return None;
    }
    Some(table.iter().flat_map(|group| group.reta).take(usize::from(size)).collect())
}

/// Every queue, and no other, has a place in the redirection table.
fn covers(table: &[u16], queues: u16) -> bool {
    table.iter().all(|queue| *queue < queues) && (0..queues).all(|queue| table.contains(&queue))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toeplitz_gives_the_published_verification_values() {
        // Microsoft's RSS verification suite, IPv4 addresses only and with TCP ports.
        let key: [u8; 40] = [
            0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca,
            0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b,
            0xbe, 0xac, 0x01, 0xfa,
        ];
        let addresses = [66, 9, 149, 187, 161, 142, 100, 80];
        assert_eq!(toeplitz(&key, &addresses), 0x323e_8fc2);
        let with_ports = [66, 9, 149, 187, 161, 142, 100, 80, 0x0a, 0xea, 0x06, 0xe6];
        assert_eq!(toeplitz(&key, &with_ports), 0x51cc_c178);
        assert!(!is_symmetric(&key));
    }

    #[test]
    fn both_directions_have_one_queue_and_all_queues_have_some() {
        let scheme = Scheme::in_turn(4, 128);
        let mut packets = [0; 4];
        for n in 0..4000_u128 {
            let (src, dst) = (0x0a00_0000 + n * 7, 0xc0a8_0000 + n / 3);
            let (src6, dst6) = (src << 64 | n, dst << 90 | 1);
            assert_eq!(scheme.queue(4, src, dst), scheme.queue(4, dst, src));
            assert_eq!(scheme.queue(6, src6, dst6), scheme.queue(6, dst6, src6));
            packets[usize::from(scheme.queue(4, src, dst))] += 1;
        }
        assert!(packets.iter().all(|count| *count > 500), "{packets:?}");
    }

    #[test]
    fn our_key_is_symmetric_at_every_length_devices_use() {
        for len in [40, 52] {
            assert!(is_symmetric(&SYMMETRIC_KEY[..len]));
        }
    }
}
