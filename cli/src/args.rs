//! The command line of `lifecycle`, and nothing else: what each command does is in `commands/`.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use lifecycle_engine::site::Inject;

/// Shows, runs and takes back container lifecycles that are written as plans.
///
/// A plan is a YAML file of steps. `plan` shows every change that it would make and makes none; `run` makes them and takes them back at the end;
/// `undo` and `recover` take back what a run left.
#[derive(Debug, Parser)]
#[command(name = "lifecycle", version, max_term_width = 100, propagate_version = false)]
pub struct Cli {
    /// What all commands share.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Directory that holds the runs [default: /run/lifecycle, or $XDG_RUNTIME_DIR/lifecycle for an ordinary user]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    pub root: Option<PathBuf>,
    /// When to use colour
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", help_heading = "Global options")]
    pub color: When,
}

/// When to use colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// At a terminal, unless NO_COLOR is set or TERM is `dumb`.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a plan, and take everything back when its main process ends
    Run(Run),
    /// Show what a plan would do, to the last effect, and touch nothing
    Plan(Plan),
    /// Check plans and report every problem in them
    Check(Check),
    /// Compare plans' dry runs with their stored snapshots
    Snapshot(Snapshot),
    /// List the kinds of steps, or document one
    Steps(Steps),
    /// Print the JSON Schema of plans, for editors
    Schema,
    /// Print what this host offers
    Facts(Facts),
    /// List the runs and their states
    Runs(Runs),
    /// Show a run's steps with their times and outcomes
    Show(Show),
    /// Print what a run's steps wrote
    Logs(Logs),
    /// Take a run back; one that is going on is cancelled first
    Undo(Undo),
    /// Take back every run whose engine is gone before it had finished
    Recover(Recover),
    /// List what on this machine carries our names, and whose it is
    Audit(Audit),
    /// Print the completions for a shell
    Completions(Completions),
    /// Write the manual pages
    Man(Man),
}

/// A plan's parameters.
#[derive(Clone, Debug, Default, Args)]
pub struct Params {
    /// Set a parameter; the value is read as YAML
    #[arg(short = 'p', long = "param", value_name = "NAME=VALUE", value_parser = key_value)]
    pub set: Vec<String>,
    /// Read parameters from a YAML file, a map by name; `-p` wins over it
    #[arg(short = 'f', long = "params", value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// `lifecycle run`.
///
/// The exit code is the main process's: its own, or 128 + n if signal n ended it, 126 if the command cannot be executed, 127 if it is not found; 1 if
/// another step failed, 125 if the engine did or the run could not begin. The last line says how the run ended.
#[derive(Debug, Args)]
pub struct Run {
    /// Plan file, built-in plan such as oci/run, or a plan saved by `plan -o`
    #[arg(value_name = "PLAN", default_value = "hello")]
    pub plan: String,
    /// Its parameters.
    #[command(flatten)]
    pub params: Params,
    /// Leave everything in place when the main process ends; `undo` takes it back
    #[arg(long)]
    pub keep: bool,
    /// Go on in the background, in a session of its own; `logs`, `show -f` and `undo` reach it
    #[arg(long, conflicts_with_all = ["pause_at"])]
    pub detach: bool,
    /// This process is the engine that `--detach` left behind
    #[arg(long, hide = true)]
    pub detached: bool,
    /// Write every event as a line of JSON; `-` is stdout
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// Write a trace for Perfetto or chrome://tracing, host and sites side by side
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Make a step fail before its first effect or after its last one, or kill the engine there, to see the plan taken back
    #[arg(long, value_name = "STEP[:before|after|crash]", value_parser = fail_at)]
    pub fail_at: Option<FailAt>,
    /// Stop before a step, print how to look inside, and go on at Enter
    #[arg(long, value_name = "STEP")]
    pub pause_at: Option<String>,
    /// How many steps may be at work at once; as many as the limit of open files allows if it is not given
    #[arg(long, value_name = "N")]
    pub jobs: Option<NonZeroUsize>,
    /// Act as if the host did not offer this fact
    #[arg(long, value_name = "FACT", value_delimiter = ',')]
    pub mask: Vec<String>,
    /// The command for the container's main process, if the plan takes one
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// Where to inject a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailAt {
    /// The step's address.
    pub step: String,
    /// The fault.
    pub inject: Inject,
}

/// `lifecycle plan`.
///
/// The same input and facts give the same bytes every time. It needs no root.
#[derive(Debug, Args)]
pub struct Plan {
    /// Plan file, built-in plan, saved plan, bundle directory, or (with --diff) a facts file
    #[arg(value_name = "PLAN", required = true, num_args = 1..=2)]
    pub plans: Vec<String>,
    /// Their parameters.
    #[command(flatten)]
    pub params: Params,
    /// What to print
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: Format,
    /// Plan against these facts instead of this host's; twice with --diff compares one plan on two hosts
    #[arg(long, value_name = "FILE", conflicts_with = "mask")]
    pub facts: Vec<PathBuf>,
    /// Act as if the host did not offer this fact
    #[arg(long, value_name = "FACT", value_delimiter = ',')]
    pub mask: Vec<String>,
    /// Show the plans that are used as steps in one line each
    #[arg(long)]
    pub fold: bool,
    /// Save the plan, for `run FILE` to run exactly as shown
    #[arg(short = 'o', long, value_name = "FILE", conflicts_with = "diff")]
    pub output: Option<PathBuf>,
    /// Compare two plans, bundles, saved plans or facts files, effect by effect; exit code 1 if they differ
    #[arg(long)]
    pub diff: bool,
    /// The command for the container's main process, if the plan takes one
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// The formats of a dry run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For reading in a terminal.
    Text,
    /// For programs; versioned.
    Json,
    /// For Graphviz.
    Dot,
    /// For Markdown.
    Mermaid,
    /// For a browser.
    Svg,
}

/// `lifecycle check`.
#[derive(Debug, Args)]
pub struct Check {
    /// Plan files
    #[arg(value_name = "PLAN", required = true)]
    pub plans: Vec<String>,
}

/// `lifecycle snapshot`.
///
/// A plan's snapshot is its dry run as text, stored beside the plan in `snapshots/NAME.txt` unless --dir says otherwise. The exit code is 1 if one
/// differs or is missing.
#[derive(Debug, Args)]
pub struct Snapshot {
    /// Plan files
    #[arg(value_name = "PLAN", required = true)]
    pub plans: Vec<String>,
    /// Their parameters.
    #[command(flatten)]
    pub params: Params,
    /// Facts to plan against, so that the result is the same on every machine (`lifecycle facts --format json` writes such a file)
    #[arg(long, value_name = "FILE", required = true)]
    pub facts: PathBuf,
    /// Directory of the snapshots
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Store what is there now
    #[arg(long)]
    pub update: bool,
}

/// Text for people or JSON for programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For reading in a terminal.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// `lifecycle steps`.
#[derive(Debug, Args)]
pub struct Steps {
    /// The kind to document, such as cgroup.create
    #[arg(value_name = "KIND")]
    pub kind: Option<String>,
    /// List the kinds of effects instead
    #[arg(long, conflicts_with = "kind")]
    pub effects: bool,
    /// What to print
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: Output,
}

/// `lifecycle facts`.
#[derive(Debug, Args)]
pub struct Facts {
    /// Only these facts
    #[arg(value_name = "FACT")]
    pub names: Vec<String>,
    /// Act as if the host did not offer this fact
    #[arg(long, value_name = "FACT", value_delimiter = ',')]
    pub mask: Vec<String>,
    /// What to print; JSON is what `plan --facts` reads
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: Output,
}

/// `lifecycle runs`.
#[derive(Debug, Args)]
pub struct Runs {
    /// What to print
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: Output,
}

/// `lifecycle show`.
#[derive(Debug, Args)]
pub struct Show {
    /// The run's id
    #[arg(value_name = "RUN")]
    pub run: String,
    /// Go on showing it until it ends
    #[arg(short = 'f', long)]
    pub follow: bool,
    /// What to print
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: Output,
}

/// `lifecycle logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// The run's id
    #[arg(value_name = "RUN")]
    pub run: String,
    /// Go on printing until it ends
    #[arg(short = 'f', long)]
    pub follow: bool,
    /// Only what this step wrote
    #[arg(long, value_name = "STEP")]
    pub step: Option<String>,
}

/// `lifecycle undo`.
#[derive(Debug, Args)]
pub struct Undo {
    /// The run's id
    #[arg(value_name = "RUN")]
    pub run: String,
    /// Give up what is stuck of this step, and leave it as it is
    #[arg(long, value_name = "STEP")]
    pub forget: Vec<String>,
}

/// `lifecycle recover`.
#[derive(Debug, Args)]
pub struct Recover {
    /// Show what would be taken back, and take nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `lifecycle audit`. The exit code is 1 if something on the machine belongs to no run.
#[derive(Debug, Args)]
pub struct Audit {
    /// What to print
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: Output,
}

/// `lifecycle completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// `lifecycle man`.
#[derive(Debug, Args)]
pub struct Man {
    /// Write a page for each command into this directory instead of the main page to stdout
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// The command's name and how many arguments come before it: only options that every command takes can.
pub fn command(mut arguments: impl Iterator<Item = OsString>) -> Option<(usize, OsString)> {
    let mut before = 0;
    while let Some(argument) = arguments.next() {
        if argument == "--root" || argument == "--color" {
            arguments.next()?;
            before += 2;
        } else if argument.as_encoded_bytes().starts_with(b"-") {
            before += 1;
        } else {
            return Some((before, argument));
        }
    }
    None
}

fn key_value(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some(("", _)) => Err("the parameter's name is missing before `=`".into()),
        Some(_) => Ok(text.to_owned()),
        None => Err(format!("write {text}=VALUE")),
    }
}

/// An address may hold a colon of its own (`veth["a:b"]`), so only the last part can be the fault, and only if it is one.
fn fail_at(text: &str) -> Result<FailAt, String> {
    let (step, inject) = match text.rsplit_once(':') {
        Some((step, "before")) => (step, Inject::Before),
        Some((step, "after")) => (step, Inject::After),
        Some((step, "crash")) => (step, Inject::Crash),
        Some((_, word)) if !word.ends_with(']') => {
            return Err(format!("`{word}` is not a place to fail: write before, after or crash"));
        }
        _ => (text, Inject::Before),
    };
    if step.is_empty() {
        return Err("the step's address is missing before `:`".into());
    }
    Ok(FailAt { step: step.to_owned(), inject })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_fault_names_a_step_and_where_in_it() {
        let at = |text| fail_at(text).map(|f| (f.step, f.inject));
        assert_eq!(at("server/init:crash"), Ok(("server/init".into(), Inject::Crash)));
        assert_eq!(at("init"), Ok(("init".into(), Inject::Before)));
        assert_eq!(at(r#"veth["a:b"]"#), Ok((r#"veth["a:b"]"#.into(), Inject::Before)));
        assert_eq!(at(r#"veth["a:b"]:after"#), Ok((r#"veth["a:b"]"#.into(), Inject::After)));
        assert!(at("init:never").is_err());
        assert!(at(":before").is_err());
    }

    #[test]
    fn a_parameter_has_a_name() {
        assert_eq!(key_value("env=A=b"), Ok("env=A=b".into()));
        assert!(key_value("=x").is_err());
        assert!(key_value("x").is_err());
    }

    #[test]
    fn the_command_is_found_behind_the_options_of_all_commands() {
        let find = |words: &[&str]| command(words.iter().map(OsString::from)).map(|(n, c)| (n, c.into_string()));
        assert_eq!(find(&["run", "--detach"]), Some((0, Ok("run".into()))));
        assert_eq!(find(&["--root", "run", "--color=never", "plan", "run"]), Some((3, Ok("plan".into()))));
        assert_eq!(find(&["--help"]), None);
    }

    #[test]
    fn everything_after_two_dashes_is_the_command() {
        let cli = Cli::try_parse_from(["lifecycle", "run", "--", "sh", "-c", "exit 3"]).expect("legal");
        let Command::Run(run) = cli.command else { panic!("not run") };
        assert_eq!(
            (run.plan.as_str(), run.command.as_slice()),
            ("hello", &["sh", "-c", "exit 3"].map(String::from)[..])
        );
    }
}
