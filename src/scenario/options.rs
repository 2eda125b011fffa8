//! What a scenario is asked to be: read from words, checked here, valid afterwards.

use super::attacks::{AttackKind, Planned};
use super::dice::Dice;
use super::oddities::{Oddity, OddityKind};
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
    /// `all`, `none`, `every`, `daily=N`, or kinds, each with an optional `@minute`.
    pub attacks: Vec<String>,
    /// Harmless ones: `none`, `all`, `daily=N`, or kinds, each with an optional `@minute`.
    pub oddities: Vec<String>,
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
            oddities: vec!["none".to_owned()],
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
    /// In order of time.
    pub(super) attacks: Vec<Planned>,
    pub(super) oddities: Vec<Oddity>,
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
        let span = Span { start_ns, length_ns, seed: wishes.seed };
        let attacks = attacks(&wishes.attacks, &span)?;
        let oddities = oddities(&wishes.oddities, &span)?;
        Ok(Self { start_ns, end_ns: start_ns + length_ns, groups, attacks, oddities, wishes })
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

/// The time of a scenario, and the seed of what is placed in it at random.
struct Span {
    start_ns: u64,
    length_ns: u64,
    seed: u64,
}

/// A kind of what is placed, how long it lasts, and whether the first day is too early for it.
struct Placed<K> {
    kind: K,
    lasts_ns: u64,
    later: bool,
}

const DAY_NS: u64 = 1440 * MINUTE_NS;

/// Attacks `daily=N` a day stay away from the end of the capture, so that each is there as a whole.
fn attacks(words: &[String], span: &Span) -> Result<Vec<Planned>, OptionError> {
    if let Some(count) = daily("attack", words)? {
        let kinds = AttackKind::ALL.map(|kind| Placed {
            kind,
            lasts_ns: kind.lasts() * 1_000_000_000,
            later: kind.needs_habits(),
        });
        let placed = scatter(&kinds, count, span, 10);
        let mut planned: Vec<Planned> = placed
            .into_iter()
            .map(|(kind, at, nth)| Planned { kind, at, until: at + kind.lasts() * 1_000_000_000, nth })
            .collect();
        planned.sort_by_key(|planned| planned.at);
        return Ok(planned);
    }
    let all = |word: &str| match word {
        "all" => Some(&AttackKind::ALL[..AttackKind::QUICK]),
        "every" => Some(&AttackKind::ALL[..]),
        _ => None,
    };
    // A beacon comes first, as it needs time to show its rhythm.
    let named = named("attack", words, &AttackKind::ALL.map(|kind| (kind.name(), kind)), all, span)?;
    let placed = spread(named, |kind| kind == AttackKind::Beacon, span);
    let end = span.start_ns + span.length_ns;
    let nth = |n: usize, kind| placed[..n].iter().filter(|(before, _)| *before == kind).count();
    Ok((0..).zip(&placed).map(|(n, &(kind, at))| Planned { kind, at, until: end, nth: nth(n, kind) }).collect())
}

fn oddities(words: &[String], span: &Span) -> Result<Vec<Oddity>, OptionError> {
    let end = span.start_ns + span.length_ns;
    let until = |kind: OddityKind, at: u64| match kind.lasts() {
        0 => end,
        seconds => (at + seconds * 1_000_000_000).min(end),
    };
    let mut placed: Vec<(OddityKind, u64, usize)> = match daily("oddity", words)? {
        Some(count) => {
            let kinds =
                OddityKind::ALL.map(|kind| Placed { kind, lasts_ns: kind.lasts() * 1_000_000_000, later: false });
            scatter(&kinds, count, span, 11)
        }
        None => {
            let all = |word: &str| (word == "all").then_some(&OddityKind::ALL[..]);
            let named = named("oddity", words, &OddityKind::ALL.map(|kind| (kind.name(), kind)), all, span)?;
            spread(named, |_| false, span).into_iter().enumerate().map(|(nth, (kind, at))| (kind, at, nth)).collect()
        }
    };
    placed.sort_by_key(|&(_, at, _)| at);
    let newcomers = |n: usize| placed[..n].iter().filter(|(kind, ..)| *kind == OddityKind::NewVm).count();
    let nth = |n: usize, kind, nth| if kind == OddityKind::NewVm { newcomers(n) } else { nth };
    let odd = |(n, &(kind, at, any)): (usize, &(OddityKind, u64, usize))| Oddity {
        kind,
        at,
        until: until(kind, at),
        nth: nth(n, kind, any),
    };
    Ok(placed.iter().enumerate().map(odd).collect())
}

/// The number in `daily=N`, which stands alone.
fn daily(what: &str, words: &[String]) -> Result<Option<usize>, OptionError> {
    let Some(text) = words.iter().find_map(|word| word.strip_prefix("daily=")) else { return Ok(None) };
    if words.len() > 1 {
        return Err(OptionError(format!("--{} daily={text}: stands alone", option(what))));
    }
    let count = text.parse().ok().filter(|count| (1..=100).contains(count));
    count.map(Some).ok_or_else(|| OptionError(format!("--{} daily={text}: the number must be 1 to 100", option(what))))
}

/// So many a day at any time, all kinds in turn, in any order; each with a number that chooses its parties.
fn scatter<K: Copy>(kinds: &[Placed<K>], count: usize, span: &Span, stream: u64) -> Vec<(K, u64, usize)> {
    let mut dice = Dice::new(span.seed, stream);
    let total = count as u64 * span.length_ns.div_ceil(DAY_NS);
    let (mut deck, mut postponed, mut placed): (Vec<usize>, Vec<usize>, Vec<_>) = Default::default();
    for n in 0..total {
        let day = n / count as u64;
        if deck.is_empty() {
            deck = (0..kinds.len()).collect();
            (1..deck.len()).rev().for_each(|i| deck.swap(i, dice.below(i + 1)));
        }
        let at = deck.iter().rposition(|&k| day > 0 || !kinds[k].later);
        let chosen = match (day > 0).then(|| postponed.pop()).flatten() {
            Some(chosen) => chosen,
            None => match at {
                Some(at) => deck.remove(at),
                None => {
                    postponed.append(&mut deck);
                    continue;
                }
            },
        };
        let kind = &kinds[chosen];
        let from = day * DAY_NS;
        let to = (from + DAY_NS).min(span.length_ns.saturating_sub(kind.lasts_ns + MINUTE_NS));
        let offset = if to > from { dice.within(from..to) } else { to };
        placed.push((kind.kind, span.start_ns + offset, dice.below(1_000)));
    }
    placed
}

/// Kinds by name, with the time that was asked for.
fn named<K: Copy + 'static>(
    what: &str,
    words: &[String],
    names: &[(&str, K)],
    all: impl Fn(&str) -> Option<&'static [K]>,
    span: &Span,
) -> Result<Vec<(K, Option<u64>)>, OptionError> {
    let mut wanted = Vec::new();
    for word in words {
        let (name, minute) = match word.split_once('@') {
            Some((name, minute)) => (name, Some(minute)),
            None => (word.as_str(), None),
        };
        let offset = minute.map(|m| offset(what, word, m, span.length_ns)).transpose()?;
        let together = all(name);
        if (name == "none" || together.is_some()) && (words.len() > 1 || offset.is_some()) {
            return Err(OptionError(format!("--{} {word}: `{name}` stands alone", option(what))));
        }
        match together {
            Some(kinds) => wanted.extend(kinds.iter().map(|&kind| (kind, None))),
            None if name == "none" => {}
            None => {
                let known: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
                let kind = names.iter().find(|(known, _)| *known == name);
                wanted.push((kind.ok_or_else(|| unknown(what, name, &known))?.1, offset));
            }
        }
    }
    Ok(wanted)
}

/// What has no time is spread evenly; `first` comes first.
fn spread<K: Copy>(mut wanted: Vec<(K, Option<u64>)>, first: impl Fn(K) -> bool, span: &Span) -> Vec<(K, u64)> {
    wanted.sort_by_key(|&(kind, offset)| offset.is_none() && !first(kind));
    let unplaced = wanted.iter().filter(|(_, offset)| offset.is_none()).count() as u64;
    let mut placed = Vec::new();
    let mut n = 0;
    for (kind, offset) in wanted {
        // From 10 % of the time to 90 %.
        let even = span.length_ns / 10 + span.length_ns * 8 / 10 * n / unplaced.max(1);
        n += u64::from(offset.is_none());
        placed.push((kind, span.start_ns + offset.unwrap_or(even)));
    }
    placed.sort_by_key(|&(_, at)| at);
    placed
}

fn offset(what: &str, word: &str, minute: &str, length_ns: u64) -> Result<u64, OptionError> {
    let minutes = minute.parse::<f64>().ok().filter(|m| *m >= 0.0);
    let offset = minutes.map(|m| (m * MINUTE_NS as f64) as u64).filter(|&at| at < length_ns);
    offset.ok_or_else(|| {
        OptionError(format!(
            "--{} {word}: the minute must be 0 to less than {}",
            option(what),
            length_ns as f64 / MINUTE_NS as f64
        ))
    })
}

/// The option that names these.
fn option(what: &str) -> String {
    what.strip_suffix('y').map_or(format!("{what}s"), |stem| format!("{stem}ies"))
}

fn unknown(what: &str, name: &str, names: &[&str]) -> OptionError {
    let near = names.iter().max_by(|a, b| strsim::jaro(name, a).total_cmp(&strsim::jaro(name, b)));
    let hint = near.filter(|n| strsim::jaro(name, n) > 0.75).map_or(String::new(), |n| format!("; did you mean {n}?"));
    OptionError(format!("--{}: there is no {what} {name:?}{hint} Known: {}", option(what), names.join(", ")))
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
        assert!(options.attacks.is_sorted_by_key(|a| a.at));
        assert!(options.attacks.iter().all(|a| a.at < options.end_ns));
        assert_eq!(options.attacks[0].kind, AttackKind::Beacon);
        assert!(options.oddities.is_empty());
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
        let until = options.end_ns;
        let planned = |kind, minute, nth| Planned { kind, at: at(minute), until, nth };
        let (b, p) = (AttackKind::Beacon, AttackKind::PortScan);
        assert_eq!(options.attacks, [planned(p, 1.5, 0), planned(b, 2.0, 0), planned(b, 10.0, 1)]);
        assert!(with(|w| w.attacks = words("none")).unwrap().attacks.is_empty());
    }

    #[test]
    fn so_many_a_day_are_of_all_kinds_and_leave_time_to_learn_and_to_end() {
        let options = with(|w| {
            (w.minutes, w.seed) = (7.0 * 1440.0, 3);
            (w.attacks, w.oddities) = (words("daily=6"), words("daily=1"));
        })
        .unwrap();
        assert!((40..=42).contains(&options.attacks.len()), "{}", options.attacks.len());
        assert!(AttackKind::ALL.iter().all(|kind| options.attacks.iter().any(|a| a.kind == *kind)));
        let day = options.start_ns + DAY_NS;
        assert!(options.attacks.iter().all(|a| a.at >= day || !a.kind.needs_habits()));
        assert!(options.attacks.iter().all(|a| a.until <= options.end_ns));
        assert!(options.attacks.is_sorted_by_key(|a| a.at));
        assert_eq!(options.oddities.len(), 7);
        assert!(OddityKind::ALL.iter().all(|kind| options.oddities.iter().any(|o| o.kind == *kind)));
        assert_eq!(with(|w| w.attacks = words("every")).unwrap().attacks.len(), AttackKind::ALL.len());
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
        assert!(error(|w| w.attacks = words("daily=0")).contains("1 to 100"));
        assert!(error(|w| w.attacks = words("daily=3,beacon")).contains("alone"));
        assert!(error(|w| w.oddities = words("rushes")).contains("did you mean rush?"));
        assert!(error(|w| w.start = "tomorrow".to_owned()).contains("--start"));
        assert!(error(|w| w.minutes = f64::NAN).contains("--minutes"));
        assert!(error(|w| w.loss = 0.9).contains("--loss"));
        assert!(error(|w| w.seed = u64::MAX).contains("--seed"));
    }
}
