//! Tables that stand once: cores, eal, flow, scorer, limits.

use std::path::PathBuf;
use std::time::Duration;

use super::{detect, export};
use crate::behaviour::ExpectSettings;
use crate::config::document::Place;
use crate::config::model::{Config, Control, Cores, Eal, Export, Flow, Limits, Metrics, Scorer, Store, Timeouts};
use crate::config::problem::Problems;
use crate::config::raw::{
    KeyWord, RawControl, RawCores, RawEal, RawFlow, RawLimits, RawScorerCore, RawTimeouts, WindowWord,
};
use crate::config::raw_detect::RawPairs;
use crate::config::raw_models::{RawRetrain, RawScorer, RawStore};
use crate::config::shape::Shaped;
use crate::config::text::{DurationText, PciAddress};
use crate::flow::{TcpRules, WindowCheck};
use crate::packet::KeyFrom;

/// Bytes of one packet buffer: 2 KiB of data, headroom, DPDK's header.
const MBUF_BYTES: u64 = 2048 + 128 + 128;
const LONGEST: Duration = Duration::from_secs(30 * 86_400);

#[derive(Debug)]
pub(super) struct Settings {
    pub(super) cores: Cores,
    pub(super) eal: Eal,
    pub(super) flow: Flow,
    pub(super) scorer: Scorer,
    pub(super) store: Store,
    pub(super) export: Export,
    pub(super) control: Control,
    pub(super) metrics: Metrics,
    pub(super) limits: Limits,
    pub(super) seed: u64,
}

pub(super) fn resolve(problems: &mut Problems<'_>, shaped: &mut Shaped) -> Settings {
    let RawControl { enabled, socket, group } = shaped.section(problems, "control");
    let RawStore { enabled: stores, path } = shaped.section(problems, "store");
    let limits: RawLimits = shaped.section(problems, "limits");
    let seed: Option<u64> = shaped.section(problems, "seed");
    Settings {
        cores: cores(problems, shaped),
        eal: eal(problems, shaped),
        flow: flow(problems, shaped),
        scorer: scorer(problems, shaped),
        store: Store { enabled: stores, path: path.map(PathBuf::from) },
        export: export::export(problems, shaped),
        control: Control { enabled, socket: socket.map(PathBuf::from), group },
        metrics: export::metrics(problems, shaped),
        limits: Limits {
            rules: limits.rules,
            fragments: limits.fragments,
            policy_memory_mb: policy_memory(problems, &limits),
        },
        seed: seed.unwrap_or(Config::DEFAULT_SEED),
    }
}

fn policy_memory(problems: &mut Problems<'_>, limits: &RawLimits) -> u32 {
    let place = Place::root().key("limits").key("policy_memory");
    limits.policy_memory.mebibytes().filter(|mb| (1..=1 << 22).contains(mb)).unwrap_or_else(|| {
        let found = problems.document.source(&place);
        problems.error(&place, "`policy_memory` is out of range").found(found).allowed("a size from 1MiB to 4096GiB");
        Limits::default().policy_memory_mb
    })
}

fn cores(problems: &mut Problems<'_>, shaped: &mut Shaped) -> Cores {
    let place = Place::root().key("cores").key("workers");
    let raw: RawCores = shaped.section(problems, "cores");
    for (position, cpu) in raw.workers.iter().enumerate() {
        if raw.workers[..position].contains(cpu) {
            problems.warning(&place.index(position), format!("several workers poll on CPU {cpu} and share its time"));
        }
    }
    let scorer = match raw.scorer {
        RawScorerCore::Cpu(cpu) => Some(cpu),
        RawScorerCore::Any(_) => None,
    };
    Cores { main: raw.main, workers: raw.workers, scorer }
}

fn eal(problems: &mut Problems<'_>, shaped: &mut Shaped) -> Eal {
    const LEAST_MB: u32 = 64;
    let place = Place::root().key("eal");
    let raw: RawEal = shaped.section(problems, "eal");
    let memory = place.key("memory");
    let memory_mb = raw.memory.mebibytes().filter(|mb| (LEAST_MB..=1 << 22).contains(mb)).unwrap_or_else(|| {
        let found = problems.document.source(&memory);
        problems.error(&memory, "`memory` is out of range").found(found).allowed("a size from 64MiB to 4096GiB");
        LEAST_MB
    });
    let needed = (u64::from(raw.mbufs) * MBUF_BYTES).div_ceil(1 << 20);
    if needed > u64::from(memory_mb) && !shaped.touched(&place) {
        let at = if problems.document.contains(&memory) { memory } else { place.key("mbufs") };
        let message = format!("{} packet buffers need about {needed}MiB, memory is {memory_mb}MiB", raw.mbufs);
        problems.error(&at, message).allowed("more `memory` or fewer `mbufs`");
    }
    Eal {
        hugepages: raw.hugepages,
        memory_mb,
        file_prefix: raw.file_prefix.0,
        pci_allow: raw.pci_allow.iter().map(|pci| PciAddress::canonical(&pci.0)).collect(),
        mbufs: raw.mbufs,
    }
}

fn flow(problems: &mut Problems<'_>, shaped: &mut Shaped) -> Flow {
    let raw: RawFlow = shaped.section(problems, "flow");
    let key_from = match raw.key {
        KeyWord::Outer => KeyFrom::Outer,
        KeyWord::Inner => KeyFrom::Inner,
    };
    let window = match raw.tcp_window {
        WindowWord::Off => WindowCheck::Off,
        WindowWord::Loose => WindowCheck::Loose,
        WindowWord::Strict => WindowCheck::Strict,
    };
    let tcp = TcpRules { window, asymmetric: raw.asymmetric };
    if tcp.asymmetric && window == WindowCheck::Strict {
        let place = Place::root().key("flow").key("tcp_window");
        problems
            .warning(&place, "windows cannot be checked where connections are seen one way only")
            .allowed("`asymmetric = false`, or `tcp_window` off or loose");
    }
    Flow { key_from, capacity: raw.capacity, tcp, timeouts: timeouts(problems, &raw.timeouts) }
}

fn timeouts(problems: &mut Problems<'_>, raw: &RawTimeouts) -> Timeouts {
    let place = Place::root().key("flow").key("timeouts");
    let default = Timeouts::default();
    let given = |key: &str| problems.document.contains(&place.key(key));
    let [only_opening, only_established, only_udp] = ["tcp_opening", "tcp_established", "udp"].map(given);
    let mut read = |key: &str, text: &DurationText| duration(problems, &place.key(key), text);
    let tcp_opening = read("tcp_opening", &raw.tcp_opening);
    let tcp_established = read("tcp_established", &raw.tcp_established);
    let udp = read("udp", &raw.udp);
    // Files that know only the older, coarser keys mean all that these once stood for.
    let mut finer = |key: &str, text: &Option<DurationText>, otherwise: Duration| {
        text.as_ref().map_or(otherwise, |text| read(key, text))
    };
    let opening = if only_opening { tcp_opening } else { default.tcp_syn_received };
    let closing = if only_established { tcp_established.min(default.tcp_closing) } else { default.tcp_closing };
    let answered = if only_udp { udp } else { default.udp_answered };
    let tcp_syn_received = finer("tcp_syn_received", &raw.tcp_syn_received, opening);
    let tcp_closing = finer("tcp_closing", &raw.tcp_closing, closing);
    let udp_answered = finer("udp_answered", &raw.udp_answered, answered);
    Timeouts {
        tcp_opening,
        tcp_syn_received,
        tcp_established,
        tcp_closing,
        tcp_closed: read("tcp_closed", &raw.tcp_closed),
        udp,
        udp_answered,
        icmp: read("icmp", &raw.icmp),
        other: read("other", &raw.other),
        active: read("active", &raw.active),
        fragments: read("fragments", &raw.fragments),
    }
}

fn scorer(problems: &mut Problems<'_>, shaped: &mut Shaped) -> Scorer {
    let place = Place::root().key("scorer");
    let raw: RawScorer = shaped.section(problems, "scorer");
    let RawScorer { enabled, warmup_records, trees, sample, contamination, ring, .. } = raw;
    if sample > warmup_records && enabled && !shaped.touched(&place) {
        let message = format!("each tree asks for {sample} records but only {warmup_records} are collected");
        let at = if problems.document.contains(&place.key("sample")) { "sample" } else { "warmup_records" };
        problems.warning(&place.key(at), message).allowed("`sample` not larger than `warmup_records`");
    }
    let retrain = match &raw.retrain {
        RawRetrain::Never(_) => None,
        RawRetrain::Every(text) => Some(duration(problems, &place.key("retrain"), text)),
    };
    if raw.promote_after.is_some() && !raw.shadow && !shaped.touched(&place) {
        let message = "nothing is ever promoted: new models take the place of the active one at once";
        problems.warning(&place.key("promote_after"), message).allowed("`shadow = true` beside it");
    }
    Scorer {
        enabled,
        warmup_records,
        members: raw.members.into_iter().collect(),
        trees,
        sample,
        contamination,
        ring,
        retrain,
        retrain_on_drift: raw.retrain_on_drift,
        shadow: raw.shadow,
        promote_after: raw.promote_after,
        per_group: raw.per_group,
        group_records: raw.group_records,
        pairs: expected(problems, &place.key("pairs"), &raw.pairs),
        detect: detect::thresholds(problems, &place.key("detect"), raw.detect),
    }
}

fn expected(problems: &mut Problems<'_>, place: &Place, raw: &RawPairs) -> ExpectSettings {
    let interval = duration(problems, &place.key("interval"), &raw.interval);
    if !(Duration::from_secs(10)..=Duration::from_secs(3600)).contains(&interval) {
        let problem = problems.error(&place.key("interval"), "intervals of group pairs have this length");
        problem.allowed("10s to 1h");
    }
    let learning = duration(problems, &place.key("learning"), &raw.learning);
    let RawPairs { enabled, most: pairs, score, model, .. } = *raw;
    ExpectSettings { enabled, interval, learning, pairs, score, model }
}

pub(super) fn duration(problems: &mut Problems<'_>, place: &Place, text: &DurationText) -> Duration {
    text.duration().filter(|d| !d.is_zero() && *d <= LONGEST).unwrap_or_else(|| {
        let found = problems.document.source(place);
        problems.error(place, "the duration is out of range").found(found).allowed("a duration from 1ms to 30d");
        LONGEST
    })
}
