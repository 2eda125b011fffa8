//! The verb `flows`: live flows of all workers, filtered, perhaps the first so many of an order.

use std::cmp::Ordering as Order;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::live::Live;
use super::protocol::{Failure, Refusal, Request};
use super::reply::Reply;
use crate::behaviour::ScoredRecord;
use crate::export::{community_id, write_flow};
use crate::filter::{Expression, Field, Fields, LiveFlow, Schema, Scored, Value};
use crate::flow::FlowRecord;
use crate::worker::{Mailbox, Walk};

/// Flows that can be put in order: they wait in memory until all are seen.
pub const MOST_SORTED: usize = 100_000;
/// How long a worker may be silent; one that forwards answers within microseconds.
const SILENCE: Duration = Duration::from_secs(5);
/// Records taken from one worker before the next has its turn.
const SHARE: usize = 256;

/// Arguments of `flows`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FlowsArguments {
    pub filter: String,
    /// `FIELD`, `FIELD:asc` or `FIELD:desc`.
    pub sort: Option<String>,
    /// With `sort` at most [`MOST_SORTED`].
    pub limit: Option<usize>,
}

/// Writes a line for each flow, as in `flows.jsonl` with `worker` and `idle` (microseconds) besides; at the end `flows`
/// looked at, `matched` and `shown`.
pub(super) fn flows(live: &Live, request: &Request, reply: &mut Reply) -> Result<(), Failure> {
    let arguments: FlowsArguments = request.read()?;
    let filter = Expression::parse(&arguments.filter, &Schema::FLOW)?.bind(&*live.names)?;
    let mut listing = Listing { live, filter, matched: 0, shown: 0, order: None, limit: arguments.limit };
    if let Some(text) = &arguments.sort {
        let limit = arguments.limit.unwrap_or(MOST_SORTED);
        if limit > MOST_SORTED {
            return Err(Refusal::new("bad_request", format!("at most {MOST_SORTED} flows can be sorted")).into());
        }
        let key = SortKey::parse(text, &Schema::FLOW)?;
        listing.order = Some((key, Best::new(limit, key.descending)));
    }
    let asked = Asked::everyone(live, &listing.filter)?;
    asked.each(reply, |record, reply| listing.take(record, reply))?;
    let looked_at = asked.flows();
    drop(asked);
    listing.finish(reply)?;
    reply.at_end("flows", looked_at);
    reply.at_end("matched", listing.matched);
    reply.at_end("shown", listing.shown);
    Ok(())
}

/// One walk at each worker; cancelled when dropped.
struct Asked<'l> {
    walks: Vec<(&'l Mailbox, Arc<Walk>)>,
}

impl<'l> Asked<'l> {
    fn everyone(live: &'l Live, filter: &Expression) -> Result<Self, Refusal> {
        let mut asked = Self { walks: Vec::new() };
        for mailbox in &live.mailboxes {
            let walk = Arc::new(Walk::new(filter.clone()));
            if !mailbox.ask(walk.clone()) {
                return Err(Refusal::new("busy", "too many clients list flows now; try again later"));
            }
            asked.walks.push((mailbox, walk));
        }
        Ok(asked)
    }

    /// Every record that any worker finds; false from `take` ends it.
    fn each(
        &self,
        reply: &mut Reply,
        mut take: impl FnMut(&FlowRecord, &mut Reply) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        // By turns: after a flood there may be long stretches of the table without flows.
        let (mut progress, mut heard) = (0, Instant::now());
        loop {
            // Asked first: what is found before the end is then on the queue.
            let finished = self.walks.iter().all(|(_, walk)| walk.is_finished());
            let mut taken = 0;
            for (_, walk) in &self.walks {
                for record in std::iter::from_fn(|| walk.next_found()).take(SHARE) {
                    taken += 1;
                    if !take(&record, reply)? {
                        return Ok(());
                    }
                }
            }
            if finished && taken == 0 {
                return Ok(());
            }
            if taken == 0 {
                reply.check()?;
                std::thread::sleep(Duration::from_micros(500));
            }
            let turns = self.walks.iter().map(|(_, walk)| walk.turns()).sum::<u64>();
            if taken > 0 || turns != progress {
                (progress, heard) = (turns, Instant::now());
            } else if heard.elapsed() > SILENCE {
                return Err(Refusal::new("failed", "a worker does not answer").into());
            }
        }
    }

    fn flows(&self) -> u64 {
        self.walks.iter().map(|(_, walk)| walk.flows()).sum()
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.walks.iter().for_each(|(_, walk)| walk.cancel());
        self.walks.drain(..).for_each(|(mailbox, walk)| {
            drop(walk);
            mailbox.collect();
        });
    }
}

struct Listing<'l> {
    live: &'l Live,
    filter: Expression,
    matched: u64,
    shown: u64,
    order: Option<(SortKey, Best)>,
    limit: Option<usize>,
}

impl Listing<'_> {
    /// False when no more is wanted.
    fn take(&mut self, record: &FlowRecord, reply: &mut Reply) -> Result<bool, Failure> {
        let live = self.live;
        let scored = live.recent.scored(record.flow_id);
        let asked = |field| self.filter.asks_for(field);
        let by_id = self.order.as_ref().is_some_and(|(key, _)| key.field == Field::CommunityId);
        let id = if by_id || asked(Field::CommunityId) {
            community_id(&record.tuple, record.icmp, 0)
        } else {
            String::new()
        };
        let flow = LiveFlow { record, scored, community_id: &id, now: now() };
        if !self.filter.matches(&flow) {
            return Ok(true);
        }
        self.matched += 1;
        match &mut self.order {
            Some((key, best)) => best.offer(key.of(&flow, live), record, scored),
            None => {
                reply.raw_line(&line(live, record, scored)?)?;
                self.shown += 1;
            }
        }
        let enough = self.order.is_none() && self.limit.is_some_and(|limit| self.shown >= limit as u64);
        Ok(!enough)
    }

    fn finish(&mut self, reply: &mut Reply) -> Result<(), Failure> {
        let Some((_, best)) = self.order.take() else { return Ok(()) };
        for (record, scored) in best.in_order() {
            reply.raw_line(&line(self.live, &record, scored)?)?;
            self.shown += 1;
        }
        Ok(())
    }
}

/// As in `flows.jsonl`, with what only a live flow has.
fn line(live: &Live, record: &FlowRecord, scored: Option<Scored>) -> Result<Vec<u8>, Failure> {
    let Scored { score, flags } = scored.unwrap_or_default();
    let mut line = Vec::with_capacity(1024);
    write_flow(&mut line, &ScoredRecord { record: *record, score, flags }, None, &*live.names)
        .map_err(Failure::Gone)?;
    line.truncate(line.trim_ascii_end().len().saturating_sub(1));
    let idle = now().saturating_sub(record.end) / 1000;
    line.extend(format!(",\"worker\":{},\"idle\":{idle}}}\n", record.worker).bytes());
    Ok(line)
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// What flows are put in order by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SortKey {
    pub field: Field,
    pub descending: bool,
}

impl SortKey {
    /// `FIELD[:asc|:desc]`; on its own numbers begin with the greatest, names and addresses with the first.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn parse(text: &str, schema: &Schema) -> Result<Self, Refusal> {
        let (name, direction) = text.split_once(':').map_or((text, None), |(name, way)| (name, Some(way)));
        let wrong = |message: String| Refusal::new("bad_request", message);
        let field = schema.field(name).ok_or_else(|| {
            let names: Vec<&str> = schema.fields().map(Field::short).collect();
            wrong(format!("cannot sort by `{name}`; there are {}", names.join(", ")))
        })?;
        let descending = match direction {
            Some("desc") => true,
            Some("asc") => false,
            None => field.is_number(),
            Some(other) => return Err(wrong(format!("`{other}` is no order; there are asc and desc"))),
        };
        Ok(Self { field, descending })
    }

    fn of(&self, flow: &LiveFlow<'_>, live: &Live) -> Key {
        let names = &live.names.labels;
        match (flow.value(self.field), self.field) {
            (Value::Handle(number), Field::Rule) => Key::Text(names.rule(crate::rules::RuleHandle(number)).to_string()),
            (Value::Handle(number), _) => Key::Text(names.groups(crate::rules::GroupSetHandle(number)).join(",")),
            (value, _) => Key::from(value),
        }
    }
}

/// A value that has an order; nothing comes last whichever way.
#[derive(Clone, Debug, PartialEq)]
pub enum Key {
    Number(u64),
    Real(f64),
    Address(u8, u128),
    Text(String),
    Nothing,
}

impl From<Value<'_>> for Key {
    fn from(value: Value<'_>) -> Self {
        match value {
            Value::Absent | Value::Unknown => Key::Nothing,
            Value::Number(n) => Key::Number(n),
            Value::Real(x) => Key::Real(x),
            Value::Address(version, address) => Key::Address(version, address),
            Value::Text(text) => Key::Text(text.to_owned()),
            Value::Texts(texts) => {
                Key::Text(texts.iter().filter_map(|text| text.as_str()).collect::<Vec<_>>().join(","))
            }
            Value::Words(words) => Key::Text(words.join(",")),
            Value::Handle(number) => Key::Number(number.into()),
            Value::Sessions { bits, .. } => Key::Number(bits),
        }
    }
}

impl Key {
    /// Which comes first in the list.
    pub fn rank(&self, other: &Key, descending: bool) -> Order {
        let order = match (self, other) {
            (Key::Nothing, Key::Nothing) => return Order::Equal,
            (Key::Nothing, _) => return Order::Greater,
            (_, Key::Nothing) => return Order::Less,
            (Key::Number(a), Key::Number(b)) => a.cmp(b),
            (Key::Real(a), Key::Real(b)) => a.total_cmp(b),
            (Key::Address(v, a), Key::Address(w, b)) => (v, a).cmp(&(w, b)),
            (Key::Text(a), Key::Text(b)) => a.cmp(b),
            // One field has values of one kind.
            _ => Order::Equal,
        };
        if descending { order.reverse() } else { order }
    }
}

/// The first so many of an order, whatever comes by.
#[derive(Debug)]
struct Best {
    limit: usize,
    descending: bool,
    /// The last in the list on top.
    heap: BinaryHeap<Ranked>,
}

#[derive(Debug)]
struct Ranked {
    key: Key,
    descending: bool,
    record: Box<FlowRecord>,
    scored: Option<Scored>,
}

impl Best {
    fn new(limit: usize, descending: bool) -> Self {
        Self { limit, descending, heap: BinaryHeap::new() }
    }

    fn offer(&mut self, key: Key, record: &FlowRecord, scored: Option<Scored>) {
        let full = self.heap.len() >= self.limit;
        let is_worse =
            |last: &Ranked| last.key.rank(&key, self.descending).then(last.id().cmp(&record.flow_id)).is_le();
        if full && self.heap.peek().is_none_or(is_worse) {
            return;
        }
        if full {
            self.heap.pop();
        }
        self.heap.push(Ranked { key, descending: self.descending, record: Box::new(*record), scored });
    }

    fn in_order(self) -> impl Iterator<Item = (FlowRecord, Option<Scored>)> {
        self.heap.into_sorted_vec().into_iter().map(|ranked| (*ranked.record, ranked.scored))
    }
}

impl Ranked {
    fn id(&self) -> u64 {
        self.record.flow_id
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Order {
        self.key.rank(&other.key, self.descending).then(self.id().cmp(&other.id()))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Order> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ranked {}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_best_are_those_of_a_sorted_list(
            values in prop::collection::vec(prop::option::of(0u64..50), 0..200),
            limit in 0usize..30,
            descending in any::<bool>(),
        ) {
            let mut best = Best::new(limit, descending);
            let mut all: Vec<(Key, u64)> = Vec::new();
            for (value, id) in values.into_iter().zip(0..) {
                let key = value.map_or(Key::Nothing, Key::Number);
                best.offer(key.clone(), &FlowRecord { flow_id: id, ..FlowRecord::default() }, None);
                all.push((key, id));
            }
            all.sort_by(|(a, i), (b, j)| a.rank(b, descending).then(i.cmp(j)));
            let wanted: Vec<u64> = all.into_iter().take(limit).map(|(_, id)| id).collect();
            let found: Vec<u64> = best.in_order().map(|(record, _)| record.flow_id).collect();
            prop_assert_eq!(found, wanted);
        }
    }

    #[test]
    fn sort_keys() {
        let key = |text| SortKey::parse(text, &Schema::FLOW);
        assert_eq!(key("bytes"), Ok(SortKey { field: Field::Bytes, descending: true }));
        assert_eq!(key("src_ip"), Ok(SortKey { field: Field::Source, descending: false }));
        assert_eq!(key("flow.age:asc"), Ok(SortKey { field: Field::Age, descending: false }));
        assert!(key("byte").unwrap_err().message.contains("there are src_ip"));
        assert!(key("bytes:up").unwrap_err().message.contains("asc and desc"));
    }
}
