//! The law, held on the real kernel against every effect and every step from its own examples, and against every built-in plan.
//!
//! By default a sample of the places is tried; `LIFECYCLE_LAW=full` tries all.

use std::process::ExitCode;

use lifecycle_tests::harness;

mod around;
mod effects;
mod plans;
mod runs;
mod steps;
mod subject;

fn main() -> ExitCode {
    match std::env::var(subject::VARIABLE) {
        Ok(order) => subject::obey(&order),
        Err(_) => harness::main([effects::tests(), steps::tests(), plans::tests()].into_iter().flatten().collect()),
    }
}
