//! Lane by lane, for processors without vector instructions that we know, and as the yardstick of the others.

use super::super::block::{Block, LANES, PortBlock};
use super::super::row::Batch;
use super::super::tree::Tree;
use super::{Found, Point, SETS, Vectors, WIDE, search, unpack};

pub(super) struct Portable;

impl Vectors for Portable {
    #[inline(always)]
    unsafe fn lanes<const KINDED: bool, const SERVICES: u8>(block: &Block, point: Point<'_>) -> u32 {
        let mut lanes = 0;
        for lane in 0..LANES {
            let (src_kind, src_shift) = split::<KINDED>(block.src_code[lane]);
            let (dst_kind, dst_shift) = split::<KINDED>(block.dst_code[lane]);
            let src = (block.src[lane] ^ point.src[src_kind]).checked_shr(src_shift).unwrap_or(0);
            let dst = (block.dst[lane] ^ point.dst[dst_kind]).checked_shr(dst_shift).unwrap_or(0);
            let served = SERVICES == WIDE || {
                let byte = usize::from(block.service_byte[lane]);
                (point.services.0[byte / 8] >> (byte % 8 * 8)) as u8 & block.service_bit[lane] != 0
            };
            lanes |= u32::from((src | dst == 0) & served) << lane;
        }
        lanes
    }

    #[inline(always)]
    unsafe fn ports(ports: &PortBlock, packed: u64) -> u32 {
        let [src, dst, protocol] = unpack(packed);
        (0..LANES).fold(0, |lanes, lane| {
            let agrees = (ports.src_first[lane] <= src)
                & (src <= ports.src_last[lane])
                & (ports.dst_first[lane] <= dst)
                & (dst <= ports.dst_last[lane])
                & ((protocol ^ ports.protocol[lane]) & ports.protocol_mask[lane] == 0);
            lanes | u32::from(agrees) << lane
        })
    }
}

/// Kind and number of low bits that do not count.
#[inline(always)]
fn split<const KINDED: bool>(code: u8) -> (usize, u32) {
    if KINDED { (usize::from(code >> 5), u32::from(code & 31)) } else { (0, u32::from(code)) }
}

pub(super) fn lookup(tree: &Tree, batch: &Batch) -> Found {
    // SAFETY: no particular instructions; services are numbered below 512 unless wide.
    unsafe {
        match (tree.kinded, tree.services.wide) {
            (false, false) => search::<Portable, false, SETS>(tree, batch),
            (false, true) => search::<Portable, false, WIDE>(tree, batch),
            (true, false) => search::<Portable, true, SETS>(tree, batch),
            (true, true) => search::<Portable, true, WIDE>(tree, batch),
        }
    }
}
