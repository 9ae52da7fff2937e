//! The program as a person uses it: every command on the real kernel, and the built-in plans against fixed facts.

use std::process::ExitCode;

use lifecycle_tests::harness::{self, Need};
use lifecycle_tests::tests;

mod faults;
mod plans;
mod running;
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
        #[needs(Root)]
        faults::a_fault_before_or_after_each_step_is_taken_back,
        #[needs(Root)]
        faults::a_crash_at_each_step_is_made_good_by_recover,
        #[needs(Root)]
        faults::every_step_of_hello_can_fail_and_leaves_nothing,
        #[needs(Root)]
        faults::a_signal_cancels_and_rolls_back_and_another_does_no_harm,
        #[needs(Root)]
        faults::a_killed_engine_is_made_good_by_recover,
        #[needs(Root)]
        faults::a_killed_engine_is_made_good_by_undo_too,
        #[needs(Root)]
        faults::recover_leaves_a_run_alone_that_is_going_on,
        #[needs(Root)]
        faults::undo_cancels_a_run_that_is_going_on,
        #[needs(Root)]
        faults::the_second_run_of_an_id_is_refused_at_once_and_names_the_first,
        #[needs(Root)]
        faults::a_step_that_fails_says_what_where_why_and_what_was_undone,
        #[needs(Root)]
        faults::an_undo_that_fails_is_stuck_and_can_be_tried_again,
        #[needs(Root)]
        faults::a_pause_tells_how_to_look_inside_and_goes_on_at_enter,
        #[needs(Root)]
        faults::an_interrupt_while_paused_takes_everything_back,
        #[needs(Root)]
        running::hello_shows_the_container_from_inside_and_leaves_nothing,
        #[needs(Root)]
        running::the_exit_code_is_the_containers,
        #[needs(Root)]
        running::death_by_signal_is_128_and_its_number,
        #[needs(Root)]
        running::stdin_and_stdout_are_the_containers_own,
        #[needs(Root)]
        running::what_follows_two_dashes_is_the_command_word_by_word,
        #[needs(Root)]
        running::parameters_come_from_a_file_and_the_command_line,
        #[needs(Root)]
        running::wrong_input_is_125_and_changes_nothing,
        #[needs(Root)]
        running::every_event_is_a_line_of_json,
        #[needs(Root)]
        running::a_trace_has_a_lane_for_the_host_and_one_for_init,
        #[needs(Root)]
        running::hello_runs_without_each_of_the_newer_calls,
        #[needs(Root)]
        running::a_stopped_engine_does_not_wait_for_its_container,
    ])
}
