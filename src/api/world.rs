//! What endpoints work on.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use jsonschema::Validator;
use serde_json::Value;

use super::document::{body_schema, document};
use super::endpoint::Endpoint;
use super::gate::Gate;
use crate::policy::service::Service;

/// All there is.
pub(super) struct World {
    pub(super) service: Arc<Service>,
    pub(super) gate: Gate,
    pub(super) document: Value,
    /// Who follows the events.
    pub(super) listeners: Arc<AtomicUsize>,
    /// Of bodies, by the name of their schema.
    validators: HashMap<String, Validator>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("gate", &self.gate).finish_non_exhaustive()
    }
}

impl World {
    pub(super) fn new(service: Arc<Service>, gate: Gate, endpoints: &[Endpoint]) -> Self {
        let shapes = endpoints.iter().filter_map(|endpoint| endpoint.body);
        let compiled = shapes.map(|shape| {
            // The schemas are part of the program, and a test compiles each of them.
            let compiled = jsonschema::draft202012::options().build(&body_schema(shape));
            ((shape.name)().into_owned(), compiled.expect("a valid schema of a body"))
        });
        let (document, listeners) = (document(endpoints), Arc::default());
        Self { service, gate, document, listeners, validators: compiled.collect() }
    }

    /// What checks bodies of an endpoint.
    pub(super) fn validator(&self, endpoint: &Endpoint) -> Option<&Validator> {
        self.validators.get(&*(endpoint.body?.name)())
    }
}
