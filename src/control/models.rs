//! The verbs about models (`models`, `model_show`, `model_promote`, …) and `alerts`.

use serde::Deserialize;
use serde_json::{Value, json};

use super::live::Live;
use super::protocol::{Failure, Refusal, Request};
use super::reply::Reply;
use crate::appliance::{Desk, Order};
use crate::export::write_alert;

/// Episodes that the appliance remembers.
const MOST_ALERTS: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    id: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Decided {
    id: i64,
    who: String,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Back {
    scope: String,
    who: String,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Train {
    shadow: Option<bool>,
    who: String,
}

/// A line for each stored model; at the end what the scorer has kept for the next training.
pub(super) fn models(live: &Live, request: &Request, reply: &mut Reply) -> Result<(), Failure> {
    let Nothing {} = request.read()?;
    let desk = desk(live)?;
    ordered(desk, Order::List)?.iter().try_for_each(|line| reply.line(line))?;
    let board = desk.board();
    reply.at_end("kept", board.kept);
    reply.at_end("needed", board.needed);
    Ok(())
}

/// The model with its history.
pub(super) fn model_show(live: &Live, request: &Request, reply: &mut Reply) -> Result<(), Failure> {
    let Which { id } = request.read()?;
    ordered(desk(live)?, Order::Show { id })?.iter().try_for_each(|line| reply.line(line))
}

/// A line for each scope: what scores there, and how its shadow compares.
pub(super) fn model_compare(live: &Live, request: &Request, reply: &mut Reply) -> Result<(), Failure> {
    let Nothing {} = request.read()?;
    desk(live)?.board().scopes.iter().try_for_each(|line| reply.line(line))
}

pub(super) fn model_promote(live: &Live, request: &Request, reply: &mut Reply) -> Result<(), Failure> {
    let Decided { id, who, reason } = request.read()?;
    ordered(desk(live)?, Order::Promote { id, who, reason })?.iter().try_for_each(|line| reply.line(line))
}

pub(super) fn model_reject(live: &Live, request: &Request, reply: &mut Reply) -> Result<(), Failure> {
    let Decided { id, who, reason } = request.read()?;
    ordered(desk(live)?, Order::Reject { id, who, reason })?.iter().try_for_each(|line| reply.line(line))
}

pub(super) fn model_rollback(live: &Live, request: &Request, reply: &mut Reply) -> Result<(), Failure> {
    let Back { scope, who, reason } = request.read()?;
    ordered(desk(live)?, Order::Rollback { scope, who, reason })?.iter().try_for_each(|line| reply.line(line))
}

/// Says how many records there are for it; it begins when there are enough.
pub(super) fn model_train(live: &Live, request: &Request, reply: &mut Reply) -> Result<(), Failure> {
    let Train { shadow, who } = request.read()?;
    let desk = desk(live)?;
    ordered(desk, Order::Train { shadow, who })?;
    let board = desk.board();
    reply.line(&json!({ "kept": board.kept, "needed": board.needed }))
}

/// The latest episodes as in `alerts.jsonl`, the oldest first; at the end the folder of the files that have all.
pub(super) fn alerts(live: &Live, request: &Request, reply: &mut Reply) -> Result<(), Failure> {
    let Nothing {} = request.read()?;
    for alert in live.recent.alerts(MOST_ALERTS).iter().rev() {
        let mut line = Vec::new();
        write_alert(&mut line, alert, &*live.names).map_err(Failure::Gone)?;
        reply.raw_line(&line)?;
    }
    reply.at_end("folder", live.folder.display().to_string());
    Ok(())
}

fn desk(live: &Live) -> Result<&Desk, Refusal> {
    let none = "nothing is scored: this gnomon runs with [scorer] enabled = false";
    live.models.as_deref().ok_or_else(|| Refusal::new("bad_request", none))
}

fn ordered(desk: &Desk, order: Order) -> Result<Vec<Value>, Refusal> {
    desk.order(order).map_err(|error| Refusal::new("failed", format!("{error:#}")))
}
