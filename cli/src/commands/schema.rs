//! `lifecycle schema`.

use std::process::ExitCode;

use lifecycle_engine::render::schema;

use crate::builtin::LIBRARY;
use crate::print::{self, Failure};

/// Prints the JSON Schema of plans.
pub fn run() -> Result<ExitCode, Failure> {
    let plans: Vec<&str> = LIBRARY.plans.iter().map(|(name, _)| *name).collect();
    print::text(&print::pretty(&schema::json(&lifecycle_steps::registry(), &plans)))
}
