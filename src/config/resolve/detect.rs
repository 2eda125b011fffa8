//! Thresholds and exceptions of the detectors.

use super::filter::selectors;
use super::groups::{Groups, Vms, network};
use super::settings::duration;
use crate::config::detect::{Detect, DetectException, DetectSide};
use crate::config::document::Place;
use crate::config::problem::Problems;
use crate::config::raw::OneOrMany;
use crate::config::raw_detect::{RawDetect, RawDetectException};
use crate::config::shape::{Entry, Shaped};
use crate::rules::Selector;

pub(super) fn thresholds(problems: &mut Problems<'_>, place: &Place, raw: RawDetect) -> Detect {
    let mut read = |key: &str, text| duration(problems, &place.key(key), text);
    let [window, slow_window] = [read("window", &raw.window), read("slow_window", &raw.slow_window)];
    let [udp_window, learning] = [read("udp_window", &raw.udp_window), read("learning", &raw.learning)];
    if slow_window < window {
        let problem = problems.error(&place.key("slow_window"), "`slow_window` is shorter than `window`");
        problem.allowed("a duration not shorter than `window`");
    }
    let nets = raw.inside.iter().enumerate();
    let inside = nets.filter_map(|(at, text)| network(problems, &place.key("inside").index(at), text)).collect();
    Detect {
        window,
        slow_window,
        udp_window,
        learning,
        port_scan: raw.port_scan,
        host_sweep: raw.host_sweep,
        admin_sweep: raw.admin_sweep,
        ping_sweep: raw.ping_sweep,
        arp_sweep: raw.arp_sweep,
        syn_flood: raw.syn_flood,
        udp_flood: raw.udp_flood,
        icmp_flood: raw.icmp_flood,
        amplification: raw.amplification,
        brute_force: raw.brute_force,
        slow_http: raw.slow_http,
        dns_tunnel: raw.dns_tunnel,
        icmp_tunnel: raw.icmp_tunnel,
        beacon: raw.beacon,
        beacon_jitter: raw.beacon_jitter,
        exfiltration: raw.exfiltration,
        arp_spoof: raw.arp_spoof,
        new_relationship: raw.new_relationship,
        volume: raw.volume,
        volume_factor: raw.volume_factor,
        inside,
        exceptions: Vec::new(),
    }
}

/// In the order of the file.
pub(super) fn exceptions(
    problems: &mut Problems<'_>,
    shaped: &mut Shaped,
    groups: &Groups,
    vms: &Vms,
) -> Vec<DetectException> {
    let entries: Vec<Entry<RawDetectException>> = shaped.list(problems, "detect");
    let mut exceptions = Vec::new();
    for Entry { place, raw, wrong } in entries {
        if raw.exclude == raw.threshold.is_some() && wrong.none_of(&["exclude", "threshold"]) {
            let problem =
                problems.error(&place, "an exception says either that there is no alert, or another threshold");
            problem.allowed("`exclude = true`, or `threshold` with a number");
        }
        if raw.threshold.is_some() && raw.kinds.len() != 1 && wrong.none_of(&["kinds", "threshold"]) {
            let problem = problems.error(&place, "kinds count different things, so a threshold is for one of them");
            problem.allowed("`kinds` with one kind");
        }
        let mut side = |key: &str, value: &Option<OneOrMany<String>>| {
            let found = selectors(problems, &place.key(key), value.as_ref(), groups, vms);
            // `any` names nobody in particular.
            (!found.is_empty()).then(|| members(&found, groups))
        };
        let (from, to) = (side("from", &raw.from), side("to", &raw.to));
        exceptions.push(DetectException { kinds: raw.kinds, from, to, threshold: raw.threshold });
    }
    exceptions
}

/// Who is meant, as far as a flow record can tell: not by MAC.
fn members(selectors: &[Selector], groups: &Groups) -> DetectSide {
    let mut side = DetectSide::default();
    for selector in selectors {
        match selector {
            Selector::Net(net) => side.nets.push(*net),
            Selector::Group(index) => {
                let Some(group) = groups.group(*index) else { continue };
                side.nets.extend(&group.nets);
                side.vlans.extend(&group.vlans);
                side.vnis.extend(&group.vnis);
            }
        }
    }
    side
}
