//! Rule sets and packet traces in ClassBench's formats (Taylor and Turner, "ClassBench: A Packet Classification
//! Benchmark", 2007), plain or `.xz`, and what follows from them: rows and packets of the classification engine,
//! linear search, traces for sets that have none. Shared by the benchmark and the tests.
#![allow(dead_code, reason = "each program uses its own part")]

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, bail, ensure};
use gnomon::dpdk::{Acl, AclRule, FiveTuple};
use gnomon::trie::{BATCH, Batch, Engine, Kind, NO_ROW, Ranges, Row, Service, Side, mask};
use rand_core::Rng;
use rand_pcg::Pcg64Mcg;

/// A rule set and what is sent through it.
#[derive(Debug)]
pub struct RuleSet {
    pub name: String,
    pub rules: Vec<AclRule>,
    pub traces: Vec<Trace>,
}

#[derive(Debug)]
pub struct Trace {
    pub name: String,
    pub packets: Vec<FiveTuple>,
}

/// Packets of a derived trace.
const DERIVED: usize = 100_000;

impl RuleSet {
    /// With derived traces where there is no file.
    pub fn read(rules: &Path, traces: &[PathBuf]) -> Result<Self> {
        let name = stem(rules);
        let rules = read_rules(rules)?;
        if traces.is_empty() {
            return Ok(Self::derived(name, rules));
        }
        let read = |path: &PathBuf| Ok(Trace { name: extension(path), packets: read_trace(path)? });
        Ok(Self { name, rules, traces: traces.iter().map(read).collect::<Result<_>>()? })
    }

    /// With traces made from the rules.
    pub fn derived(name: impl Into<String>, rules: Vec<AclRule>) -> Self {
        let trace = Trace { name: "derived trace".into(), packets: derive_trace(&rules, DERIVED, 1) };
        let cross = Trace { name: "derived cross".into(), packets: cross(&trace.packets, DERIVED, 2) };
        Self { name: name.into(), rules, traces: vec![trace, cross] }
    }
}

/// Files of one set: `NAME.rules`, `NAME.trace`, `NAME.cross`, each perhaps with `.xz`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Files {
    /// What the name says, 10,000 for `acl1_10k`; 0 when it says nothing.
    pub size: usize,
    pub name: String,
    pub rules: PathBuf,
    pub traces: Vec<PathBuf>,
}

/// All sets of a folder, small ones first.
pub fn list(folder: &Path) -> Result<Vec<Files>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("{}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.sort_by_key(|path| (std::cmp::Reverse(extension(path)), path.clone()));
    let (rules, others): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| extension(path) == "rules");
    let files = rules.into_iter().map(|rules| {
        let name = stem(&rules);
        let of_set = |path: &&PathBuf| stem(path) == name && ["trace", "cross"].contains(&extension(path).as_str());
        let traces = others.iter().filter(of_set).cloned().collect();
        Files { size: size_in(&name), traces, rules, name }
    });
    let mut files: Vec<Files> = files.collect();
    files.sort();
    Ok(files)
}

fn size_in(name: &str) -> usize {
    let thousands = name.rsplit('_').next().and_then(|size| size.strip_suffix('k'));
    thousands.and_then(|number| number.parse::<usize>().ok()).unwrap_or(0) * 1000
}

/// The name without folder and `.rules`, `.rules.xz` and so on.
fn stem(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_suffix(".xz").unwrap_or(&name);
    name.rsplit_once('.').map_or(name, |(stem, _)| stem).to_owned()
}

fn extension(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_suffix(".xz").unwrap_or(&name);
    name.rsplit_once('.').map_or("", |(_, extension)| extension).to_owned()
}

/// Rules such as `@10.0.0.0/8 0.0.0.0/0 0 : 65535 80 : 80 0x06/0xFF 0x0000/0x0000`. TCP flags are ignored.
pub fn read_rules(path: &Path) -> Result<Vec<AclRule>> {
    let rules: Vec<AclRule> = read_lines(path, parse_rule)?;
    ensure!(!rules.is_empty(), "{}: there are no rules in it", path.display());
    Ok(rules)
}

/// Packets as lines of source, destination, source port, destination port, protocol in decimal; the rest of a line
/// is ignored.
pub fn read_trace(path: &Path) -> Result<Vec<FiveTuple>> {
    let packets: Vec<FiveTuple> = read_lines(path, parse_packet)?;
    ensure!(!packets.is_empty(), "{}: there are no packets in it", path.display());
    Ok(packets)
}

fn read_lines<T>(path: &Path, parse: impl Fn(&str) -> Result<T>) -> Result<Vec<T>> {
    let file = File::open(path).with_context(|| format!("{}", path.display()))?;
    let reader: Box<dyn BufRead> = if path.extension().is_some_and(|extension| extension == "xz") {
        Box::new(BufReader::new(lzma_rust2::XzReader::new(BufReader::new(file), true)))
    } else {
        Box::new(BufReader::new(file))
    };
    let mut parsed = Vec::new();
    for (index, line) in reader.lines().enumerate() {
        let at = || format!("{}:{}", path.display(), index + 1);
        let line = line.with_context(at)?;
        if !line.trim().is_empty() {
            parsed.push(parse(line.trim()).with_context(at)?);
        }
    }
    Ok(parsed)
}

fn parse_rule(line: &str) -> Result<AclRule> {
    let line = line.strip_prefix('@').context("a rule begins with @")?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let [src, dst, src_first, ":", src_last, dst_first, ":", dst_last, protocol, ..] = words.as_slice() else {
        bail!("a rule is @SRC/LEN DST/LEN LOW : HIGH LOW : HIGH PROTOCOL/MASK FLAGS/MASK");
    };
    let (protocol, protocol_mask) = protocol.split_once('/').context("a protocol is 0xNN/0xMASK")?;
    let protocol_mask = hexadecimal(protocol_mask)?;
    Ok(AclRule {
        protocol: hexadecimal(protocol)? & protocol_mask,
        protocol_mask,
        src: prefix(src)?,
        dst: prefix(dst)?,
        src_ports: ports(src_first, src_last)?,
        dst_ports: ports(dst_first, dst_last)?,
    })
}

fn parse_packet(line: &str) -> Result<FiveTuple> {
    let mut words = line.split_whitespace();
    let mut next = || words.next().context("a packet is SRC DST SRC_PORT DST_PORT PROTOCOL in decimal");
    Ok(FiveTuple {
        src: decimal::<u32>(next()?)?.to_be_bytes(),
        dst: decimal::<u32>(next()?)?.to_be_bytes(),
        src_port: decimal::<u16>(next()?)?.to_be_bytes(),
        dst_port: decimal::<u16>(next()?)?.to_be_bytes(),
        protocol: decimal(next()?)?,
        padding: [0; 3],
    })
}

/// Address and length; bits beyond the length are cleared.
fn prefix(text: &str) -> Result<(u32, u8)> {
    let net: ipnet::Ipv4Net = text.parse().map_err(|_| anyhow!("`{text}` is not an IPv4 prefix"))?;
    Ok((net.network().into(), net.prefix_len()))
}

fn ports(first: &str, last: &str) -> Result<RangeInclusive<u16>> {
    let (first, last) = (decimal::<u16>(first)?, decimal::<u16>(last)?);
    ensure!(first <= last, "ports {first} : {last} are none");
    Ok(first..=last)
}

fn decimal<T: FromStr>(text: &str) -> Result<T> {
    text.parse().map_err(|_| anyhow!("`{text}` is not a decimal number in range"))
}

fn hexadecimal(text: &str) -> Result<u8> {
    let digits = text.strip_prefix("0x").with_context(|| format!("`{text}` does not begin with 0x"))?;
    u8::from_str_radix(digits, 16).map_err(|_| anyhow!("`{text}` is not a hexadecimal byte"))
}

/// The rules as rows of the engine.
pub fn rows(rules: &[AclRule]) -> Vec<Row> {
    rules.iter().map(row).collect()
}

fn row(rule: &AclRule) -> Row {
    let side = |(address, len): (u32, u8)| Side::new(Kind::Address, address, len);
    let ranges = |range: &RangeInclusive<u16>| Ranges::new([range.clone()]).expect("never an empty range");
    let service = Service {
        protocol: rule.protocol.into(),
        protocol_mask: rule.protocol_mask.into(),
        src_ports: ranges(&rule.src_ports),
        dst_ports: ranges(&rule.dst_ports),
    };
    Row { src: side(rule.src), dst: side(rule.dst), service, ..Row::default() }
}

/// Replaces what is in `batch` by these packets, at most [`BATCH`].
pub fn fill(batch: &mut Batch, packets: &[FiveTuple]) {
    batch.len = packets.len();
    for (at, packet) in packets.iter().enumerate().take(BATCH) {
        batch.src[Kind::Address as usize][at] = u32::from_be_bytes(packet.src);
        batch.dst[Kind::Address as usize][at] = u32::from_be_bytes(packet.dst);
        batch.protocol[at] = packet.protocol.into();
        batch.src_port[at] = u16::from_be_bytes(packet.src_port);
        batch.dst_port[at] = u16::from_be_bytes(packet.dst_port);
    }
}

/// The first rule that the packet matches, by looking at one after the other: the oracle. Knows nothing of rows.
pub fn linear(rules: &[AclRule], packet: &FiveTuple) -> u32 {
    let (src, dst) = (u32::from_be_bytes(packet.src), u32::from_be_bytes(packet.dst));
    let (src_port, dst_port) = (u16::from_be_bytes(packet.src_port), u16::from_be_bytes(packet.dst_port));
    let matches = |rule: &AclRule| {
        (src ^ rule.src.0) & mask(rule.src.1) == 0
            && (dst ^ rule.dst.0) & mask(rule.dst.1) == 0
            && (packet.protocol ^ rule.protocol) & rule.protocol_mask == 0
            && rule.dst_ports.contains(&dst_port)
            && rule.src_ports.contains(&src_port)
    };
    rules.iter().position(matches).map_or(NO_ROW, |at| at as u32)
}

/// What `rte_acl` wants of a burst of at most [`BATCH`] packets; the last places repeat its first packet.
pub fn pointers<P>(burst: &[P]) -> [&P; BATCH] {
    let mut pointers = [&burst[0]; BATCH];
    pointers.iter_mut().zip(burst).for_each(|(pointer, packet)| *pointer = packet);
    pointers
}

/// The engine's result for every packet.
pub fn engine_found(engine: &Engine, packets: &[FiveTuple]) -> Vec<u32> {
    let (mut batch, mut found) = (Batch::default(), [0; BATCH]);
    let mut all = Vec::with_capacity(packets.len());
    for burst in packets.chunks(BATCH) {
        fill(&mut batch, burst);
        engine.lookup(&batch, &mut found);
        all.extend_from_slice(&found[..burst.len()]);
    }
    all
}

/// The result of `rte_acl` for every packet, as the engine would give it.
pub fn acl_found(acl: &Acl, packets: &[FiveTuple]) -> Vec<u32> {
    let mut found = [0; BATCH];
    let mut all = Vec::with_capacity(packets.len());
    for burst in packets.chunks(BATCH) {
        acl.classify(&pointers(burst)[..burst.len()], &mut found);
        all.extend(found[..burst.len()].iter().map(|found| found.checked_sub(1).unwrap_or(NO_ROW)));
    }
    all
}

/// Every how many packets linear search looks at one: at all as long as rules times packets are at most `limit`, else
/// at as many as that allows, but no fewer than `least`.
pub fn sampling_step(rules: usize, packets: usize, limit: usize, least: usize) -> usize {
    (packets / (limit / rules.max(1)).max(least).max(1).min(packets.max(1))).max(1)
}

/// `count` packets that lie in rules drawn at random: in each dimension at an end of what the rule matches or anywhere
/// between, as ClassBench's trace generator does it, without locality.
pub fn derive_trace(rules: &[AclRule], count: usize, seed: u64) -> Vec<FiveTuple> {
    let mut dice = dice(seed);
    let packet = |_| {
        let rule = &rules[below(&mut dice, rules.len())];
        let mut port = |range: &RangeInclusive<u16>| {
            (point(&mut dice, (*range.start()).into(), (*range.end()).into()) as u16).to_be_bytes()
        };
        let (src_port, dst_port) = (port(&rule.src_ports), port(&rule.dst_ports));
        let mut address = |(first, len): (u32, u8)| point(&mut dice, first, first | !mask(len)).to_be_bytes();
        let (src, dst) = (address(rule.src), address(rule.dst));
        let protocol = rule.protocol | (point(&mut dice, 0, 255) as u8 & !rule.protocol_mask);
        FiveTuple { protocol, padding: [0; 3], src, dst, src_port, dst_port }
    };
    (0..count).map(packet).collect()
}

/// `count` packets with source, destination and service of three packets of `trace` each: few of them lie in the
/// specific rules, all of them look as if they might.
pub fn cross(trace: &[FiveTuple], count: usize, seed: u64) -> Vec<FiveTuple> {
    let mut dice = dice(seed);
    let mut any = || trace[below(&mut dice, trace.len())];
    (0..count).map(|_| FiveTuple { src: any().src, dst: any().dst, ..any() }).collect()
}

fn point(dice: &mut Pcg64Mcg, first: u32, last: u32) -> u32 {
    match below(dice, 3) {
        0 => first,
        1 => last,
        _ => first + below(dice, (last - first) as usize + 1) as u32,
    }
}

/// Seeded randomness, past the generator's first, poor values.
pub fn dice(seed: u64) -> Pcg64Mcg {
    let mut dice = Pcg64Mcg::new((u128::from(seed) << 64) | 1);
    (0..8).for_each(|_| _ = dice.next_u64());
    dice
}

/// Below `n`, which is at least 1.
pub fn below(dice: &mut Pcg64Mcg, n: usize) -> usize {
    ((u128::from(dice.next_u64()) * n as u128) >> 64) as usize
}
