//! From the text of a `config.json` to its types, and where what is wrong with it is written.

use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::{Deserializer, Value};

use super::locate::locate;
use super::{Spec, drop_nulls, unknown_fields};

/// A configuration that could be read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Read {
    /// It.
    pub spec: Spec,
    /// The paths of the members that the runtime-spec does not have, and which therefore do nothing.
    pub unknown: Vec<String>,
}

/// Why a text is no configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Line and column, counted from 1.
    pub place: (usize, usize),
    /// The field's path; empty where the text is not even JSON.
    pub path: String,
    /// What is wrong there.
    pub message: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place: (line, column), path, message } = self;
        write!(f, "{line}:{column}: ")?;
        if path.is_empty() { f.write_str(message) } else { write!(f, "{path}: {message}") }
    }
}

impl std::error::Error for Unreadable {}

impl Spec {
    /// Reads a `config.json` in one go, as one that is right needs it; only where something is wrong with it, or unknown, it is looked at again.
    pub fn read(text: &str) -> Result<Read, Unreadable> {
        let mut ignored = false;
        let mut json = Deserializer::from_str(text);
        let read = serde_ignored::deserialize(&mut json, |_| ignored = true).and_then(|spec| json.end().map(|()| spec));
        let spec = match read {
            Ok(spec) if !ignored => return Ok(Read { spec, unknown: Vec::new() }),
            Ok(spec) => spec,
            // Go's encoder writes a null for a nil list. It is rare.
            Err(_) => parse(text)?,
        };
        let unknown = serde_json::from_str(text).map(|config| unknown_fields(&config)).unwrap_or_default();
        Ok(Read { spec, unknown })
    }
}

/// Reads a structure of the runtime-spec. A null counts as absent.
pub(super) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, Unreadable> {
    let not_json = |e: &serde_json::Error| Unreadable {
        place: (e.line(), e.column()),
        path: String::new(),
        message: format!("this is not JSON: {}", without_place(e)),
    };
    let mut value: Value = serde_json::from_str(text).map_err(|e| not_json(&e))?;
    drop_nulls(&mut value);
    let mut track = serde_path_to_error::Track::new();
    T::deserialize(serde_path_to_error::Deserializer::new(value, &mut track)).map_err(|e| {
        let path = track.path().to_string();
        let path = if path == "." { String::new() } else { path };
        Unreadable { place: locate(text, &path).unwrap_or((1, 1)), message: message(&path, &e), path }
    })
}

/// What is wrong, without the value of what may be a secret.
fn message(path: &str, e: &serde_json::Error) -> String {
    let is_secret = path.split('.').any(|part| part == "env" || part.starts_with("env["));
    if is_secret { "must be a text of the form NAME=value".to_owned() } else { without_place(e) }
}

/// serde_json ends its messages with a place of its own.
fn without_place(e: &serde_json::Error) -> String {
    let text = e.to_string();
    text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> String {
        Spec::read(text).unwrap_err().to_string()
    }

    #[test]
    fn a_wrong_type_is_told_with_its_field_and_its_place() {
        let text = "{\n  \"ociVersion\": \"1.3.0\",\n  \"process\": { \"cwd\": 3, \"args\": [] }\n}";
        assert_eq!(wrong(text), "3:23: process.cwd: invalid type: integer `3`, expected path string");
        let text = "{\"ociVersion\": \"1.3.0\", \"linux\": {\"namespaces\": [null, {\"type\": \"pids\"}]}}";
        let error = Spec::read(text).unwrap_err();
        assert_eq!(error.path, "linux.namespaces[0]");
        let text = "{\"ociVersion\": \"1.3.0\", \"root\": null, \"linux\": {\"namespaces\": [{\"type\": \"pids\"}]}}";
        assert!(wrong(text).starts_with("1:73: linux.namespaces[0].type: unknown variant `pids`"), "{}", wrong(text));
        assert!(wrong("{\"process\": {\"cwd\": \"/\"}}").starts_with("1:1: missing field `ociVersion`"));
    }

    #[test]
    fn what_is_no_json_is_told_with_its_place() {
        assert!(wrong("{\n  \"ociVersion\": ,\n}").starts_with("2:17: this is not JSON"));
        assert!(wrong("").starts_with("1:0: this is not JSON"));
        assert!(wrong("{\"ociVersion\": \"1.3.0\"} x").contains("trailing characters"));
    }

    #[test]
    fn the_environment_is_not_quoted() {
        let text = "{\"ociVersion\": \"1.3.0\", \"process\": {\"cwd\": \"/\", \"env\": [[\"PASSWORD=hunter2\"]]}}";
        assert!(wrong(text).contains("process.env[0]: must be"), "{}", wrong(text));
        let text = "{\"ociVersion\": \"1.3.0\", \"process\": {\"cwd\": \"/\", \"env\": \"PASSWORD=hunter2\"}}";
        assert!(!wrong(text).contains("hunter2"), "{}", wrong(text));
    }

    #[test]
    fn what_nobody_knows_is_ignored_and_named() {
        let read = Spec::read(
            "{\"ociVersion\": \"1.3.0\", \"colour\": 1, \"empty\": null, \"root\": {\"path\": \"r\", \"ro\": true}}",
        )
        .unwrap();
        assert_eq!(read.unknown, ["colour", "root.ro"]);
        assert_eq!(Spec::read("{\"ociVersion\": \"1.3.0\", \"mounts\": null}").unwrap().unknown, [""; 0]);
    }
}
