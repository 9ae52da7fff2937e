//! `lifecycle-oci list`

use std::fmt::Write;
use std::process::ExitCode;

use super::print;
use crate::args::{List, TableFormat};
use crate::containers::Container;
use crate::fault::Fault;
use crate::perform::Call;
use lifecycle_engine::render::paint;

/// Prints all containers.
pub fn run(call: &Call, args: &List) -> Result<ExitCode, Fault> {
    let all = Container::all(call)?;
    if args.quiet {
        return print(&all.iter().flat_map(|c| [c.names.id.as_str(), "\n"]).collect::<String>());
    }
    match args.format {
        TableFormat::Json => {
            let all: Vec<_> = all.iter().map(Container::document).collect();
            // As other runtimes do: nothing is null.
            let text = if all.is_empty() { "null".to_owned() } else { serde_json::Value::from(all).to_string() };
            print(&format!("{text}\n"))
        }
        TableFormat::Table => print(&table(&all)),
    }
}

fn table(all: &[Container]) -> String {
    let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let row = |c: &Container| {
        let bundle = c.state.bundle.display().to_string();
        let cells = [
            c.names.id.clone(),
            c.pid().to_string(),
            c.status.to_string(),
            bundle,
            c.state.created.clone(),
            c.owner_name(),
        ];
        cells.map(|cell| paint::clean(&cell))
    };
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(all.iter().map(row)).collect();
    // As wide as runc's: there are scripts that cut by column.
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).max(9);
    let widths: Vec<usize> = (0..6).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}   ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
