//! `lifecycle recover`.

use std::fmt::Write;
use std::process::ExitCode;

use lifecycle_cli::mask;
use lifecycle_engine::journal;
use lifecycle_engine::render::paint;
use lifecycle_engine::run::{Recovered, is_alive, recover};

use crate::args::{Global, Recover};
use crate::place;
use crate::print::{self, Failure};
use crate::watch::{Lines, NOTICEABLE};

/// Executes the command. The exit code is 1 if something could not be taken back.
pub fn run(global: &Global, args: &Recover) -> Result<ExitCode, Failure> {
    let _ = mask::own();
    let root = place::root(global)?;
    if args.dry_run {
        return preview(global);
    }
    let mut text = String::new();
    let mut failed = false;
    for (id, recovered) in recover(&root, &lifecycle_steps::registry(), &mut Lines { slow: NOTICEABLE, output: true })?
    {
        let _ = match recovered {
            Recovered::Left => continue,
            Recovered::Undone => writeln!(text, "{id}: taken back"),
            Recovered::Settled => {
                writeln!(text, "{id}: kept; its engine had passed the point of no return, or is rolled back to it")
            }
            Recovered::Failed(why) => {
                failed = true;
                writeln!(text, "{id}: left as it is: {why}")
            }
            Recovered::Stuck(stuck) => {
                failed = true;
                let each = stuck.iter().map(|s| format!("  {}: {}: {}\n", s.step, s.effect, s.error));
                writeln!(text, "{id}: stuck, to be tried again:\n{}", each.collect::<String>().trim_end())
            }
        };
    }
    if text.is_empty() {
        text.push_str("nothing to recover\n");
    }
    print::text(&paint::lines(&text))?;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn preview(global: &Global) -> Result<ExitCode, Failure> {
    let mut text = String::new();
    for names in place::runs(global)? {
        let Ok(state) = journal::read(&names) else { continue };
        let alive = state.segments.last().is_some_and(|s| is_alive(&s.engine));
        if (!state.is_settled() || state.deleting) && !alive {
            let owed = state.begun().flat_map(|(_, n)| n.effects.iter().filter(|e| n.site.is_none() && e.owes_undo()));
            let _ = writeln!(text, "{}: {} effects to take back", names.id, owed.count());
        }
    }
    print::text(if text.is_empty() { "nothing to recover\n" } else { &text })
}
