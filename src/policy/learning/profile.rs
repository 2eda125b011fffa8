//! What a group was seen to do, given to another group.

use serde::Serialize;

use super::connection::{Connection, Endpoint};
use super::graph::Graph;
use super::rules::LearnedRule;
use crate::packet::scramble;

/// Copies the consolidated policy of one group to another, as far as its strength goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    pub source: String,
    pub target: String,
    /// Share of the connections that are copied, 0..=1.
    pub strength: f64,
    /// Which ones: another seed, another choice.
    pub seed: u64,
}

/// A connection of the source, and what it is for the target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mirrored {
    pub of: Connection,
    pub connection: Connection,
    /// It is kept from this strength on.
    pub from_strength: f64,
    pub protected: bool,
}

/// What a profile comes to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    pub source: String,
    pub target: String,
    pub strength: f64,
    pub seed: u64,
    pub kept: Vec<Mirrored>,
    pub left: Vec<Mirrored>,
}

impl Profile {
    /// Each connection is kept with the probability that the strength says, drawn from its fingerprint and the seed: the
    /// same profile keeps the same ones, and a greater strength keeps all that a smaller one kept. What nothing works
    /// without is kept at any strength.
    pub fn plan(&self, graph: &Graph) -> Plan {
        self.plan_of(graph.edges.iter().filter(|edge| edge.permitted > 0).map(|edge| &edge.connection))
    }

    /// As [`Profile::plan`], of connections that are known to be allowed.
    pub fn plan_of<'c>(&self, connections: impl Iterator<Item = &'c Connection>) -> Plan {
        let all = connections.map(|connection| Mirrored {
            connection: self.turned(connection),
            from_strength: draw(connection, self.seed),
            protected: connection.service.is_protected(),
            of: connection.clone(),
        });
        let (kept, left) = all.partition(|m: &Mirrored| m.protected || m.from_strength < self.strength);
        let (source, target) = (self.source.clone(), self.target.clone());
        Plan { source, target, strength: self.strength, seed: self.seed, kept, left }
    }

    /// The target in place of the source.
    fn turned(&self, connection: &Connection) -> Connection {
        let end = |end: &Endpoint| match end {
            Endpoint::Group(name) if **name == *self.source => Endpoint::group(&self.target),
            other => other.clone(),
        };
        Connection { from: end(&connection.from), to: end(&connection.to), service: connection.service.clone() }
    }
}

impl Plan {
    /// Rules for the target: what is kept, and a denial of all else. Second: what no rule can say.
    pub fn rules(&self) -> (Vec<LearnedRule>, Vec<Connection>) {
        let (mut rules, mut unsaid) = (Vec::new(), Vec::new());
        for mirrored in &self.kept {
            let comment = format!("mirrored from {}: {}", self.source, mirrored.of);
            match LearnedRule::allow(&mirrored.connection, "mirrored", comment) {
                Some(rule) => rules.push(rule),
                None => unsaid.push(mirrored.connection.clone()),
            }
        }
        rules.extend(LearnedRule::deny_rest(&self.target));
        (rules, unsaid)
    }
}

/// Evenly from 0 to 1, below 1.
fn draw(connection: &Connection, seed: u64) -> f64 {
    (scramble(connection.fingerprint() ^ scramble(seed)) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::learning::learner::tests::{place, seen};
    use crate::policy::learning::{Learner, Settings};

    /// Five hundred connections of `web`, and name resolution.
    fn graph() -> Graph {
        let mut learner = Learner::new(Settings::default(), &["web".into()], Default::default());
        for port in 1..=500 {
            for _ in 0..3 {
                let (web, app) = (place("10.0.0.1", &["web"]), place("10.0.1.1", &["app"]));
                let (from, to) = if port % 2 == 0 { (web, app) } else { (app, web) };
                learner.observe(&seen(from, to, port, 1), false);
            }
        }
        learner.finish().remove(0)
    }

    fn plan(strength: f64, seed: u64) -> Plan {
        Profile { source: "web".into(), target: "web-new".into(), strength, seed }.plan(&graph())
    }

    fn kept(plan: &Plan) -> Vec<&Connection> {
        plan.kept.iter().map(|m| &m.connection).collect()
    }

    #[test]
    fn strength_is_a_share_that_grows() {
        let mut before: Vec<Connection> = Vec::new();
        for strength in [0.0, 0.25, 0.5, 0.75, 1.0] {
            let plan = plan(strength, 3);
            let share = (plan.kept.len() - 1) as f64 / 499.0;
            assert!((share - strength).abs() < 0.06, "{strength} {share}");
            assert_eq!(plan.kept.len() + plan.left.len(), 500);
            assert!(before.iter().all(|connection| kept(&plan).contains(&connection)), "{strength}");
            before = kept(&plan).into_iter().cloned().collect();
        }
        assert_eq!(plan(0.5, 3), plan(0.5, 3));
        assert_ne!(kept(&plan(0.5, 3)), kept(&plan(0.5, 4)));
    }

    #[test]
    fn the_target_takes_the_place_of_the_source() {
        let whole = plan(1.0, 1);
        assert!(whole.kept.iter().all(|m| m.connection.to_string().contains("web-new")));
        assert!(whole.kept.iter().all(|m| !m.connection.to_string().contains("web ")));
        let nothing = plan(0.0, 1);
        assert_eq!(nothing.kept.len(), 1, "tcp 53 alone");
        let (rules, unsaid) = nothing.rules();
        assert!(unsaid.is_empty());
        let actions: Vec<(&str, &str, &str)> =
            rules.iter().map(|r| (r.action, r.from.as_str(), r.to.as_str())).collect();
        assert_eq!(actions, [("allow", "app", "web-new"), ("deny", "any", "web-new"), ("deny", "web-new", "any")]);
        assert!(rules[1].priority > rules[0].priority);
    }
}
