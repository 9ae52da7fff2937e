//! The process that applies or undoes one effect, and that the killer strikes.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use lifecycle_engine::effect::{Applied, Class, Cx, Effect, Fds, Outcomes, Record, RunNames, Undone};
use lifecycle_engine::site::block_on;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::effects::example;

/// Holds the order, as JSON, in the process that is to carry it out.
pub const VARIABLE: &str = "LIFECYCLE_LAW_ORDER";

/// Which half of an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Act {
    Apply,
    Undo,
}

/// What to do with which example, and where.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    pub act: Act,
    pub kind: String,
    pub index: usize,
    pub class: Class,
    /// The directory that the examples are below.
    pub scratch: PathBuf,
    pub journal: PathBuf,
    /// The state root, and the run's id in it.
    pub root: PathBuf,
    pub id: String,
}

impl Order {
    pub fn to_text(&self) -> String {
        json!(self).to_string()
    }
}

type Failure = Box<dyn std::error::Error>;

/// Carries out the order that the environment holds.
pub fn obey(order: &str) -> ExitCode {
    let done = serde_json::from_str(order).map_err(Failure::from).and_then(|order: Order| {
        let effect = example(&order).ok_or("no such example")?;
        match order.act {
            Act::Apply => apply(&order, effect.as_ref()),
            Act::Undo => undo(&order, effect.as_ref()),
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn apply(order: &Order, effect: &dyn Effect) -> Result<(), Failure> {
    let mut journal = OpenOptions::new().create(true).append(true).open(&order.journal)?;
    if matches!(order.class, Class::Scoped | Class::Commit) {
        leave_the_lab()?;
    }
    with_cx(order, |cx| {
        let before = effect.before(cx)?;
        write(&mut journal, &json!({ "before": before }))?;
        let outcome = match effect.apply(&before, cx)? {
            Applied::Pending(pending) => {
                write(&mut journal, &json!({ "started": pending.started() }))?;
                block_on(pending, cx)?
            }
            // A site's process is inert until it hears from the engine, and ends when it hears that there is none.
            Applied::Done(outcome) | Applied::Site { outcome, .. } => outcome,
            // It has changed nothing itself, and there is no run around it here.
            Applied::UndoRun => Value::Null,
        };
        write(&mut journal, &json!({ "outcome": outcome }))?;
        Ok(())
    })
}

fn undo(order: &Order, effect: &dyn Effect) -> Result<(), Failure> {
    let Some(record) = read(order)? else {
        // Killed before its intent was written: nothing has happened.
        return Ok(());
    };
    let mut journal = OpenOptions::new().append(true).open(&order.journal)?;
    with_cx(order, |cx| {
        if let Undone::Pending(pending) = effect.undo(&record, cx)? {
            write(&mut journal, &json!({ "undoing": pending.started() }))?;
            block_on(pending, cx)?;
        }
        Ok(())
    })
}

/// What dies with a namespace is applied in namespaces that die with this process.
fn leave_the_lab() -> Result<(), Failure> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWNET)?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none)?;
    Ok(())
}

fn with_cx(order: &Order, act: impl FnOnce(&mut Cx) -> Result<(), Failure>) -> Result<(), Failure> {
    let run = RunNames { root: order.root.clone(), id: order.id.clone() };
    let step: Arc<str> = "law".into();
    let mut fds = Fds::default();
    let mut output = |line: &str| println!("{line}");
    act(&mut Cx {
        run: &run,
        step: &step,
        effect: 0,
        outcomes: &Outcomes::default(),
        fds: &mut fds,
        site: None,
        output: &mut output,
    })
}

/// One line, in one write, as the engine's journal has it.
fn write(journal: &mut File, line: &Value) -> Result<(), Failure> {
    journal.write_all(format!("{line}\n").as_bytes())?;
    Ok(())
}

/// What the journal says; none if it says nothing.
fn read(order: &Order) -> Result<Option<Record>, Failure> {
    let text = match fs::read_to_string(&order.journal) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut record = Record::default();
    for line in text.lines() {
        let Value::Object(line) = serde_json::from_str(line)? else { continue };
        for (key, value) in line {
            match key.as_str() {
                "before" => record.before = value,
                "started" => record.started = Some(value),
                "outcome" => record.outcome = Some(value),
                "undoing" => record.undoing = Some(value),
                other => return Err(format!("the journal says {other}").into()),
            }
        }
    }
    Ok((!text.is_empty()).then_some(record))
}
