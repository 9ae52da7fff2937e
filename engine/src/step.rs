//! Steps: lifecycle operations as functions from typed input and facts to effects. A step never touches the machine.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::effect::{Effect, EffectDef, RunNames, UndoTurn};
use crate::error::PlanError;
use crate::facts::Facts;
use crate::types::Type;
use crate::value::{Handle, HandleRef, Outcome, decode, encode};

/// Where a step's effects may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// On the host.
    Host,
    /// In the process that another step made, named by `site:`.
    Inside,
    /// On the host without `site:`, in the process with it (`hooks.run`: the stage says which).
    Either,
}

/// What the engine must know of a step's nature before it is planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Nature {
    /// Only reads: runs while planning, so its output is a value. Has no effects.
    Pure,
    /// Changes the machine, and everything can be taken back.
    Reversible,
    /// Waits for something and changes nothing (a probe, a process's end).
    Waits,
    /// One-way: waits for every reversible step that does not depend on it.
    Commit,
}

/// An ordering that a kind declares among the steps of one site: it comes after every step of the kinds named.
pub type After = &'static [&'static str];

/// A plan that shows a step at work. The law's harness runs it; the catalogue prints it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Example {
    /// What it shows.
    pub about: &'static str,
    /// A whole plan in YAML.
    pub plan: &'static str,
    /// What it needs of the host, by fact name (`root`, …).
    pub needs: &'static [&'static str],
}

/// A kind of step.
pub trait Step: 'static {
    /// Its name in plans, such as `cgroup.create`.
    const KIND: &'static str;
    /// What it changes, in a sentence or two.
    const CHANGES: &'static str;
    /// What reverses it.
    const REVERSED_BY: &'static str;
    /// Its nature.
    const NATURE: Nature = Nature::Reversible;
    /// Where it happens.
    const PLACE: Place = Place::Host;
    /// It makes the process that a site is.
    const MAKES_SITE: bool = false;
    /// What follows it in its site belongs to the plan but is not waited for by its run.
    const ARMS: bool = false;
    /// It releases what another step arms.
    const RELEASES: bool = false;
    /// The field that names the process which the step is about: one that waits comes after the process's program has begun, one that is one-way
    /// is so for that process alone.
    const PROCESS: Option<&'static str> = None;
    /// The kinds that come before it in the same site, whatever the plan's edges say.
    const AFTER: After = &[];
    /// Plans that show it. Never empty: checked when the registry is compiled.
    const EXAMPLES: &'static [Example];

    /// The fields of `with`. Its doc comment is the step's description.
    type Input: DeserializeOwned + JsonSchema;
    /// What `${id.…}` refers to.
    type Output: Serialize + JsonSchema;

    /// What is wrong with a field that is written out, as far as its type does not say it: an error of `check`.
    fn check(_field: &str, _value: &Value) -> Result<(), PlanError> {
        Ok(())
    }

    /// Why the step takes root, as far as the fields that are written out say it.
    fn takes_root(_with: &BTreeMap<&str, &Value>) -> Option<&'static str> {
        None
    }

    /// Turns input and facts into effects, and says what their outcomes are called.
    fn plan(input: Self::Input, cx: &mut Planning) -> Result<Self::Output, PlanError>;
}

/// An effect in a plan.
#[derive(Debug)]
pub struct PlannedEffect {
    /// The effect.
    pub effect: Box<dyn Effect>,
    /// [`Effect::data`]: what is shown and what the journal holds.
    pub data: Value,
    /// It happens at the start of the site that this step makes, not on the host.
    pub inside: bool,
}

/// What a step may use while it is planned.
pub struct Planning<'a> {
    /// The one reader of the host.
    pub facts: &'a mut Facts,
    /// The run's names.
    pub run: &'a RunNames,
    /// The step's address, such as `server/init`.
    pub step: Arc<str>,
    /// The address of the step that makes the site this one happens in.
    pub site: Option<Arc<str>>,
    /// The effects so far.
    pub effects: Vec<PlannedEffect>,
    /// An effect among them that no journal could hold.
    unwritable: Option<PlanError>,
}

impl<'a> Planning<'a> {
    /// For the planning of one step.
    pub fn new(facts: &'a mut Facts, run: &'a RunNames, step: Arc<str>, site: Option<Arc<str>>) -> Self {
        Self { facts, run, step, site, effects: Vec::new(), unwritable: None }
    }

    /// Adds an effect in the step's own place.
    pub fn effect(&mut self, effect: impl EffectDef) -> Made {
        self.push(Box::new(effect), false)
    }

    /// Adds an effect to the start of the site that this step makes. Comes after all of the step's host effects.
    pub fn inside(&mut self, effect: impl EffectDef) -> Made {
        self.push(Box::new(effect), true)
    }

    fn push(&mut self, effect: Box<dyn Effect>, inside: bool) -> Made {
        let index = self.effects.len() as u32;
        let data = effect.data().unwrap_or_else(|e| {
            let message = format!("{} cannot be written to a journal: {e}", effect.describe());
            self.unwritable.get_or_insert(PlanError::new("", message));
            Value::Null
        });
        self.effects.push(PlannedEffect { effect, data, inside });
        Made { step: self.step.clone(), effect: index }
    }
}

/// An effect that was added to a plan.
#[derive(Clone, Debug)]
pub struct Made {
    step: Arc<str>,
    effect: u32,
}

impl Made {
    /// A handle to a field of its outcome; an empty name is the whole outcome.
    pub fn handle<T: Outcome>(&self, field: &'static str) -> Handle<T> {
        Handle::new(HandleRef { step: self.step.clone(), effect: self.effect, field: field.into() })
    }
}

/// What the engine knows of a kind of step.
pub struct StepKind {
    /// [`Step::KIND`].
    pub kind: &'static str,
    /// [`Step::CHANGES`].
    pub changes: &'static str,
    /// [`Step::REVERSED_BY`].
    pub reversed_by: &'static str,
    /// [`Step::NATURE`].
    pub nature: Nature,
    /// [`Step::PLACE`].
    pub place: Place,
    /// [`Step::MAKES_SITE`].
    pub makes_site: bool,
    /// [`Step::ARMS`].
    pub arms: bool,
    /// [`Step::RELEASES`].
    pub releases: bool,
    /// [`Step::PROCESS`].
    pub process: Option<&'static str>,
    /// [`Step::AFTER`].
    pub after: After,
    /// [`Step::EXAMPLES`].
    pub examples: &'static [Example],
    input: (OnceLock<Type>, fn() -> Type),
    output: (OnceLock<Type>, fn() -> Type),
    plan: fn(Value, &mut Planning) -> Result<Value, PlanError>,
    check: fn(&str, &Value) -> Result<(), PlanError>,
    takes_root: fn(&BTreeMap<&str, &Value>) -> Option<&'static str>,
    schema: fn() -> Value,
}

impl StepKind {
    /// The kind's entry in a registry.
    pub const fn of<S: Step>() -> Self {
        assert!(!S::EXAMPLES.is_empty(), "a step must ship at least one example");
        Self {
            kind: S::KIND,
            changes: S::CHANGES,
            reversed_by: S::REVERSED_BY,
            nature: S::NATURE,
            place: S::PLACE,
            makes_site: S::MAKES_SITE,
            arms: S::ARMS,
            releases: S::RELEASES,
            process: S::PROCESS,
            after: S::AFTER,
            examples: S::EXAMPLES,
            input: (OnceLock::new(), Type::of::<S::Input>),
            output: (OnceLock::new(), Type::of::<S::Output>),
            plan: plan_step::<S>,
            check: check_field::<S>,
            takes_root: S::takes_root,
            schema: || schemars::schema_for!(S::Input).to_value(),
        }
    }

    /// The type of `with`.
    pub fn input(&self) -> &Type {
        self.input.0.get_or_init(self.input.1)
    }

    /// The type of the output.
    pub fn output(&self) -> &Type {
        self.output.0.get_or_init(self.output.1)
    }

    /// The JSON Schema of `with`.
    pub fn schema(&self) -> Value {
        (self.schema)()
    }

    /// Checks one field that is written out.
    pub fn check(&self, field: &str, value: &Value) -> Result<(), PlanError> {
        (self.check)(field, value)
    }

    /// Why a step with these fields takes root, if it does.
    pub fn takes_root(&self, with: &BTreeMap<&str, &Value>) -> Option<&'static str> {
        (self.takes_root)(with)
    }

    /// Plans one step. The input has been checked against [`StepKind::input`].
    pub fn plan(&self, input: Value, cx: &mut Planning) -> Result<Value, PlanError> {
        (self.plan)(input, cx)
    }
}

/// Fields are read in the order in which they are given, and missing ones are looked for last: whatever else is wrong is wrong with this one.
fn check_field<S: Step>(field: &str, value: &Value) -> Result<(), PlanError> {
    let alone = Value::Object([(field.to_owned(), value.clone())].into_iter().collect());
    match serde_json::from_value::<S::Input>(alone) {
        Err(e) if !e.to_string().starts_with("missing field") => Err(PlanError::new(field, in_words(&e.to_string()))),
        _ => S::check(field, value),
    }
}

/// serde speaks of Rust's types.
fn in_words(error: &str) -> String {
    let ranges = [("u8", "255"), ("u16", "65535"), ("u32", "4294967295"), ("u64", "18446744073709551615")];
    let range = ranges.iter().find(|(ty, _)| error.ends_with(&format!(", expected {ty}")));
    match (range, error.split('`').nth(1)) {
        (Some((_, most)), Some(number)) => format!("{number} is not a whole number from 0 to {most}"),
        _ => error.to_owned(),
    }
}

fn plan_step<S: Step>(input: Value, cx: &mut Planning) -> Result<Value, PlanError> {
    let input: S::Input = decode(input).map_err(|e| PlanError::new("", e.to_string()))?;
    let output = S::plan(input, cx)?;
    if let Some(error) = cx.unwritable.take() {
        return Err(error);
    }
    encode(&output).map_err(|e| PlanError::new("", format!("the output is not JSON: {e}")))
}

/// What the engine knows of a kind of effect: how to read it back from a journal, and its examples.
pub struct EffectKind {
    /// [`EffectDef::KIND`].
    pub kind: &'static str,
    /// [`EffectDef::TURN`].
    pub turn: UndoTurn,
    /// Reads the effect's fields back.
    pub decode: fn(&Value) -> Result<Box<dyn Effect>, serde_json::Error>,
    /// [`EffectDef::examples`].
    pub examples: fn(&Path) -> Vec<Box<dyn Effect>>,
}

impl EffectKind {
    /// The kind's entry in a registry.
    pub const fn of<E: EffectDef>() -> Self {
        Self {
            kind: E::KIND,
            turn: E::TURN,
            decode: |data| Ok(Box::new(decode::<E>(data.clone())?)),
            examples: |scratch| E::examples(scratch).into_iter().map(|e| Box::new(e) as Box<dyn Effect>).collect(),
        }
    }
}

/// Every kind of step and effect that a program knows.
pub struct Registry {
    steps: BTreeMap<&'static str, StepKind>,
    effects: BTreeMap<&'static str, EffectKind>,
}

impl Registry {
    /// A registry of these kinds. Panics if two have one name, which is a mistake in the program.
    pub fn new(steps: impl IntoIterator<Item = StepKind>, effects: impl IntoIterator<Item = EffectKind>) -> Self {
        let mut registry = Self { steps: BTreeMap::new(), effects: BTreeMap::new() };
        for step in steps {
            let kind = step.kind;
            assert!(registry.steps.insert(kind, step).is_none(), "two step kinds are called {kind}");
        }
        for effect in effects {
            let kind = effect.kind;
            assert!(registry.effects.insert(kind, effect).is_none(), "two effect kinds are called {kind}");
        }
        registry
    }

    /// The step kind of that name.
    pub fn step(&self, kind: &str) -> Option<&StepKind> {
        self.steps.get(kind)
    }

    /// The effect kind of that name.
    pub fn effect(&self, kind: &str) -> Option<&EffectKind> {
        self.effects.get(kind)
    }

    /// All step kinds by name.
    pub fn steps(&self) -> impl Iterator<Item = &StepKind> {
        self.steps.values()
    }

    /// All effect kinds by name.
    pub fn effects(&self) -> impl Iterator<Item = &EffectKind> {
        self.effects.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effect::{Applied, Class, Cx, Record, Undone};
    use crate::error::EffectError;
    use crate::facts::Recorded;

    /// The keys of its map are no text.
    #[derive(Debug, Serialize, Deserialize)]
    struct Odd {
        pairs: BTreeMap<(u8, u8), u8>,
    }

    impl EffectDef for Odd {
        const KIND: &'static str = "odd";
        fn examples(_: &Path) -> Vec<Self> {
            vec![Self { pairs: BTreeMap::from([((1, 2), 3)]) }]
        }
        fn class(&self) -> Class {
            Class::Reversible
        }
        fn describe(&self) -> String {
            "do something odd".into()
        }
        fn apply(&self, _: &Value, _: &mut Cx) -> Result<Applied, EffectError> {
            Ok(Applied::done())
        }
        fn undo(&self, _: &Record, _: &mut Cx) -> Result<Undone, EffectError> {
            Ok(Undone::Done)
        }
    }

    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Nothing {}

    struct DoOdd;

    impl Step for DoOdd {
        const KIND: &'static str = "odd";
        const CHANGES: &'static str = "";
        const REVERSED_BY: &'static str = "";
        const EXAMPLES: &'static [Example] = &[Example { about: "", plan: "", needs: &[] }];
        type Input = Nothing;
        type Output = Nothing;
        fn plan(_: Nothing, cx: &mut Planning) -> Result<Nothing, PlanError> {
            for odd in Odd::examples(Path::new("/")) {
                cx.effect(odd);
            }
            Ok(Nothing {})
        }
    }

    #[test]
    fn an_effect_that_no_journal_could_hold_is_an_error_of_its_plan() {
        let mut facts = Facts::fixed(Recorded::default());
        let run = RunNames { root: "/run".into(), id: "r".into() };
        let mut cx = Planning::new(&mut facts, &run, "odd".into(), None);
        let refused = StepKind::of::<DoOdd>().plan(serde_json::json!({}), &mut cx).expect_err("refused");
        assert!(refused.to_string().contains("do something odd cannot be written to a journal"), "{refused}");
    }
}
