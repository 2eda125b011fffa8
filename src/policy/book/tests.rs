//! The book against what people do to it, and what it derives against deriving anew.

#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;
use crate::policy::learning::{Connection, Endpoint, Service};
use crate::rules::{Decision, Mode, Tier};

fn vm(id: &str, address: &str, tags: &[&str]) -> Noun {
    let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
    Noun::Vm(Vm { id: id.into(), addresses: vec![address.into()], tags, ..Vm::default() })
}

fn group(name: &str, tags: &[&str]) -> Noun {
    let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
    Noun::Group(Group { name: name.into(), tags, ..Group::default() })
}

fn relationship(json: serde_json::Value) -> Noun {
    Noun::Relationship(serde_json::from_value(json).unwrap())
}

fn known(from: &str, to: &str, port: u16) -> Known {
    let (from, to) = (Endpoint::group(from), Endpoint::group(to));
    let connection = Connection { from, to, service: Service::of_port(6, port) };
    Known { connection, allow: true, expires: None, why: String::new() }
}

struct Desk {
    book: Book,
    derived: Derived,
}

impl Desk {
    fn new(nouns: &[Noun]) -> Self {
        let mut desk = Self { book: Book::default(), derived: Derived::default() };
        nouns.iter().for_each(|noun| drop(desk.put(noun.clone()).unwrap()));
        desk
    }

    fn put(&mut self, noun: Noun) -> Result<Delta, Refusal> {
        self.apply(&Change::Put(noun))
    }

    fn remove(&mut self, kind: Kind, name: &str) -> Result<Delta, Refusal> {
        self.apply(&Change::Remove(Name::new(kind, name)))
    }

    fn apply(&mut self, change: &Change) -> Result<Delta, Refusal> {
        let before = self.book.apply(change)?;
        let touched = touched(&self.book, &change.name(), before.as_deref());
        Ok(self.derived.update(&self.book, &touched))
    }

    fn nets(&self, group: &str) -> Vec<String> {
        let at = usize::from(self.derived.position(group).unwrap().0);
        self.derived.groups()[at].nets.iter().map(ToString::to_string).collect()
    }
}

fn small() -> Desk {
    Desk::new(&[
        vm("web-1", "10.0.1.1", &["role=web", "env=prod"]),
        vm("web-2", "10.0.1.2", &["role=web"]),
        vm("app-1", "10.0.2.1", &["role=app", "env=prod"]),
        group("web", &["role=web"]),
        group("app", &["role=app"]),
        group("prod-web", &["role=web", "env=prod"]),
    ])
}

#[test]
fn tags_make_members() {
    let mut desk = small();
    assert_eq!(
        (desk.nets("web"), desk.nets("prod-web")),
        (vec!["10.0.1.1/32".into(), "10.0.1.2/32".into()], vec!["10.0.1.1/32".to_owned()])
    );
    let delta = desk.put(vm("web-2", "10.0.1.9", &["role=web", "env=prod"])).unwrap();
    assert_eq!((delta.groups.len(), delta.rules.len()), (2, 0), "both groups of the VM, and nothing else");
    assert_eq!(desk.nets("prod-web"), ["10.0.1.1/32", "10.0.1.9/32"]);
    let vm = desk.book.vm("web-2").unwrap().clone();
    assert_eq!(desk.book.groups_of(&vm).iter().map(|g| &**g).collect::<Vec<_>>(), ["prod-web", "web"]);
    desk.remove(Kind::Vm, "web-2").unwrap();
    assert_eq!(
        (desk.nets("web"), desk.book.owner(text::address("10.0.1.9").unwrap())),
        (vec!["10.0.1.1/32".to_owned()], None)
    );
}

#[test]
fn what_cannot_be_is_refused_with_all_reasons_and_changes_nothing() {
    let mut desk = small();
    let before: Vec<Noun> = desk.book.nouns().cloned().collect();
    let wrong = [
        (vm("a b", "10.0.0.300", &["x y"]), "id: `a b` is no name", 3),
        (vm("web-9", "10.0.1.1", &[]), "10.0.1.1 belongs to VM `web-1`", 1),
        (vm("web-9", "224.0.0.1", &[]), "is not the address of one machine", 1),
        (group("any", &[]), "means something else in rules", 1),
        (group("10.0.0.1", &[]), "means something else in rules", 1),
        (relationship(json!({ "id": "learned/x", "action": "allow" })), "belong to rules that gnomon makes", 1),
        (
            relationship(json!({ "id": "r", "from": ["any", "web"], "ports": "90-80", "action": "deny" })),
            "`any` stands beside",
            2,
        ),
        (relationship(json!({ "id": "r", "protocol": "icmp", "ports": 80, "action": "deny" })), "has no ports", 1),
        (relationship(json!({ "id": "r", "from": "10.0.0.1/8", "action": "deny" })), "did you mean 10.0.0.0/8?", 1),
    ];
    for (noun, part, faults) in wrong {
        let refusal = desk.put(noun).unwrap_err();
        let Refusal::Invalid { faults: found, .. } = &refusal else { panic!("{refusal}") };
        assert!(refusal.to_string().contains(part), "{refusal}");
        assert_eq!(found.len(), faults, "{refusal}");
    }
    let refusal = desk.put(relationship(json!({ "id": "r", "from": "wep", "action": "deny" }))).unwrap_err();
    assert_eq!(refusal.to_string(), "there is no group `wep`; did you mean `web`?");
    assert!(before.iter().eq(desk.book.nouns()));
}

#[test]
fn what_is_used_stays() {
    let mut desk = small();
    desk.put(relationship(
        json!({ "id": "w-a", "sourceGroupName": "web", "destinationGroupName": "app", "protocol": "tcp",
        "portRange": "8000-8100", "action": "allow", "priority": 10 }),
    ))
    .unwrap();
    let refusal = desk.remove(Kind::Group, "app").unwrap_err();
    assert_eq!(refusal.to_string(), "group `app` is used by relationship `w-a`: change or remove that first");
    desk.remove(Kind::Relationship, "w-a").unwrap();
    desk.remove(Kind::Group, "app").unwrap();
    assert_eq!(desk.remove(Kind::Group, "app").unwrap_err().to_string(), "there is no group `app`");
    // The place that is free is taken again.
    desk.put(group("new", &["role=app"])).unwrap();
    assert_eq!((desk.derived.groups().len(), desk.nets("new")), (3, vec!["10.0.2.1/32".to_owned()]));
}

#[test]
fn quarrels_are_found_and_explained() {
    let mut desk = small();
    let rule = |id: &str, from: &str, ports: &str, action: &str, priority: u32| {
        relationship(json!({ "id": id, "from": from, "to": "app", "protocol": "tcp", "ports": ports, "action": action,
            "priority": priority }))
    };
    desk.put(rule("base", "web", "8000-8100", "allow", 100)).unwrap();
    let mut told = |noun: Noun| -> Vec<(Quarrel, String)> {
        let id = noun.name().to_owned();
        desk.put(noun).unwrap();
        let found = desk.derived.conflicts(&id).into_iter().map(|c| (c.kind, c.with)).collect();
        desk.remove(Kind::Relationship, &id).unwrap();
        found
    };
    let base = || "base".to_owned();
    assert_eq!(told(rule("x", "web", "8000-8100", "allow", 100)), [(Quarrel::Duplicate, base())]);
    assert_eq!(told(rule("x", "web", "8000-8100", "deny", 100)), [(Quarrel::Contradiction, base())]);
    assert_eq!(told(rule("x", "web", "8080", "deny", 200)), [(Quarrel::Shadowed, base())]);
    assert_eq!(told(rule("x", "any", "1-9000", "deny", 10)), [(Quarrel::Shadows, base())]);
    assert_eq!(told(rule("x", "web", "8080", "deny", 10)), [(Quarrel::Overlap, base())]);
    assert_eq!(told(rule("x", "prod-web", "8080", "deny", 10)), [(Quarrel::Overlap, base())], "a VM is in both groups");
    assert_eq!(told(rule("x", "10.0.1.2", "8080", "deny", 10)), [(Quarrel::Overlap, base())]);
    assert_eq!(told(rule("x", "10.0.1.3", "8080", "deny", 10)), []);
    assert_eq!(told(rule("x", "web", "9000", "deny", 10)), []);
    assert_eq!(told(rule("x", "app", "8080", "deny", 10)), []);
}

#[test]
fn learned_policies_and_profiles_become_rules() {
    let mut desk = small();
    desk.put(group("new", &["role=new"])).unwrap();
    let connections = vec![known("web", "app", 8080), known("web", "app", 8081)];
    let learned = |connections: &[Known]| {
        Noun::Learned(Learned { group: "web".into(), enforce: true, connections: connections.to_vec() })
    };
    desk.put(learned(&connections)).unwrap();
    let profile = Profile {
        name: "p".into(),
        source: "web".into(),
        target: "new".into(),
        strength: 100.0,
        seed: 0,
        comment: String::new(),
    };
    desk.put(Noun::Profile(profile.clone())).unwrap();
    let policy = desk.derived.policy(Decision::Deny);
    let of = |prefix: &str| policy.rules.iter().filter(|rule| rule.id.starts_with(prefix)).count();
    assert_eq!((of("learned/web/"), of("mirrored/p/")), (4, 4));
    assert!(policy.rules.iter().all(|rule| rule.tier == Tier::Learned && rule.mode == Mode::Enforce));
    // A connection more is one for the profile too.
    let delta = desk.put(learned(&[&connections[..], &[known("web", "app", 22)]].concat())).unwrap();
    assert_eq!(delta.rules.len(), 2);
    let delta = desk.put(Noun::Profile(Profile { strength: 0.0, ..profile })).unwrap();
    assert_eq!(delta.rules.len(), 3, "only the denial of the rest is left: {delta:?}");
    // While pending connections pass, the rest is only counted.
    let learning = Learning { pending: Pending::Allow, ..Learning::default() };
    let mut web = desk.book.group("web").unwrap().clone();
    web.learning = Some(learning);
    desk.put(Noun::Group(web)).unwrap();
    assert_eq!(desk.derived.rules()["learned/web/rest-in"].0.mode, Mode::Shadow);
}

#[test]
fn overrides_follow_their_vm() {
    let mut desk = small();
    let exception: Override = serde_json::from_value(
        json!({ "id": "debug", "vm": "web-1", "peer": "app", "action": "allow", "reason": "a test" }),
    )
    .unwrap();
    desk.put(Noun::Override(exception)).unwrap();
    let ids: Vec<&str> = desk.derived.rules().keys().map(|id| &**id).collect();
    assert_eq!(ids, ["override/debug/from", "override/debug/to"]);
    let delta = desk.put(vm("web-1", "10.0.1.77", &["role=web"])).unwrap();
    assert_eq!(delta.rules.len(), 2);
    let bare = Noun::Vm(Vm { id: "web-1".into(), ..Vm::default() });
    desk.put(bare).unwrap();
    assert!(desk.derived.rules().is_empty(), "a VM without address is nobody, not everybody");
    assert!(matches!(desk.remove(Kind::Vm, "web-1"), Err(Refusal::InUse { .. })));
}

mod property {
    use proptest::prelude::*;

    use super::*;

    fn change() -> impl Strategy<Value = Change> {
        let (n, tag) = (0..6u8, prop::sample::subsequence(vec!["a", "b", "c"], 0..=3));
        let of = |kind, name: String| Change::Remove(Name::new(kind, &name));
        let words = prop::sample::select(vec!["any", "g0", "g1", "g2", "10.0.0.0/30", "10.0.0.3"]);
        prop_oneof![
            (n.clone(), 0..9u8, tag.clone()).prop_map(|(n, a, tags)| Change::Put(vm(
                &format!("v{n}"),
                &format!("10.0.0.{a}"),
                &tags
            ))),
            (0..4u8, tag, prop::option::of(0..6u8)).prop_map(|(n, tags, listed)| {
                let Noun::Group(mut it) = group(&format!("g{n}"), &tags) else { unreachable!() };
                it.vms = listed.map(|n| format!("v{n}")).into_iter().collect();
                Change::Put(Noun::Group(it))
            }),
            (n.clone(), words.clone(), words, any::<bool>()).prop_map(|(n, from, to, allow)| {
                let action = if allow { "allow" } else { "deny" };
                Change::Put(relationship(json!({ "id": format!("r{n}"), "from": from, "to": to, "action": action })))
            }),
            (0..3u8, 0..3u8, prop::collection::btree_set((0..3u8, 0..3u8, 80..84u16), 0..4)).prop_map(|(g, _, all)| {
                let connections =
                    all.iter().map(|(a, b, port)| known(&format!("g{a}"), &format!("g{b}"), *port)).collect();
                Change::Put(Noun::Learned(Learned { group: format!("g{g}"), enforce: true, connections }))
            }),
            (0..2u8, 0..3u8, 0..3u8, 0..=100u8).prop_map(|(n, a, b, strength)| {
                let (name, source, target) = (format!("p{n}"), format!("g{a}"), format!("g{b}"));
                Change::Put(Noun::Profile(Profile {
                    name,
                    source,
                    target,
                    strength: strength.into(),
                    seed: 1,
                    comment: String::new(),
                }))
            }),
            (n.clone(), n.clone()).prop_map(|(n, vm)| {
                let json = json!({ "id": format!("o{n}"), "vm": format!("v{vm}"), "action": "deny", "reason": "x" });
                Change::Put(Noun::Override(serde_json::from_value(json).unwrap()))
            }),
            (n.clone()).prop_map(move |n| of(Kind::Vm, format!("v{n}"))),
            (n.clone()).prop_map(move |n| of(Kind::Group, format!("g{n}"))),
            (n.clone()).prop_map(move |n| of(Kind::Learned, format!("g{n}"))),
            (n.clone()).prop_map(move |n| of(Kind::Relationship, format!("r{n}"))),
            n.prop_map(move |n| of(Kind::Profile, format!("p{}", n % 2))),
        ]
    }

    /// Groups by name and rules with groups by name, so that positions do not matter.
    fn meaning(derived: &Derived) -> (BTreeMap<String, crate::rules::Group>, Vec<String>) {
        let name = |at: crate::rules::GroupIx| derived.groups()[usize::from(at.0)].name.clone();
        let groups = derived.groups().iter().filter(|group| !group.name.starts_with('('));
        let side = |side: &[crate::rules::Selector]| -> Vec<String> {
            let text = |selector: &crate::rules::Selector| match selector {
                crate::rules::Selector::Group(at) => name(*at),
                crate::rules::Selector::Net(net) => net.to_string(),
            };
            side.iter().map(text).collect()
        };
        let rules = derived.rules().values().map(|(rule, origin)| {
            let (from, to) = (side(&rule.matches.from), side(&rule.matches.to));
            let matches = crate::rules::Match { from: vec![], to: vec![], ..rule.matches.clone() };
            format!("{origin:?} {from:?} {to:?} {:?}", crate::rules::Rule { matches, ..rule.clone() })
        });
        (groups.map(|group| (group.name.clone(), group.clone())).collect(), rules.collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        /// Bringing parts up to date comes to the same as deriving everything anew, and undoing leaves no trace.
        #[test]
        fn parts_are_as_good_as_the_whole(changes in prop::collection::vec(change(), 1..60)) {
            let mut desk = Desk::new(&[]);
            for change in &changes {
                let before = (meaning(&desk.derived), desk.book.nouns().cloned().collect::<Vec<_>>());
                if desk.apply(change).is_err() {
                    prop_assert_eq!(&before, &(meaning(&desk.derived), desk.book.nouns().cloned().collect()));
                    continue;
                }
                prop_assert_eq!(meaning(&desk.derived), meaning(&Derived::of(&desk.book)), "{:?}", change);
                let mut again = Book::default();
                for noun in desk.book.nouns() {
                    again.apply(&Change::Put(noun.clone())).unwrap();
                }
                prop_assert!(again.nouns().eq(desk.book.nouns()), "everything can be put into an empty book in order");
            }
            let last = changes.last().unwrap();
            let mut other = desk.book.clone();
            if let Ok(before) = other.apply(last) {
                other.put_back(&last.name(), before);
                prop_assert!(other.nouns().eq(desk.book.nouns()));
                prop_assert_eq!((other.by_address, other.carriers, other.pickers, other.users),
                    (desk.book.by_address, desk.book.carriers, desk.book.pickers, desk.book.users));
            }
        }
    }
}
