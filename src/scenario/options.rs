//! What a scenario is asked to be: read from words, checked here, valid afterwards.

use super::attacks::AttackKind;
use super::rhythm;
use super::topology::{KINDS, Kind, MAX_GROUP};

/// Start of a scenario unless asked otherwise: a Wednesday morning.
pub const DEFAULT_START: &str = "2025-01-15T09:00:00Z";

/// Midnight of that day, nanoseconds since 1970.
const DEFAULT_DAY_NS: u64 = 1_736_899_200_000_000_000;

const MINUTE_NS: u64 = 60_000_000_000;

/// Simulated minutes at most: 31 days.
const MAX_MINUTES: f64 = 44_640.0;

/// What is wrong with an option.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct OptionError(String);

/// The options of a scenario as words and numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Wishes {
    pub seed: u64,
    /// Simulated minutes.
    pub minutes: f64,
    /// New flows a second at the busiest hour.
    pub rate: f64,
    /// `web`, `app=3`, ...; empty for all groups in their usual sizes.
    pub groups: Vec<String>,
    /// `all`, `none`, or kinds, each with an optional `@minute`.
    pub attacks: Vec<String>,
    /// ISO date and time (UTC), or a time of the default day.
    pub start: String,
    /// Share of flows over IPv6, 0..=1.
    pub ipv6_share: f64,
    /// Probability that a segment is lost, 0..=0.3.
    pub loss: f64,
}

impl Default for Wishes {
    fn default() -> Self {
        Self {
            seed: 1,
            minutes: 30.0,
            rate: 5.0,
            groups: Vec::new(),
            attacks: vec!["all".to_owned()],
            start: DEFAULT_START.to_owned(),
            ipv6_share: 0.2,
            loss: 0.001,
        }
    }
}

/// A scenario that can be played.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    pub(super) wishes: Wishes,
    pub(super) start_ns: u64,
    pub(super) end_ns: u64,
    pub(super) groups: Vec<(Kind, usize)>,
    /// With the time each begins, in order of time.
    pub(super) attacks: Vec<(AttackKind, u64)>,
}

impl Options {
    /// Checks the wishes.
    ///
    /// # Errors
    /// Says which option is wrong, why, and what is possible.
    pub fn new(wishes: Wishes) -> Result<Self, OptionError> {
        in_range("minutes", wishes.minutes, 0.05, MAX_MINUTES)?;
        in_range("rate", wishes.rate, 0.0, 10_000.0)?;
        in_range("ipv6-share", wishes.ipv6_share, 0.0, 1.0)?;
        in_range("loss", wishes.loss, 0.0, 0.3)?;
        if wishes.seed > i64::MAX as u64 {
            // The configuration is TOML, whose integers are signed.
            return Err(OptionError(format!("--seed {}: at most {}", wishes.seed, i64::MAX)));
        }
        let start_ns = rhythm::parse(&wishes.start, DEFAULT_DAY_NS).ok_or_else(|| {
            OptionError(format!("--start {:?}: write {DEFAULT_START} (UTC), or 09:00 for that day", wishes.start))
        })?;
        let length_ns = (wishes.minutes * MINUTE_NS as f64) as u64;
        let groups = groups(&wishes.groups)?;
        let attacks = attacks(&wishes.attacks, start_ns, length_ns)?;
        Ok(Self { start_ns, end_ns: start_ns + length_ns, groups, attacks, wishes })
    }

    /// Simulated time, nanoseconds.
    pub fn length_ns(&self) -> u64 {
        self.end_ns - self.start_ns
    }
}

fn in_range(name: &str, value: f64, least: f64, most: f64) -> Result<(), OptionError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(OptionError(format!("--{name} {value}: must be {least} to {most}")))
}

/// Names and sizes, in the order of [`KINDS`].
fn groups(words: &[String]) -> Result<Vec<(Kind, usize)>, OptionError> {
    if words.is_empty() {
        return Ok(KINDS.to_vec());
    }
    let mut sizes = [None; KINDS.len()];
    for word in words {
        let (name, size) = match word.split_once('=') {
            Some((name, size)) => (name, Some(size)),
            None => (word.as_str(), None),
        };
        let names = KINDS.map(|(kind, _)| kind.name());
        let at = names.iter().position(|&n| n == name).ok_or_else(|| unknown("group", name, &names))?;
        let size = match size {
            None => KINDS[at].1,
            Some(text) => text
                .parse()
                .ok()
                .filter(|n| (1..=MAX_GROUP).contains(n))
                .ok_or_else(|| OptionError(format!("--groups {word}: the size must be 1 to {MAX_GROUP}")))?,
        };
        if sizes[at].replace(size).is_some() {
            return Err(OptionError(format!("--groups names {name} twice")));
        }
    }
    let chosen: Vec<_> = KINDS.iter().zip(sizes).filter_map(|(&(kind, _), size)| Some((kind, size?))).collect();
    if !chosen.iter().any(|(kind, _)| kind.is_local()) {
        return Err(OptionError("--groups: at least one group of VMs is needed besides clients".to_owned()));
    }
    Ok(chosen)
}

/// Kinds and start times. Attacks without a minute are spread evenly; a beacon comes first, as it needs
/// time to show its rhythm.
fn attacks(words: &[String], start_ns: u64, length_ns: u64) -> Result<Vec<(AttackKind, u64)>, OptionError> {
    let mut wanted: Vec<(AttackKind, Option<u64>)> = Vec::new();
    for word in words {
        let (name, minute) = match word.split_once('@') {
            Some((name, minute)) => (name, Some(minute)),
            None => (word.as_str(), None),
        };
        let offset = minute.map(|m| offset(word, m, length_ns)).transpose()?;
        match name {
            "none" | "all" if words.len() > 1 || offset.is_some() => {
                return Err(OptionError(format!("--attacks {word}: `{name}` stands alone")));
            }
            "none" => {}
            "all" => wanted.extend(AttackKind::ALL.map(|kind| (kind, None))),
            _ => {
                let names = AttackKind::ALL.map(AttackKind::name);
                let kind = AttackKind::ALL.into_iter().find(|k| k.name() == name);
                wanted.push((kind.ok_or_else(|| unknown("attack", name, &names))?, offset));
            }
        }
    }
    wanted.sort_by_key(|&(kind, offset)| offset.is_none() && kind != AttackKind::Beacon);
    let unplaced = wanted.iter().filter(|(_, offset)| offset.is_none()).count() as u64;
    let mut placed = Vec::new();
    let mut n = 0;
    for (kind, offset) in wanted {
        // From 10 % of the time to 90 %.
        let spread = length_ns / 10 + length_ns * 8 / 10 * n / unplaced.max(1);
        n += u64::from(offset.is_none());
        placed.push((kind, start_ns + offset.unwrap_or(spread)));
    }
    placed.sort_by_key(|&(_, at)| at);
    Ok(placed)
}

fn offset(word: &str, minute: &str, length_ns: u64) -> Result<u64, OptionError> {
    let minutes = minute.parse::<f64>().ok().filter(|m| *m >= 0.0);
    let offset = minutes.map(|m| (m * MINUTE_NS as f64) as u64).filter(|&at| at < length_ns);
    offset.ok_or_else(|| {
        OptionError(format!(
            "--attacks {word}: the minute must be 0 to less than {}",
            length_ns as f64 / MINUTE_NS as f64
        ))
    })
}

fn unknown(what: &str, name: &str, names: &[&str]) -> OptionError {
    let near = names.iter().max_by(|a, b| strsim::jaro(name, a).total_cmp(&strsim::jaro(name, b)));
    let hint = near.filter(|n| strsim::jaro(name, n) > 0.75).map_or(String::new(), |n| format!("; did you mean {n}?"));
    OptionError(format!("--{what}s: there is no {what} {name:?}{hint} Known: {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut Wishes)) -> Result<Options, String> {
        let mut wishes = Wishes::default();
        change(&mut wishes);
        Options::new(wishes).map_err(|e| e.to_string())
    }

    fn words(text: &str) -> Vec<String> {
        text.split(',').map(str::to_owned).collect()
    }

    #[test]
    fn defaults_are_valid_and_hold_everything() {
        let options = with(|_| {}).unwrap();
        assert_eq!((options.groups.len(), options.attacks.len()), (9, 10));
        assert_eq!(options.start_ns, DEFAULT_DAY_NS + 9 * 60 * MINUTE_NS);
        assert!(options.attacks.is_sorted_by_key(|a| a.1));
        assert!(options.attacks.iter().all(|a| a.1 < options.end_ns));
        assert_eq!(options.attacks[0].0, AttackKind::Beacon);
    }

    #[test]
    fn groups_and_attacks_are_read() {
        let options = with(|w| {
            w.groups = words("web=7,db");
            w.attacks = words("beacon@2,port_scan@1.5,beacon@10");
        })
        .unwrap();
        assert_eq!(options.groups, [(Kind::Web, 7), (Kind::Db, 2)]);
        let at = |m: f64| options.start_ns + (m * 6e10) as u64;
        let (b, p) = (AttackKind::Beacon, AttackKind::PortScan);
        assert_eq!(options.attacks, [(p, at(1.5)), (b, at(2.0)), (b, at(10.0))]);
        assert!(with(|w| w.attacks = words("none")).unwrap().attacks.is_empty());
    }

    #[test]
    fn what_is_wrong_is_said() {
        let error = |change: fn(&mut Wishes)| with(change).unwrap_err();
        assert!(error(|w| w.groups = words("wep")).contains("did you mean web?"));
        assert!(error(|w| w.groups = words("web=0")).contains("1 to 60000"));
        assert!(error(|w| w.groups = words("web,web")).contains("twice"));
        assert!(error(|w| w.groups = words("clients")).contains("VMs"));
        assert!(error(|w| w.attacks = words("portscan")).contains("did you mean port_scan?"));
        assert!(error(|w| w.attacks = words("beacon@30")).contains("less than 30"));
        assert!(error(|w| w.attacks = words("all,beacon")).contains("alone"));
        assert!(error(|w| w.start = "tomorrow".to_owned()).contains("--start"));
        assert!(error(|w| w.minutes = f64::NAN).contains("--minutes"));
        assert!(error(|w| w.loss = 0.9).contains("--loss"));
        assert!(error(|w| w.seed = u64::MAX).contains("--seed"));
    }
}
