//! The runtime-spec's hooks: programs of the host or of the container, run at fixed points of a container's life.

mod poststart;
mod run;

pub use poststart::Poststart;
pub use run::Run;

use lifecycle_engine::error::PlanError;

use crate::spec::Hook;

/// Refuses what config.md, "POSIX-platform Hooks", does not allow.
fn check(field: &str, hooks: &[Hook]) -> Result<(), PlanError> {
    for (k, hook) in hooks.iter().enumerate() {
        if !hook.path.is_absolute() {
            let message = format!("{} is not absolute", hook.path.display());
            return Err(PlanError::new(format!("{field}.{k}.path"), message));
        }
        if let Some(seconds) = hook.timeout.filter(|s| *s <= 0) {
            let message = format!("a time limit of {seconds} s; it must be greater than zero");
            return Err(PlanError::new(format!("{field}.{k}.timeout"), message).help("leave it out for none"));
        }
    }
    Ok(())
}
