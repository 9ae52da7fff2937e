//! `lifecycle check`.

use std::process::ExitCode;

use crate::args::{Check, Global};
use crate::load;
use crate::print::{self, Failure};

/// Reports every problem of every plan, and goes on after one that is wrong.
pub fn run(global: &Global, args: &Check) -> Result<ExitCode, Failure> {
    let registry = lifecycle_steps::registry();
    let mut wrong = 0;
    for plan in &args.plans {
        if let Err(report) = load::compile(plan, &registry)? {
            wrong += 1;
            eprint!("{}", report.render(print::style(global)));
        }
    }
    if wrong == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    let of = if args.plans.len() == 1 { String::new() } else { format!(" of {} plans", args.plans.len()) };
    eprintln!("{wrong}{of} {} problems", if wrong == 1 { "has" } else { "have" });
    print::text("").map(|_| ExitCode::from(1))
}
