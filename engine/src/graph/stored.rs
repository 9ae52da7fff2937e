//! A graph as text: what a program carries of the plans that are built into it, so that it need not compile them each time it starts.
//!
//! It holds what planning looks at. What only the compiler needs is left out: the types of outputs, the documentation of fields, and where an
//! edge is written. Kinds and texts are in it by name alone; the program that reads it has them anyway.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Edge, Edges, Extras, Field, Graph, Input, Item, Opens, Output, Param, Scope, Step, Unit, Uses, Why};
use crate::compile::Library;
use crate::diag::{FileId, Place, Sources, Span};
use crate::step::Registry;
use crate::types::{self, Struct, Type};

#[derive(Serialize, Deserialize)]
struct Stored {
    files: Vec<String>,
    units: Vec<StoredUnit>,
    scopes: Vec<Scope>,
    items: Vec<Item>,
    order: Vec<u32>,
    edges: Vec<(u32, u32, Why)>,
}

#[derive(Serialize, Deserialize)]
struct StoredUnit {
    name: Arc<str>,
    about: Box<str>,
    file: FileId,
    params: Vec<Param>,
    steps: Vec<StoredStep>,
    outputs: Vec<Output>,
    main: Vec<u32>,
    run: Option<Input>,
    opens: Option<Opens>,
}

#[derive(Serialize, Deserialize)]
struct StoredStep {
    id: Arc<str>,
    span: Span,
    uses: StoredUses,
    with: Vec<StoredField>,
    needs: Box<[(u32, Span)]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    extras: Option<Box<Extras>>,
}

#[derive(Serialize, Deserialize)]
enum StoredUses {
    Kind(String),
    Plan(u32),
}

/// A value with its field's name and, unless it is settled, its type.
#[derive(Serialize, Deserialize)]
struct StoredField {
    index: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ty: Option<Type>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    settled: bool,
    value: Input,
    span: Span,
}

/// Writes a graph.
///
/// # Errors
///
/// A value in it that JSON cannot hold.
pub fn write(graph: &Graph<'_>) -> Result<String, serde_json::Error> {
    serde_json::to_string(&Stored {
        files: graph.sources.names().map(str::to_owned).collect(),
        units: (0..)
            .zip(&graph.units)
            .map(|(unit, of)| store_unit(of, graph.scopes.iter().any(|scope| scope.unit == unit)))
            .collect(),
        scopes: graph.scopes.clone(),
        items: graph.items.clone(),
        order: graph.order.clone(),
        edges: graph.edges.all().iter().map(|edge| (edge.to, edge.from, edge.why)).collect(),
    })
}

/// A plan that is only opened has no part in what runs: of it the compiler has taken the types of its outputs.
fn store_unit(unit: &Unit<'_>, used: bool) -> StoredUnit {
    StoredUnit {
        name: unit.name.clone(),
        about: unit.about.clone(),
        file: unit.file,
        params: if used { unit.params.clone() } else { Vec::new() },
        steps: unit.steps.iter().filter(|_| used).map(store_step).collect(),
        outputs: if used { unit.outputs.clone() } else { Vec::new() },
        main: unit.main.clone(),
        run: unit.run.clone(),
        opens: unit.opens.clone(),
    }
}

fn store_step(step: &Step<'_>) -> StoredStep {
    let uses = match step.uses {
        Uses::Kind(kind) => StoredUses::Kind(kind.kind.to_owned()),
        Uses::Plan(unit) => StoredUses::Plan(unit),
        Uses::Unknown => StoredUses::Kind(String::new()),
    };
    let with = (0..).zip(&step.with).map(|(position, given)| {
        let field = step.input.as_ref().map(|input| &input.fields[given.index as usize]);
        StoredField {
            // Of a kind's fields only those that are given are stored.
            index: if field.is_some() { position } else { given.index },
            name: field.map(|field| field.name.clone()).unwrap_or_default(),
            ty: field.filter(|_| !given.settled).map(|field| undocumented(&field.ty)),
            settled: given.settled,
            value: given.value.clone(),
            span: given.span,
        }
    });
    StoredStep {
        id: step.id.clone(),
        span: step.span,
        uses,
        with: with.collect(),
        needs: step.needs.clone(),
        extras: step.extras.clone(),
    }
}

/// The type without the words that explain it.
fn undocumented(ty: &Type) -> Type {
    let inner = |ty: &Arc<Type>| Arc::new(undocumented(ty));
    match ty {
        Type::List(item) => Type::List(inner(item)),
        Type::Map(item) => Type::Map(inner(item)),
        Type::Sensitive(of) => Type::Sensitive(inner(of)),
        Type::Nullable(of) => Type::Nullable(inner(of)),
        Type::Later(of, handle) => Type::Later(inner(of), handle.clone()),
        Type::Struct(structure) => {
            let fields = structure.fields.iter().map(|field| types::Field {
                about: String::new(),
                ty: undocumented(&field.ty),
                ..field.clone()
            });
            Type::Struct(Arc::new(Struct {
                name: structure.name.clone(),
                about: String::new(),
                fields: fields.collect(),
                open: structure.open,
            }))
        }
        other => other.clone(),
    }
}

/// Reads a graph that [`write`] wrote.
///
/// # Errors
///
/// The text is not one that `write` wrote for this registry and these plans.
pub fn read<'r>(text: &str, registry: &'r Registry, library: Library<'_>) -> Result<Graph<'r>, String> {
    let stored: Stored = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let mut sources = Sources::default();
    for name in &stored.files {
        let text = library.text(name).ok_or_else(|| format!("there is no plan {name}"))?;
        sources.add(name, text);
    }
    let edges = stored.edges.into_iter().map(|(to, from, why)| Edge { to, from, why, place: Place::default() });
    Ok(Graph {
        sources,
        units: stored.units.into_iter().map(|unit| unit_of(unit, registry)).collect::<Result<_, _>>()?,
        edges: Edges::new(stored.items.len(), edges.collect()),
        scopes: stored.scopes,
        items: stored.items,
        order: stored.order,
    })
}

fn unit_of(unit: StoredUnit, registry: &Registry) -> Result<Unit<'_>, String> {
    Ok(Unit {
        name: unit.name,
        about: unit.about,
        file: unit.file,
        params: unit.params,
        steps: unit.steps.into_iter().map(|step| step_of(step, registry)).collect::<Result<_, _>>()?,
        outputs: unit.outputs,
        output: Type::Any,
        main: unit.main,
        run: unit.run,
        opens: unit.opens,
    })
}

fn step_of(step: StoredStep, registry: &Registry) -> Result<Step<'_>, String> {
    let uses = match &step.uses {
        StoredUses::Plan(unit) => Uses::Plan(*unit),
        StoredUses::Kind(name) => Uses::Kind(registry.step(name).ok_or_else(|| format!("no step kind `{name}`"))?),
    };
    let mut fields = Vec::new();
    let mut with = Vec::with_capacity(step.with.len());
    for given in step.with {
        fields.push(types::Field {
            name: given.name,
            about: String::new(),
            ty: given.ty.unwrap_or(Type::Any),
            required: false,
            default: None,
        });
        with.push(Field { index: given.index, settled: given.settled, value: given.value, span: given.span });
    }
    let input = matches!(uses, Uses::Kind(_))
        .then(|| Arc::new(Struct { name: String::new(), about: String::new(), fields, open: false }));
    Ok(Step {
        id: step.id,
        span: step.span,
        uses,
        input,
        with: with.into(),
        needs: step.needs,
        extras: step.extras,
        output: Type::Any,
    })
}
