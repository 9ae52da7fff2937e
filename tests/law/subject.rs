//! The process that applies or undoes one effect, and that the killer strikes.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use lifecycle_engine::effect::{Applied, Class, Cx, Effect, Fds, Outcomes, Record, RunNames, Said, Undone};
use lifecycle_engine::site::block_on;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::around;
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
    let (_held, around) = around::enter(&order.kind, effect, &order.scratch)?;
    for (step, outcome) in &around {
        write(&mut journal, &json!({ "around": [&**step, outcome] }))?;
    }
    with_cx(order, &around, |cx| {
        around::prepare(order, effect, cx)?;
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
    let Some((record, around)) = read(order)? else {
        // Killed before its intent was written: nothing has happened.
        return around::leave(&order.kind, &order.scratch);
    };
    let mut journal = OpenOptions::new().append(true).open(&order.journal)?;
    with_cx(order, &around, |cx| {
        if let Undone::Pending(pending) = effect.undo(&record, cx)? {
            write(&mut journal, &json!({ "undoing": pending.started() }))?;
            block_on(pending, cx)?;
        }
        Ok(())
    })?;
    around::leave(&order.kind, &order.scratch)
}

fn with_cx(
    order: &Order,
    around: &around::Outcomes,
    act: impl FnOnce(&mut Cx) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let run = RunNames { root: order.root.clone(), id: order.id.clone() };
    let step: Arc<str> = "law".into();
    let mut fds = Fds::default();
    let mut outcomes = Outcomes::default();
    for (step, outcome) in around {
        outcomes.put(step, 0, outcome.clone());
    }
    let mut output = |said: Said| println!("{said:?}");
    act(&mut Cx {
        run: &run,
        step: &step,
        effect: 0,
        outcomes: &outcomes,
        fds: &mut fds,
        site: None,
        outlives: false,
        output: &mut output,
    })
}

/// One line, in one write, as the engine's journal has it.
fn write(journal: &mut File, line: &Value) -> Result<(), Failure> {
    journal.write_all(format!("{line}\n").as_bytes())?;
    Ok(())
}

/// What the journal says; none if it says nothing.
fn read(order: &Order) -> Result<Option<(Record, around::Outcomes)>, Failure> {
    let text = match fs::read_to_string(&order.journal) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut record = Record::default();
    let (mut around, mut intended) = (around::Outcomes::new(), false);
    for line in text.lines() {
        let Value::Object(line) = serde_json::from_str(line)? else { continue };
        for (key, value) in line {
            match key.as_str() {
                "around" => {
                    let (step, outcome): (String, Value) = serde_json::from_value(value)?;
                    around.push((step.into(), outcome));
                }
                "before" => {
                    record.before = value;
                    intended = true;
                }
                "started" => record.started = Some(value),
                "outcome" => record.outcome = Some(value),
                "undoing" => record.undoing = Some(value),
                other => return Err(format!("the journal says {other}").into()),
            }
        }
    }
    Ok(intended.then_some((record, around)))
}
