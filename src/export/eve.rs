//! EVE-shaped JSON: one object a line, fields always in the same order.

use std::borrow::Cow;
use std::io::{self, Write};
use std::net::IpAddr;

use serde::Serialize;

use crate::behaviour::{Alert, AlertKind, ScoredRecord};
use crate::flow::{FlowRecord, Spread, TO_CLIENT, TO_SERVER};
use crate::mirror::Rate;
use crate::packet::{has_ports, is_icmp};
use crate::rules::{Decision, GroupSetHandle, RuleHandle, Standing, Tier};

use super::community_id;
use super::time::iso8601;

/// Names behind the numbers in records. An unknown number yields an empty name or list.
pub trait Names {
    /// Id of a rule; of [`RuleHandle::DEFAULT`], what stands for "no rule decided".
    fn rule(&self, rule: RuleHandle) -> Cow<'_, str>;
    /// Names of the groups in a set, in a fixed order.
    fn groups(&self, groups: GroupSetHandle) -> Vec<Cow<'_, str>>;
    /// Name of the mirror session at a bit of `FlowRecord::mirrors`, in a generation.
    fn mirror(&self, generation: u32, bit: usize) -> Cow<'_, str>;
    /// How much of its traffic that session takes.
    fn mirror_rate(&self, generation: u32, bit: usize) -> Option<Rate>;
}

/// Writes one line of `flows.jsonl`. `seq` is the number of a record in the stream, lost ones counted.
pub fn write_flow(out: &mut impl Write, scored: &ScoredRecord, seq: Option<u64>, names: &impl Names) -> io::Result<()> {
    let r = &scored.record;
    let line = FlowLine {
        timestamp: iso8601(r.emitted),
        flow_id: r.flow_id,
        event_type: "flow",
        vlan: vlan(r.tuple.vlan),
        ends: Ends::of(r),
        community_id: community_id(&r.tuple, r.icmp, 0),
        flow: Flow::of(r),
        tcp: (r.tuple.protocol == 6).then(|| Tcp::of(r)),
        gnomon: Gnomon {
            seq,
            src_groups: names.groups(r.src_groups),
            dst_groups: names.groups(r.dst_groups),
            rule: names.rule(r.rule),
            tier: r.tier,
            action: r.decision,
            generation: r.generation,
            mirror: mirrors(r, names),
            mirror_rates: mirror_rates(r, names),
            diverted: r.diverted,
            vni: Some(r.tuple.vni).filter(|v| *v != 0),
            score: scored.score.map(round),
            flags: scored.flags.names().collect(),
        },
    };
    write_line(out, &line)
}

/// Writes one line of `alerts.jsonl`.
pub fn write_alert(out: &mut impl Write, alert: &Alert, names: &impl Names) -> io::Result<()> {
    let actor = alert.actor.host();
    let segment = actor.or(alert.victim.host());
    let line = AlertLine {
        timestamp: iso8601(alert.raised),
        event_type: if alert.kind == AlertKind::Outlier { "anomaly" } else { "alert" },
        vlan: vlan(segment.map_or(0, |h| h.vlan)),
        src_ip: actor.map(|h| h.ip()),
        dest_ip: alert.victim.host().map(|h| h.ip()),
        proto: match alert.evidence.protocols[..] {
            [only] => Some(protocol_name(only)),
            _ => None,
        },
        body: AlertBody::of(alert, names),
        gnomon: AlertGnomon {
            kind: alert.kind.name(),
            episode: alert.episode,
            status: alert.status.name(),
            start: iso8601(alert.first_seen),
            end: iso8601(alert.last_seen),
            actor_groups: names.groups(alert.actor_groups),
            victim_groups: names.groups(alert.victim_groups),
            vni: segment.map(|h| h.vni).filter(|v| *v != 0),
            body: AlertBody::of(alert, names),
        },
    };
    write_line(out, &line)
}

/// One JSON object and a newline.
pub(super) fn write_line(out: &mut impl Write, line: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line).map_err(io::Error::from)?;
    out.write_all(b"\n")
}

#[derive(Serialize)]
struct FlowLine<'a> {
    timestamp: String,
    flow_id: u64,
    event_type: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    vlan: Vec<u16>,
    #[serde(flatten)]
    ends: Ends,
    community_id: String,
    flow: Flow,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp: Option<Tcp>,
    gnomon: Gnomon<'a>,
}

/// The initiator is `src`. Ports for TCP, UDP and SCTP; type and code for ICMP.
#[derive(Serialize)]
struct Ends {
    src_ip: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    src_port: Option<u16>,
    dest_ip: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    dest_port: Option<u16>,
    proto: Cow<'static, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp_type: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp_code: Option<u8>,
}

impl Ends {
    fn of(r: &FlowRecord) -> Self {
        let t = &r.tuple;
        let ports = has_ports(t.protocol);
        let icmp = is_icmp(t.protocol);
        Self {
            src_ip: t.src_ip(),
            src_port: ports.then_some(t.src_port),
            dest_ip: t.dst_ip(),
            dest_port: ports.then_some(t.dst_port),
            proto: protocol_name(t.protocol),
            icmp_type: icmp.then_some(r.icmp.0),
            icmp_code: icmp.then_some(r.icmp.1),
        }
    }
}

#[derive(Serialize)]
struct Flow {
    pkts_toserver: u64,
    pkts_toclient: u64,
    bytes_toserver: u64,
    bytes_toclient: u64,
    start: String,
    end: String,
    /// Whole seconds.
    age: u64,
    state: &'static str,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp_errors: Option<u32>,
    #[serde(flatten)]
    sizes: Option<Sizes>,
    #[serde(flatten)]
    gaps: Option<Gaps>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entropy_toserver: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entropy_toclient: Option<f64>,
}

/// Bytes, to the thousandth.
#[derive(Serialize)]
struct Sizes {
    size_min: u64,
    size_max: u64,
    size_mean: Number,
    size_sd: Number,
}

impl Sizes {
    fn of(sizes: &Spread) -> Self {
        let number = |bytes| Number(thousandths(bytes));
        Self { size_min: sizes.min, size_max: sizes.max, size_mean: number(sizes.mean), size_sd: number(sizes.sd) }
    }
}

/// Microseconds, to the nanosecond.
#[derive(Serialize)]
struct Gaps {
    gap_min: Number,
    gap_max: Number,
    gap_mean: Number,
    gap_sd: Number,
}

impl Gaps {
    fn of(gaps: &Spread) -> Self {
        let number = |nanoseconds: f64| Number(thousandths(nanoseconds / 1000.0));
        Self {
            gap_min: number(gaps.min as f64),
            gap_max: number(gaps.max as f64),
            gap_mean: number(gaps.mean),
            gap_sd: number(gaps.sd),
        }
    }
}

/// Written without a point where it is whole.
struct Number(f64);

impl Serialize for Number {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.fract() == 0.0 && self.0.abs() < 9e15 {
            serializer.serialize_i64(self.0 as i64)
        } else {
            serializer.serialize_f64(self.0)
        }
    }
}

impl Flow {
    fn of(r: &FlowRecord) -> Self {
        Self {
            pkts_toserver: r.packets[TO_SERVER],
            pkts_toclient: r.packets[TO_CLIENT],
            bytes_toserver: r.bytes[TO_SERVER],
            bytes_toclient: r.bytes[TO_CLIENT],
            start: iso8601(r.start),
            end: iso8601(r.end),
            age: r.end.saturating_sub(r.start) / 1_000_000_000,
            state: r.state.name(),
            reason: r.reason.name(),
            icmp_errors: (r.icmp_errors > 0).then_some(r.icmp_errors),
            sizes: (!r.is_empty()).then(|| Sizes::of(&r.sizes)),
            gaps: (r.packets.iter().sum::<u64>() > 1).then(|| Gaps::of(&r.gaps)),
            entropy_toserver: r.entropy[TO_SERVER].map(|bits| thousandths(bits.into())),
            entropy_toclient: r.entropy[TO_CLIENT].map(|bits| thousandths(bits.into())),
        }
    }
}

#[derive(Serialize)]
struct Tcp {
    /// Flags of all packets of a direction together, two hexadecimal digits.
    tcp_flags_ts: String,
    tcp_flags_tc: String,
    /// Microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt: Option<Number>,
    retransmissions_ts: u32,
    retransmissions_tc: u32,
    out_of_window_ts: u32,
    out_of_window_tc: u32,
}

impl Tcp {
    fn of(r: &FlowRecord) -> Self {
        Self {
            tcp_flags_ts: format!("{:02x}", r.tcp_flags[TO_SERVER]),
            tcp_flags_tc: format!("{:02x}", r.tcp_flags[TO_CLIENT]),
            rtt: r.handshake_rtt.map(|ns| Number(thousandths(ns as f64 / 1000.0))),
            retransmissions_ts: r.retransmissions[TO_SERVER],
            retransmissions_tc: r.retransmissions[TO_CLIENT],
            out_of_window_ts: r.out_of_window[TO_SERVER],
            out_of_window_tc: r.out_of_window[TO_CLIENT],
        }
    }
}

#[derive(Serialize)]
struct Gnomon<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    src_groups: Vec<Cow<'a, str>>,
    dst_groups: Vec<Cow<'a, str>>,
    rule: Cow<'a, str>,
    tier: Tier,
    action: Decision,
    generation: u32,
    mirror: Vec<Cow<'a, str>>,
    /// By position in `mirror`: the share of packets, or of flows, that the session takes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mirror_rates: Vec<f64>,
    /// It went to a honeypot.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    diverted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    vni: Option<u32>,
    /// `null` before the forest is trained.
    score: Option<f64>,
    flags: Vec<&'static str>,
}

#[derive(Serialize)]
struct AlertLine<'a> {
    timestamp: String,
    event_type: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    vlan: Vec<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    src_ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dest_ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proto: Option<Cow<'static, str>>,
    /// The same five fields as in `gnomon`, for scripts that look for them at the top.
    #[serde(flatten)]
    body: AlertBody<'a>,
    gnomon: AlertGnomon<'a>,
}

#[derive(Serialize)]
struct AlertGnomon<'a> {
    kind: &'static str,
    episode: u64,
    status: &'static str,
    start: String,
    end: String,
    #[serde(flatten)]
    body: AlertBody<'a>,
    actor_groups: Vec<Cow<'a, str>>,
    victim_groups: Vec<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vni: Option<u32>,
}

#[derive(Serialize)]
struct AlertBody<'a> {
    actor: String,
    victim: String,
    severity: u8,
    count: u64,
    evidence: EvidenceLine<'a>,
}

impl<'a> AlertBody<'a> {
    fn of(alert: &Alert, names: &'a impl Names) -> Self {
        Self {
            actor: alert.actor.to_string(),
            victim: alert.victim.to_string(),
            severity: alert.severity,
            count: alert.count,
            evidence: EvidenceLine::of(alert, names),
        }
    }
}

#[derive(Serialize)]
struct EvidenceLine<'a> {
    protocols: Vec<Cow<'static, str>>,
    ports: Vec<u16>,
    distinct_ports: u64,
    hosts: Vec<IpAddr>,
    distinct_hosts: u64,
    attempts: u64,
    failed: u64,
    /// `failed / attempts`.
    failed_share: f64,
    packets: u64,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_per_window: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    threshold: Option<u64>,
    rate_per_second: f64,
    flow_ids: Vec<u64>,
    /// Rules that decided these flows.
    rules: Vec<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    period_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jitter: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    macs: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_score: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    features: Vec<FeatureLine>,
}

#[derive(Serialize)]
struct FeatureLine {
    name: &'static str,
    /// Splits saved by this feature, mean over trees.
    weight: f64,
}

impl<'a> EvidenceLine<'a> {
    fn of(alert: &Alert, names: &'a impl Names) -> Self {
        let e = &alert.evidence;
        Self {
            protocols: e.protocols.iter().map(|p| protocol_name(*p)).collect(),
            ports: e.ports.clone(),
            distinct_ports: e.distinct_ports,
            hosts: e.hosts.iter().map(|h| h.ip()).collect(),
            distinct_hosts: e.distinct_hosts,
            attempts: e.attempts,
            failed: e.failed,
            failed_share: round(e.failed as f32 / e.attempts.max(1) as f32),
            packets: e.packets,
            bytes: e.bytes,
            peak_per_window: (e.peak > 0).then_some(e.peak),
            threshold: (alert.kind != AlertKind::Outlier).then_some(e.threshold),
            rate_per_second: (e.rate * 1000.0).round() / 1000.0,
            flow_ids: e.flow_ids.clone(),
            rules: e.rules.iter().map(|rule| names.rule(*rule)).collect(),
            period_seconds: e.rhythm.map(|rhythm| thousandths(rhythm.period)),
            jitter: e.rhythm.map(|rhythm| thousandths(rhythm.jitter)),
            domain: e.domain.map(|domain| domain.to_string()),
            macs: e.macs.iter().map(ToString::to_string).collect(),
            max_score: e.max_score.map(round),
            features: e.features.iter().map(|(name, w)| FeatureLine { name, weight: round(*w) }).collect(),
        }
    }
}

fn round(x: f32) -> f64 {
    round_to_millionths(x.into())
}

/// Six decimals are more than a score can mean, and keep lines short.
pub(super) fn round_to_millionths(x: f64) -> f64 {
    (x * 1e6).round() / 1e6
}

fn thousandths(x: f64) -> f64 {
    (x * 1e3).round() / 1e3
}

fn vlan(id: u16) -> Vec<u16> {
    if id == 0 { Vec::new() } else { vec![id] }
}

fn mirrors<'a>(r: &FlowRecord, names: &'a impl Names) -> Vec<Cow<'a, str>> {
    mirror_bits(r).map(|bit| names.mirror(r.generation, bit)).collect()
}

fn mirror_rates(r: &FlowRecord, names: &impl Names) -> Vec<f64> {
    let standing = Standing { share: r.raised, cut: r.cut, ..Standing::default() };
    let rate = |rate: Rate| round_to_millionths(rate.share(&standing));
    // A session that is not known any more counts as one that takes all.
    mirror_bits(r).map(|bit| names.mirror_rate(r.generation, bit).map_or(1.0, rate)).collect()
}

fn mirror_bits(r: &FlowRecord) -> impl Iterator<Item = usize> {
    let mirrors = r.mirrors;
    (0..64).filter(move |bit| mirrors & (1 << bit) != 0)
}

/// Suricata's names; the number as text for protocols without one here.
pub fn protocol_name(protocol: u8) -> Cow<'static, str> {
    Cow::Borrowed(match protocol {
        1 => "ICMP",
        6 => "TCP",
        17 => "UDP",
        47 => "GRE",
        50 => "ESP",
        58 => "IPv6-ICMP",
        132 => "SCTP",
        other => return Cow::Owned(other.to_string()),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;
    use crate::behaviour::{Evidence, Flags, Host, Party, Status};
    use crate::flow::{EndReason, FlowState};
    use crate::mirror::Sample;
    use crate::packet::{Tuple, from_ip_addr};

    pub(crate) struct Fixed;

    impl Names for Fixed {
        fn rule(&self, rule: RuleHandle) -> Cow<'_, str> {
            if rule == RuleHandle::DEFAULT { "default".into() } else { format!("rule-{}", rule.0).into() }
        }

        fn groups(&self, groups: GroupSetHandle) -> Vec<Cow<'_, str>> {
            (0..groups.0).map(|i| format!("group \"{i}\"").into()).collect()
        }

        fn mirror(&self, generation: u32, bit: usize) -> Cow<'_, str> {
            format!("session-{generation}-{bit}").into()
        }

        fn mirror_rate(&self, _: u32, bit: usize) -> Option<Rate> {
            let sample = if bit == 0 { Sample::Packets(3) } else { Sample::Flows(0.5) };
            Some(Rate { sample, adapts: false })
        }
    }

    fn host(text: &str) -> Host {
        let (version, addr) = from_ip_addr(text.parse().unwrap());
        Host { version, addr, vlan: 12, vni: 0 }
    }

    pub(crate) fn scored() -> ScoredRecord {
        let record = FlowRecord {
            flow_id: 42,
            tuple: Tuple {
                src: host("128.232.110.120").addr,
                dst: host("66.35.250.204").addr,
                src_port: 34855,
                dst_port: 80,
                protocol: 6,
                version: 4,
                vlan: 12,
                vni: 0,
            },
            start: 1_463_044_282_000_000_000,
            end: 1_463_044_285_900_000_000,
            emitted: 1_463_044_286_000_001_000,
            packets: [5, 4],
            bytes: [338, 272],
            tcp_flags: [0x1b, 0x02],
            state: FlowState::Closed,
            reason: EndReason::Fin,
            rule: RuleHandle(7),
            generation: 3,
            src_groups: GroupSetHandle(1),
            mirrors: 0b101,
            sizes: Spread { min: 60, max: 92, mean: 610.0 / 9.0, sd: 10.123_46 },
            gaps: Spread { min: 1_500, max: 3_000_000_000, mean: 487_500_000.0, sd: 1_234_567.4 },
            handshake_rtt: Some(21_345_678),
            retransmissions: [1, 0],
            out_of_window: [0, 2],
            entropy: [Some(4.251_234), None],
            ..FlowRecord::default()
        };
        let mut flags = Flags::default();
        flags.insert(AlertKind::Outlier);
        flags.insert(AlertKind::SynFlood);
        ScoredRecord { record, score: Some(0.123_456_78), flags }
    }

    fn line(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut bytes = Vec::new();
        write(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn flow_line_byte_for_byte() {
        let want = concat!(
            r#"{"timestamp":"2016-05-12T09:11:26.000001+0000","flow_id":42,"event_type":"flow","vlan":[12],"#,
            r#""src_ip":"128.232.110.120","src_port":34855,"dest_ip":"66.35.250.204","dest_port":80,"proto":"TCP","#,
            r#""community_id":"1:LQU9qZlK+B5F3KDmev6m5PMibrg=","#,
            r#""flow":{"pkts_toserver":5,"pkts_toclient":4,"bytes_toserver":338,"bytes_toclient":272,"#,
            r#""start":"2016-05-12T09:11:22.000000+0000","end":"2016-05-12T09:11:25.900000+0000","age":3,"#,
            r#""state":"closed","reason":"fin","size_min":60,"size_max":92,"size_mean":67.778,"size_sd":10.123,"#,
            r#""gap_min":1.5,"gap_max":3000000,"gap_mean":487500,"gap_sd":1234.567,"entropy_toserver":4.251},"#,
            r#""tcp":{"tcp_flags_ts":"1b","tcp_flags_tc":"02","rtt":21345.678,"#,
            r#""retransmissions_ts":1,"retransmissions_tc":0,"out_of_window_ts":0,"out_of_window_tc":2},"#,
            r#""gnomon":{"seq":17,"src_groups":["group \"0\""],"dst_groups":[],"rule":"rule-7","tier":"policy","#,
            r#""action":"allow","generation":3,"mirror":["session-3-0","session-3-2"],"mirror_rates":[0.333333,0.5],"#,
            r#""score":0.123457,"flags":["syn_flood","outlier"]}}"#,
            "\n"
        );
        assert_eq!(line(|out| write_flow(out, &scored(), Some(17), &Fixed)), want);
    }

    #[test]
    fn icmp_and_unnamed_protocols_have_no_ports() {
        let mut s = scored();
        s.record.tuple.protocol = 1;
        s.record.icmp = (8, 0);
        s.record.tuple.vlan = 0;
        s.record.tuple.vni = 5001;
        s.score = None;
        let v: serde_json::Value = serde_json::from_str(&line(|out| write_flow(out, &s, None, &Fixed))).unwrap();
        assert_eq!((&v["icmp_type"], &v["icmp_code"]), (&8.into(), &0.into()));
        assert!(v.get("src_port").is_none() && v.get("tcp").is_none() && v.get("vlan").is_none());
        assert!(v["gnomon"]["score"].is_null() && v["gnomon"].get("score").is_some());
        assert_eq!(v["gnomon"]["vni"], 5001);
        s.record.tuple.protocol = 89;
        let v: serde_json::Value = serde_json::from_str(&line(|out| write_flow(out, &s, None, &Fixed))).unwrap();
        assert_eq!(v["proto"], "89");
        assert!(v.get("icmp_type").is_none() && v.get("dest_port").is_none());
    }

    #[test]
    fn alert_lines() {
        let mut alert = Alert {
            episode: 4,
            kind: AlertKind::PortScan,
            status: Status::Closed,
            actor: Party::Host(host("10.0.0.9")),
            victim: Party::Host(host("2001:db8::1")),
            actor_groups: GroupSetHandle(1),
            victim_groups: GroupSetHandle(0),
            severity: 2,
            count: 100,
            raised: 5_000_000_000,
            first_seen: 1_000_000_000,
            last_seen: 11_000_000_000,
            evidence: Evidence {
                protocols: vec![6],
                ports: vec![22, 80],
                distinct_ports: 100,
                attempts: 110,
                failed: 100,
                rate: 10.0,
                flow_ids: vec![1, 2],
                ..Evidence::default()
            },
        };
        let text = line(|out| write_alert(out, &alert, &Fixed));
        assert_eq!(text, line(|out| write_alert(out, &alert, &Fixed)));
        let v: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&v["event_type"], &v["gnomon"]["kind"]), (&"alert".into(), &"port_scan".into()));
        assert_eq!((&v["src_ip"], &v["dest_ip"]), (&"10.0.0.9".into(), &"2001:db8::1".into()));
        assert_eq!((&v["actor"], &v["gnomon"]["victim"]), (&"10.0.0.9".into(), &"2001:db8::1".into()));
        assert_eq!(v["timestamp"], "1970-01-01T00:00:05.000000+0000");
        assert_eq!(v["gnomon"]["end"], "1970-01-01T00:00:11.000000+0000");
        assert_eq!(v["evidence"], v["gnomon"]["evidence"]);
        assert_eq!(v["evidence"]["failed_share"], 0.909_091);
        assert!(v["evidence"].get("peak_per_window").is_none());
        alert.kind = AlertKind::Outlier;
        alert.victim = Party::Many;
        alert.evidence.features = vec![("duration", 0.25)];
        let v: serde_json::Value = serde_json::from_str(&line(|out| write_alert(out, &alert, &Fixed))).unwrap();
        assert_eq!((&v["event_type"], &v["victim"]), (&"anomaly".into(), &"many".into()));
        assert!(v.get("dest_ip").is_none());
        assert_eq!(v["evidence"]["features"][0]["name"], "duration");
    }
}
