//! `lifecycle show`.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use lifecycle_engine::effect::RunNames;
use lifecycle_engine::journal::{self, JournalError};
use lifecycle_engine::render::{from_journal, show};
use lifecycle_engine::run::{RunError, is_alive};

use crate::args::{Global, Output, Show};
use crate::follow::Follow;
use crate::place;
use crate::print::{self, Failure};

/// At a terminal the times of what goes on are drawn anew this often.
const PACE: Duration = Duration::from_secs(1);

/// Executes the command.
pub fn run(global: &Global, args: &Show) -> Result<ExitCode, Failure> {
    let names = place::run(global, &args.run)?;
    let mut text = view(global, args, &names)?;
    if args.follow {
        let mut follow = Follow::new(&names)?;
        // What changed before it was watched is not told again; a run that has gone meanwhile is found out below.
        if let Ok(now) = view(global, args, &names) {
            text = now;
        }
        let redraw = std::io::stdout().is_terminal();
        loop {
            draw(&text, redraw)?;
            if !follow.wait(redraw.then_some(PACE))? {
                break;
            }
            // Between two changes the run may have been taken back for good.
            match view(global, args, &names) {
                Ok(next) => text = next,
                Err(_) if !names.dir().exists() => break,
                Err(e) => return Err(e),
            }
        }
        if !names.dir().exists() {
            return print::text(&format!("run `{}` has ended and was taken back\n", args.run));
        }
        text = view(global, args, &names)?;
        draw(&text, redraw)?;
        return Ok(ExitCode::SUCCESS);
    }
    print::text(&text)
}

fn view(global: &Global, args: &Show, names: &RunNames) -> Result<String, Failure> {
    let mut state = journal::read(names).map_err(RunError::from)?;
    for id in state.children.clone() {
        match journal::read(&RunNames { root: names.root.clone(), id }) {
            Ok(child) => state.adopt(child),
            Err(JournalError::Absent { .. }) => {}
            Err(e) => return Err(RunError::from(e).into()),
        }
    }
    let alive = state.segments.last().is_some_and(|s| is_alive(&s.engine));
    let (head, steps) = from_journal(&state, lifecycle_engine::site::now(), alive);
    Ok(match args.format {
        Output::Json => format!("{:#}\n", show::json(&head, &steps)),
        Output::Text => show::text(&head, &steps, print::color(global), print::width()),
    })
}

/// At a terminal each view replaces the one before; in a file they follow each other.
fn draw(text: &str, redraw: bool) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    let home = if redraw { "\x1b[H\x1b[J" } else { "" };
    match stdout.write_all(format!("{home}{text}").as_bytes()).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(print::failed("cannot write to stdout", &e)),
        _ => Ok(()),
    }
}
