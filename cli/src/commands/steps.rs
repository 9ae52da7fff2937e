//! `lifecycle steps`.

use std::process::ExitCode;

use lifecycle_engine::diag::did_you_mean;
use lifecycle_engine::render::catalogue::{self, Look};

use crate::args::{Global, Output, Steps};
use crate::print::{self, Failure, refused};

/// Prints the catalogue, or one kind of it.
pub fn run(global: &Global, args: &Steps) -> Result<ExitCode, Failure> {
    let registry = lifecycle_steps::registry();
    let look = Look { color: print::color(global), width: print::width() };
    let text = match (&args.kind, args.format) {
        (None, Output::Json) if args.effects => print::pretty(&catalogue::effects_json(&registry)),
        (None, Output::Text) if args.effects => catalogue::effects(&registry, look),
        (None, Output::Json) => print::pretty(&catalogue::steps_json(&registry)),
        (None, Output::Text) => catalogue::steps(&registry, look),
        (Some(name), format) => {
            let Some(kind) = registry.step(name) else {
                let near = did_you_mean(name, registry.steps().map(|s| s.kind));
                let help = near.map_or_else(
                    || "`lifecycle steps` lists them".to_owned(),
                    |near| format!("did you mean `{near}`?"),
                );
                return Err(refused(format!("there is no kind of step `{name}`"), help).with_code(1));
            };
            match format {
                Output::Json => print::pretty(&catalogue::step_json(kind)),
                Output::Text => catalogue::step(kind, look),
            }
        }
    };
    print::text(&text)
}
