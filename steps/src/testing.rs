//! For the tests of steps: planned with fixed facts, without a plan around them.

use lifecycle_engine::effect::RunNames;
use lifecycle_engine::error::PlanError;
use lifecycle_engine::facts::{Facts, Recorded};
use lifecycle_engine::step::{Planning, Step};
use serde_json::{Value, json};

/// What a step was planned to.
#[derive(Debug)]
pub struct Planned {
    /// The effects as a dry run shows them.
    pub effects: Vec<String>,
    /// The effects as the journal has them.
    pub data: Vec<Value>,
    /// The step's output.
    pub output: Value,
}

fn try_plan<S: Step>(input: Value, site: Option<&str>) -> Result<Planned, PlanError> {
    try_plan_with::<S>(json!({}), input, site)
}

fn try_plan_with<S: Step>(facts: Value, input: Value, site: Option<&str>) -> Result<Planned, PlanError> {
    let mut recorded = Recorded::default();
    recorded.host.insert("cwd".into(), json!("/work"));
    let more = facts.as_object().cloned().unwrap_or_default();
    more.into_iter().for_each(|(name, value)| drop(recorded.host.insert(name, value)));
    let mut facts = Facts::fixed(recorded);
    let run = RunNames { root: "/run/lifecycle".into(), id: "web".into() };
    let mut cx = Planning::new(&mut facts, &run, "step".into(), site.map(Into::into));
    let input = lifecycle_engine::value::decode(input).map_err(|e| PlanError::new("", e.to_string()))?;
    let output = lifecycle_engine::value::encode(&S::plan(input, &mut cx)?).unwrap();
    let effects = cx.effects.iter().map(|e| e.effect.describe()).collect();
    Ok(Planned { effects, data: cx.effects.iter().map(|e| e.data.clone()).collect(), output })
}

/// Plans a step on the host.
pub fn plan<S: Step>(input: Value) -> Planned {
    try_plan::<S>(input, None).unwrap()
}

/// Plans a step in a site.
pub fn plan_inside<S: Step>(input: Value) -> Planned {
    try_plan::<S>(input, Some("init")).unwrap()
}

/// Why a step on the host is refused.
pub fn refused<S: Step>(input: Value) -> PlanError {
    try_plan::<S>(input, None).unwrap_err()
}

/// Why a step in a site is refused.
pub fn refused_inside<S: Step>(input: Value) -> PlanError {
    try_plan::<S>(input, Some("init")).unwrap_err()
}

/// Plans a step in a site, on a host with these facts.
pub fn plan_with<S: Step>(facts: Value, input: Value) -> Planned {
    try_plan_with::<S>(facts, input, Some("init")).unwrap()
}

/// Why a step in a site is refused on a host with these facts.
pub fn refused_with<S: Step>(facts: Value, input: Value) -> PlanError {
    try_plan_with::<S>(facts, input, Some("init")).unwrap_err()
}

/// A handle to a process that another step makes.
pub fn process() -> Value {
    json!({ "$handle": { "step": "init", "effect": 0, "field": "" } })
}

/// Plans a step on a host with these facts.
pub fn plan_on<S: Step>(facts: Value, input: Value) -> Result<Planned, PlanError> {
    try_plan_with::<S>(facts, input, None)
}
