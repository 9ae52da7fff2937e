//! `lifecycle-oci`: an OCI runtime with runc's command line, over the same engine and plans as `lifecycle`.

mod args;
mod containers;
mod fault;
mod log;
mod perform;
mod verbs;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser};
use lifecycle_cli::mask::{self, Callers};
use lifecycle_engine::render::paint;

use args::{Cli, Global, Verb};
use fault::Fault;
use log::Log;
use perform::Call;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => return wrong_usage(&usage),
    };
    let callers = mask::own();
    let log = Log::new(&cli.global);
    if let Err(e) = log.begin() {
        let path = cli.global.log.as_deref().unwrap_or_else(|| Path::new(""));
        // Nobody is left to be told where stderr cannot be written to.
        let _ = writeln!(io::stderr(), "{}", paint::lines(&format!("cannot write the log {}: {e}", path.display())));
        if !ends_a_container(&cli.verb) {
            return ExitCode::FAILURE;
        }
    }
    dispatch(cli, &log, callers).unwrap_or_else(|fault| {
        log.error(&fault.message);
        ExitCode::from(fault.code)
    })
}

/// A disk that is full must not keep a container from being ended.
fn ends_a_container(verb: &Verb) -> bool {
    matches!(verb, Verb::Kill(_) | Verb::Delete(_))
}

/// Also `--help` and `--version`.
fn wrong_usage(usage: &clap::Error) -> ExitCode {
    if usage.kind() == clap::error::ErrorKind::DisplayVersion {
        return verbs::features::version();
    }
    if usage.exit_code() != 0 {
        log_usage(usage);
    }
    // Nothing can be said where neither stdout nor stderr can be written to.
    let _ = usage.print();
    ExitCode::from(u8::from(usage.exit_code() != 0))
}

/// A caller that has named a log looks for the reason there, and the log's name is known even where the rest of the line is wrong.
fn log_usage(usage: &clap::Error) {
    let matches = Cli::command().ignore_errors(true).try_get_matches();
    let Some(global) = matches.ok().and_then(|matches| Global::from_arg_matches(&matches).ok()) else { return };
    let text = usage.render().to_string();
    let reason = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
    Log::new(&global).file_error(&reason.split_whitespace().collect::<Vec<_>>().join(" "));
}

fn dispatch(cli: Cli, log: &Log, callers: Callers) -> Result<ExitCode, Fault> {
    let call = Call::new(&cli.global, log)?;
    match cli.verb {
        Verb::Create(args) => verbs::create::run(&call, &args),
        Verb::Start(args) => verbs::start::run(&call, &args.id),
        Verb::Run(args) => verbs::run::run(&call, &args),
        Verb::State(args) => verbs::state::run(&call, &args.id),
        Verb::Kill(args) => verbs::kill::run(&call, &args),
        Verb::Delete(args) => verbs::delete::run(&call, &args),
        Verb::Exec(args) => verbs::exec::run(&call, &args),
        Verb::List(args) => verbs::list::run(&call, &args),
        Verb::Ps(args) => verbs::ps::run(&call, &args),
        Verb::Events(args) => verbs::events::run(&call, &args),
        Verb::Pause(args) => verbs::pause::pause(&call, &args.id),
        Verb::Resume(args) => verbs::pause::resume(&call, &args.id),
        Verb::Update(args) => verbs::update::run(&call, &args),
        // The config.json to start from is the caller's.
        Verb::Spec(args) => callers.make(|| verbs::spec::run(&args)),
        Verb::Features => verbs::features::run(),
        Verb::Checkpoint(args) => verbs::checkpoint::checkpoint(&call, &args),
        Verb::Restore(args) => verbs::checkpoint::restore(&call, &args),
        Verb::Completions { shell } => verbs::manual::completions(shell),
        Verb::Man => verbs::manual::man(),
    }
}
