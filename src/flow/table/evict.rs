//! Who gives way when the table is full.

use super::{EndReason, FlowEntry, FlowState, FlowTable, RecordSink, TableFull};

/// Among how many flows at the hand the oldest goes: of those that give way first, and of established ones.
const HAND_CHOICE: usize = 8;
const HAND_STEPS: usize = 32;

impl FlowTable {
    /// Makes sure that one flow of this hash fits. If that cost a live flow its place, says how many that makes so far.
    #[inline]
    pub(super) fn make_room(
        &mut self,
        hash: u64,
        clock: u64,
        sink: &mut impl RecordSink,
    ) -> Result<Option<u64>, TableFull> {
        let mut evicted = None;
        if !self.index.has_room(hash) {
            let victim = self.victim_among(self.index.neighbours(hash), clock);
            evicted = self.evict(victim, clock, sink)?;
        }
        if self.slab.is_full() {
            let victim = self.victim_at_hand(clock);
            evicted = self.evict(victim, clock, sink)?;
        }
        Ok(evicted)
    }

    fn evict(&mut self, victim: Option<u32>, clock: u64, sink: &mut impl RecordSink) -> Result<Option<u64>, TableFull> {
        let Some(position) = victim else {
            self.stats.table_full += 1;
            return Err(TableFull);
        };
        let state = self.slab.get(position).state();
        if self.settle(position, clock, sink) {
            return Ok(None);
        }
        self.end(position, EndReason::Evicted, clock, sink);
        *match state {
            FlowState::New => &mut self.stats.evicted_half_open,
            FlowState::Closed => &mut self.stats.evicted_closed,
            FlowState::Established | FlowState::Closing => &mut self.stats.evicted_idle,
        } += 1;
        Ok(Some(self.stats.evicted()))
    }

    /// A clock hand goes round the full slab. In a flood it meets the flows in the order in which they came, because the
    /// place that one leaves is taken by the next: the oldest half-open flow goes, at the cost of one more entry read.
    /// While there is any such flow no established one goes.
    fn victim_at_hand(&mut self, clock: u64) -> Option<u32> {
        let len = self.slab.len() as u32;
        let Some(first) = self.disposable.next(self.hand) else {
            let from = self.hand;
            self.hand = (from as usize + HAND_STEPS.min(len as usize)) as u32 % len;
            return self.victim_among((0..len.min(HAND_STEPS as u32)).map(|step| (from + step) % len), clock);
        };
        let following = |position: &u32| self.disposable.next(after(*position, len));
        let victim = self.victim_among(std::iter::successors(Some(first), following).take(HAND_CHOICE), clock)?;
        self.hand = if victim == first { after(first, len) } else { first };
        Some(victim)
    }

    /// The flow that is missed least: disposable before established, then the longest silent. An established flow is
    /// spared if it had a packet within `tcp_opening`: refusing a newcomer, who will try again, does less harm
    /// than forgetting a connection whose replies pass only because of its first packet.
    fn victim_among(&self, positions: impl Iterator<Item = u32>, clock: u64) -> Option<u32> {
        let last = |entry: &FlowEntry| entry.last(self.now);
        positions
            .filter(|position| {
                let entry = self.slab.get(*position);
                entry.is_disposable() || clock.saturating_sub(last(entry)) > self.times.opening
            })
            .min_by_key(|position| {
                let entry = self.slab.get(*position);
                (clock <= entry.ends_at(self.now, &self.times), !entry.is_disposable(), last(entry))
            })
    }
}

/// The place after this one, round and round.
#[inline]
fn after(position: u32, len: u32) -> u32 {
    if position + 1 < len { position + 1 } else { 0 }
}
