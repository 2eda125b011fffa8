//! What becomes of a packet by its flow and the rules: cached, as an answer, as an error about a flow, or by itself.

use crate::flow::{FlowIx, FlowTable, TO_CLIENT, TO_SERVER, Touch};
use crate::packet::{Quoted, is_icmp};
use crate::rules::{Decision, LiveFlows, Subject, Verdict};

use super::sink::RingSink;
use super::{Generation, WorkerParts};

/// Whether a flow that an earlier generation allowed is not allowed any more: judged by the side that began, as far as
/// it was heard. `subject` is a packet in `direction`.
pub(super) fn is_refused_now(
    generation: &Generation,
    table: &FlowTable,
    ix: FlowIx,
    direction: usize,
    subject: &Subject,
) -> bool {
    let side = if table.last_verdict(ix, TO_SERVER).is_some() { TO_SERVER } else { TO_CLIENT };
    let before = table.last_verdict(ix, side).filter(|before| before.decision == Decision::Allow);
    // Messages of ICMP stand each for itself.
    if before.is_none_or(|before| before.generation == generation.rules.generation()) || is_icmp(subject.tuple.protocol)
    {
        return false;
    }
    let asked = if direction == side { *subject } else { subject.reversed() };
    generation.rules.classify(&asked).decision != Decision::Allow
}

/// What an earlier generation allowed, where this one is told to keep that. Groups, mirror sessions and shadow-mode rules
/// are those of this generation: the bits of another's would mean nothing.
fn kept(generation: &Generation, before: Option<&Verdict>, subject: &Subject) -> Option<Verdict> {
    let before = before.filter(|v| generation.live_flows == LiveFlows::Keep && v.decision == Decision::Allow)?;
    let Verdict { decision, stateful, tier, rule, logged, .. } = *before;
    let shadows = generation.rules.classify(subject).shadows;
    let seen = generation.rules.classify_as(subject, decision);
    Some(Verdict { decision, stateful, tier, rule, logged, shadows, ..seen })
}

/// The verdict of a packet of a known flow: cached if this generation made it, or kept from an earlier one.
///
/// Replies of an allowed, stateful connection pass. Everything else stands on its own rules; when those
/// allow the answering side of a denied flow to speak, it is the initiator. Only what the initiator was seen to
/// ask for can be answered: else a SYN-ACK out of nowhere would open the way for a SYN behind it.
///
/// Says whether it was the flow's already. `may_divert`: should it begin a flow, that can go elsewhere.
#[inline]
pub(super) fn decide(parts: &mut WorkerParts, touch: Touch, subject: &Subject, may_divert: bool) -> (Verdict, bool) {
    let number = parts.generation.get().rules.generation();
    match parts.table.verdict(touch.ix, touch.direction, number) {
        Some(verdict) if verdict.standing.watchlist == parts.watch.number() => (*verdict, true),
        None if parts.watch.number() == 0 => (decide_anew(parts, touch, subject).0, false),
        known => {
            let known = known.copied();
            (stand_anew(parts, touch, subject, known, may_divert), known.is_some())
        }
    }
}

/// Asks the watchlist about a flow, once for each direction and list. Where it goes is asked once, at its beginning, and
/// stays so whatever else is decided.
#[inline(never)]
fn stand_anew(
    parts: &mut WorkerParts,
    touch: Touch,
    subject: &Subject,
    known: Option<Verdict>,
    may_divert: bool,
) -> Verdict {
    let ix = touch.ix;
    let before = diversion_of(&parts.table, ix);
    let (mut verdict, direction) = match known {
        Some(verdict) => (verdict, touch.direction),
        None => decide_anew(parts, touch, subject),
    };
    parts.watch.stand(&mut verdict, &subject.tuple);
    let diversion = if touch.is_new && may_divert { parts.watch.divert(subject) } else { before };
    verdict.standing.diversion = diversion;
    parts.table.set_verdict(ix, direction, &verdict);
    if let Some(mut other) = parts.table.last_verdict(ix, 1 - direction).copied()
        && other.standing.diversion != diversion
    {
        other.standing.diversion = diversion;
        parts.table.set_verdict(ix, 1 - direction, &other);
    }
    verdict
}

/// Which way a flow was diverted, by any of its verdicts.
pub(super) fn diversion_of(table: &FlowTable, ix: FlowIx) -> u16 {
    let of = |direction| table.last_verdict(ix, direction).map_or(0, |verdict| verdict.standing.diversion);
    of(TO_SERVER).max(of(TO_CLIENT))
}

/// The verdict, and the direction that the packet has in its flow from then on.
#[inline(never)]
fn decide_anew(parts: &mut WorkerParts, touch: Touch, subject: &Subject) -> (Verdict, usize) {
    let generation: &Generation = parts.generation.get();
    let (number, table, ix) = (generation.rules.generation(), &mut parts.table, touch.ix);
    let is_answer = touch.direction == TO_CLIENT && table.last_verdict(ix, TO_SERVER).is_some_and(opens_both_ways);
    if !is_answer && let Some(verdict) = kept(generation, table.last_verdict(ix, touch.direction), subject) {
        table.set_verdict(ix, touch.direction, &verdict);
        return (verdict, touch.direction);
    }
    if touch.direction == TO_SERVER || table.last_verdict(ix, TO_SERVER).is_none() {
        let verdict = generation.rules.classify(subject);
        table.set_verdict(ix, touch.direction, &verdict);
        // Said before this packet, so not of answers to it.
        table.forget_verdict(ix, 1 - touch.direction);
        return (verdict, touch.direction);
    }
    let request = subject.reversed();
    let there = match table.verdict(ix, TO_SERVER, number).copied() {
        Some(verdict) => verdict,
        None => kept(generation, table.last_verdict(ix, TO_SERVER), &request)
            .unwrap_or_else(|| generation.rules.classify(&request)),
    };
    let stateful = there.decision == Decision::Allow && there.stateful;
    let back = if stateful { as_reply(generation, subject, &there) } else { generation.rules.classify(subject) };
    table.set_verdict(ix, TO_SERVER, &there);
    table.set_verdict(ix, TO_CLIENT, &back);
    // A honeypot answers what is denied, and opens no way by that.
    let may_turn = !parts.watch.is_from_honeypot();
    if may_turn && there.decision != Decision::Allow && back.decision == Decision::Allow && back.stateful {
        table.flip_initiator(ix);
        // What was refused as a request passes from now on as an answer.
        let answer = as_reply(generation, &request, &back);
        table.set_verdict(ix, TO_CLIENT, &answer);
        return (back, TO_SERVER);
    }
    (back, TO_CLIENT)
}

/// The verdict on an ICMP message. Never a cached one: messages of all types without an identifier share a flow, and
/// a request may have the identifier of a reply. A reply passes when the other side has spoken and may ask what it answers.
#[inline(never)]
pub(super) fn decide_icmp(parts: &mut WorkerParts, touch: Touch, subject: &Subject) -> Verdict {
    let generation: &Generation = parts.generation.get();
    let (table, ix) = (&mut parts.table, touch.ix);
    let asked = question_of(subject).filter(|_| table.last_verdict(ix, 1 - touch.direction).is_some());
    let there = asked.map(|question| generation.rules.classify(&question)).filter(opens_both_ways);
    let verdict = match &there {
        Some(there) => as_reply(generation, subject, there),
        None => generation.rules.classify(subject),
    };
    let refused = table.last_verdict(ix, TO_SERVER).is_some_and(|v| v.decision != Decision::Allow);
    let begins = touch.direction == TO_CLIENT && refused && there.is_none() && opens_both_ways(&verdict);
    table.set_verdict(ix, touch.direction, &verdict);
    if begins {
        table.flip_initiator(ix);
    }
    verdict
}

/// An ICMP error that quotes a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct IcmpError<'a> {
    pub(super) clock_ns: u64,
    pub(super) subject: &'a Subject,
    pub(super) quoted: &'a Quoted,
}

/// The verdict on an ICMP error, which is counted in the flow that it is about: that of the packet it quotes, if such a
/// packet was seen on its way and may have been sent lately. It passes when that packet was allowed by a stateful rule,
/// unless a rule of an earlier tier than the flow's refuses the error; it is denied when that packet was refused.
/// Everything else goes by the rules alone.
#[cold]
pub(super) fn decide_error(parts: &mut WorkerParts, error: IcmpError<'_>, sink: &mut RingSink) -> Verdict {
    parts.counters.icmp_errors.add(1);
    let own = parts.generation.get().rules.classify(error.subject);
    let Some((ix, there)) = quoted_flow(parts, error, sink) else { return own };
    parts.counters.icmp_errors_bound.add(1);
    parts.table.note_icmp_error(ix, sink);
    as_error(parts.generation.get(), error.subject, own, &there)
}

/// The live flow that the quoted packet was of, and the verdict on that packet by the rules of today.
fn quoted_flow(parts: &mut WorkerParts, error: IcmpError<'_>, sink: &mut RingSink) -> Option<(FlowIx, Verdict)> {
    let Quoted { subject, tcp_seq, .. } = error.quoted;
    let (ix, direction) = parts.table.find_live(&subject.tuple, error.clock_ns, sink)?;
    let may_be = parts.table.entry(ix).may_have_sent(direction, *tcp_seq);
    let before = parts.table.last_verdict(ix, direction).filter(|_| may_be)?;
    let generation: &Generation = parts.generation.get();
    if is_icmp(subject.tuple.protocol) {
        // Messages of ICMP stand each for itself.
        let there = question_of(subject).map(|question| generation.rules.classify(&question)).filter(opens_both_ways);
        return Some((ix, there.unwrap_or_else(|| generation.rules.classify(subject))));
    }
    if before.generation == generation.rules.generation() {
        return Some((ix, *before));
    }
    let request = (direction == TO_CLIENT).then(|| subject.reversed());
    let asked = request.and_then(|request| {
        let before = parts.table.last_verdict(ix, TO_SERVER).filter(|before| opens_both_ways(before))?;
        Some(kept(generation, Some(before), &request).unwrap_or_else(|| generation.rules.classify(&request)))
    });
    let there = asked
        .filter(opens_both_ways)
        .or_else(|| kept(generation, Some(before), subject))
        .unwrap_or_else(|| generation.rules.classify(subject));
    Some((ix, there))
}

/// `own` is what the rules say of the error, `there` the verdict on what it quotes.
fn as_error(generation: &Generation, error: &Subject, own: Verdict, there: &Verdict) -> Verdict {
    match there.decision {
        Decision::Allow if !there.stateful => own,
        Decision::Allow if own.decision != Decision::Allow && own.tier < there.tier => own,
        Decision::Allow => as_reply(generation, error, there),
        Decision::Deny | Decision::Reject => {
            let seen = generation.rules.classify_as(error, Decision::Deny);
            Verdict { rule: there.rule, tier: there.tier, shadows: there.shadows, ..seen }
        }
    }
}

fn opens_both_ways(verdict: &Verdict) -> bool {
    verdict.decision == Decision::Allow && verdict.stateful
}

/// The request that an ICMP message answers, if it answers one (RFC 792, RFC 950, RFC 4443, RFC 4620).
fn question_of(subject: &Subject) -> Option<Subject> {
    let request = match (subject.tuple.version, subject.tuple.protocol, subject.icmp.0) {
        (4, 1, 0) => Some(8),
        (4, 1, kind @ (14 | 16 | 18)) => Some(kind - 1),
        (6, 58, kind @ (129 | 140)) => Some(kind - 1),
        _ => None,
    };
    // Type 0 of a later fragment without its first one is no type at all.
    let request = request.filter(|_| subject.ports_known);
    request.map(|kind| Subject { icmp: (kind, 0), ..subject.reversed() })
}

/// The verdict on replies of a flow whose initiator was judged `there`: own groups and mirrors, its rule.
fn as_reply(generation: &Generation, reply: &Subject, there: &Verdict) -> Verdict {
    let seen = generation.rules.classify_as(reply, Decision::Allow);
    Verdict { rule: there.rule, tier: there.tier, shadows: there.shadows, stateful: true, ..seen }
}
