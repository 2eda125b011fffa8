//! What there is: one file per resource.

mod description;

use super::endpoint::Endpoint;

pub(super) fn endpoints() -> Vec<Endpoint> {
    description::endpoints()
}
