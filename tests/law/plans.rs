//! Every built-in plan.

use lifecycle_tests::harness::Test;

pub fn tests() -> Vec<Test> {
    Vec::new()
}
