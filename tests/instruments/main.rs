//! The instruments tested on the real kernel: what they do not see, no other test can.

use std::process::ExitCode;

use lifecycle_tests::harness::{self, Need};
use lifecycle_tests::tests;

mod bundle;
mod killer;
mod lab;
mod machine;
mod rounds;

fn main() -> ExitCode {
    use Need::{Program, Root};
    harness::main(tests![
        #[needs(Root)]
        machine::a_mount_is_seen_and_its_removal_too,
        #[needs(Root)]
        machine::a_mount_that_lives_on_in_another_namespace_is_seen_there,
        #[needs(Root)]
        machine::a_cgroup_and_its_limits_are_seen,
        #[needs(Root, Program("ip"))]
        machine::links_addresses_and_routes_are_seen,
        #[needs(Root)]
        machine::namespaces_and_processes_are_seen,
        #[needs(Root)]
        machine::open_descriptors_are_seen,
        #[needs(Root)]
        lab::a_lab_hides_its_mounts_and_links,
        #[needs(Root)]
        lab::a_lab_is_process_one,
        #[needs(Program("busybox"))]
        killer::calls_that_change_the_machine_are_counted,
        #[needs(Program("busybox"))]
        killer::before_means_not_done_and_after_means_done,
        #[needs(Program("busybox"))]
        killer::a_child_can_be_killed_and_the_parent_runs_on,
        #[needs(Program("busybox"))]
        killer::the_engine_can_be_killed_at_its_childs_call,
        #[needs(Program("busybox"))]
        killer::another_programs_calls_do_not_count,
        #[needs(Program("busybox"))]
        killer::a_command_that_hangs_is_killed_at_the_time_limit,
        #[needs(Program("busybox"))]
        killer::every_point_can_be_reached_again,
        #[needs(Program("busybox"))]
        killer::every_one_of_many_calls_is_counted,
        #[needs(Program("busybox"))]
        killer::somebody_who_meddles_comes_between_two_calls,
        #[needs(Root, Program("busybox"))]
        rounds::a_lawful_pair_passes_every_kill,
        #[needs(Root, Program("busybox"))]
        rounds::a_change_before_its_intent_is_found_out,
        #[needs(Root, Program("busybox"))]
        rounds::an_undo_that_cannot_be_repeated_is_found_out,
        #[needs(Program("runc"))]
        bundle::the_fixture_is_what_runc_generates,
        #[needs(Root, Program("runc"), Program("busybox"))]
        bundle::runc_runs_the_bundle_and_leaves_the_machine_as_it_was,
        #[needs(Root, Program("crun"), Program("busybox"))]
        bundle::crun_reads_the_bundle,
    ])
}
