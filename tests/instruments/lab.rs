//! What a lab keeps to itself.

use std::fs;

use lifecycle_tests::harness::TestResult;
use lifecycle_tests::lab::Lab;
use lifecycle_tests::program::quiet;

pub fn a_lab_hides_its_mounts_and_links(lab: &Lab) -> TestResult {
    // The harness outside is this process's parent's parent, in the machine's own namespaces, which /proc here does not show: what it sees
    // is checked by the audit after every test program. Here: the lab starts empty.
    let entries: Vec<_> = fs::read_dir("/run")?.flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(entries, [lab.token()], "/run is not the lab's own");
    quiet("ip", &["link", "add", "lctest-bridge", "type", "bridge"])?;
    quiet("mount", &["-t", "tmpfs", "lctest-none", "/mnt"])?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    assert!(mounts.contains("lctest-none"), "{mounts}");
    Ok(())
}

pub fn a_lab_is_process_one(lab: &Lab) -> TestResult {
    assert_eq!(std::process::id(), 1);
    let processes = lab.snapshot()?;
    let processes = processes.part(lifecycle_tests::machine::Part::Processes);
    assert_eq!(processes.len(), 1, "{processes:?}");
    Ok(())
}
