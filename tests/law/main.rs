//! The law, held against every effect from its own examples, on the real kernel.
//!
//! By default a sample of the places is tried; `LIFECYCLE_LAW=full` tries all.

use std::process::ExitCode;

use lifecycle_tests::harness;

mod around;
mod effects;
mod subject;

fn main() -> ExitCode {
    match std::env::var(subject::VARIABLE) {
        Ok(order) => subject::obey(&order),
        Err(_) => harness::main(effects::tests()),
    }
}
