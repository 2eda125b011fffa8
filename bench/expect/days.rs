//! Days of traffic with a truth: `gnomon scenario` makes each, `gnomon replay` turns it into flow records, and every
//! record is labelled by the attack that the truth says it belongs to. A day's capture is deleted before the next.
//!
//! Days begin at midnight, Monday the first; each is a replay of its own, so what the detectors flag is what they find
//! within the day.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use gnomon::behaviour::{Service, Slice};
use gnomon::packet::Host;
use gnomon::rules::GroupSetHandle;
use serde_json::Value;

pub const SECOND: u64 = 1_000_000_000;
pub const DAY: u64 = 86_400 * SECOND;
/// Midnight of Monday, 2025-01-13.
pub const MONDAY: u64 = 1_736_726_400 * SECOND;

/// A record, and the attack it belongs to: its place in [`Days::attacks`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    pub slice: Slice,
    pub attack: Option<u16>,
}

/// All records of one seed in order, and what attacks there are.
#[derive(Debug, Default)]
pub struct Days {
    pub rows: Vec<Row>,
    /// Kind and day of each.
    pub attacks: Vec<(String, u64)>,
    /// By number of the set.
    pub groups: Vec<String>,
}

/// What to make.
#[derive(Clone, Debug)]
pub struct Plan {
    pub gnomon: PathBuf,
    pub seed: u64,
    pub days: u64,
    /// Days without attacks at the beginning.
    pub quiet: u64,
    /// New flows a second at the busiest hour.
    pub rate: f64,
    /// Where what was made is kept for another time.
    pub keep: Option<PathBuf>,
}

const KINDS: [&str; 10] = [
    "port_scan",
    "host_sweep",
    "syn_flood",
    "udp_flood",
    "icmp_flood",
    "brute_force",
    "dns_tunnel",
    "exfiltration",
    "beacon",
    "new_relationship",
];

impl Days {
    /// Makes all days, or reads what was kept of them.
    pub fn make(plan: &Plan) -> Result<Self> {
        let mut days = Self::default();
        for day in 0..plan.days {
            let name = format!("seed-{}-day-{day}-rate-{}.csv", plan.seed, plan.rate);
            let kept = plan.keep.as_ref().map(|folder| folder.join(name));
            match kept.filter(|kept| kept.exists()) {
                Some(kept) => days.read(&kept)?,
                None => {
                    let first = days.rows.len();
                    days.play(plan, day)?;
                    if let Some(folder) = &plan.keep {
                        fs::create_dir_all(folder)?;
                        days.write(
                            &folder.join(format!("seed-{}-day-{day}-rate-{}.csv", plan.seed, plan.rate)),
                            first,
                        )?;
                    }
                }
            }
        }
        Ok(days)
    }

    fn play(&mut self, plan: &Plan, day: u64) -> Result<()> {
        let folder = tempfile::tempdir()?;
        let (made, out) = (folder.path().join("made"), folder.path().join("out"));
        let attacks = attacks(plan, day);
        let (date, seed) = (format!("2025-01-{:02}T00:00", 13 + day), plan.seed * 1000 + day);
        let mut scenario = Command::new(&plan.gnomon);
        scenario.arg("scenario").arg("-o").arg(&made).args(["--minutes", "1440", "--start", &date]);
        scenario.args(["--seed", &seed.to_string(), "--rate", &plan.rate.to_string(), "--attacks", &attacks]);
        finish(scenario)?;
        let configuration = made.join("scenario.toml");
        let mut replay = Command::new(&plan.gnomon);
        replay.arg("replay").arg(made.join("scenario.pcap")).arg("-c").arg(configuration).arg("-o").arg(&out);
        finish(replay)?;
        let truth = Truth::read(&made, self.attacks.len())?;
        self.attacks.extend(truth.kinds.iter().map(|kind| (kind.clone(), day)));
        for line in BufReader::new(File::open(out.join("flows.jsonl"))?).lines() {
            let value: Value = serde_json::from_str(&line?)?;
            let row = self.row(&value, &truth).with_context(|| format!("a flow: {value}"))?;
            self.rows.push(row);
        }
        Ok(())
    }

    fn row(&mut self, value: &Value, truth: &Truth) -> Option<Row> {
        let flow = &value["flow"];
        let number = |name: &str| flow[name].as_u64();
        let protocol = match value["proto"].as_str()? {
            "TCP" => 6,
            "UDP" => 17,
            "ICMP" => 1,
            "IPv6-ICMP" | "ICMPV6" | "ICMPv6" => 58,
            _ => 0,
        };
        let hosts = [host(&value["src_ip"])?, host(&value["dest_ip"])?];
        let ports = [&value["src_port"], &value["dest_port"]].map(|port| port.as_u64().map(|port| port as u16));
        let packets = [number("pkts_toserver")?, number("pkts_toclient")?];
        let gnomon = &value["gnomon"];
        let flags = gnomon["flags"].as_array()?;
        let slice = Slice {
            at: time(value["timestamp"].as_str()?)?,
            pair: (self.group(&gnomon["src_groups"]), self.group(&gnomon["dst_groups"])),
            service: Service::of(protocol, ports[1]),
            source: hosts[0],
            destination: hosts[1],
            packets,
            bytes: [number("bytes_toserver")?, number("bytes_toclient")?],
            ended: flow["reason"] != "active",
            refused: gnomon["action"] != "allow" || packets[1] == 0,
            attack: flags.iter().any(|flag| flag != "outlier"),
        };
        let key = Key { hosts, ports: ports.map(Option::unwrap_or_default), protocol };
        let attack = truth.attack(&key, time(flow["start"].as_str()?)?);
        Some(Row { slice, attack })
    }

    fn group(&mut self, names: &Value) -> GroupSetHandle {
        let names = names.as_array().into_iter().flatten().filter_map(Value::as_str);
        self.group_named(&names.collect::<Vec<_>>().join("+"))
    }

    fn group_named(&mut self, name: &str) -> GroupSetHandle {
        if let Some(known) = self.groups.iter().position(|group| group == name) {
            return GroupSetHandle(known as u32);
        }
        self.groups.push(name.to_owned());
        GroupSetHandle((self.groups.len() - 1) as u32)
    }

    fn write(&self, path: &Path, first: usize) -> Result<()> {
        let aside = path.with_extension("part");
        let mut file = BufWriter::new(File::create(&aside)?);
        for (kind, day) in &self.attacks {
            writeln!(file, "attack {kind} {day}")?;
        }
        for Row { slice: s, attack } in &self.rows[first..] {
            let port = port_of(s.service);
            let group = |handle: GroupSetHandle| &self.groups[handle.0 as usize];
            let bits = [s.ended, s.refused, s.attack].map(u8::from);
            writeln!(
                file,
                "{} {}> {}> {} {port} {} {} {} {} {} {} {} {} {} {}",
                s.at,
                group(s.pair.0),
                group(s.pair.1),
                s.service.protocol,
                s.source.ip(),
                s.destination.ip(),
                s.packets[0],
                s.packets[1],
                s.bytes[0],
                s.bytes[1],
                bits[0],
                bits[1],
                bits[2],
                attack.map_or(-1, i32::from)
            )?;
        }
        file.into_inner()?.sync_all()?;
        Ok(fs::rename(aside, path)?)
    }

    fn read(&mut self, path: &Path) -> Result<()> {
        self.attacks.clear();
        for line in BufReader::new(File::open(path)?).lines() {
            let line = line?;
            let words: Vec<&str> = line.split(' ').collect();
            if let ["attack", kind, day] = words[..] {
                self.attacks.push((kind.to_owned(), day.parse()?));
                continue;
            }
            let row = self.kept(&words).with_context(|| format!("{}: {line}", path.display()))?;
            self.rows.push(row);
        }
        Ok(())
    }

    fn kept(&mut self, words: &[&str]) -> Option<Row> {
        let number = |at: usize| words.get(at)?.parse::<u64>().ok();
        let host = |at: usize| Some(host_of(words.get(at)?.parse().ok()?));
        let port = words.get(4)?.parse::<u16>().ok();
        let slice = Slice {
            at: number(0)?,
            pair: (self.group_named(words[1].trim_end_matches('>')), self.group_named(words[2].trim_end_matches('>'))),
            service: Service::of(number(3)? as u8, port),
            source: host(5)?,
            destination: host(6)?,
            packets: [number(7)?, number(8)?],
            bytes: [number(9)?, number(10)?],
            ended: number(11)? == 1,
            refused: number(12)? == 1,
            attack: number(13)? == 1,
        };
        Some(Row { slice, attack: words.get(14)?.parse::<i32>().ok().and_then(|n| u16::try_from(n).ok()) })
    }
}

/// A port of the class, for the file.
fn port_of(service: Service) -> String {
    use gnomon::behaviour::PortClass::{Ephemeral, Known, None, Other, Registered, System};
    match service.port {
        None | Other => "-".to_owned(),
        Known(port) => port.to_string(),
        System => "1".to_owned(),
        Registered => "1024".to_owned(),
        Ephemeral => "40000".to_owned(),
    }
}

/// One of each kind at minutes that the seed chooses; the beacon, which goes on to midnight, in the last hours.
fn attacks(plan: &Plan, day: u64) -> String {
    if day < plan.quiet {
        return "none".to_owned();
    }
    let mut state = plan.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ day.wrapping_mul(0xd1b5_4a32_d192_ed03);
    let mut minute = |from: u64, to: u64| {
        // Steele, Lea, Flood 2014.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        from + (z ^ (z >> 31)) % (to - from)
    };
    let at = |kind: &&str| if *kind == "beacon" { minute(1260, 1380) } else { minute(30, 1380) };
    let minutes: Vec<u64> = KINDS.iter().map(at).collect();
    let words: Vec<String> = KINDS.iter().zip(minutes).map(|(kind, minute)| format!("{kind}@{minute}")).collect();
    words.join(",")
}

fn finish(mut command: Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    hosts: [Host; 2],
    ports: [u16; 2],
    protocol: u8,
}

/// Flows of attacks, and their kinds by number.
struct Truth {
    flows: HashMap<Key, Vec<(u64, u64, u16)>>,
    kinds: Vec<String>,
}

impl Truth {
    fn read(folder: &Path, before: usize) -> Result<Self> {
        let whole: Value = serde_json::from_reader(BufReader::new(File::open(folder.join("truth.json"))?))?;
        let attacks = whole["attacks"].as_array().context("attacks in truth.json")?;
        let kinds = attacks.iter().map(|attack| attack["kind"].as_str().unwrap_or_default().to_owned()).collect();
        let mut flows: HashMap<Key, Vec<(u64, u64, u16)>> = HashMap::new();
        for line in BufReader::new(File::open(folder.join("truth-flows.csv"))?).lines().skip(1) {
            let line = line?;
            let fields: Vec<&str> = line.split(',').collect();
            let Some(number) = fields.last().and_then(|field| field.parse::<usize>().ok()) else { continue };
            let protocol = match fields[7] {
                "tcp" => 6,
                "udp" => 17,
                "icmp" => 1,
                _ => 58,
            };
            let ports = if protocol == 6 || protocol == 17 { [fields[4].parse()?, fields[6].parse()?] } else { [0, 0] };
            let key = Key { hosts: [host_of(fields[3].parse()?), host_of(fields[5].parse()?)], ports, protocol };
            let (start, end) = (seconds(fields[1])?, seconds(fields[2])?);
            flows.entry(key).or_default().push((start, end, (before + number - 1) as u16));
        }
        Ok(Self { flows, kinds })
    }

    fn attack(&self, key: &Key, start: u64) -> Option<u16> {
        let turned = Key { hosts: [key.hosts[1], key.hosts[0]], ports: [key.ports[1], key.ports[0]], ..*key };
        let flows = self.flows.get(key).or_else(|| self.flows.get(&turned))?;
        let within = |(from, to, _): &&(u64, u64, u16)| start + SECOND >= *from && start <= *to + SECOND;
        flows.iter().find(within).map(|(_, _, attack)| *attack)
    }
}

fn host(value: &Value) -> Option<Host> {
    Some(host_of(value.as_str()?.parse().ok()?))
}

fn host_of(ip: IpAddr) -> Host {
    let (version, addr) = match ip {
        IpAddr::V4(v4) => (4, u128::from(u32::from(v4))),
        IpAddr::V6(v6) => (6, u128::from(v6)),
    };
    Host { version, addr, vlan: 0, vni: 0 }
}

fn seconds(text: &str) -> Result<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    Ok(whole.parse::<u64>()? * SECOND + format!("{part:0<9}").parse::<u64>()?)
}

/// `2025-01-13T00:00:32.754304+0000` in January 2025, the only month there is here.
fn time(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    let day = number(8, 10)? - 13;
    let second = number(11, 13)? * 3600 + number(14, 16)? * 60 + number(17, 19)?;
    Some(MONDAY + day * DAY + second * SECOND + number(20, 26)? * 1000)
}
