//! Fields that the runtime-spec does not have.

use super::Spec;
use serde_json::Value;

/// The paths (`process.colour`, `mounts[2].optoins`) of the members that no field of [`Spec`] takes.
///
/// "Extensibility" in config.md: unknown members must not be an error; but a typing error that nobody mentions is a container without the
/// limit that its author believes in. A member whose value is `null` or empty asks for nothing, and is not reported.
/// Empty for a value that is not a [`Spec`] at all: reading it has its own error.
pub fn unknown_fields(config: &Value) -> Vec<String> {
    // What the types know is what they write back: every field that was read is written, whatever its value.
    let Ok(known) = serde_json::from_value::<Spec>(config.clone()).and_then(serde_json::to_value) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    collect(config, &known, "", &mut found);
    found
}

fn collect(given: &Value, known: &Value, path: &str, found: &mut Vec<String>) {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            for (name, value) in given {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match known.get(name) {
                    Some(known) => collect(value, known, &path, found),
                    None if is_empty(value) => {}
                    None => found.push(path),
                }
            }
        }
        (Value::Array(given), Value::Array(known)) => {
            for (index, (given, known)) in given.iter().zip(known).enumerate() {
                collect(given, known, &format!("{path}[{index}]"), found);
            }
        }
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}
