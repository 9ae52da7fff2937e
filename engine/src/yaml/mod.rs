//! YAML as a tree in which every node knows its place in the file. The only module that knows the YAML library.
//!
//! The library's events are used, not its serde front: a plan needs the exact bytes of every key and value, whether a scalar was quoted, and
//! both places of a duplicate key. What the events say is YAML 1.2's core schema, so `on`, `yes` and `no` are strings.
//!
//! The input is the enemy's. It is refused beyond 16 MiB, 64 levels, or four million nodes after aliases are followed; nothing here recurses,
//! and every step costs time linear in the input. Left out on purpose, each with a message that says what to write instead: tags, directives,
//! merge keys, several documents in one file. Aliases are shared nodes, so that they cost nothing.

mod load;
mod read;
mod scalar;

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;

pub use load::{ReadError, decode, read_file};
pub use read::parse;

use std::borrow::Cow;

use crate::diag::Span;

/// The largest file that is read, in bytes.
pub const MAX_BYTES: u64 = 16 << 20;

/// How deep collections may be nested. The runtime spec's own deepest path has 9 levels.
pub const MAX_DEPTH: usize = 64;

/// How many nodes a document may have once its aliases are followed.
pub const MAX_NODES: u64 = 4_000_000;

/// A document. Nodes live in one vector; an alias is a second way to the same node.
#[derive(Debug)]
pub struct Tree<'s> {
    nodes: Vec<Stored<'s>>,
    root: u32,
}

#[derive(Debug)]
struct Stored<'s> {
    span: Span,
    kind: StoredKind<'s>,
}

#[derive(Debug)]
enum StoredKind<'s> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Str<'s>),
    Seq(Box<[u32]>),
    Map(Box<[(Key<'s>, u32)]>),
}

/// A scalar that is a string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Str<'s> {
    /// The text, its YAML escapes resolved.
    pub text: Cow<'s, str>,
    /// Where the text's first byte stands in the file, if the file holds the text as it is: then a place in the text is a place in the file.
    pub verbatim: Option<u32>,
}

/// A key of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key<'s> {
    /// The key's text; a number or a word such as `true` is taken as it is written.
    pub text: Cow<'s, str>,
    /// Where it is.
    pub span: Span,
}

/// A node of a [`Tree`].
#[derive(Clone, Copy, Debug)]
pub struct Node<'t, 's> {
    tree: &'t Tree<'s>,
    id: u32,
}

/// What a node is.
#[derive(Clone, Copy, Debug)]
pub enum Kind<'t, 's> {
    /// Nothing, `~` or `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number, written bare.
    Int(i64),
    /// Any other number, written bare.
    Float(f64),
    /// Anything else, and everything in quotes.
    Str(&'t Str<'s>),
    /// A list.
    Seq(Items<'t, 's>),
    /// A mapping.
    Map(Entries<'t, 's>),
}

/// The nodes of a list.
#[derive(Clone, Copy, Debug)]
pub struct Items<'t, 's> {
    tree: &'t Tree<'s>,
    ids: &'t [u32],
}

/// The keys and nodes of a mapping, in the file's order.
#[derive(Clone, Copy, Debug)]
pub struct Entries<'t, 's> {
    tree: &'t Tree<'s>,
    pairs: &'t [(Key<'s>, u32)],
}

impl<'s> Tree<'s> {
    /// The document's root.
    #[must_use]
    pub fn root(&self) -> Node<'_, 's> {
        Node { tree: self, id: self.root }
    }

    /// How many nodes there are, shared ones counted once.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Never: a document without content is one null node. Here because a `len` wants it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

impl<'t, 's> Node<'t, 's> {
    /// Where it is in the file. A collection ends with its last entry.
    #[must_use]
    pub fn span(self) -> Span {
        self.stored().span
    }

    /// What it is.
    #[must_use]
    pub fn kind(self) -> Kind<'t, 's> {
        let tree = self.tree;
        match &self.stored().kind {
            StoredKind::Null => Kind::Null,
            StoredKind::Bool(value) => Kind::Bool(*value),
            StoredKind::Int(value) => Kind::Int(*value),
            StoredKind::Float(value) => Kind::Float(*value),
            StoredKind::Str(text) => Kind::Str(text),
            StoredKind::Seq(ids) => Kind::Seq(Items { tree, ids }),
            StoredKind::Map(pairs) => Kind::Map(Entries { tree, pairs }),
        }
    }

    /// `a list`, `a number`, …: for messages.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match &self.stored().kind {
            StoredKind::Null => "nothing",
            StoredKind::Bool(_) => "a bool",
            StoredKind::Int(_) => "a whole number",
            StoredKind::Float(_) => "a number",
            StoredKind::Str(_) => "a string",
            StoredKind::Seq(_) => "a list",
            StoredKind::Map(_) => "a mapping",
        }
    }

    fn stored(self) -> &'t Stored<'s> {
        &self.tree.nodes[self.id as usize]
    }
}

impl<'t, 's> Items<'t, 's> {
    /// The nodes in order.
    pub fn iter(self) -> impl ExactSizeIterator<Item = Node<'t, 's>> {
        let tree = self.tree;
        self.ids.iter().map(move |id| Node { tree, id: *id })
    }

    /// How many there are.
    #[must_use]
    pub fn len(self) -> usize {
        self.ids.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.ids.is_empty()
    }
}

impl<'t, 's> Entries<'t, 's> {
    /// The entries in the file's order.
    pub fn iter(self) -> impl ExactSizeIterator<Item = (&'t Key<'s>, Node<'t, 's>)> {
        let tree = self.tree;
        self.pairs.iter().map(move |(key, id)| (key, Node { tree, id: *id }))
    }

    /// How many there are.
    #[must_use]
    pub fn len(self) -> usize {
        self.pairs.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.pairs.is_empty()
    }
}
