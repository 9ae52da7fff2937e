//! `lifecycle facts`.

use std::process::ExitCode;

use lifecycle_engine::diag::did_you_mean;
use lifecycle_engine::facts::{Facts as Reader, Host, Recorded};
use lifecycle_engine::render::paint::{Paint, Style, pad, width, wrap};
use lifecycle_steps::facts::Machine;
use serde_json::Value;

use crate::args::{Facts, Global, Output};
use crate::print::{self, Failure, refused};

/// Prints what this host offers.
pub fn run(global: &Global, args: &Facts) -> Result<ExitCode, Failure> {
    for name in args.names.iter().chain(&args.mask) {
        known(name)?;
    }
    let mut facts = Reader::live(Box::new(Machine)).mask(args.mask.clone());
    let all = Machine.names().iter().copied();
    let wanted: Vec<&str> = all.filter(|fact| args.names.is_empty() || args.names.iter().any(|n| n == fact)).collect();
    let values: Vec<(&str, Value)> = wanted.into_iter().map(|name| (name, facts.value(name))).collect();
    match args.format {
        Output::Text => print::text(&table(&values, Paint { on: print::color(global) })),
        Output::Json => {
            let host = values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            print::text(&print::pretty(&Recorded { host, ..Recorded::default() }))
        }
    }
}

/// A misspelt fact would be masked without any effect.
pub fn known(name: &str) -> Result<(), Failure> {
    if Machine.names().contains(&name) {
        return Ok(());
    }
    let near = did_you_mean(name, Machine.names().iter().copied());
    let help = near.map_or_else(|| "`lifecycle facts` lists them".to_owned(), |near| format!("did you mean `{near}`?"));
    Err(refused(format!("there is no fact `{name}`"), help))
}

fn table(values: &[(&str, Value)], paint: Paint) -> String {
    let column = values.iter().map(|(name, _)| width(name)).max().unwrap_or(0);
    let room = print::width().saturating_sub(column + 2);
    let mut out = String::new();
    for (name, value) in values {
        let (texts, style) = told(value);
        let lines = texts.iter().flat_map(|text| wrap(text, room));
        for (i, line) in lines.enumerate() {
            let name = pad(if i == 0 { name } else { "" }, column);
            out.push_str(format!("{}  {}", paint.style(Style::Cyan, &name), paint.style(style, &line)).trim_end());
            out.push('\n');
        }
    }
    out
}

/// The lines that say what it is.
fn told(value: &Value) -> (Vec<String>, Style) {
    let (text, style) = match value {
        Value::Object(map) if !map.is_empty() => {
            return (map.iter().map(|(key, value)| format!("{key}: {}", flat(value))).collect(), Style::Plain);
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            return (items.iter().map(flat).collect(), Style::Plain);
        }
        Value::Null => ("not known".into(), Style::Dim),
        Value::Bool(true) => ("yes".into(), Style::Green),
        Value::Bool(false) => ("no".into(), Style::Yellow),
        other => match flat(other) {
            text if text.is_empty() => ("none".into(), Style::Dim),
            text => (text, Style::Plain),
        },
    };
    (vec![text], style)
}

/// The value in words: no quotes, no brackets.
fn flat(value: &Value) -> String {
    match value {
        Value::Null => "none".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(flat).collect::<Vec<_>>().join(" "),
        Value::Object(map) => {
            map.iter().map(|(key, value)| format!("{key} {}", flat(value))).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}
