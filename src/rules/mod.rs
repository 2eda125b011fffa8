//! Rule set → compile → immutable structure; `Subject` → `Verdict`; publish.
mod rule;

pub use rule::{
    Action, Decision, Group, GroupIx, GroupSetHandle, MAX_MIRRORS, Match, MirrorMatch, Mode, Policy, Rule, RuleHandle,
    Selector, Subject, Tier, Verdict,
};
