//! Compares the parser with the fields that tshark found in captures full of odd encapsulations.
//!
//! Data: `$GNOMON_SHARED/captures/edge/*` and `$GNOMON_SHARED/captures/truth/edge/*.tsv`. Frames that
//! tshark calls malformed are left out. tshark shows what a whole datagram holds in the frame of the
//! last fragment, the parser looks at one frame at a time: for frames that both call fragments, what
//! the parser found up to the fragmented IP header must be the beginning of tshark's list, and the rest
//! is not compared.

mod common;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use gnomon::capture::{CaptureReader, to_ethernet};
use gnomon::packet::{Headers, KeyFrom, Layer, layers, parse, subject};

/// Columns compared, in the order they are printed.
const FIELDS: [&str; 15] = [
    "vlan.id",
    "mpls.label",
    "vxlan.vni",
    "geneve.vni",
    "gtp.teid",
    "ip.src",
    "ip.dst",
    "ipv6.src",
    "ipv6.dst",
    "tcp.srcport",
    "tcp.dstport",
    "udp.srcport",
    "udp.dstport",
    "sctp.srcport",
    "sctp.dstport",
];

type Row = HashMap<String, String>;
/// Values of each of [`FIELDS`], outermost first.
type Found = BTreeMap<&'static str, Vec<String>>;

#[derive(Clone, Copy, Default)]
struct Score {
    /// Frames where either side has the field.
    frames: u32,
    agree: u32,
}

impl Score {
    fn add(&mut self, agrees: bool) {
        self.frames += 1;
        self.agree += u32::from(agrees);
    }

    fn share(self) -> f64 {
        if self.frames == 0 { 1.0 } else { f64::from(self.agree) / f64::from(self.frames) }
    }
}

#[derive(Default)]
struct Totals {
    fields: BTreeMap<&'static str, Score>,
    whole_frames: Score,
    files: BTreeMap<String, Score>,
    is_fragment: Score,
    sinks_agree: Score,
    skipped_malformed: u32,
    skipped_link: BTreeMap<String, u32>,
    disagreements: Vec<String>,
}

#[test]
fn agrees_with_tshark_on_odd_captures() {
    let Some(shared) = common::shared("agrees_with_tshark_on_odd_captures") else { return };
    let captures = shared.join("captures");
    let truth = captures.join("truth/edge");
    let mut names: Vec<PathBuf> = std::fs::read_dir(&truth).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let mut totals = Totals::default();
    for table in names {
        let name = table.file_stem().unwrap().to_str().unwrap().to_owned();
        compare_file(&name, &captures.join("edge").join(&name), &table, &mut totals);
    }
    print(&totals);
    for (field, score) in &totals.fields {
        assert!(score.share() >= 0.99, "{field}: {:.4}", score.share());
    }
    assert!(totals.is_fragment.share() >= 0.99);
    assert!(totals.whole_frames.share() >= 0.99);
    let mean = totals.files.values().map(|score| score.share()).sum::<f64>() / totals.files.len() as f64;
    assert!(mean >= 0.96, "mean over files {mean:.4}");
    assert_eq!(totals.sinks_agree.agree, totals.sinks_agree.frames);
}

fn compare_file(name: &str, capture: &Path, table: &Path, totals: &mut Totals) {
    let rows = rows(table);
    if rows.is_empty() {
        return;
    }
    let mut reader = CaptureReader::open(capture).expect("capture opens");
    let (mut ethernet, mut read) = (Vec::new(), 0);
    while let Some(packet) = reader.next_frame().expect("capture reads") {
        let Some(row) = rows.get(read) else { panic!("{name}: more packets than rows of truth") };
        read += 1;
        if !row["_ws.malformed"].is_empty() {
            totals.skipped_malformed += 1;
            continue;
        }
        let normalised = to_ethernet(packet.link, packet.data, packet.wire_len, &mut ethernet);
        if normalised.supported {
            compare_frame(name, &ethernet, normalised.wire_len(packet.wire_len), row, totals);
        } else {
            *totals.skipped_link.entry(packet.link.name()).or_default() += 1;
        }
    }
    assert_eq!(read, rows.len(), "{name}: packets read against rows of truth");
}

fn rows(table: &Path) -> Vec<Row> {
    let text = String::from_utf8_lossy(&std::fs::read(table).expect("table reads")).into_owned();
    let mut lines = text.lines();
    let Some(header) = lines.next() else { return Vec::new() };
    let columns: Vec<&str> = header.split('\t').collect();
    lines.map(|line| columns.iter().map(|c| c.to_string()).zip(line.split('\t').map(str::to_owned)).collect()).collect()
}

fn compare_frame(name: &str, frame: &[u8], wire_len: u32, row: &Row, totals: &mut Totals) {
    let (layers, fault) = layers(frame, wire_len);
    totals.sinks_agree.add(sinks_agree(frame, wire_len, &layers, fault));
    let first_fragmented = layers.iter().position(|layer| matches!(layer, Layer::Ip { fragment: Some(_), .. }));
    let theirs_is_fragment = is_fragment(row);
    totals.is_fragment.add(theirs_is_fragment == first_fragmented.is_some());
    let until = first_fragmented.filter(|_| theirs_is_fragment);
    let ours = collect(&layers[..until.map_or(layers.len(), |at| at + 1)]);
    let mut all_agree = true;
    for field in FIELDS {
        let theirs = values(row, field);
        let none = Vec::new();
        let ours = ours.get(field).unwrap_or(&none);
        if ours.is_empty() && (theirs.is_empty() || until.is_some()) {
            continue;
        }
        let agrees = if until.is_some() { theirs.starts_with(ours) } else { theirs == *ours };
        totals.fields.entry(field).or_default().add(agrees);
        if !agrees {
            all_agree = false;
            let (number, protocols) = (&row["frame.number"], &row["frame.protocols"]);
            let line = format!("{name} #{number} {field}: tshark {theirs:?}, here {ours:?} ({fault:?}; {protocols})");
            totals.disagreements.push(line);
        }
    }
    totals.whole_frames.add(all_agree);
    totals.files.entry(name.to_owned()).or_default().add(all_agree);
}

/// Whether the row is one of a fragment: any header says so.
fn is_fragment(row: &Row) -> bool {
    let any = |field: &str| values(row, field).iter().any(|value| value != "0");
    any("ip.flags.mf") || any("ip.frag_offset") || !row["ipv6.fraghdr.offset"].is_empty()
}

fn values(row: &Row, field: &str) -> Vec<String> {
    // GTP-C has a TEID too; only the user plane is a tunnel.
    if field == "gtp.teid" && !row["udp.srcport"].contains("2152") && !row["udp.dstport"].contains("2152") {
        return Vec::new();
    }
    row[field].split(',').filter(|value| !value.is_empty()).map(number).collect()
}

/// Hexadecimal numbers as decimal ones, everything else as it is.
fn number(text: &str) -> String {
    let hex = text.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok());
    hex.map_or_else(|| text.to_owned(), |value| value.to_string())
}

fn collect(layers: &[Layer]) -> Found {
    let mut found = Found::new();
    let mut put = |field: &'static str, value: String| found.entry(field).or_default().push(value);
    let mut protocol = 0;
    for layer in layers {
        match layer {
            // tshark keeps S-tags in a field of their own, which the tables do not have.
            Layer::Vlan { tpid: 0x88a8, .. } => {}
            Layer::Vlan { id, .. } => put("vlan.id", id.to_string()),
            Layer::Mpls { label } => put("mpls.label", label.to_string()),
            Layer::Vxlan { vni } => put("vxlan.vni", vni.to_string()),
            Layer::Geneve { vni, .. } => put("geneve.vni", vni.to_string()),
            Layer::GtpU { teid, .. } => put("gtp.teid", teid.to_string()),
            Layer::Ip { src, dst, protocol: upper, .. } => {
                protocol = *upper;
                put(if src.is_ipv4() { "ip.src" } else { "ipv6.src" }, src.to_string());
                put(if dst.is_ipv4() { "ip.dst" } else { "ipv6.dst" }, dst.to_string());
            }
            Layer::Tcp { src, dst, .. }
            | Layer::Udp { src, dst, .. }
            | Layer::Sctp { src, dst }
            | Layer::Ports { src, dst } => {
                let (src_field, dst_field) = match protocol {
                    6 => ("tcp.srcport", "tcp.dstport"),
                    17 => ("udp.srcport", "udp.dstport"),
                    _ => ("sctp.srcport", "sctp.dstport"),
                };
                put(src_field, src.to_string());
                put(dst_field, dst.to_string());
            }
            _ => {}
        }
    }
    found
}

/// Whether the fast path found the first and last of the layers' addresses and ports.
fn sinks_agree(frame: &[u8], wire_len: u32, layers: &[Layer], fault: Option<gnomon::packet::Malformed>) -> bool {
    let mut headers = Headers::default();
    if parse(frame, wire_len, &mut headers).err() != fault {
        return false;
    }
    let own = layers.iter().take_while(|layer| **layer != Layer::Quoted);
    let addresses: Vec<_> = own
        .filter_map(|layer| match layer {
            Layer::Ip { src, dst, .. } => Some((*src, *dst)),
            _ => None,
        })
        .collect();
    let of = |from| subject(&headers, from).map(|subject| (subject.tuple.src_ip(), subject.tuple.dst_ip()));
    of(KeyFrom::Outer) == addresses.first().copied() && of(KeyFrom::Inner) == addresses.last().copied()
}

fn print(totals: &Totals) {
    for line in &totals.disagreements {
        println!("{line}");
    }
    for field in FIELDS {
        let score = totals.fields.get(field).copied().unwrap_or_default();
        println!("{field:14} {:6} of {:6} = {:.4}", score.agree, score.frames, score.share());
    }
    let print =
        |name: &str, score: Score| println!("{name:14} {:6} of {:6} = {:.4}", score.agree, score.frames, score.share());
    print("is fragment", totals.is_fragment);
    print("whole frames", totals.whole_frames);
    let mean = totals.files.values().map(|score| score.share()).sum::<f64>() / totals.files.len() as f64;
    println!("mean over {} files {mean:.4}", totals.files.len());
    println!("left out: {} malformed, link types {:?}", totals.skipped_malformed, totals.skipped_link);
}
