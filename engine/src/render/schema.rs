//! The JSON Schema of plans, for editors: keys with their documentation, the kinds of steps, and for each kind the fields of its `with`.
//!
//! It is made from the types that the compiler checks against, so both always agree. A reference may stand for any value; what it refers to is the
//! compiler's business.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::plan::WORDS;
use crate::step::{Registry, StepKind};
use crate::types::{Field, Type};

/// The schema. `plans` are the names of the built-in plans, for `uses: plan:NAME`.
pub fn json(registry: &Registry, plans: &[&str]) -> Value {
    let mut defs = BTreeMap::new();
    let kinds: Vec<Value> = registry.steps().map(|kind| kind_rule(kind, &mut defs)).collect();
    let mut names: Vec<Value> =
        registry.steps().map(|kind| json!({ "const": kind.kind, "description": kind.changes })).collect();
    names.extend(plans.iter().map(|name| json!({ "const": format!("plan:{name}") })));
    names.push(json!({ "type": "string", "pattern": "^plan:", "description": "Another plan: a built-in one by name, or a file beside this one" }));
    let mut definitions: Map<String, Value> = defs.into_iter().collect();
    definitions.insert("reference".into(), json!({ "type": "string", "pattern": "\\$\\{" }));
    definitions.insert("step".into(), step(names, kinds));
    definitions.insert("param".into(), param());
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A lifecycle plan",
        "type": "object",
        "required": ["plan", "steps"],
        "additionalProperties": false,
        "properties": {
            "plan": { "type": "string", "description": "The plan's name, such as oci/create" },
            "about": { "type": "string", "description": "What the plan is for" },
            "params": { "type": "object", "description": "Values from outside, by name", "additionalProperties": { "anyOf": [{ "$ref": "#/definitions/param" }, { "type": "string" }] } },
            "steps": { "type": "object", "description": "The steps, by id", "minProperties": 1, "additionalProperties": { "$ref": "#/definitions/step" } },
            "outputs": { "type": "object", "description": "What the plan gives to a plan that uses it" },
            "main": { "type": "string", "description": "The step whose exit code is the run's" },
            "run": { "type": "string", "description": "The id of the run that it makes" },
            "opens": {
                "type": "object", "description": "The existing run that it works on",
                "required": ["run", "plan"], "additionalProperties": false,
                "properties": {
                    "run": { "type": "string", "description": "The run's id" },
                    "plan": { "type": "string", "description": "The plan that made it; ${run.x} are its outputs" }
                }
            }
        },
        "definitions": definitions
    })
}

fn param() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "type": { "type": "string", "description": format!("{}, list(T), map(T), or a structure of the runtime spec", WORDS.join(", ")) },
            "default": { "description": "What it is when it is not given" },
            "required": { "type": "boolean", "description": "Whether it has to be given; true unless there is a default" },
            "sensitive": { "type": "boolean", "description": "Its value is never shown and never journaled" },
            "about": { "type": "string", "description": "What it is for" }
        }
    })
}

fn step(names: Vec<Value>, kinds: Vec<Value>) -> Value {
    let duration = json!({ "type": "string", "pattern": "^[0-9.]+(ms|s|m|h)$" });
    json!({
        "type": "object",
        "required": ["uses"],
        "additionalProperties": false,
        "properties": {
            "uses": { "description": "The kind of step, or `plan:` and a plan's name", "anyOf": names },
            "with": { "type": "object", "description": "The step's input" },
            "needs": { "type": "array", "items": { "type": "string" }, "description": "Steps that come first although nothing of theirs is used" },
            "if": { "type": ["string", "boolean"], "description": "Run only if this holds: == != && || ! and parentheses" },
            "for_each": { "description": "Run once for each entry of a list or map; each.key and each.value are the entry" },
            "timeout": { "allOf": [duration.clone()], "description": "The longest it may take" },
            "retry": {
                "type": "object", "description": "How it is tried again; not inside a container", "additionalProperties": false,
                "properties": {
                    "count": { "type": "integer", "minimum": 0, "description": "How often, the first try not counted" },
                    "backoff": { "allOf": [duration], "description": "The wait before the first retry; doubled each time" }
                }
            },
            "continue-on-error": { "type": "boolean", "description": "Its failure undoes it and nothing else" },
            "site": { "type": "string", "pattern": "\\$\\{", "description": "The step that makes the process in which it happens, such as ${init}" }
        },
        "allOf": kinds
    })
}

/// What `with` may hold if `uses` names this kind.
fn kind_rule(kind: &StepKind, defs: &mut BTreeMap<String, Value>) -> Value {
    let with = match kind.input() {
        Type::Struct(s) => fields(&s.fields, s.open, defs),
        other => of(other, defs),
    };
    let needed = matches!(kind.input(), Type::Struct(s) if s.fields.iter().any(|f| f.required));
    let required = if needed { json!(["with"]) } else { json!([]) };
    json!({
        "if": { "properties": { "uses": { "const": kind.kind } }, "required": ["uses"] },
        "then": { "properties": { "with": with }, "required": required }
    })
}

fn fields(all: &[Field], open: bool, defs: &mut BTreeMap<String, Value>) -> Value {
    let mut properties = Map::new();
    for field in all {
        let mut schema = of(&field.ty, defs);
        if let Some(map) = schema.as_object_mut() {
            if !field.about.is_empty() {
                map.insert("description".into(), field.about.as_str().into());
            }
            if let Some(default) = &field.default {
                map.insert("default".into(), default.clone());
            }
        }
        properties.insert(field.name.clone(), schema);
    }
    let required: Vec<&str> = all.iter().filter(|f| f.required).map(|f| f.name.as_str()).collect();
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": open })
}

/// The schema of a value in a plan. A reference may always stand in its place.
fn of(ty: &Type, defs: &mut BTreeMap<String, Value>) -> Value {
    let scalar = |schema: Value| json!({ "anyOf": [schema, { "$ref": "#/definitions/reference" }] });
    match ty {
        Type::Any => json!({}),
        // What a reference gives may be text too, so nothing is said twice here.
        Type::String | Type::Path => json!({ "type": "string" }),
        Type::Text => json!({ "type": ["string", "integer", "number", "boolean"] }),
        Type::Name => scalar(json!({ "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.+-]{0,127}$" })),
        Type::Int => scalar(json!({ "type": "integer" })),
        Type::Float => scalar(json!({ "type": "number" })),
        Type::Bool => scalar(json!({ "type": "boolean" })),
        Type::Size => scalar(json!({ "type": ["integer", "string"], "pattern": "^[0-9.]+[KMGTkmgt]?i?B?$" })),
        Type::Duration => scalar(json!({ "type": "string", "pattern": "^[0-9.]+(ms|s|m|h)$" })),
        Type::Mode => scalar(json!({ "type": "string", "pattern": "^(0o)?[0-7]{1,4}$" })),
        Type::Enum(words) => scalar(json!({ "enum": &words[..] })),
        Type::List(inner) => {
            let items = of(inner, defs);
            scalar(json!({ "type": "array", "items": items }))
        }
        Type::Map(inner) => {
            let values = of(inner, defs);
            scalar(json!({ "type": "object", "additionalProperties": values }))
        }
        Type::Struct(s) if s.name.is_empty() => scalar(fields(&s.fields, s.open, defs)),
        Type::Struct(s) => {
            let name = s.name.clone();
            if !defs.contains_key(&name) {
                // The name is taken first: what is inside may mention it again.
                defs.insert(name.clone(), json!({}));
                let mut schema = fields(&s.fields, s.open, defs);
                if let (false, Some(map)) = (s.about.is_empty(), schema.as_object_mut()) {
                    map.insert("description".into(), s.about.as_str().into());
                }
                defs.insert(name.clone(), schema);
            }
            scalar(json!({ "$ref": format!("#/definitions/{name}") }))
        }
        Type::Handle(_) => json!({ "$ref": "#/definitions/reference" }),
        Type::Later(inner) | Type::Sensitive(inner) => of(inner, defs),
        Type::Nullable(inner) => {
            let inner = of(inner, defs);
            json!({ "anyOf": [inner, { "type": "null" }] })
        }
    }
}
