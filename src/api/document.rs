//! The OpenAPI 3.1 document, made of the endpoints.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use utoipa::openapi::{RefOr, schema::Schema};

use super::access::Least;
use super::call::{Kind, Parameter};
use super::endpoint::{Endpoint, Returns, Shape};
use super::problem::{PROBLEM_JSON, Problem};

const ABOUT: &str = "Groups, relationships and what else the policy of gnomon is made of.\n\n\
    Changes go to a draft first, which is validated, compared and committed; the running policy changes with the commit, \
    as one generation. Errors are `application/problem+json` (RFC 9457), lists come in pieces with a cursor, and what can \
    be changed has an `ETag`.";

/// The whole document.
pub(super) fn document(endpoints: &[Endpoint]) -> Value {
    let mut schemas = Map::new();
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    collect(Shape::of::<Problem>(), &mut schemas);
    for endpoint in endpoints {
        let shapes = endpoint.body.into_iter().chain(match endpoint.returns {
            Returns::Json(shape) => Some(shape),
            _ => None,
        });
        shapes.for_each(|shape| collect(shape, &mut schemas));
        let methods = paths.entry(endpoint.full_path()).or_default();
        methods.insert(endpoint.method.name().to_lowercase(), operation(endpoint));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "gnomon policy API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "token": [] }, { "certificate": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "`gnomon token create NAME --role viewer|operator|admin` prints one.",
                },
                "certificate": {
                    "type": "mutualTLS",
                    "description": "A client certificate of [api] client_ca whose common name is in [[api.client]].",
                },
            },
        },
    })
}

/// The schema that a body must have, with all it refers to.
pub(super) fn body_schema(shape: Shape) -> Value {
    let mut schemas = Map::new();
    collect(shape, &mut schemas);
    let mut schema = reference(shape);
    schema["components"] = json!({ "schemas": schemas });
    schema
}

fn collect(shape: Shape, schemas: &mut Map<String, Value>) {
    let mut found: Vec<(String, RefOr<Schema>)> = vec![((shape.name)().into_owned(), (shape.own)())];
    (shape.others)(&mut found);
    for (name, schema) in found {
        if let Ok(mut schema) = serde_json::to_value(schema) {
            if name == "Relationship" {
                add_aliases(&mut schema);
            }
            correct(&mut schema);
            schemas.entry(name).or_insert(schema);
        }
    }
}

/// Times of gnomon have their offset as ISO 8601 basic (`+0000`), as in its files, which `date-time` (RFC 3339) does not
/// allow.
const TIME: &str = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?(Z|[+-]\d{2}:?\d{2})$";

/// Numbers that have no sign are as large as they say; `int32` and `int64` would cut them in half.
fn correct(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            let unsigned = object.get("minimum").and_then(Value::as_f64).is_some_and(|least| least >= 0.0);
            if unsigned && object.get("format").is_some_and(|format| format == "int32" || format == "int64") {
                object.remove("format");
            }
            if object.get("format").is_some_and(|format| format == "date-time") {
                object.remove("format");
                object.insert("pattern".to_owned(), TIME.into());
                object.insert("examples".to_owned(), json!(["2027-01-31T12:00:00Z"]));
            }
            object.values_mut().for_each(correct);
        }
        Value::Array(items) => items.iter_mut().for_each(correct),
        _ => {}
    }
}

/// Other spellings of the fields of a relationship.
const ALIASES: [(&str, &str); 3] =
    [("sourceGroupName", "from"), ("destinationGroupName", "to"), ("portRange", "ports")];

fn add_aliases(schema: &mut Value) {
    let Some(properties) = schema["properties"].as_object_mut() else { return };
    for (alias, field) in ALIASES {
        if let Some(mut property) = properties.get(field).cloned() {
            property["description"] = json!(format!("The same as `{field}`, which is not given then."));
            properties.insert(alias.to_owned(), property);
        }
    }
}

fn reference(shape: Shape) -> Value {
    json!({ "$ref": format!("#/components/schemas/{}", (shape.name)()) })
}

fn operation(endpoint: &Endpoint) -> Value {
    let who = match endpoint.least {
        Least::Anyone => "No token is needed.".to_owned(),
        Least::Role(role) => format!("Needs the role `{}`.", role.name()),
        Least::Nobody => "Nobody may do this.".to_owned(),
    };
    let about = [endpoint.about, &who].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n\n");
    let mut operation = json!({
        "operationId": endpoint.id,
        "tags": [endpoint.group],
        "summary": endpoint.summary,
        "description": about,
        "parameters": parameters(endpoint),
        "responses": responses(endpoint),
    });
    if let Some(shape) = endpoint.body {
        let content = json!({ "application/json": { "schema": reference(shape) } });
        operation["requestBody"] = json!({ "required": true, "content": content });
    }
    match endpoint.least {
        Least::Anyone => operation["security"] = json!([]),
        Least::Role(role) => operation["x-least-role"] = json!(role.name()),
        Least::Nobody => {}
    }
    operation
}

fn parameters(endpoint: &Endpoint) -> Vec<Value> {
    let parts = endpoint.parts().map(|name| {
        let number = matches!(name, "number");
        let schema = match number {
            true => json!({ "type": "integer", "minimum": 0, "maximum": i64::MAX }),
            false => json!({ "type": "string", "minLength": 1, "maxLength": 128 }),
        };
        json!({ "name": name, "in": "path", "required": true, "schema": schema })
    });
    let query = endpoint.query.iter().map(|parameter| {
        json!({
            "name": parameter.name,
            "in": "query",
            "required": false,
            "description": parameter.about,
            "schema": kind(parameter),
        })
    });
    let header = endpoint.if_match.map(|about| {
        json!({
            "name": "If-Match",
            "in": "header",
            "required": false,
            "description": about,
            "schema": { "type": "string", "examples": ["\"4c11\"", "*"] },
        })
    });
    parts.chain(query).chain(header).collect()
}

fn kind(parameter: &Parameter) -> Value {
    match parameter.kind {
        Kind::Flag => json!({ "type": "boolean", "default": false }),
        Kind::Number { from, to } => json!({ "type": "integer", "minimum": from, "maximum": to }),
        Kind::Words(words) => json!({ "type": "string", "enum": words, "default": words[0] }),
        Kind::Text => json!({ "type": "string", "minLength": 1, "maxLength": 1024 }),
    }
}

fn responses(endpoint: &Endpoint) -> Value {
    let mut responses = Map::new();
    let good = success(endpoint);
    if endpoint.creates {
        let mut made = good.clone();
        made["description"] = json!("It is new.");
        made["headers"]["Location"] = json!({ "description": "Where it is.", "schema": { "type": "string" } });
        responses.insert("201".to_owned(), made);
    }
    responses.insert("200".to_owned(), good);
    let content = json!({ PROBLEM_JSON: { "schema": { "$ref": "#/components/schemas/Problem" } } });
    for status in endpoint.problems() {
        responses.insert(status.to_string(), json!({ "description": told(status), "content": content }));
    }
    Value::Object(responses)
}

fn success(endpoint: &Endpoint) -> Value {
    let content = match endpoint.returns {
        Returns::Other(kind) => json!({ kind: { "schema": { "type": "string" } } }),
        Returns::Json(shape) if shape.is_page => {
            let schema = json!({
                "type": "object",
                "required": ["items"],
                "properties": {
                    "items": { "type": "array", "items": reference(shape) },
                    "next": { "type": "string", "description": "There is more: `after` of the next request." },
                },
            });
            json!({ "application/json": { "schema": schema } })
        }
        Returns::Json(shape) => json!({ "application/json": { "schema": reference(shape) } }),
    };
    let mut good = json!({ "description": "Done.", "content": content });
    if endpoint.tagged {
        let about = "For `If-Match` of the next change.";
        good["headers"] = json!({ "ETag": { "description": about, "schema": { "type": "string" } } });
    }
    good
}

fn told(status: u16) -> &'static str {
    match status {
        400 => "The request cannot be understood; `detail` says where.",
        401 => "No token or certificate, or one that is not known or has expired.",
        403 => "The role does not suffice.",
        404 => "There is no such thing.",
        408 => "The body did not come in time.",
        409 => "It contradicts what is there.",
        412 => "It was changed in the meantime: `If-Match` is not its `ETag`.",
        413 => "The body is too large.",
        415 => "The body is not `application/json`.",
        422 => "The body can be understood, but is not possible; `errors` says where.",
        428 => "`If-Match` is missing.",
        429 => "Too many requests; `Retry-After` says when to try again.",
        503 => "Too much is going on, or what is asked for is not running here.",
        _ => "gnomon could not do this; its log says why.",
    }
}
