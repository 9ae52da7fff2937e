//! The dry run as versioned JSON.

use super::model::{DryRun, VERSION};

/// The JSON, indented, with a newline at the end. The same dry run gives the same bytes.
pub fn print(run: &DryRun) -> String {
    // The types hold nothing that JSON cannot: text keys only, and numbers that came from JSON.
    let mut text = serde_json::to_string_pretty(run).unwrap_or_default();
    text.push('\n');
    text
}

/// Reads what [`print`] wrote, by this version of the program or another.
pub fn parse(text: &str) -> Result<DryRun, String> {
    let value: serde_json::Value = serde_json::from_str(text).map_err(|e| format!("not JSON: {e}"))?;
    match value.get("lifecycle_dry_run").and_then(serde_json::Value::as_u64) {
        None => Err("not a dry run: it has no `lifecycle_dry_run`".into()),
        Some(version) if version != u64::from(VERSION) => {
            Err(format!("a dry run of format {version}; this program reads format {VERSION}"))
        }
        Some(_) => {
            let run: DryRun = serde_json::from_value(value).map_err(|e| format!("a damaged dry run: {e}"))?;
            if run.scopes.is_empty() { Err("a damaged dry run: it has no scope".into()) } else { Ok(run) }
        }
    }
}
