//! What somebody may do.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Each role may do what the ones before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads everything.
    Viewer,
    /// Daily work: the inbox, suggestions, learning, changes of the draft.
    Operator,
    /// Puts policies in force and back.
    Admin,
}

impl Role {
    pub const ALL: [Role; 3] = [Role::Viewer, Role::Operator, Role::Admin];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }

    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        Role::ALL.into_iter().find(|role| role.name() == text)
    }
}
