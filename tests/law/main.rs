//! The law, held on the real kernel against every effect and every step from its own examples, and against every built-in plan.
//!
//! By default a sample of the places is tried; `LIFECYCLE_LAW=full` tries all.

use std::process::ExitCode;

use lifecycle_tests::{criu, harness};

mod around;
mod effects;
mod masked;
mod plans;
mod runs;
mod steps;
mod subject;
mod users;
mod verbs;

fn main() -> ExitCode {
    // It has the order, too, of the process that started it.
    if let Some(code) = criu::acts() {
        return code;
    }
    if let Ok(order) = std::env::var(subject::VARIABLE) {
        return subject::obey(&order);
    }
    let all = [effects::tests(), steps::tests(), plans::tests(), masked::tests(), users::tests(), verbs::tests()];
    harness::main(all.into_iter().flatten().collect())
}
