use std::net::IpAddr;
use std::time::Duration;

use super::super::wire::answer;
use super::*;

const COLLECTOR: Mac = Mac([2, 0, 0, 0, 0, 9]);
const MOVED: Mac = Mac([2, 0, 0, 0, 0, 10]);
const STEP: u64 = SECOND / 100;

fn route(src: &str, dst: &str) -> Route {
    let [src, dst]: [IpAddr; 2] = [src, dst].map(|text| text.parse().expect("an address"));
    Route {
        target: "t".into(),
        port: 0,
        vlan: Some(7),
        src_mac: Mac([2, 0, 0, 0, 0, 1]),
        src,
        dst,
        fixed: None,
        ask: dst,
        refresh: Duration::from_secs(10),
        health: None,
    }
}

/// The route as the collector sees it.
fn turned(route: &Route, mac: Mac) -> Route {
    Route { src: route.dst, dst: route.src, ask: route.src, src_mac: mac, ..route.clone() }
}

/// A collector, and the time that passes.
struct World {
    watch: Watch,
    now: u64,
    /// Where it is, when it is there.
    mac: Option<Mac>,
    /// It answers probes: echo, and connections.
    well: bool,
    sent: Vec<(u64, Vec<u8>)>,
}

impl World {
    fn new(route: Route) -> Self {
        let first = route.fixed.map_or(HopState::NoNeighbour, HopState::Up);
        let watch = Watch::new(route, Arc::new(Hop::new(first)), 5, SECOND);
        Self { watch, now: SECOND, mac: Some(COLLECTOR), well: true, sent: Vec::new() }
    }

    fn seconds(&mut self, seconds: u64) -> HopState {
        let end = self.now + seconds * SECOND;
        while self.now < end {
            let mut sent = Vec::new();
            self.watch.step(self.now, &mut |frame| sent.push(frame.to_vec()));
            while let Some(frame) = sent.pop() {
                let answer = self.collector(&frame);
                self.sent.push((self.now, frame));
                if let Some((vlan, heard)) = answer.as_deref().and_then(Heard::of) {
                    assert_eq!(vlan, Some(7));
                    self.watch.hear(&heard, self.now, &mut |frame| sent.push(frame.to_vec()));
                }
            }
            self.now += STEP;
        }
        self.watch.hop.state()
    }

    /// What the collector says to a frame.
    fn collector(&self, frame: &[u8]) -> Option<Vec<u8>> {
        let mac = self.mac?;
        let own = turned(&self.watch.route, mac);
        let to_me = frame[..6] == mac.0 || frame[0] & 1 == 1;
        if let Some((_, heard @ Heard::Question { .. })) = Heard::of(frame).filter(|_| to_me) {
            return answer(&own, &heard);
        }
        let mut headers = crate::packet::Headers::default();
        crate::packet::parse(frame, frame.len() as u32, &mut headers).expect("a sound frame");
        let (ip, at) = (headers.outer, usize::from(headers.outer.l4_offset));
        if !to_me || !self.well || ip.version == 0 {
            return None;
        }
        let mut back = frame.to_vec();
        match (ip.version, ip.protocol) {
            (4, 1) => back[at] = 0,
            (6, 58) => back[at] = 129,
            (_, 6) if ip.tcp_flags == 0x02 => {
                back[at + 8..at + 12].copy_from_slice(&(ip.tcp_seq + 1).to_be_bytes());
                back[at + 13] = 0x12;
                back[at..at + 2].copy_from_slice(&ip.dst_port.to_be_bytes());
                back[at + 2..at + 4].copy_from_slice(&ip.src_port.to_be_bytes());
            }
            _ => return None,
        }
        let (from, len) = if ip.version == 4 { (18 + 12, 4) } else { (18 + 8, 16) };
        let (before, after) = back.split_at_mut(from + len);
        before[from..].swap_with_slice(&mut after[..len]);
        Some(back)
    }

    /// When something was sent since `from`, to one station alone or to many.
    fn times(&self, from: u64) -> Vec<(u64, bool)> {
        let since = self.sent.iter().filter(|(at, _)| *at >= from);
        since.map(|(at, frame)| ((at - SECOND) / STEP, frame[0] & 1 == 0)).collect()
    }
}

fn both() -> [Route; 2] {
    [route("192.0.2.1", "192.0.2.10"), route("2001:db8::1", "2001:db8::10")]
}

#[test]
fn a_neighbour_is_found_kept_followed_and_missed() {
    for route in both() {
        let mut world = World::new(route);
        assert_eq!(world.seconds(25), HopState::Up(COLLECTOR));
        assert_eq!(world.times(0), [(0, false), (1000, true), (2000, true)], "everybody is asked once");
        // It has another address now: he is asked alone first, then everybody.
        world.mac = Some(MOVED);
        let moved = world.now;
        assert_eq!(world.seconds(4), HopState::Up(COLLECTOR));
        assert_eq!(world.seconds(4), HopState::Up(MOVED), "within a refresh and a second");
        assert_eq!(world.times(moved), [(3000, true), (3100, false)]);
        world.mac = None;
        assert_eq!(world.seconds(10), HopState::Up(MOVED), "copies go on while it is asked for");
        assert_eq!(world.seconds(3), HopState::NoNeighbour);
        assert!(world.watch.hop.since() > moved);
        let gone = world.now;
        world.seconds(200);
        let asked = world.times(gone);
        assert!((6..=9).contains(&asked.len()), "backs off: {asked:?}");
        assert!(asked.windows(2).all(|pair| pair[1].0 - pair[0].0 <= 3200 && !pair[1].1), "{asked:?}");
        world.mac = Some(COLLECTOR);
        assert_eq!(world.seconds(33), HopState::Up(COLLECTOR));
    }
}

#[test]
fn what_a_neighbour_says_unasked_is_heard() {
    for route in both() {
        let mut world = World::new(route);
        world.seconds(1);
        let own = turned(&world.watch.route, MOVED);
        let question = wire::question(&own, None);
        let (_, heard) = Heard::of(&question).expect("a question");
        let reply = answer(&world.watch.route, &heard).expect("the own address is told");
        let who = world.watch.route.src;
        assert_eq!(Heard::of(&reply), Some((Some(7), Heard::Here { who, mac: world.watch.route.src_mac })));
        assert_eq!(reply[..6], MOVED.0);
        world.watch.hear(&heard, world.now, &mut |_| {});
        assert_eq!(world.watch.hop.state(), HopState::Up(MOVED));
        let other = Heard::Question { wanted: own.src, from: own.dst, mac: COLLECTOR };
        assert_eq!(answer(&world.watch.route, &other), None, "for somebody else");
    }
}

#[test]
fn gratuitous_arp_and_group_addresses() {
    let own = turned(&both()[0], MOVED);
    let mut frame = wire::question(&own, None);
    frame[46 - 4..46].copy_from_slice(&[192, 0, 2, 10]);
    assert_eq!(Heard::of(&frame), Some((Some(7), Heard::Here { who: own.src, mac: MOVED })));
    frame[26] = 1;
    assert_eq!(Heard::of(&frame), None, "a group has no address");
    let mut routed = wire::question(&turned(&both()[1], MOVED), None);
    routed[18 + 7] = 254;
    assert_eq!(Heard::of(&routed), None, "what was routed is no neighbour discovery");
}

#[test]
fn collectors_fall_after_failures_and_rise_after_answers() {
    for probe in [Probe::Neighbour, Probe::Echo, Probe::Tcp(4789)] {
        for route in both() {
            for fixed in [None, Some(COLLECTOR)] {
                let health = Health { probe, interval: Duration::from_secs(1), fall: 3, rise: 2 };
                let mut world = World::new(Route { health: Some(health), fixed, ..route.clone() });
                assert_eq!(world.seconds(5), HopState::Up(COLLECTOR), "{probe:?}");
                let there = |world: &mut World, is: bool| match probe {
                    Probe::Neighbour => world.mac = Some(COLLECTOR).filter(|_| is),
                    Probe::Echo | Probe::Tcp(_) => world.well = is,
                };
                there(&mut world, false);
                assert_eq!(world.seconds(2), HopState::Up(COLLECTOR), "{probe:?}");
                assert_eq!(world.seconds(2), HopState::Down(COLLECTOR), "{probe:?}");
                there(&mut world, true);
                assert_eq!(world.seconds(1), HopState::Down(COLLECTOR), "once is not enough");
                assert_eq!(world.seconds(1), HopState::Up(COLLECTOR), "{probe:?}");
            }
        }
    }
}

#[test]
fn a_refused_connection_is_a_failure_and_an_accepted_one_is_given_up() {
    let health = Health { probe: Probe::Tcp(80), interval: Duration::from_secs(1), fall: 1, rise: 1 };
    let mut world = World::new(Route { health: Some(health), ..route("192.0.2.1", "192.0.2.10") });
    world.seconds(1);
    let flags: Vec<u8> = world.sent.iter().filter(|(_, f)| f[16..18] == [8, 0]).map(|(_, f)| f[18 + 33]).collect();
    assert_eq!(flags, [0x02, 0x04], "SYN, and RST when it was accepted");
    world.well = false;
    world.now += SECOND / 2;
    let mut syn = Vec::new();
    world.watch.step(world.now, &mut |frame| syn = frame.to_vec());
    let mut headers = crate::packet::Headers::default();
    crate::packet::parse(&syn, syn.len() as u32, &mut headers).expect("sound");
    let ip = headers.outer;
    let (from, to) = (world.watch.route.dst, world.watch.route.src);
    let refusal = |acknowledged| Heard::Tcp { from, to, ports: (80, ip.src_port), acknowledged, accepted: false };
    world.watch.hear(&refusal(ip.tcp_seq), world.now, &mut |_| {});
    assert_eq!(world.watch.hop.state(), HopState::Up(COLLECTOR), "of another connection");
    world.watch.hear(&refusal(ip.tcp_seq + 1), world.now, &mut |_| panic!("nothing to be said"));
    assert_eq!(world.watch.hop.state(), HopState::Down(COLLECTOR));
}
