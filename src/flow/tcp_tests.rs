//! Connections by hand.
use super::*;

const SECOND: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;
const LOOSE: TcpRules = TcpRules { window: WindowCheck::Loose, asymmetric: false };
const STRICT: TcpRules = TcpRules { window: WindowCheck::Strict, asymmetric: false };
const ONE_SIDED: TcpRules = TcpRules { window: WindowCheck::Strict, asymmetric: true };
const CLIENT: usize = 0;
const SERVER: usize = 1;
/// First sequence numbers, near the end of the number space so that all tests pass it.
const C: u32 = u32::MAX - 500;
const S: u32 = 0x7fff_ff00;

/// A connection, its clock, and what is said next.
struct Line {
    track: TcpTrack,
    rules: TcpRules,
    now: u64,
    last: u64,
}

impl Line {
    fn new(rules: TcpRules) -> Self {
        Self { track: TcpTrack::default(), rules, now: 1_700_000_000 * SECOND, last: 1_700_000_000 * SECOND }
    }

    /// Handshake with this scale on both sides, 10 ms after each other.
    fn open(rules: TcpRules, scale: Option<u8>) -> Self {
        let mut line = Self::new(rules);
        line.say(CLIENT, Segment { scale, ..seg(SYN, C, 0, 0) });
        line.wait(10 * MS).say(SERVER, Segment { scale, ..seg(SYN | ACK, S, C.wrapping_add(1), 0) });
        line.wait(10 * MS).client(ACK, 0, 0, 0);
        line
    }

    fn wait(&mut self, ns: u64) -> &mut Self {
        self.now += ns;
        self
    }

    fn say(&mut self, direction: usize, segment: Segment) -> Seen {
        let at = Moment { now_ns: self.now, idle_ns: self.now - self.last };
        self.last = self.now;
        self.track.observe(direction, &segment, at, self.rules)
    }

    /// Numbers count from after the SYN.
    fn client(&mut self, flags: u8, seq: u32, ack: u32, payload: u32) -> Seen {
        self.say(CLIENT, seg(flags, C.wrapping_add(1).wrapping_add(seq), S.wrapping_add(1).wrapping_add(ack), payload))
    }

    fn server(&mut self, flags: u8, seq: u32, ack: u32, payload: u32) -> Seen {
        self.say(SERVER, seg(flags, S.wrapping_add(1).wrapping_add(seq), C.wrapping_add(1).wrapping_add(ack), payload))
    }

    fn state(&self) -> TcpState {
        self.track.state()
    }
}

fn seg(flags: u8, seq: u32, ack: u32, payload: u32) -> Segment {
    Segment { flags, seq, ack, window: 1000, payload, ..Segment::default() }
}

#[test]
fn a_connection_from_first_to_last() {
    let mut line = Line::new(LOOSE);
    assert_eq!(line.state(), TcpState::Unconfirmed);
    line.say(CLIENT, seg(SYN, C, 0, 0));
    assert_eq!(line.state(), TcpState::SynSent);
    line.wait(10 * MS).say(SERVER, seg(SYN | ACK, S, C.wrapping_add(1), 0));
    assert_eq!((line.state(), line.track.handshake_rtt()), (TcpState::SynReceived, None));
    line.wait(2_345_000).client(ACK, 0, 0, 0);
    assert_eq!((line.state(), line.track.handshake_rtt()), (TcpState::Established, Some(12_345_000)));
    for (seq, back) in [(0, 0), (600, 100), (1200, 200)] {
        assert_eq!(line.wait(MS).client(ACK, seq, back, 600), Seen::default());
        assert_eq!(line.wait(MS).server(ACK, back, seq + 600, 100), Seen::default());
    }
    line.client(FIN | ACK, 1800, 300, 0);
    assert_eq!(line.state(), TcpState::Closing);
    line.server(ACK, 300, 1801, 0);
    line.server(FIN | ACK, 300, 1801, 0);
    assert_eq!(line.state(), TcpState::Closed);
    assert_eq!(line.client(ACK, 1801, 301, 0), Seen::default());
    assert_eq!((line.track.retransmissions(), line.track.out_of_window()), ([0; 2], [0; 2]));
    assert!(line.track.is_begun_anew(CLIENT, &seg(SYN, C.wrapping_add(90_000), 0, 0)));
    assert!(!line.track.is_begun_anew(CLIENT, &seg(SYN, C, 0, 0)), "the same SYN, late");
    assert!(!line.track.is_begun_anew(CLIENT, &seg(ACK, C, 0, 0)));
}

#[test]
fn handshake_time_is_from_the_latest_syn_and_exact() {
    for rtt in [0, 1, 8_388_606, 8_388_607, 64_288_097, 900_000_001] {
        let mut line = Line::new(LOOSE);
        line.say(CLIENT, seg(SYN, C, 0, 0));
        assert!(line.wait(3 * SECOND).say(CLIENT, seg(SYN, C, 0, 0)).retransmission);
        line.say(SERVER, seg(SYN | ACK, S, C.wrapping_add(1), 0));
        line.wait(rtt * 1000).client(ACK, 0, 0, 5);
        assert_eq!(line.track.handshake_rtt(), Some(rtt * 1000));
        line.wait(MS).client(ACK, 5, 0, 5);
        assert_eq!(line.track.handshake_rtt(), Some(rtt * 1000), "kept");
        assert_eq!(line.track.retransmissions(), [1, 0]);
    }
}

#[test]
fn refusal_is_timed_and_may_be_followed_by_another_try() {
    let mut line = Line::new(STRICT);
    line.say(CLIENT, seg(SYN, C, 0, 0));
    line.wait(MS).say(SERVER, seg(RST | ACK, 0, C.wrapping_add(1), 0));
    assert_eq!((line.state(), line.track.handshake_rtt()), (TcpState::Reset, Some(MS)));
    line.wait(500 * MS).say(CLIENT, seg(SYN, C, 0, 0));
    assert_eq!(line.state(), TcpState::SynSent);
    line.wait(MS).say(SERVER, seg(SYN | ACK, S, C.wrapping_add(1), 0));
    line.wait(MS).client(ACK, 0, 0, 0);
    assert_eq!((line.state(), line.track.retransmissions()), (TcpState::Established, [1, 0]));
}

#[test]
fn repeated_later_than_a_round_trip_or_asked_for_is_a_retransmission() {
    let mut line = Line::open(LOOSE, None);
    line.client(ACK, 0, 0, 100);
    line.client(ACK, 200, 0, 100);
    assert!(line.wait(MS).client(ACK, 100, 0, 100).out_of_order, "20 ms round trip");
    line.client(ACK, 300, 0, 100);
    assert!(line.wait(30 * MS).client(ACK, 300, 0, 100).retransmission, "end repeated");
    line.client(ACK, 400, 0, 100);
    line.client(ACK, 500, 0, 100);
    assert!(line.wait(200 * MS).client(ACK, 400, 0, 100).retransmission, "late");
    line.client(ACK, 700, 0, 100);
    (0..3).for_each(|_| _ = line.wait(MS).server(ACK, 0, 600, 0));
    assert!(line.wait(MS).client(ACK, 600, 0, 100).retransmission, "duplicate acknowledgements");
    line.server(ACK, 0, 800, 0);
    assert!(line.client(ACK, 600, 0, 100).retransmission, "acknowledged long since");
    assert_eq!((line.track.retransmissions(), line.track.out_of_window()), ([4, 0], [0, 0]));
}

#[test]
fn keep_alives_and_window_probes_are_not_retransmissions() {
    let mut line = Line::open(STRICT, None);
    line.client(ACK, 0, 0, 100);
    line.server(ACK, 0, 100, 0);
    for payload in [0, 1] {
        assert_eq!(line.wait(60 * SECOND).client(ACK, 99, 0, payload), Seen::default());
        assert_eq!(line.server(ACK, 0, 100, 0), Seen::default());
    }
    line.say(SERVER, Segment { window: 0, ..seg(ACK, S.wrapping_add(1), C.wrapping_add(101), 0) });
    for _ in 0..3 {
        assert_eq!(line.wait(SECOND).client(ACK, 100, 0, 1), Seen::default(), "probe");
    }
    line.server(ACK, 0, 100, 0);
    assert_eq!(line.client(ACK, 100, 0, 500), Seen::default());
    assert!(line.client(ACK, 1200, 0, 1).out_of_window);
}

#[test]
fn windows_are_scaled_only_by_what_both_agreed_on() {
    // The server takes up to 1000 << 7 bytes.
    let mut line = Line::open(STRICT, Some(7));
    assert_eq!(line.client(ACK, 0, 0, 1000), Seen::default());
    line.server(ACK, 0, 1000, 0);
    assert_eq!(line.client(ACK, 128_000, 0, 100), Seen::default());
    assert!(line.client(ACK, 129_200, 0, 100).refused);

    let mut line = Line::new(STRICT);
    line.say(CLIENT, Segment { scale: Some(14), ..seg(SYN, C, 0, 0) });
    line.say(SERVER, seg(SYN | ACK, S, C.wrapping_add(1), 0));
    line.client(ACK, 0, 0, 0);
    assert!(line.track.is_fully_observed());
    assert_eq!(line.server(ACK, 0, 0, 1000), Seen::default());
    assert!(line.server(ACK, 1100, 0, 100).refused, "no option in the answer, no scale");
}

#[test]
fn strict_refuses_and_loose_only_counts() {
    for (rules, refused) in [(LOOSE, false), (STRICT, true)] {
        let mut line = Line::open(rules, None);
        let expected = Seen { out_of_window: true, refused, ..Seen::default() };
        assert_eq!(line.client(ACK, 70_000, 0, 10), expected, "beyond the window");
        let late = line.server(ACK, 0u32.wrapping_sub(70_000), 0, 10);
        assert_eq!((late.out_of_window, late.refused, late.retransmission), (true, refused, !refused), "long gone");
        assert_eq!(line.client(FIN | ACK, 90_000, 0, 0), expected);
        assert_eq!(line.server(ACK, 0, 5_000_000, 0), expected, "acknowledges what nobody sent");
        assert_eq!((line.state(), line.track.out_of_window()), (TcpState::Established, [2, 2]));
    }
    let mut line = Line::open(TcpRules { window: WindowCheck::Off, asymmetric: false }, None);
    assert_eq!(line.client(FIN | ACK, 70_000, 0, 10), Seen::default());
    assert_eq!(line.state(), TcpState::Closing);
}

#[test]
fn blind_resets_do_not_close_and_real_ones_do() {
    for rules in [LOOSE, STRICT] {
        let mut line = Line::open(rules, None);
        line.client(ACK, 0, 0, 300);
        line.server(ACK, 0, 300, 0);
        // The last two are inside the window.
        for seq in [5_000_000, 0u32.wrapping_sub(5_000_000), 299, 1 << 31, 301, 800] {
            let seen = line.client(RST, seq, 0, 0);
            assert_eq!((seen.out_of_window, seen.refused), (true, rules == STRICT), "{seq}");
        }
        assert_eq!((line.state(), line.track.out_of_window()), (TcpState::Established, [6, 0]));
        let mut other = Line { track: line.track, ..line };
        assert_eq!(line.client(RST, 300, 0, 0), Seen::default());
        assert_eq!(line.state(), TcpState::Reset);
        // In flight: its receiver has acknowledged 300, and may have more.
        other.client(ACK, 300, 0, 500);
        assert!(other.client(RST, 500, 0, 0).out_of_window);
        let mut after = Line { track: other.track, ..other };
        assert_eq!((other.client(RST, 300, 0, 0), other.state()), (Seen::default(), TcpState::Reset));
        assert_eq!((after.client(RST, 800, 0, 0), after.state()), (Seen::default(), TcpState::Reset));
    }
    let mut line = Line::new(STRICT);
    line.say(CLIENT, seg(SYN, C, 0, 0));
    assert!(line.say(SERVER, seg(RST | ACK, 0, C.wrapping_add(70_000), 0)).out_of_window);
    assert!(line.say(SERVER, seg(SYN | ACK, S, C.wrapping_sub(70_000), 0)).out_of_window);
    assert_eq!(line.state(), TcpState::SynSent);
}

#[test]
fn a_blind_reset_between_syn_and_answer_does_not_close() {
    let mut line = Line::new(LOOSE);
    line.say(CLIENT, seg(SYN, C, 0, 0));
    assert!(line.client(RST, 77, 0, 0).out_of_window);
    assert_eq!(line.state(), TcpState::SynSent);
    assert_eq!((line.client(RST, 0, 0, 0), line.state()), (Seen::default(), TcpState::Reset));
}

#[test]
fn what_has_no_ack_closes_nothing_and_is_in_no_window() {
    for (rules, refused) in [(LOOSE, false), (STRICT, true)] {
        let mut line = Line::open(rules, None);
        let expected = Seen { out_of_window: true, refused, ..Seen::default() };
        assert_eq!(line.client(FIN, 500, 0, 0), expected);
        assert_eq!(line.server(FIN, 500, 0, 0), expected);
        assert_eq!(line.client(0, 0, 0, 100), expected);
        assert_eq!((line.state(), line.track.out_of_window()), (TcpState::Established, [2, 1]));
        assert_eq!(line.client(ACK, 0, 0, 100), Seen::default());
        assert_eq!(line.server(ACK, 0, 100, 100), Seen::default());
    }
    // Nor where nobody looks, nor before the connection is up.
    let mut line = Line::open(TcpRules { window: WindowCheck::Off, asymmetric: false }, None);
    assert_eq!((line.client(FIN, 0, 0, 0), line.server(FIN, 0, 0, 0)), (Seen::default(), Seen::default()));
    assert_eq!(line.state(), TcpState::Established);
    let mut line = Line::new(LOOSE);
    line.say(CLIENT, seg(SYN, C, 0, 0));
    line.client(FIN, 0, 0, 0);
    line.server(FIN, 0, 0, 0);
    assert_eq!(line.state(), TcpState::SynSent);
    let mut line = Line::new(LOOSE);
    assert_eq!(line.client(FIN, 0, 0, 0), Seen::default(), "nothing is known of it");
}

#[test]
fn a_jump_out_of_the_window_is_followed_when_the_other_side_acknowledges_it() {
    let mut line = Line::open(LOOSE, None);
    assert!(line.client(ACK, 10_000_000, 0, 1).out_of_window, "a byte from anybody");
    for n in 0..1000 {
        assert_eq!(line.wait(MS).client(ACK, n * 100, 0, 100), Seen::default(), "{n}");
        assert_eq!(line.wait(MS).server(ACK, 0, n * 100 + 100, 0), Seen::default(), "{n}");
    }
    assert_eq!((line.track.retransmissions(), line.track.out_of_window()), ([0; 2], [1, 0]));
    // Packets went another way for a while.
    assert!(line.client(ACK, 600_000, 0, 100).out_of_window);
    assert!(line.server(ACK, 0, 600_100, 0).out_of_window);
    assert_eq!(line.server(ACK, 0, 600_100, 0), Seen::default());
    assert_eq!(line.client(ACK, 600_100, 0, 100), Seen::default());
    assert!(line.client(ACK, 600_000, 0, 100).retransmission);
    // An acknowledgement from anybody, too, must be in the window, and not of just anything.
    let before = line.track.next;
    line.server(ACK, 70_000, 900_000, 0);
    line.server(ACK, 0, 90_000_000, 0);
    let after = line.track.next;
    assert_eq!(before, after);
}

#[test]
fn a_new_syn_on_a_live_connection_passes_and_changes_nothing() {
    let mut line = Line::open(STRICT, None);
    let before = line.track;
    assert_eq!(line.say(CLIENT, seg(SYN, C.wrapping_add(77_777_777), 0, 0)), Seen::default());
    assert_eq!(line.track, before);
    // The challenge, and the reset that answers it (RFC 5961).
    assert_eq!(line.server(ACK, 0, 0, 0), Seen::default());
    assert_eq!(line.client(RST, 0, 0, 0), Seen::default());
    assert_eq!(line.state(), TcpState::Reset);
}

#[test]
fn mid_stream_needs_both_sides_and_is_not_strict() {
    let mut line = Line::new(STRICT);
    line.client(ACK, 0, 0, 10);
    assert_eq!(line.state(), TcpState::Unconfirmed);
    line.server(ACK, 0, 10, 10);
    assert_eq!(line.state(), TcpState::Established);
    assert!(!line.track.is_fully_observed());
    let seen = line.server(ACK, 10, 1_000_000, 10);
    assert!(seen.out_of_window && !seen.refused);
    assert_eq!(line.client(ACK, 16_000_000, 10, 10), Seen::default(), "no scale known: the largest");
}

#[test]
fn simultaneous_open() {
    let mut line = Line::new(STRICT);
    line.say(CLIENT, seg(SYN, C, 0, 0));
    line.say(SERVER, seg(SYN, S, 0, 0));
    assert_eq!(line.state(), TcpState::SynReceived);
    assert!(!line.say(CLIENT, seg(SYN | ACK, C, S.wrapping_add(1), 0)).refused);
    line.say(SERVER, seg(SYN | ACK, S, C.wrapping_add(1), 0));
    line.client(ACK, 0, 0, 10);
    assert_eq!(line.state(), TcpState::Established);
    assert_eq!(line.server(ACK, 0, 10, 10), Seen::default());
    assert_eq!(line.track.out_of_window(), [0, 0]);
}

#[test]
fn one_direction_is_enough_where_only_one_passes() {
    let mut line = Line::new(ONE_SIDED);
    line.say(CLIENT, seg(SYN, C, 0, 0));
    assert_eq!(line.state(), TcpState::SynSent);
    line.wait(7 * MS).client(ACK, 0, 0, 0);
    assert_eq!((line.state(), line.track.handshake_rtt()), (TcpState::Established, Some(7 * MS)));
    assert_eq!(line.client(ACK, 50_000_000, 90_000_000, 10), Seen::default(), "no windows");
    line.client(FIN | ACK, 50_000_010, 90_000_000, 0);
    assert_eq!(line.state(), TcpState::Closing);

    let mut line = Line::new(ONE_SIDED);
    line.say(SERVER, seg(SYN | ACK, S, C.wrapping_add(1), 0));
    assert_eq!(line.state(), TcpState::SynReceived);
    line.server(ACK, 0, 10, 100);
    assert_eq!(line.state(), TcpState::Established);

    let mut line = Line::new(ONE_SIDED);
    line.server(ACK, 0, 10, 100);
    assert_eq!(line.state(), TcpState::Unconfirmed, "one stray packet");
    line.server(ACK, 100, 10, 100);
    assert_eq!(line.state(), TcpState::Established);
}

#[test]
fn counters_say_when_they_are_full_and_start_again_with_the_slice() {
    let mut line = Line::open(LOOSE, None);
    line.client(ACK, 0, 0, 100);
    for n in 0..255 {
        assert!(!line.track.is_full(), "{n}");
        line.wait(SECOND).client(ACK, 0, 0, 100);
    }
    assert!(line.track.is_full());
    line.wait(SECOND).client(ACK, 0, 0, 100);
    assert_eq!(line.track.retransmissions(), [255, 0]);
    let rtt = line.track.handshake_rtt();
    line.track.begin_slice();
    assert_eq!((line.track.retransmissions(), line.track.is_full()), ([0, 0], false));
    assert_eq!((line.state(), line.track.handshake_rtt()), (TcpState::Established, rtt));
    (0..31).for_each(|_| _ = line.server(ACK, 9_000_000, 100, 0));
    assert_eq!((line.track.is_full(), line.track.out_of_window()), (true, [0, 31]));
}

#[test]
fn swapped_twice_is_as_before_and_once_is_the_mirror_image() {
    let mut line = Line::open(LOOSE, Some(3));
    let mut mirrored = Line::new(LOOSE);
    mirrored.say(SERVER, Segment { scale: Some(3), ..seg(SYN, C, 0, 0) });
    mirrored.wait(10 * MS).say(CLIENT, Segment { scale: Some(3), ..seg(SYN | ACK, S, C.wrapping_add(1), 0) });
    mirrored.wait(10 * MS).say(SERVER, seg(ACK, C.wrapping_add(1), S.wrapping_add(1), 0));
    let there = line.track;
    line.track.swap();
    assert_eq!(line.track, mirrored.track);
    line.track.swap();
    assert_eq!(line.track, there);
}

proptest::proptest! {
    #[test]
    fn no_segment_does_harm(segments in proptest::collection::vec(
        (0usize..2, proptest::num::u8::ANY, 0u32..400, 0u32..400, 0u16..3, 0u32..3, proptest::option::of(0u8..20), 0u64..50), 0..200,
    ), window in 0..3) {
        let window = [WindowCheck::Off, WindowCheck::Loose, WindowCheck::Strict][window as usize];
        let mut line = Line::new(TcpRules { window, asymmetric: false });
        let mut counted = [0u32; 2];
        for (direction, flags, seq, ack, window, payload, scale, wait) in segments {
            let (seq, ack) = (C.wrapping_add(seq), S.wrapping_add(ack));
            let segment = Segment { flags, seq, ack, window, payload, scale, sack: flags & 0x40 != 0 };
            let before = line.track;
            let seen = line.wait(wait * MS).say(direction, segment);
            counted[direction] += u32::from(seen.retransmission);
            proptest::prop_assert!(!(seen.retransmission && seen.out_of_order));
            if seen.refused {
                proptest::prop_assert_eq!(before.state(), line.track.state());
                proptest::prop_assert_eq!((before.next, before.ack), (line.track.next, line.track.ack));
            }
            if seen.out_of_window {
                proptest::prop_assert_eq!(before.state(), line.track.state());
                proptest::prop_assert_eq!((before.next[direction], before.ack), (line.track.next[direction], line.track.ack));
            }
        }
        proptest::prop_assert_eq!(line.track.retransmissions(), counted.map(|n| n.min(255)));
    }
}
