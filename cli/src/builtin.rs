//! The plans that are built into the program.

use lifecycle_engine::compile::Library;

/// Every plan below `plans/`, by its path without `.yaml`.
pub const LIBRARY: Library<'static> = Library { plans: lifecycle_steps::plans::BUILT_IN };
