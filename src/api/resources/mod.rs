//! What there is: one file per resource.

mod audit;
mod common;
mod description;
mod events;
mod inbox;
mod learning;
mod policy;
mod profiles;
mod rules;
mod suggestions;
mod tags;
mod things;

use super::endpoint::Endpoint;

pub(super) fn endpoints() -> Vec<Endpoint> {
    let all = [
        policy::endpoints(),
        things::endpoints(),
        tags::endpoints(),
        rules::endpoints(),
        profiles::endpoints(),
        learning::endpoints(),
        inbox::endpoints(),
        suggestions::endpoints(),
        audit::endpoints(),
        events::endpoints(),
        description::endpoints(),
    ];
    all.concat()
}
