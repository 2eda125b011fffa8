//! Arbitrary bytes through parser, layers, subject and fragment table. The first two bytes say how many
//! bytes the capture cut off.
//!
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run parse --sanitizer none`
#![no_main]

use gnomon::packet::{Fragments, Headers, Ip, KeyFrom, Layer, layers, parse, subject};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((cut, frame)) = data.split_first_chunk::<2>() else { return };
    let wire_len = frame.len() as u32 + u32::from(u16::from_le_bytes(*cut));
    let mut headers = Headers::default();
    let fault = parse(frame, wire_len, &mut headers).err();
    check_offsets(&headers.outer, frame, wire_len);
    check_offsets(&headers.inner, frame, wire_len);

    let (layers, same_fault) = layers(frame, wire_len);
    assert_eq!(fault, same_fault);
    let own = layers.iter().take_while(|layer| **layer != Layer::Quoted);
    let mut ips = own.filter_map(|layer| match layer {
        Layer::Ip { src, dst, .. } => Some((*src, *dst)),
        _ => None,
    });
    let first = ips.next();
    let last = ips.last().or(first);

    let mut table = Fragments::new(4, 1_000);
    for (from, expected) in [(KeyFrom::Outer, first), (KeyFrom::Inner, last)] {
        let mut subject = subject(&headers, from);
        assert_eq!(subject.map(|s| (s.tuple.src_ip(), s.tuple.dst_ip())), expected);
        if let (Some(subject), Some(ip)) = (&mut subject, headers.key_ip(from)) {
            table.resolve(ip, subject, 0);
        }
    }
});

fn check_offsets(ip: &Ip, frame: &[u8], wire_len: u32) {
    if ip.version == 0 {
        return;
    }
    assert!(ip.offset <= ip.l4_offset && ip.l4_offset <= ip.payload_offset);
    assert!(usize::from(ip.payload_offset) <= frame.len());
    assert!(u32::from(ip.payload_offset) + ip.payload_len <= wire_len);
}
