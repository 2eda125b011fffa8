//! What is wrong with a configuration on purpose: its rules are right as `gnomon scenario` writes them.

use anyhow::{Context, Result, bail};
use toml::{Table, Value};

/// What was planted.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Rules that open all ports.
    pub broad: Vec<String>,
    /// VMs with the tags of another group, and their true group.
    pub moved: Vec<(String, String)>,
    /// Everything, for people.
    pub told: Vec<String>,
}

/// Relations of a scenario that faults are made of: rule, source group, target group, port.
const RELATIONS: [(&str, &str, u16); 6] = [
    ("clients-to-web", "web", 443),
    ("web-to-app", "app", 8080),
    ("app-to-db", "db", 5432),
    ("iot-to-app", "app", 1883),
    ("any-to-dns", "dns", 53),
    ("vms-to-ntp", "ntp", 123),
];
/// What nobody does: from, to, port.
const UNUSED: [(&str, &str, u16); 6] = [
    ("web", "db", 3306),
    ("iot", "db", 1433),
    ("admin", "dns", 8443),
    ("app", "web", 9200),
    ("db", "iot", 5683),
    ("dns", "app", 11_211),
];

/// Choices that depend on the seed alone.
struct Choice(u64);

impl Choice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % n as u64) as usize
    }
}

/// A missing rule, an over-broad one, one in the wrong order, three that nobody uses, a VM with wrong tags, and a door
/// for attacks.
pub fn plant(configuration: &mut Table, seed: u64) -> Result<Faults> {
    let mut choice = Choice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut faults = Faults::default();
    let mut relations = RELATIONS.to_vec();
    let mut take = |choice: &mut Choice| relations.remove(choice.below(relations.len()));
    missing(configuration, take(&mut choice).0, &mut faults)?;
    broad(configuration, take(&mut choice).0, &mut faults)?;
    order(configuration, take(&mut choice), &mut faults)?;
    let first = choice.below(UNUSED.len());
    for n in 0..3 {
        let (from, to, port) = UNUSED[(first + n) % UNUSED.len()];
        let id = format!("legacy-{n}");
        faults.told.push(format!("{id}: {from} > {to} tcp {port} is not used"));
        rules(configuration)?.push(rule(&id, &[from], to, "tcp", Some(port), "allow", 1100 + n as i64));
    }
    tags(configuration, &mut choice, &mut faults)?;
    door(configuration, choice.below(2), &mut faults)?;
    Ok(faults)
}

fn rules(configuration: &mut Table) -> Result<&mut Vec<Value>> {
    configuration.get_mut("rule").and_then(Value::as_array_mut).context("rules")
}

fn find<'a>(configuration: &'a mut Table, id: &str) -> Result<&'a mut Table> {
    let found = rules(configuration)?.iter_mut().filter_map(Value::as_table_mut);
    found.into_iter().find(|rule| rule["id"].as_str() == Some(id)).with_context(|| format!("no rule {id}"))
}

fn rule(id: &str, from: &[&str], to: &str, protocol: &str, port: Option<u16>, action: &str, priority: i64) -> Value {
    let mut rule = Table::new();
    let from = from.iter().map(|name| Value::from(*name)).collect::<Vec<_>>();
    let entries = [
        ("id", Value::from(id)),
        ("from", Value::Array(from)),
        ("to", to.into()),
        ("protocol", protocol.into()),
        ("action", action.into()),
        ("priority", priority.into()),
    ];
    entries.into_iter().for_each(|(key, value)| _ = rule.insert(key.into(), value));
    if let Some(port) = port {
        rule.insert("ports".into(), i64::from(port).into());
    }
    Value::Table(rule)
}

fn missing(configuration: &mut Table, id: &str, faults: &mut Faults) -> Result<()> {
    rules(configuration)?.retain(|rule| rule["id"].as_str() != Some(id));
    faults.told.push(format!("{id} is missing"));
    Ok(())
}

fn broad(configuration: &mut Table, id: &str, faults: &mut Faults) -> Result<()> {
    find(configuration, id)?.remove("ports");
    faults.broad.push(id.to_owned());
    faults.told.push(format!("{id} opens all ports"));
    Ok(())
}

/// A rule that denies what a later one allows.
fn order(configuration: &mut Table, (id, to, port): (&str, &str, u16), faults: &mut Faults) -> Result<()> {
    let late = find(configuration, id)?;
    let protocol = late["protocol"].as_str().context("a protocol")?.to_owned();
    let priority = late["priority"].as_integer().context("a priority")?;
    let ports = late["ports"].as_array().map_or(1, Vec::len);
    // Of several ports, all: else the later rule still decides something.
    let port = if ports > 1 { None } else { Some(port) };
    let closed = rule(&format!("closed-{to}"), &["any"], to, &protocol, port, "deny", priority - 10);
    rules(configuration)?.push(closed);
    faults.told.push(format!("closed-{to} comes before {id}"));
    Ok(())
}

/// A server of the web or the application group carries the tag of another group.
fn tags(configuration: &mut Table, choice: &mut Choice, faults: &mut Faults) -> Result<()> {
    let (own, number) =
        ([("web", "iot"), ("app", "iot"), ("app", "web"), ("web", "db")][choice.below(4)], 1 + choice.below(4));
    let vm = format!("{}-{number}", own.0);
    let vms = configuration.get_mut("vm").and_then(Value::as_array_mut).context("VMs")?;
    let mut tables = vms.iter_mut().filter_map(Value::as_table_mut);
    let Some(table) = tables.find(|table| table["id"].as_str() == Some(&vm)) else { bail!("no VM {vm}") };
    table.insert("tags".into(), Value::Array(vec![format!("role={}", own.1).into()]));
    faults.told.push(format!("{vm} is tagged as {}", own.1));
    faults.moved.push((vm, own.0.to_owned()));
    Ok(())
}

/// What lets attacks in, or out.
fn door(configuration: &mut Table, which: usize, faults: &mut Faults) -> Result<()> {
    let (id, from, to, port): (_, &[&str], _, _) = match which {
        0 => ("outside-ssh", &["any"], "web", 22),
        _ => ("egress", &["web", "app", "db", "iot"], "any", 443),
    };
    rules(configuration)?.push(rule(id, from, to, "tcp", Some(port), "allow", 750));
    faults.told.push(format!("{id} lets attacks through"));
    Ok(())
}
