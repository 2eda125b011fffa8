//! The members of a model: ways to look at a record, and how much each counts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A way to look at a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Member {
    /// Isolation forest: how soon a record is cut off from others.
    Forest,
    /// Distance to the nearest ordinary records.
    Neighbours,
    /// Empirical tails of the features, one by one.
    Ecod,
    /// Mahalanobis distance on principal components.
    Pca,
    /// One-class support vector machine.
    Svm,
}

impl Member {
    pub const COUNT: usize = 5;
    pub const ALL: [Self; Self::COUNT] = [Self::Forest, Self::Neighbours, Self::Ecod, Self::Pca, Self::Svm];

    /// As in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forest => "forest",
            Self::Neighbours => "neighbours",
            Self::Ecod => "ecod",
            Self::Pca => "pca",
            Self::Svm => "svm",
        }
    }

    /// Of its squares in the joint measure, before the weights of those that take part are made to add up to 1; the same
    /// for all traffic.
    pub(super) fn weight(self) -> f32 {
        match self {
            Self::Forest => 0.35,
            Self::Neighbours => 0.45,
            Self::Ecod | Self::Pca | Self::Svm => 0.2,
        }
    }
}

/// Which members a model has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Members(u8);

impl Members {
    pub fn contains(self, member: Member) -> bool {
        self.0 & 1 << member as u8 != 0
    }

    pub fn iter(self) -> impl Iterator<Item = Member> {
        Member::ALL.into_iter().filter(move |member| self.contains(*member))
    }

    /// Weights that add up to 1, in the order of [`Member::ALL`]; of no members, all for the forest.
    pub(super) fn weights(self) -> [f32; Member::COUNT] {
        let sum: f32 = self.iter().map(Member::weight).sum();
        if sum == 0.0 {
            return Self::from_iter([Member::Forest]).weights();
        }
        Member::ALL.map(|member| if self.contains(member) { member.weight() / sum } else { 0.0 })
    }
}

impl Default for Members {
    /// Those that did best together on labelled sets.
    fn default() -> Self {
        Self::from_iter([Member::Forest, Member::Neighbours, Member::Ecod])
    }
}

impl FromIterator<Member> for Members {
    fn from_iter<T: IntoIterator<Item = Member>>(members: T) -> Self {
        Self(members.into_iter().fold(0, |bits, member| bits | 1 << member as u8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_add_up() {
        for bits in 0..1 << Member::COUNT {
            let weights = Members(bits).weights();
            assert!((weights.iter().sum::<f32>() - 1.0).abs() < 1e-6, "{bits:b} {weights:?}");
        }
        assert_eq!(Members::from_iter([]).weights(), [1.0, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn names_are_those_of_configurations() {
        for member in Member::ALL {
            assert_eq!(serde_json::to_string(&member).unwrap_or_default(), format!("{:?}", member.name()));
        }
    }
}
