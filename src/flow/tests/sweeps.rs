//! Sweeps against looking at every flow.

use super::*;

/// Times a tick of the bounds and far from it.
fn scale() -> impl Strategy<Value = u32> {
    prop::sample::select(vec![1, 10_007, 300_007, 1 << 20, 5_000_011, 1_000_000_007])
}

fn slow(capacity: usize, scale: u32, checked: bool) -> FlowTable {
    let t = timeouts();
    let times = Timeouts {
        tcp_opening: t.tcp_opening * scale,
        tcp_established: t.tcp_established * scale,
        tcp_syn_received: t.tcp_syn_received * scale,
        tcp_closing: t.tcp_closing * scale,
        tcp_closed: t.tcp_closed * scale,
        udp: t.udp * scale,
        udp_answered: t.udp_answered * scale * 3,
        icmp: t.icmp * scale,
        other: t.other * scale,
        active: t.active * scale,
        fragments: t.fragments * scale,
    };
    let window = if checked { WindowCheck::Strict } else { WindowCheck::Off };
    FlowTable::new(capacity, &times, 7).with_tcp(TcpRules { window, asymmetric: false })
}

/// What happens before a packet, and to its flow after it.
#[derive(Clone, Copy, Debug)]
struct Step {
    effort: Effort,
    /// Share in percent of the gap before the packet.
    when: u64,
    then: u8,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let looks = prop_oneof![3 => 0usize..40, 1 => Just(usize::MAX)];
    let step = (0usize..60, looks, 0u64..=100, 0u8..12);
    let step = step.prop_map(|(places, looks, when, then)| Step { effort: Effort { places, looks }, when, then });
    prop::collection::vec(step, 1..60)
}

/// The packet, and what else may happen to its flow.
fn touch(table: &mut FlowTable, packet: &FlowPacket, then: u8, out: &mut Vec<FlowRecord>) {
    let Ok(Touch { ix, .. }) = table.touch(packet, out) else { return };
    match then {
        0 => table.note_icmp_error(ix, out),
        1 => table.flip_initiator(ix),
        2 => table.end_flow(ix, packet.clock_ns, out),
        _ => {}
    }
}

fn later(packets: &[FlowPacket], scale: u32) -> Vec<FlowPacket> {
    packets.iter().map(|p| FlowPacket { clock_ns: p.clock_ns * u64::from(scale), ..*p }).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn steps_come_to_what_looking_at_every_flow_does(
        packets in traffic(60), steps in steps(), scale in scale(), checked in any::<bool>()
    ) {
        let (mut swept, mut naive) = (slow(64, scale, checked), slow(64, scale, checked));
        let (mut found, mut expected) = (Vec::new(), Vec::new());
        let mut before = 0;
        for (packet, step) in later(&packets, scale).iter().zip(steps.iter().cycle()) {
            let clock = before + (u128::from(packet.clock_ns - before) * u128::from(step.when) / 100) as u64;
            if step.when < 20 {
                // What was begun is completed first.
                while !swept.sweep(clock, Effort::ALL, &mut found) || swept.watermark() + 1 < clock {}
                naive.look_at_every_flow(clock, &mut expected);
                prop_assert_eq!(sorted(found.clone()), sorted(expected.clone()));
            } else {
                swept.sweep(clock, step.effort, &mut found);
            }
            prop_assert!(swept.bounds_hold());
            touch(&mut swept, packet, step.then, &mut found);
            touch(&mut naive, packet, step.then, &mut expected);
            prop_assert!(swept.bounds_hold());
            before = packet.clock_ns;
        }
        swept.finish(before, &mut found);
        naive.finish(before, &mut expected);
        prop_assert_eq!(sorted(found), sorted(expected));
    }

    #[test]
    fn whole_passes_are_the_same_in_a_table_that_is_too_small(
        packets in traffic(60), steps in steps(), scale in scale(), capacity in 1usize..40
    ) {
        let (mut swept, mut naive) = (slow(capacity, scale, false), slow(capacity, scale, false));
        let (mut found, mut expected) = (Vec::new(), Vec::new());
        for (packet, step) in later(&packets, scale).iter().zip(steps.iter().cycle()) {
            if step.when < 50 {
                prop_assert!(swept.sweep(packet.clock_ns, Effort::ALL, &mut found));
                naive.look_at_every_flow(packet.clock_ns, &mut expected);
            }
            touch(&mut swept, packet, step.then, &mut found);
            touch(&mut naive, packet, step.then, &mut expected);
            prop_assert!(swept.bounds_hold());
            prop_assert_eq!(&found, &expected);
        }
        prop_assert_eq!(swept.stats(), naive.stats());
    }
}

#[test]
fn records_come_within_a_pass_of_their_time() {
    const FLOWS: u32 = 50_000;
    const MS: u64 = 1_000_000;
    let times = Timeouts { udp: Duration::from_millis(300), ..Timeouts::default() };
    let mut table = FlowTable::new(FLOWS as usize, &times, 7);
    let mut sink = Vec::new();
    let packet = |n: u32, clock_ns| FlowPacket {
        tuple: Tuple { src: n.into(), dst: 1, protocol: 17, version: 4, ..Tuple::default() },
        clock_ns,
        ..FlowPacket::default()
    };
    let effort = Effort { places: FLOWS as usize / 100, looks: 640 };
    let start = 5_000_000 * MS;
    let (mut longest, mut seen) = (0, 0);
    // A hundred new flows a millisecond and as many that end, in places all over the table.
    for step in 0..60_000u64 {
        let clock = start + step * MS / 20;
        for n in 0..if step < 40_000 { 5 } else { 0 } {
            let n = (step as u32 * 5 + n).wrapping_mul(2_654_435_761);
            table.touch(&packet(n, clock), &mut sink).unwrap();
        }
        table.sweep(clock, effort, &mut sink);
        longest = sink[seen..].iter().map(|r| clock - r.emitted).max().unwrap_or(0).max(longest);
        seen = sink.len();
    }
    assert_eq!((seen, table.stats().live), (200_000, 0));
    assert!(longest < 6 * MS, "{longest} ns");
}
