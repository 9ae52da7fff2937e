//! What the words of a parameter's type mean.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::diag::{did_you_mean, listed};
use crate::plan::TypeSyntax;
use crate::step::Registry;
use crate::types::Type;

/// The types that parameters may have, those of the steps' structures included.
pub(super) struct Words<'r> {
    registry: &'r Registry,
    /// Read on first use: it needs the types of every kind.
    structs: Option<BTreeMap<String, Type>>,
}

impl<'r> Words<'r> {
    pub(super) fn new(registry: &'r Registry) -> Self {
        Self { registry, structs: None }
    }

    /// The type that is written. The error is a message and a help.
    pub(super) fn resolve(&mut self, syntax: &TypeSyntax) -> Result<Type, (String, String)> {
        Ok(match syntax {
            TypeSyntax::List(inner) => Type::List(Arc::new(self.resolve(inner)?)),
            TypeSyntax::Map(inner) => Type::Map(Arc::new(self.resolve(inner)?)),
            TypeSyntax::Handle(name) => Type::Handle(name.as_ref().into()),
            TypeSyntax::Word(word) => match &**word {
                "string" => Type::String,
                "text" => Type::Text,
                "name" => Type::Name,
                "int" => Type::Int,
                "number" => Type::Float,
                "bool" => Type::Bool,
                "path" => Type::Path,
                "size" => Type::Size,
                "duration" => Type::Duration,
                "mode" => Type::Mode,
                "any" => Type::Any,
                other => return self.structure(other),
            },
        })
    }

    fn structure(&mut self, word: &str) -> Result<Type, (String, String)> {
        let registry = self.registry;
        let structs = self.structs.get_or_insert_with(|| structs(registry));
        if let Some(ty) = structs.get(word) {
            return Ok(ty.clone());
        }
        let words = crate::plan::WORDS.iter().copied();
        let near = did_you_mean(word, words.clone().chain(["list", "map"]).chain(structs.keys().map(String::as_str)));
        let help = near.map_or_else(
            || format!("types are {}, `list(T)`, `map(T)`, and the structures of the runtime spec", listed(words)),
            |near| format!("did you mean `{near}`?"),
        );
        Err((format!("no type is called `{word}`"), help))
    }
}

/// The names of all structures that a parameter may have as its type.
#[must_use]
pub fn struct_names(registry: &Registry) -> Vec<String> {
    structs(registry).into_keys().collect()
}

fn structs(registry: &Registry) -> BTreeMap<String, Type> {
    let mut found = BTreeMap::new();
    for kind in registry.steps() {
        // The input and output of a kind are nobody else's structures; what they are made of is.
        for ty in [kind.input(), kind.output()] {
            match ty {
                Type::Struct(outer) => outer.fields.iter().for_each(|field| collect(&field.ty, &mut found)),
                other => collect(other, &mut found),
            }
        }
    }
    found
}

fn collect(ty: &Type, found: &mut BTreeMap<String, Type>) {
    match ty {
        Type::List(inner)
        | Type::Map(inner)
        | Type::Later(inner, _)
        | Type::Sensitive(inner)
        | Type::Nullable(inner) => {
            collect(inner, found);
        }
        Type::Struct(structure) => {
            if structure.name.is_empty() || found.contains_key(&structure.name) {
                return;
            }
            found.insert(structure.name.clone(), ty.clone());
            structure.fields.iter().for_each(|field| collect(&field.ty, found));
        }
        _ => {}
    }
}
