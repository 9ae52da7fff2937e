//! Steps that work on runs themselves.

mod undo;

pub use undo::{Undo, UndoRun};
