use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::packet::Malformed;

fn outer(v6: bool, vlan: Option<u16>) -> Outer {
    let ip = |v4: &str, six: &str| -> IpAddr { if v6 { six } else { v4 }.parse().unwrap() };
    Outer {
        src_mac: Mac([2, 0, 0, 0, 0, 1]),
        dst_mac: Mac([2, 0, 0, 0, 0, 2]),
        vlan,
        src: ip("192.0.2.1", "2001:db8::1"),
        dst: ip("192.0.2.2", "2001:db8::2"),
        dscp: 8,
        ttl: 64,
    }
}

fn wrap(envelope: &Envelope, copy: &Copy, frame: &[u8]) -> Vec<u8> {
    let mut head = [0; MAX_HEADER];
    let len = envelope.write(copy, &mut head);
    assert_eq!(len, envelope.len());
    [&head[..len], frame].concat()
}

fn copies() -> impl Strategy<Value = (Copy, Vec<u8>)> {
    let frame = proptest::collection::vec(any::<u8>(), 14..2000);
    let numbers = (any::<u32>(), any::<u64>(), any::<u64>(), any::<u32>(), any::<u32>(), 0u16..4095);
    let told = (0usize..3, proptest::option::of(0usize..DropReason::COUNT), proptest::option::of(0f32..1.0));
    (frame, 0u32..1000, numbers, told).prop_map(|(frame, cut, numbers, (decision, problem, score))| {
        let (sequence, clock_ns, flow_hash, rule, generation, vlan) = numbers;
        let len = frame.len() as u32;
        let decision = [Decision::Allow, Decision::Deny, Decision::Reject][decision];
        let problem = problem.and_then(|at| DropReason::all().nth(at));
        let (rule, original_len, sampling) = (RuleHandle(rule), len + cut, cut as f32 + 0.5);
        let copy = Copy {
            len,
            original_len,
            sequence,
            clock_ns,
            flow_hash,
            rule,
            generation,
            decision,
            problem,
            vlan,
            score,
            sampling,
        };
        (copy, frame)
    })
}

proptest! {
    #[test]
    fn what_is_wrapped_comes_out((copy, frame) in copies(), v6: bool, vlan in proptest::option::of(1u16..4095), id in 0u32..1024, worker in 0u8..64) {
        for (_, tunnel) in Tunnel::ALL {
            let stream = Stream { id, worker };
            let envelope = Envelope::new(outer(v6, vlan), tunnel, stream).unwrap();
            let bytes = wrap(&envelope, &copy, &frame);
            let got = unwrap(&bytes).unwrap();
            prop_assert_eq!(got.tunnel, tunnel);
            prop_assert_eq!(got.from, outer(v6, vlan).src);
            prop_assert_eq!(got.frame, &frame[..]);
            prop_assert_eq!(got.stream.id, id);
            if tunnel == Tunnel::Vxlan {
                prop_assert_eq!(got.sequence, None);
                continue;
            }
            prop_assert_eq!((got.stream.worker, got.sequence), (worker, Some(copy.sequence)));
            if let Some(detail) = got.detail {
                let told = (detail.rule, detail.generation, detail.decision, detail.problem);
                prop_assert_eq!(told, (copy.rule, copy.generation, copy.decision, copy.problem));
                let numbers = (detail.sampling, detail.original_len, detail.clock_ns);
                prop_assert_eq!(numbers, (copy.sampling, copy.original_len, copy.clock_ns));
                let near = |a: f32, b: f32| (a - b).abs() <= 1.0 / 65535.0;
                prop_assert!(detail.score.zip(copy.score).is_none_or(|(a, b)| near(a, b)));
                prop_assert_eq!(detail.score.is_some(), copy.score.is_some());
            }
            prop_assert_eq!(got.detail.is_some(), tunnel == Tunnel::Geneve);
        }
    }

    #[test]
    fn nothing_received_makes_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), v6: bool, gre: bool, port: bool) {
        for (at, value) in [(12, if v6 { 0x86 } else { 8 }), (13, if v6 { 0xdd } else { 0 }), (14, 0x45), (if v6 { 20 } else { 23 }, if gre { 47 } else { 17 })] {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        let l4 = if v6 { 54 } else { 34 };
        if bytes.len() > l4 + 4 {
            put16(&mut bytes, l4 + 2, if gre { [ETHERNETS[0], ETHERNETS[1]][usize::from(port)] } else { [4789, 6081][usize::from(port)] });
        }
        let _ = unwrap(&bytes);
    }
}

const ETHERNETS: [u16; 2] = [0x88be, 0x22eb];

#[test]
fn headers_byte_for_byte() {
    let copy = Copy {
        len: 60,
        original_len: 100,
        sequence: 7,
        flow_hash: 0x1234 << 48,
        vlan: 0x123,
        clock_ns: 12_300,
        ..Copy::default()
    };
    let head = |tunnel| {
        let envelope = Envelope::new(outer(false, None), tunnel, Stream { id: 5, worker: 3 }).unwrap();
        wrap(&envelope, &copy, &[])
    };
    let vxlan = head(Tunnel::Vxlan);
    // Total length 20 + 8 + 8 + 60; the checksum was computed by hand.
    assert_eq!(vxlan[14..24], [0x45, 0x20, 0, 96, 0, 0, 0x40, 0, 64, 17]);
    let sum: u32 = vxlan[14..34].chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "the header sums up to ones (RFC 1071)");
    assert_eq!(vxlan[34..], [0xd2, 0x34, 0x12, 0xb5, 0, 76, 0, 0, 8, 0, 0, 0, 0, 0, 5, 0]);
    assert_eq!(head(Tunnel::Gre)[34..], [0x30, 0, 0x65, 0x58, 0, 0, 5, 3, 0, 0, 0, 7]);
    assert_eq!(head(Tunnel::Erspan2)[34..], [0x10, 0, 0x88, 0xbe, 0, 0, 0, 7, 0x11, 0x23, 0x1c, 5, 0, 0, 0, 3]);
    assert_eq!(
        head(Tunnel::Erspan3)[34..],
        [0x10, 0, 0x22, 0xeb, 0, 0, 0, 7, 0x21, 0x23, 0x04, 5, 0, 0, 0, 123, 0, 0, 0x80, 0x32]
    );
    assert_eq!(head(Tunnel::Geneve)[34..50], [0xd2, 0x34, 0x17, 0xc1, 0, 116, 0, 0, 10, 0, 0x65, 0x58, 0, 0, 5, 0]);
}

#[test]
fn ids_and_families_that_do_not_fit_are_refused() {
    let stream = Stream { id: 1024, worker: 0 };
    assert!(Envelope::new(outer(false, None), Tunnel::Erspan2, stream).unwrap_err().contains("1023"));
    assert!(Envelope::new(outer(false, None), Tunnel::Vxlan, stream).is_ok());
    let mixed = Outer { dst: "2001:db8::2".parse().unwrap(), ..outer(false, None) };
    assert!(Envelope::new(mixed, Tunnel::Vxlan, Stream::default()).is_err());
    assert_eq!(unwrap(&[0; 60]), Err(NotWrapped::Other));
    assert_eq!(unwrap(&[0; 5]), Err(NotWrapped::Short));
    let _ = Malformed::Snapped;
}
