//! `lifecycle`: shows, runs and takes back container lifecycles that are written as plans.

mod args;
mod commands;
mod detach;
mod follow;
mod load;
mod pause;
mod place;
mod print;
mod verdict;
mod watch;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use print::Failure;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => return wrong_usage(&usage),
    };
    dispatch(&cli).unwrap_or_else(|failure| {
        print::failure(&failure.report);
        // 125 tells `run`'s own failure from the container's; nobody else's exit code is mistaken for another's.
        match (&cli.command, failure.code) {
            (Command::Run(_), code) => ExitCode::from(code),
            (_, print::ENGINE_FAILED) => ExitCode::from(1),
            (_, code) => ExitCode::from(code),
        }
    })
}

/// Also `--help` and `--version`. `run` must not answer with a code that could be the container's own.
fn wrong_usage(usage: &clap::Error) -> ExitCode {
    let running = args::command(std::env::args_os().skip(1)).is_some_and(|(_, command)| command == "run");
    // Nothing can be said where neither stdout nor stderr can be written to.
    let _ = usage.print();
    match usage.exit_code() {
        0 => ExitCode::SUCCESS,
        _ if running => ExitCode::from(print::ENGINE_FAILED),
        code => ExitCode::from(code as u8),
    }
}

fn dispatch(cli: &Cli) -> Result<ExitCode, Failure> {
    let global = &cli.global;
    match &cli.command {
        Command::Completions(args) => commands::completions::run(args),
        Command::Man(args) => commands::man::run(args),
        Command::Run(args) => commands::run::run(global, args),
        Command::Runs(args) => commands::runs::run(global, args),
        Command::Show(args) => commands::show::run(global, args),
        Command::Logs(args) => commands::logs::run(global, args),
        Command::Undo(args) => commands::undo::run(global, args),
        Command::Recover(args) => commands::recover::run(global, args),
        Command::Audit(args) => commands::audit::run(global, args),
        Command::Plan(args) => commands::plan::run(global, args),
        Command::Check(args) => commands::check::run(global, args),
        Command::Snapshot(args) => commands::snapshot::run(global, args),
        Command::Steps(args) => commands::steps::run(global, args),
        Command::Schema => commands::schema::run(),
        Command::Facts(args) => commands::facts::run(global, args),
    }
}
