//! The JSON Schema of plan files, for editors: generated from the step types, so that completion and documentation are those of the program.
//!
//! An editor knows no types of outputs, so wherever a value is wanted the schema also takes a text with a reference in it.

use serde_json::{Map, Value, json};

use crate::compile::struct_names;
use crate::plan::WORDS;
use crate::step::{Nature, Registry, StepKind};

/// The pattern of a text with a reference in it.
const REFERENCE: &str = r"\$\{";

/// The schema of a plan file.
#[must_use]
pub fn plan_schema(registry: &Registry) -> Value {
    let mut definitions = Map::new();
    definitions.insert("reference".into(), json!({ "type": "string", "pattern": REFERENCE, "description": "A value of a parameter or of another step: `${params.NAME}`, `${STEP.FIELD}`." }));
    definitions.insert("parameter".into(), parameter(registry));
    let step = step(registry, &mut definitions);
    definitions.insert("step".into(), step);
    let id = "^[A-Za-z_][A-Za-z0-9_-]*$";
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Plan",
        "description": "A plan: parameters, and steps by id.",
        "type": "object",
        "required": ["plan", "steps"],
        "additionalProperties": false,
        "properties": {
            "plan": { "type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_-]*(/[A-Za-z_][A-Za-z0-9_-]*)*$", "description": "The plan's name, such as `oci/create`." },
            "about": { "type": "string", "description": "What the plan is for." },
            "params": { "type": "object", "description": "Values from outside, by name.", "propertyNames": { "pattern": id }, "additionalProperties": { "$ref": "#/$defs/parameter" } },
            "steps": { "type": "object", "description": "The steps, by id.", "propertyNames": { "pattern": id }, "additionalProperties": { "$ref": "#/$defs/step" } },
            "outputs": { "type": "object", "description": "What the plan gives to a plan that uses it.", "propertyNames": { "pattern": id } },
            "main": { "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }], "description": "The step, or the steps, whose exit code is the run's: it ends with the last of them. Without it a run ends with its last step." },
            "run": { "type": "string", "description": "The id of the run that the plan makes, such as `${params.id}`." },
            "opens": {
                "type": "object",
                "description": "The existing run that the plan works on; `${run.NAME}` are its outputs.",
                "required": ["run", "plan"],
                "additionalProperties": false,
                "properties": {
                    "run": { "type": "string", "description": "The run's id." },
                    "plan": { "type": "string", "description": "The plan that made it." },
                    "beside": { "type": "boolean", "default": false, "description": "The plan has a run of its own within that one: several may go on side by side, and while another engine works on it." }
                }
            }
        },
        "$defs": definitions
    })
}

fn parameter(registry: &Registry) -> Value {
    let types: Vec<String> = WORDS.iter().map(|word| (*word).to_owned()).chain(struct_names(registry)).collect();
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "type": {
                "description": "What it may hold; `string` unless said otherwise.",
                "anyOf": [{ "enum": types }, { "type": "string", "pattern": r"^(list|map|handle)\(.+\)$" }]
            },
            "default": { "description": "What it is when it is not given." },
            "required": { "type": "boolean", "description": "Whether it has to be given. Without a default it does, unless this says otherwise." },
            "sensitive": { "type": "boolean", "description": "Whether its value may never be shown or journaled." },
            "about": { "type": "string", "description": "What it is for." }
        }
    })
}

fn step(registry: &Registry, definitions: &mut Map<String, Value>) -> Value {
    let kinds: Vec<Value> =
        registry.steps().map(|kind| json!({ "const": kind.kind, "description": kind.changes })).collect();
    let inputs: Vec<Value> = registry.steps().map(|kind| {
        let input = input(kind, definitions);
        json!({ "if": { "properties": { "uses": { "const": kind.kind } }, "required": ["uses"] }, "then": then(kind, &input) })
    }).collect();
    json!({
        "type": "object",
        "required": ["uses"],
        "additionalProperties": false,
        "properties": {
            "uses": { "description": "The kind of step, or `plan:` and a plan's name or path.", "anyOf": [{ "oneOf": kinds }, { "type": "string", "pattern": "^plan:." }] },
            "with": { "type": "object", "description": "The step's input." },
            "needs": { "description": "Steps that come first although nothing of theirs is used.", "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" }, "uniqueItems": true }] },
            "if": { "type": ["string", "boolean"], "description": "Run only if this holds: `== != && || !` and parentheses over references and literals." },
            "for_each": { "description": "Run once for each entry of a list or mapping; binds `each.key` and `each.value`.", "anyOf": [{ "type": "array" }, { "type": "object" }, { "$ref": "#/$defs/reference" }] },
            "timeout": { "type": "string", "pattern": "^[0-9.]+(ms|s|m|h)$", "description": "The longest it may take, such as `5s`." },
            "retry": {
                "description": "How often it is tried again, and the wait before the first time; the wait doubles.",
                "anyOf": [
                    { "type": "integer", "minimum": 1, "maximum": 1000 },
                    {
                        "type": "object",
                        "required": ["count"],
                        "additionalProperties": false,
                        "properties": { "count": { "type": "integer", "minimum": 1, "maximum": 1000 }, "backoff": { "type": "string", "pattern": "^[0-9.]+(ms|s|m|h)$" } }
                    }
                ]
            },
            "continue-on-error": { "type": "boolean", "description": "Its failure undoes it and nothing else; its outputs are then null." },
            "site": { "$ref": "#/$defs/reference", "description": "The step that makes the process in which this one happens." }
        },
        "allOf": inputs
    })
}

/// What holds for a step of a kind.
fn then(kind: &StepKind, input: &Value) -> Value {
    let required = input.get("required").and_then(Value::as_array).is_some_and(|fields| !fields.is_empty());
    let mut then = json!({ "properties": { "with": input } });
    if required {
        then["required"] = json!(["with"]);
    }
    if kind.nature == Nature::Pure {
        for key in ["timeout", "retry", "continue-on-error", "site"] {
            then["properties"][key] = json!(false);
        }
    }
    then
}

/// The schema of a kind's `with`. Its definitions go to the others; two of one name that differ are told apart by the kind.
fn input(kind: &StepKind, definitions: &mut Map<String, Value>) -> Value {
    let mut schema = kind.schema();
    let Some(object) = schema.as_object_mut() else { return schema };
    object.remove("$schema");
    object.remove("title");
    let own = match object.remove("$defs") {
        Some(Value::Object(own)) => own,
        _ => Map::new(),
    };
    let mut renamed = Map::new();
    for (name, definition) in &own {
        // Compared as they are stored: with references open.
        let stored = opened(definition.clone(), false);
        let name_there = match definitions.get(name) {
            Some(known) if *known != stored => format!("{}.{name}", kind.kind),
            _ => name.clone(),
        };
        renamed.insert(name.clone(), Value::String(name_there));
    }
    for (name, definition) in own {
        let name_there = renamed.get(&name).and_then(Value::as_str).unwrap_or(&name).to_owned();
        let mut definition = opened(definition, false);
        redirect(&mut definition, &renamed);
        definitions.insert(name_there, definition);
    }
    redirect(&mut schema, &renamed);
    opened(schema, false)
}

fn redirect(schema: &mut Value, renamed: &Map<String, Value>) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::String(target)) = map.get_mut("$ref")
                && let Some(name) =
                    target.strip_prefix("#/$defs/").and_then(|name| renamed.get(name)).and_then(Value::as_str)
            {
                *target = format!("#/$defs/{name}");
            }
            map.values_mut().for_each(|value| redirect(value, renamed));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| redirect(value, renamed)),
        _ => {}
    }
}

/// The schema with a reference allowed for every value in it, and for itself if `value`. What is for our own reader (`x-…`) is left out.
fn opened(schema: Value, value: bool) -> Value {
    let Value::Object(map) = schema else { return schema };
    let mut out = Map::new();
    for (key, inner) in map {
        let inner = match (key.as_str(), inner) {
            (key, _) if key.starts_with("x-") => continue,
            ("properties", Value::Object(fields)) => {
                Value::Object(fields.into_iter().map(|(name, field)| (name, opened(field, true))).collect())
            }
            ("items" | "additionalProperties", inner) => opened(inner, true),
            ("anyOf" | "oneOf" | "allOf", Value::Array(all)) => {
                Value::Array(all.into_iter().map(|one| opened(one, false)).collect())
            }
            (_, inner) => inner,
        };
        out.insert(key, inner);
    }
    if !value || takes_any_text(&out) {
        return Value::Object(out);
    }
    // Documentation and default belong to the field, whichever way it is written.
    let mut field = Map::new();
    for key in ["description", "default"] {
        if let Some(inner) = out.shift_remove(key) {
            field.insert(key.to_owned(), inner);
        }
    }
    field.insert("anyOf".to_owned(), json!([out, { "$ref": "#/$defs/reference" }]));
    Value::Object(field)
}

fn takes_any_text(schema: &Map<String, Value>) -> bool {
    let limited =
        ["pattern", "enum", "const", "format", "$ref", "anyOf", "oneOf"].iter().any(|key| schema.contains_key(*key));
    let text = match schema.get("type") {
        Some(Value::String(kind)) => kind == "string",
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "string"),
        _ => false,
    };
    text && !limited
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::tests::registry;

    /// Every `$ref` in a schema.
    fn references(value: &Value, out: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(target)) = map.get("$ref") {
                    out.push(target.clone());
                }
                map.values().for_each(|value| references(value, out));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, out)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_in_the_schema_leads_somewhere() {
        let schema = plan_schema(&registry());
        let mut all = Vec::new();
        references(&schema, &mut all);
        assert!(all.len() > 5);
        for target in all {
            let pointer = target.strip_prefix('#').unwrap();
            assert!(schema.pointer(pointer).is_some(), "{target}");
        }
    }

    #[test]
    fn a_field_takes_its_type_or_a_reference_and_keeps_its_documentation() {
        let schema = plan_schema(&registry());
        let kinds = schema["$defs"]["step"]["allOf"].as_array().unwrap();
        let file = kinds.iter().find(|kind| kind["if"]["properties"]["uses"]["const"] == "file.write").unwrap();
        let with = &file["then"]["properties"]["with"];
        assert_eq!(file["then"]["required"], json!(["with"]));
        assert_eq!(with["required"], json!(["path"]));
        assert_eq!(with["additionalProperties"], json!(false));
        assert_eq!(with["properties"]["times"]["description"], "How often.");
        assert_eq!(with["properties"]["times"]["anyOf"][1]["$ref"], "#/$defs/reference");
        assert_eq!(with["properties"]["path"]["type"], "string");
        let load = kinds.iter().find(|kind| kind["if"]["properties"]["uses"]["const"] == "spec.load").unwrap();
        assert_eq!(load["then"]["properties"]["retry"], json!(false));
        assert!(!schema.to_string().contains("\"x-"));
    }
}
