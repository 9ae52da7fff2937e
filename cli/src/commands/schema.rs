//! `lifecycle schema`.

use std::process::ExitCode;

use lifecycle_engine::schema::plan_schema;

use crate::print::{self, Failure};

/// Prints the JSON Schema of plans.
pub fn run() -> Result<ExitCode, Failure> {
    print::text(&print::pretty(&plan_schema(&lifecycle_steps::registry())))
}
