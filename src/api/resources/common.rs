//! What resources have in common: parameters of changes, and problems of the service as HTTP has them.

use crate::api::Role;
use crate::api::call::{Call, Parameter};
use crate::api::problem::{Fault, Problem};
use crate::policy::book::Refusal;
use crate::policy::service::{self, How, View, Who};

pub(super) const VIEW: Parameter = Parameter::words(
    "view",
    &["draft", "running"],
    "What is looked at: the policy with all changes that wait for a commit, or the one in force.",
);
pub(super) const DRY_RUN: Parameter =
    Parameter::flag("dry_run", "Only say what would come of it; everything stays as it is.");
pub(super) const AT_ONCE: Parameter = Parameter::flag(
    "at_once",
    "Put it in force now, as a generation of its own, instead of into the draft. Needs the role `admin`.",
);
pub(super) const WHY: Parameter = Parameter::text("why", "For the audit log and the history.");

pub(super) fn view(call: &Call) -> View {
    if call.text(&VIEW) == Some("running") { View::Running } else { View::Draft }
}

/// Who asks, as the service wants it.
pub(super) fn who(call: &Call) -> Who {
    Who::new(&call.who.name, call.who.role.name())
}

/// How a change is to be made.
pub(super) fn how(call: &Call) -> Result<How, Problem> {
    let (dry_run, commit) = (call.flag(&DRY_RUN), call.flag(&AT_ONCE));
    if commit && !dry_run && call.who.role < Role::Admin {
        let detail = format!("`{}` is {}, and `at_once` needs admin", call.who.name, call.who.role.name());
        return Err(Problem::new(403, "forbidden", detail));
    }
    let why = call.text(&WHY).unwrap_or_default().to_owned();
    Ok(How { dry_run, commit, why, ..How::default() })
}

/// Where a change goes, for reading it again.
pub(super) fn view_of(how: &How) -> View {
    if how.commit { View::Running } else { View::Draft }
}

/// Tags of an `If-Match` without quotes; `*` stands for itself.
pub(super) fn tags(if_match: &str) -> Result<Vec<&str>, Problem> {
    if_match
        .split(',')
        .map(|text| match text.trim() {
            "*" => Ok("*"),
            quoted => quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).ok_or_else(|| {
                Problem::bad_request("`If-Match` takes the `ETag` of an answer, with its quotes, or `*`")
            }),
        })
        .collect()
}

/// A problem of the service, of a request about something that is named in the path.
pub(super) fn told(problem: service::Problem) -> Problem {
    match problem {
        service::Problem::Refused(Refusal::Missing { .. }) | service::Problem::Missing(_) => {
            Problem::not_found(problem.to_string())
        }
        service::Problem::Refused(Refusal::Invalid { ref faults, .. }) => {
            let fault = |fault: &crate::policy::book::Fault| Fault {
                // `addresses[0]`
                pointer: format!("/{}", fault.field.replace(['.', '['], "/").replace(']', "")),
                detail: fault.message.clone(),
            };
            Problem::new(422, "invalid", problem.to_string()).at(faults.iter().map(fault).collect())
        }
        service::Problem::Refused(Refusal::InUse { .. }) => Problem::new(409, "in_use", problem.to_string()),
        service::Problem::Refused(Refusal::Conflict { .. }) => Problem::new(409, "contradiction", problem.to_string()),
        service::Problem::Changed { .. } => Problem::new(412, "changed", problem.to_string()),
        service::Problem::Conflict(text) => Problem::new(409, "conflict", text),
        service::Problem::Invalid(text) => Problem::new(422, "invalid", text),
        service::Problem::Uncompilable(_) => Problem::new(422, "uncompilable", problem.to_string()),
        service::Problem::Store(error) => {
            log::error!("the API could not use the store: {error}");
            Problem::internal()
        }
    }
}

/// As [`told`], of a body that refers to something: what is missing is what it names.
pub(super) fn told_of_body(problem: service::Problem) -> Problem {
    match problem {
        service::Problem::Refused(Refusal::Missing { .. }) => Problem::new(422, "missing", problem.to_string()),
        other => told(other),
    }
}

/// A part of a path as URLs have it.
pub(super) fn place(path: &str, name: &str) -> String {
    format!("{}{path}/{}", crate::api::endpoint::BASE, crate::api::percent_encoded(name))
}
