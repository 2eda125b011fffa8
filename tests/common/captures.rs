//! Capture files built for tests: pcap and pcapng of every link type the program reads.

use super::frames::{self, ACK, FIN, PSH, SYN};

/// Seconds since 1970 at which the captures begin.
pub const BEGIN: u64 = 1_700_000_000;

/// A frame a millisecond after the one before.
pub fn pcap(link: u32, nanoseconds: bool, big_endian: bool, frames: &[Vec<u8>]) -> Vec<u8> {
    let word = |n: u32| if big_endian { n.to_be_bytes() } else { n.to_le_bytes() };
    let half = |n: u16| if big_endian { n.to_be_bytes() } else { n.to_le_bytes() };
    let magic = if nanoseconds { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
    let mut out = [word(magic), word(0), word(0), word(0), word(65_535), word(link)].concat();
    out[4..8].copy_from_slice(&[half(2), half(4)].concat());
    for (n, frame) in frames.iter().enumerate() {
        let fraction = n as u32 * if nanoseconds { 1_000_000 } else { 1_000 };
        let (seconds, len) = (BEGIN as u32, frame.len() as u32);
        out.extend([word(seconds), word(fraction), word(len), word(len)].concat());
        out.extend_from_slice(frame);
    }
    out
}

/// One section, an interface for each link type, frames one after the other.
pub fn pcapng(big_endian: bool, frames: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let word = |n: u32| if big_endian { n.to_be_bytes() } else { n.to_le_bytes() };
    let half = |n: u16| if big_endian { n.to_be_bytes() } else { n.to_le_bytes() };
    let block = |kind: u32, body: &[u8]| {
        let mut body = body.to_vec();
        body.resize(body.len().next_multiple_of(4), 0);
        let total = word(body.len() as u32 + 12);
        [&word(kind)[..], &total[..], &body[..], &total[..]].concat()
    };
    let mut section = [word(0x1a2b_3c4d), [half(1), half(0)].concat().try_into().expect("four bytes")].concat();
    section.extend([0xff; 8]);
    let mut out = block(0x0a0d_0d0a, &section);
    let mut links: Vec<u16> = frames.iter().map(|(link, _)| *link).collect();
    links.sort_unstable();
    links.dedup();
    for link in &links {
        out.extend(block(1, &[&half(*link)[..], &half(0)[..], &word(65_535)[..]].concat()));
    }
    for (n, (link, frame)) in frames.iter().enumerate() {
        let interface = links.iter().position(|l| l == link).expect("listed") as u32;
        let stamp = BEGIN * 1_000_000 + n as u64 * 1_000;
        let len = word(frame.len() as u32);
        let fixed = [word(interface), word((stamp >> 32) as u32), word(stamp as u32), len, len].concat();
        out.extend(block(6, &[&fixed[..], frame].concat()));
    }
    // A simple packet block, a name resolution block without names, and one of an unknown kind.
    let last = &frames[frames.len() - 1].1;
    out.extend(block(3, &[&word(last.len() as u32)[..], last].concat()));
    out.extend(block(4, &[0; 4]));
    out.extend(block(0x0bad, b"unknown!"));
    out
}

/// A TCP connection and a lookup, over IPv4 and IPv6.
pub fn conversation() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (a, b) in [("10.0.1.10", "10.0.2.20"), ("fd00:1::10", "fd00:2::20")] {
        let (there, back) = ((a, b), (b, a));
        all.push(frames::udp(there, (40_001, 53), b"which?"));
        all.push(frames::udp(back, (53, 40_001), b"this."));
        all.push(frames::tcp(there, (40_000, 443), SYN, (99, 0), b""));
        all.push(frames::tcp(back, (443, 40_000), SYN | ACK, (499, 100), b""));
        all.push(frames::tcp(there, (40_000, 443), ACK, (100, 500), b""));
        all.push(frames::tcp(there, (40_000, 443), ACK | PSH, (100, 500), &[1; 200]));
        all.push(frames::tcp(back, (443, 40_000), ACK | PSH, (500, 300), &[2; 900]));
        all.push(frames::tcp(there, (40_000, 443), ACK | FIN, (300, 1400), b""));
        all.push(frames::tcp(back, (443, 40_000), ACK | FIN, (1400, 301), b""));
        all.push(frames::tcp(there, (40_000, 443), ACK, (301, 1401), b""));
        all.push(frames::tcp(there, (40_002, 25), SYN, (7, 0), b""));
        all.push(frames::echo(there, true, 77, b"ping"));
        all.push(frames::echo(back, false, 77, b"ping"));
    }
    all
}

/// Fragments, tunnels, VLANs, neighbour resolution: what is rarer.
pub fn rarities() -> Vec<Vec<u8>> {
    let (v4, v6) = (("10.0.1.10", "10.0.2.20"), ("fd00:1::10", "fd00:2::20"));
    let (tcp, udp6) = (frames::tcp(v4, (1, 80), SYN, (1, 0), b""), frames::udp(v6, (1, 53), b"inner"));
    let mut all = vec![
        frames::arp(v4.0, v4.1),
        frames::neighbour_solicitation(v6),
        frames::vlan(&tcp, 100),
        frames::vlan(&frames::vlan(&udp6, 7), 100),
        frames::vxlan(v4, 77, &tcp),
        frames::vxlan(v6, 78, &frames::vlan(&udp6, 5)),
        frames::gre(v4, &udp6),
        frames::gtp_u(v4, 9, &tcp),
        frames::ip_in_ip(v4, &udp6),
        frames::ethernet([1; 6], [2; 6], 0x88cc, b"link layer discovery"),
    ];
    all.extend(frames::udp_fragments(v4, (6, 53), 4, &[3; 1200], 400));
    all.extend(frames::udp_fragments_v6(v6, (6, 53), 5, &[3; 1200], 400));
    all
}

/// An Ethernet frame as a frame of another link type.
pub fn relink(link: u16, frame: &[u8]) -> Vec<u8> {
    let (addresses, ethertype, packet) = (&frame[6..12], &frame[12..14], &frame[14..]);
    let v6 = packet[0] >> 4 == 6;
    let head: Vec<u8> = match link {
        0 => vec![if v6 { 30 } else { 2 }, 0, 0, 0],
        9 => vec![0xff, 3, 0, if v6 { 0x57 } else { 0x21 }],
        50 => vec![0xff, 3, 0, if v6 { 0x57 } else { 0x21 }],
        51 => [&[0x11, 0, 0, 1][..], &(packet.len() as u16 + 2).to_be_bytes(), &[0, if v6 { 0x57 } else { 0x21 }]]
            .concat(),
        101 | 228 | 229 => Vec::new(),
        104 => [&[0x0f, 0][..], ethertype].concat(),
        108 => vec![0, 0, 0, if v6 { 24 } else { 2 }],
        113 => [&[0, 0, 0, 1, 0, 6][..], addresses, &[0, 0], ethertype].concat(),
        276 => [ethertype, &[0, 0, 0, 0, 0, 1, 0, 1, 0, 6], addresses, &[0, 0]].concat(),
        _ => return frame.to_vec(),
    };
    [&head[..], packet].concat()
}

/// Small captures of every format and link type.
pub fn all() -> Vec<Vec<u8>> {
    let (talk, rare) = (conversation(), rarities());
    let mut out = vec![pcap(1, true, false, &talk), pcap(1, false, true, &rare), pcap(1, false, false, &rare)];
    for link in [0, 9, 50, 51, 101, 104, 108, 113, 147, 228, 229, 276] {
        let of_family = |f: &&Vec<u8>| match link {
            228 => f[12..14] == [8, 0],
            229 => f[12..14] == [0x86, 0xdd],
            _ => f[12..14] == [8, 0] || f[12..14] == [0x86, 0xdd],
        };
        let frames: Vec<_> = talk.iter().chain(&rare).filter(of_family).map(|f| relink(link, f)).collect();
        out.push(pcap(link.into(), link % 2 == 0, link % 3 == 0, &frames[..frames.len().min(16)]));
    }
    let links = [1u16, 101, 113, 0, 276, 1];
    let placed = rare.iter().chain(&talk[..10]).enumerate();
    let mixed: Vec<_> = placed
        .map(|(n, f)| {
            let ip = f[12..14] == [8, 0] || f[12..14] == [0x86, 0xdd];
            let link = if ip { links[n % links.len()] } else { 1 };
            (link, relink(link, f))
        })
        .collect();
    out.push(pcapng(false, &mixed));
    out.push(pcapng(true, &mixed));
    out
}
