//! The program as a person uses it: every command on the real kernel, and the built-in plans against fixed facts.

use std::process::ExitCode;

use lifecycle_tests::harness::{self, Need};
use lifecycle_tests::tests;

mod plans;
mod scene;

fn main() -> ExitCode {
    use Need::Root;
    harness::main(tests![
        plans::text_folded,
        plans::json,
        plans::dot,
        plans::mermaid,
        plans::svg,
        plans::text_by_the_programs_own_snapshots,
        plans::no_plan_is_without_a_snapshot,
        plans::a_part_of_a_plan_says_what_it_needs,
        plans::the_facts_hold_the_bundles_of_runc,
        plans::the_facts_name_every_fact,
        #[needs(Root)]
        plans::the_same_for_another_user_in_another_directory,
    ])
}
