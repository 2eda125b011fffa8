//! Looking up a batch in a tree.
//!
//! Level by level for the whole batch, so that the memory of many packets is fetched at once. Tables that are open
//! go on a list, leaves on another; leaves are compared block by block in rounds. Nothing in the loops depends on
//! data by a branch. Roots are searched in order, and one is skipped for packets that have found a row before any of
//! its rows.
mod avx2;
mod avx512;
mod portable;

use std::mem::MaybeUninit;

use super::Isa;
use super::block::{Block, Entry, FIELDS, FLAG_BITS, Field, Lane, MORE, PASSIVE, PortBlock, SERVICE_BITS};
use super::plan::{Hash, WIDTH_LIMIT};
use super::row::{BATCH, Batch, Kind};
use super::services::Aligned;
use super::tree::Tree;

/// Places on a list: each packet has at most [`WIDTH_LIMIT`] of them. A vector's width more, for stores beyond the end.
const CAPACITY: usize = BATCH * WIDTH_LIMIT as usize + 16;

/// In the place of a rank: none. No flags are set in it.
pub(super) const NOTHING: u32 = u32::MAX << FLAG_BITS;

/// How services are compared: numbers below [`FEW_LIMIT`], any number that is in sets, by ranges.
const FEW: u8 = 0;
const SETS: u8 = 1;
const WIDE: u8 = 2;
/// Half a set.
const FEW_LIMIT: usize = SERVICE_BITS / 2;

/// One packet, as blocks compare it.
#[derive(Clone, Copy)]
pub(super) struct Point<'a> {
    /// The one value where rows look at addresses only; else by kind, the last zero, which stands for "any".
    pub(super) src: &'a [u32],
    pub(super) dst: &'a [u32],
    /// Services that it satisfies, where there are [`FEW`] the first half of them; or, when there are too many services, protocol and ports.
    pub(super) services: &'a Aligned,
}

/// A packet's values by kind.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
struct Kinds([u32; 8]);

/// What is known of each packet before the search.
struct Prepared {
    /// Values of all fields that some window looks at.
    keys: [[u32; BATCH]; FIELDS],
    services: [Aligned; BATCH],
    /// Filled where rows have kinds.
    src: [Kinds; BATCH],
    dst: [Kinds; BATCH],
}

impl Prepared {
    /// # Safety
    /// `packet` is in the batch that was prepared.
    #[inline(always)]
    unsafe fn point<const KINDED: bool>(&self, packet: usize) -> Point<'_> {
        // SAFETY: by the caller's word; the address is the key of the first kind.
        unsafe {
            let services = self.services.get_unchecked(packet);
            if KINDED {
                let (src, dst) = (self.src.get_unchecked(packet), self.dst.get_unchecked(packet));
                Point { src: &src.0, dst: &dst.0, services }
            } else {
                let [src, dst] = [Field::Src0, Field::Dst0].map(|field| &self.keys[field as usize]);
                Point {
                    src: std::slice::from_ref(src.get_unchecked(packet)),
                    dst: std::slice::from_ref(dst.get_unchecked(packet)),
                    services,
                }
            }
        }
    }
}

/// Protocol and ports in one number.
#[inline(always)]
fn pack(src_port: u16, dst_port: u16, protocol: u16) -> u64 {
    u64::from(src_port) | u64::from(dst_port) << 16 | u64::from(protocol) << 32
}

#[inline(always)]
fn unpack(packed: u64) -> [u16; 3] {
    [packed as u16, (packed >> 16) as u16, (packed >> 32) as u16]
}

/// What is done with particular instructions.
trait Vectors {
    /// Lanes of a block that match, as bits.
    ///
    /// # Safety
    /// The processor has the instructions. `SERVICES` is that of the tree: unless [`WIDE`], every `service_byte` of the block is below 64.
    unsafe fn lanes<const KINDED: bool, const SERVICES: u8>(block: &Block, point: Point<'_>) -> u32;

    /// Lanes, as bits, whose ports and protocol agree with the packet's, packed as [`pack`] does.
    ///
    /// # Safety
    /// The processor has the instructions.
    unsafe fn ports(ports: &PortBlock, packed: u64) -> u32;

    /// Puts on a list the leaves that the first `count` packets come to from a root, other than those whose rows all
    /// rank behind what is found, and gives their number.
    ///
    /// # Safety
    /// The processor has the instructions. `count` packets, at most [`BATCH`], are prepared; the root is the tree's.
    #[inline(always)]
    unsafe fn walk(
        tree: &Tree,
        prepared: &Prepared,
        count: usize,
        root: Entry,
        found: &Found,
        lists: &mut Lists,
    ) -> usize {
        let nothing_found = found.ranks.iter().fold(NOTHING, |all, rank| all & rank) == NOTHING;
        // SAFETY: by the caller's word.
        unsafe {
            if nothing_found {
                walk::<false>(tree, prepared, count, root, found, lists)
            } else {
                walk::<true>(tree, prepared, count, root, found, lists)
            }
        }
    }
}

/// What a lookup gives: for each packet the least rank with flags, or [`NOTHING`]; and the packets, as bits, that met
/// a passive row on the way.
pub(super) struct Found {
    pub(super) ranks: [u32; BATCH],
    pub(super) passed: u32,
}

pub(super) fn lookup(tree: &Tree, batch: &Batch) -> Found {
    match tree.isa {
        Isa::Portable => portable::lookup(tree, batch),
        // SAFETY: a tree is only given instructions that the processor has.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { avx2::lookup(tree, batch) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { avx512::lookup(tree, batch) },
        #[cfg(not(target_arch = "x86_64"))]
        _ => portable::lookup(tree, batch),
    }
}

/// Entries still to be looked at. In each, the packet's number stands where the least rank was. The lengths are kept
/// apart, in registers.
type List = [MaybeUninit<Entry>; CAPACITY];

/// What a walk writes: tables of this level and the next, and leaves.
struct Lists {
    open: List,
    next: List,
    leaves: List,
}

impl Lists {
    const UNWRITTEN: List = [const { MaybeUninit::uninit() }; CAPACITY];

    #[inline(always)]
    fn new() -> Self {
        Self { open: Self::UNWRITTEN, next: Self::UNWRITTEN, leaves: Self::UNWRITTEN }
    }
}

/// Writes behind the end, and gives the new length: one more if `keep`.
///
/// # Safety
/// `len` is below [`CAPACITY`].
#[inline(always)]
unsafe fn push_if(list: &mut List, len: usize, keep: bool, entry: Entry) -> usize {
    debug_assert!(len < CAPACITY);
    // SAFETY: there is a place behind the end, by the caller's word.
    unsafe { list.get_unchecked_mut(len).write(entry) };
    len + usize::from(keep)
}

/// # Safety
/// The place at `at` was written.
#[inline(always)]
unsafe fn get(list: &List, at: usize) -> Entry {
    debug_assert!(at < CAPACITY);
    // SAFETY: by the caller's word.
    unsafe { list.get_unchecked(at).assume_init() }
}

/// The search for one batch.
///
/// # Safety
/// As [`Vectors::lanes`].
#[inline(always)]
unsafe fn search<V: Vectors, const KINDED: bool, const SERVICES: u8>(tree: &Tree, batch: &Batch) -> Found {
    let count = batch.len.min(BATCH);
    let mut prepared: MaybeUninit<Prepared> = MaybeUninit::uninit();
    // SAFETY: any bits are a value of `Prepared`; only what `prepare` fills is read.
    let prepared = unsafe {
        prepare::<KINDED, SERVICES>(tree, batch, count, prepared.as_mut_ptr());
        prepared.assume_init_ref()
    };
    let mut found = Found { ranks: [NOTHING; BATCH], passed: 0 };
    let mut lists = Lists::new();
    for root in tree.roots.iter() {
        // SAFETY: by the caller's word; all packets on the list are prepared, leaves' blocks are in the arena.
        unsafe {
            let leaves = V::walk(tree, prepared, count, *root, &found, &mut lists);
            compare_leaves::<V, KINDED, SERVICES>(tree, batch, prepared, &mut lists.leaves, leaves, &mut found);
        }
    }
    found
}

/// [`Vectors::walk`] packet by packet. Without `FOUND`, nothing is found yet and ranks are not looked at.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn walk<const FOUND: bool>(
    tree: &Tree,
    prepared: &Prepared,
    count: usize,
    root: Entry,
    found: &Found,
    lists: &mut Lists,
) -> usize {
    let tables = tree.tables.as_ptr();
    let scale = tree.scale + FLAG_BITS;
    // SAFETY: packets are in the batch.
    let wanted = |entry: Entry, packet: usize| unsafe {
        !FOUND || u32::from(entry.least()) << scale <= *found.ranks.get_unchecked(packet)
    };
    let Lists { open, next, leaves } = lists;
    let (mut open, mut next) = (open, next);
    let (mut open_len, mut leaves_len) = (0, 0);
    if root.is_inner() {
        let window = root.window();
        let keys = &prepared.keys[usize::from(window.field)];
        for (packet, key) in keys.iter().enumerate().take(count) {
            // SAFETY: the tree's entries refer to slots of its arena; lists have room for WIDTH_LIMIT places for each
            // packet, which no plan exceeds.
            unsafe {
                let entry = *tables.add(root.slot(*key) as usize);
                let wanted = wanted(entry, packet);
                let place = entry.with_least(packet as u16);
                open_len = push_if(open, open_len, wanted & entry.is_inner(), place);
                leaves_len = push_if(leaves, leaves_len, wanted & entry.is_leaf(), place);
            }
        }
    } else if root.is_leaf() {
        for packet in 0..count {
            let wanted = wanted(root, packet);
            // SAFETY: as above.
            leaves_len = unsafe { push_if(leaves, leaves_len, wanted, root.with_least(packet as u16)) };
        }
    }
    let mut fetched = 0;
    loop {
        // SAFETY: so many leaves are on the list.
        fetched = unsafe { prefetch_leaves(tree, leaves, fetched, leaves_len) };
        if open_len == 0 {
            return leaves_len;
        }
        let mut next_len = 0;
        for at in 0..open_len {
            // SAFETY: below the length; the rest as above. The rest of a table lies before its slots.
            unsafe {
                let table = get(open, at);
                let (window, packet) = (table.window(), table.least());
                let keys = prepared.keys.get_unchecked(usize::from(window.field));
                let entry = *tables.add(table.slot(*keys.get_unchecked(usize::from(packet))) as usize);
                let to_do = wanted(entry, usize::from(packet));
                let place = entry.with_least(packet);
                next_len = push_if(next, next_len, to_do & entry.is_inner(), place);
                leaves_len = push_if(leaves, leaves_len, to_do & entry.is_leaf(), place);
                if table.has_rest() {
                    let rest = *tables.add(table.base() as usize - 1);
                    let to_do = wanted(rest, usize::from(packet));
                    let place = rest.with_least(packet);
                    next_len = push_if(next, next_len, to_do & rest.is_inner(), place);
                    leaves_len = push_if(leaves, leaves_len, to_do & rest.is_leaf(), place);
                }
            }
        }
        open_len = next_len;
        std::mem::swap(&mut open, &mut next);
    }
}

/// Rounds over the leaves, one block of each at a time, until a row is found.
///
/// # Safety
/// As [`search`]; all packets on the list are prepared.
#[inline(always)]
unsafe fn compare_leaves<V: Vectors, const KINDED: bool, const SERVICES: u8>(
    tree: &Tree,
    batch: &Batch,
    prepared: &Prepared,
    leaves: &mut List,
    mut len: usize,
    found: &mut Found,
) {
    let blocks = tree.blocks.as_ptr();
    while len > 0 {
        let mut kept = 0;
        for at in 0..len {
            // SAFETY: `at` is below the length; blocks of leaves are in the arena, packets in the batch.
            let (leaf, packet, block, point) = unsafe {
                let leaf = get(leaves, at);
                let packet = usize::from(leaf.least());
                (leaf, packet, &*blocks.add(leaf.base() as usize), prepared.point::<KINDED>(packet))
            };
            // SAFETY: by the caller's word.
            let mut lanes = unsafe { V::lanes::<KINDED, SERVICES>(block, point) };
            if SERVICES == WIDE {
                // SAFETY: the place behind a block has its ports; the rest by the caller's word.
                lanes &= unsafe { V::ports(&*blocks.add(leaf.base() as usize + 1).cast(), point.services.0[0]) };
            }
            // SAFETY: `trailing_zeros & 15` is a lane; the packet is in the batch.
            let (mut first, best) = unsafe {
                let first = *block.rank.get_unchecked((lanes.trailing_zeros() & 15) as usize);
                // NOTHING when no lane matches: as a mask, for a branch here would be a coin toss.
                (first | u32::from(lanes != 0).wrapping_sub(1) & NOTHING, found.ranks.get_unchecked_mut(packet))
            };
            if first & (PASSIVE | MORE) != 0 {
                first = tree.first_deciding(lanes, block, batch, packet, *best, &mut found.passed);
            }
            *best = (*best).min(first);
            // SAFETY: fewer places are kept than there were.
            kept = unsafe {
                push_if(
                    leaves,
                    kept,
                    (first >= NOTHING) & (leaf.blocks() > 1),
                    leaf.next_block(if SERVICES == WIDE { 2 } else { 1 }),
                )
            };
        }
        len = kept;
    }
}

/// Fills what the search needs to know of each packet.
///
/// # Safety
/// `count` is at most [`BATCH`]; `prepared` may be written.
#[inline(always)]
unsafe fn prepare<const KINDED: bool, const SERVICES: u8>(
    tree: &Tree,
    batch: &Batch,
    count: usize,
    prepared: *mut Prepared,
) {
    // SAFETY: only written through, by the caller's word. Class numbers are below the number of sets.
    unsafe {
        let keys = &raw mut (*prepared).keys;
        let kinds = if KINDED { Kind::COUNT } else { 1 };
        for kind in 0..kinds {
            (*keys)[kind] = batch.src[kind];
            (*keys)[Field::Dst0 as usize + kind] = batch.dst[kind];
        }
        if tree.looks_at(Field::Vlan) {
            (*keys)[Field::Vlan as usize] = batch.vlan.map(u32::from);
        }
        if tree.looks_at(Field::Vni) {
            (*keys)[Field::Vni as usize] = batch.vni;
        }
        if let Some(bits) = tree.hash.bits {
            for packet in 0..count {
                (*keys)[Field::Hash as usize][packet] = Hash::of(batch.src[0][packet], batch.dst[0][packet], bits);
            }
        }
        let [by_src, by_dst, by_protocol] = &tree.services.dimensions;
        for packet in 0..count {
            let (src_port, dst_port, protocol) =
                (batch.src_port[packet], batch.dst_port[packet], batch.protocol[packet]);
            let classes =
                [by_src.classes.get(src_port), by_dst.classes.get(dst_port), by_protocol.classes.get(protocol)];
            for (field, class) in
                [Field::SrcPortClass, Field::DstPortClass, Field::ProtocolClass].into_iter().zip(classes)
            {
                (*keys)[field as usize][packet] = u32::from(class.seen);
            }
            let services = &raw mut (*prepared).services[packet].0;
            if SERVICES == WIDE {
                (*services)[0] = pack(src_port, dst_port, protocol);
            } else {
                let of =
                    |at: usize| &tree.services.dimensions[at].sets.get_unchecked(usize::from(classes[at].number)).0;
                let (src, dst, protocol) = (of(0), of(1), of(2));
                let words = if SERVICES == FEW { FEW_LIMIT / 64 } else { SERVICE_BITS / 64 };
                for word in 0..words {
                    (*services)[word] = src[word] & dst[word] & protocol[word];
                }
            }
            if KINDED {
                let side = |values: &[[u32; BATCH]; Kind::COUNT]| {
                    Kinds(std::array::from_fn(|kind| values.get(kind).map_or(0, |values| values[packet])))
                };
                (&raw mut (*prepared).src[packet]).write(side(&batch.src));
                (&raw mut (*prepared).dst[packet]).write(side(&batch.dst));
            }
        }
    }
}

/// Fetches the first blocks of leaves `from..to` on the list; gives `to`.
///
/// # Safety
/// So many places of the list were written.
#[inline(always)]
unsafe fn prefetch_leaves(tree: &Tree, leaves: &List, from: usize, to: usize) -> usize {
    for at in from..to {
        // SAFETY: below the length; a leaf's blocks are in the arena.
        prefetch(unsafe { tree.blocks.as_ptr().add(get(leaves, at).base() as usize) });
    }
    to
}

#[inline(always)]
fn prefetch(block: *const Block) {
    #[cfg(target_arch = "x86_64")]
    for line in 0..size_of::<Block>() / 64 {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(block.cast::<i8>().wrapping_add(64 * line)) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = block;
}

impl Tree {
    /// What a block does not compare.
    fn is_more(&self, lane: &Lane, batch: &Batch, packet: usize) -> bool {
        let wide = self.services.wide;
        let service = &self.services.list[usize::from(lane.service(wide))];
        self.in_zone(lane.rank >> FLAG_BITS, batch.vlan[packet], batch.vni[packet])
            && (!wide || service.holds(batch.protocol[packet], batch.src_port[packet], batch.dst_port[packet]))
    }

    /// The first lane's rank that decides, where some ask for more than addresses and service, or are passive.
    #[cold]
    fn first_deciding(
        &self,
        mut lanes: u32,
        block: &Block,
        batch: &Batch,
        packet: usize,
        bound: u32,
        passed: &mut u32,
    ) -> u32 {
        while lanes != 0 {
            let lane = lanes.trailing_zeros() as usize & 15;
            let rank = block.rank[lane];
            lanes &= lanes - 1;
            if rank >= bound {
                break;
            }
            if rank & MORE != 0 && !self.is_more(&block.lane(lane), batch, packet) {
                continue;
            }
            if rank & PASSIVE == 0 {
                return rank;
            }
            *passed |= 1 << packet;
        }
        NOTHING
    }
}
