//! Who did what.

use super::common::told;
use crate::api::call::{Answer, Call};
use crate::api::cursor::Cut;
use crate::api::endpoint::{Endpoint, Method};
use crate::api::problem::Problem;
use crate::api::world::World;
use crate::store::{Audit, Verified};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new(Method::Get, "/audit", "list_audit", list)
            .summary("audit", "Rows of the audit log, the newest first")
            .pages::<Audit>(),
        Endpoint::new(Method::Get, "/audit/verify", "verify_audit", verify)
            .summary("audit", "Check the chain of hashes from the first row to the last")
            .gives::<Verified>(),
    ]
}

fn list(world: &World, call: &Call) -> Result<Answer, Problem> {
    let cut = Cut::of(call)?;
    let before = cut.after_number()?.map(|number| number as i64);
    let rows = world.service.store().audits(before, cut.limit + 1).map_err(|error| told(error.into()))?;
    Answer::json(&cut.page(rows, |row| row.number.to_string()))
}

fn verify(world: &World, _: &Call) -> Result<Answer, Problem> {
    Answer::json(&world.service.store().verify_audit().map_err(|error| told(error.into()))?)
}
