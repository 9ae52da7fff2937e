//! The slices on the way to a container's scope: who takes them away, and when. As in `systemd`, these tests share the machine.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use lifecycle_tests::harness::{Test, TestResult, note};
use lifecycle_tests::killer::{Ending, run_killed_at, run_within};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::program;
use lifecycle_tests::rounds::{Sample, places};

use crate::systemd::{KILLS, Scope, is_unified, property};

/// All of them; `systemd` says what they need.
pub fn tests() -> Vec<Test> {
    lifecycle_tests::tests![
        a_slice_that_ran_before_stays_and_one_that_came_goes,
        a_slice_goes_with_the_last_container_in_it,
        a_slice_that_somebody_else_is_in_stays_until_a_container_leaves_it_empty,
        runs_that_come_and_go_in_one_slice_leave_nothing_and_harm_nobody,
        a_crash_of_delete_leaves_no_unit_and_no_cgroup,
    ]
}

fn a_slice_that_ran_before_stays_and_one_that_came_goes(lab: &Lab) -> TestResult {
    let mut container = Scope::new(lab, &["sleep", "60"])?;
    let outer = container.outer();
    program::quiet("systemctl", &["start", &outer])?;
    container.scene.begins_here()?;
    let before = property(&outer, "InvocationID")?;
    container.create();
    assert_eq!(property(&container.slice, "ActiveState")?, "active");
    container.delete();
    assert_eq!(property(&container.slice, "ActiveState")?, "inactive");
    assert_eq!((property(&outer, "ActiveState")?, property(&outer, "InvocationID")?), ("active".into(), before));
    container.scene.nothing_left()?;
    container.stop_slice();
    container.scene.begins_here()?;
    // With all that was made of it, the same again.
    container.create();
    container.delete();
    container.nothing_left()
}

fn a_slice_goes_with_the_last_container_in_it(lab: &Lab) -> TestResult {
    let container = Scope::new(lab, &["sleep", "60"])?;
    container.create();
    let invocation = property(&container.slice, "InvocationID")?;
    let other = format!("{}-c2", lab.token());
    let unit = format!("lifecycle-{other}.scope");
    let path = format!("{}:lifecycle:{other}", container.slice);
    container.scene.told(&container.another(&other, &path)?).ended(0);
    container.bundle.in_cgroup(&format!("{}:lifecycle:{}", container.slice, lab.token()))?;
    container.delete();
    assert_eq!(property(&unit, "ActiveState")?, "active");
    for slice in [&container.slice, &container.outer()] {
        assert_eq!(property(slice, "ActiveState")?, "active", "{slice}");
    }
    assert_eq!(property(&container.slice, "InvocationID")?, invocation, "it was stopped, and started again");
    let limits = fs::read_to_string(format!("/proc/{}/cgroup", pid_in(&unit)?))?;
    assert!(limits.contains(&format!("/{}/{unit}\n", container.slice)), "{limits}");
    container.scene.told(&["undo", &other]).ended(0);
    container.nothing_left()
}

/// The process of a scope that has one.
fn pid_in(unit: &str) -> Result<String, Box<dyn std::error::Error>> {
    let top = if is_unified() { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/pids" };
    let text = fs::read_to_string(format!("{top}{}/cgroup.procs", property(unit, "ControlGroup")?))?;
    Ok(text.lines().next().ok_or("no process")?.to_owned())
}

/// A process that is another program's, in a scope of its own in the slice.
fn stranger(unit: &str, slice: &str) -> Result<Child, Box<dyn std::error::Error>> {
    let (unit_is, slice_is) = (format!("--unit={unit}"), format!("--slice={slice}"));
    let child =
        Command::new("systemd-run").args(["--scope", "--quiet", &slice_is, &unit_is, "sleep", "600"]).spawn()?;
    let until = Instant::now() + Duration::from_secs(20);
    while property(&format!("{unit}.scope"), "ActiveState")? != "active" {
        assert!(Instant::now() < until, "systemd-run does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(child)
}

fn a_slice_that_somebody_else_is_in_stays_until_a_container_leaves_it_empty(lab: &Lab) -> TestResult {
    let container = Scope::new(lab, &["sleep", "60"])?;
    container.create();
    let unit = format!("{}-stranger", lab.token());
    let mut stranger = stranger(&unit, &container.slice)?;
    container.delete();
    assert_eq!(property(&format!("{unit}.scope"), "ActiveState")?, "active");
    assert_eq!(property(&container.slice, "ActiveState")?, "active");
    stranger.kill()?;
    stranger.wait()?;
    // Not by systemd, and by none of ours before one is in it.
    assert_eq!(property(&container.slice, "ActiveState")?, "active");
    // A cgroup that no unit has is somebody's too.
    let top = if is_unified() { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/pids" };
    let inner = PathBuf::from(format!("{top}{}/somebody", property(&container.slice, "ControlGroup")?));
    container.create();
    fs::create_dir(&inner)?;
    container.delete();
    assert!(inner.exists());
    assert_eq!(property(&container.slice, "ActiveState")?, "active");
    container.create();
    fs::remove_dir(&inner)?;
    container.delete();
    container.nothing_left()
}

/// How many containers at once, and how often each.
const AT_ONCE: usize = 3;
const ROUNDS: usize = 4;

fn runs_that_come_and_go_in_one_slice_leave_nothing_and_harm_nobody(lab: &Lab) -> TestResult {
    let mut container = Scope::new(lab, &["true"])?;
    // Without a name in the path each scope has its container's.
    container.bundle.in_cgroup(&format!("{}:lifecycle:", container.slice))?;
    container.scene.begins_here()?;
    let one = |n: usize, round: usize| -> Vec<String> {
        let words = container.words("oci/run").into_iter();
        words.map(|word| word.replace(&container.id, &format!("{}-{n}-{round}", lab.token()))).collect()
    };
    std::thread::scope(|threads| {
        for n in 0..AT_ONCE {
            let (one, scene) = (&one, &container.scene);
            threads.spawn(move || {
                for round in 0..ROUNDS {
                    scene.told(&one(n, round)).ended(0);
                }
            });
        }
    });
    container.nothing_left()
}

/// Beside a container in the outer slice, which lives through all of it.
fn a_crash_of_delete_leaves_no_unit_and_no_cgroup(lab: &Lab) -> TestResult {
    let mut container = Scope::new(lab, &["sleep", "600"])?;
    let other = format!("{}-c2", lab.token());
    let path = format!("{}:lifecycle:{other}", container.outer());
    container.scene.told(&container.another(&other, &path)?).ended(0);
    container.bundle.in_cgroup(&format!("{}:lifecycle:{}", container.slice, lab.token()))?;
    container.scene.begins_here()?;
    let id = format!("id={}", container.id);
    let command = || container.scene.command(&["run", "oci/delete", "-p", &id, "-p", "force=true"]);
    container.create();
    let whole = run_within(&mut command(), Duration::from_secs(120))?;
    assert_eq!(whole.ending, Ending::Exited(0), "{}{}", whole.stdout, whole.stderr);
    let all = places(whole.points);
    let possible = all.len();
    let chosen = Sample::from_environment(KILLS).choose(all);
    let tried = chosen.len();
    for kill in chosen {
        container.create();
        run_killed_at(&mut command(), &kill.point, kill.victim, kill.when)?;
        container.scene.told(&["undo", &container.id]);
        container.scene.told(&["recover"]).ended(0);
        assert_eq!(property(&container.slice, "ActiveState")?, "inactive", "with {kill}");
        container.scene.nothing_left().map_err(|error| format!("with {kill}: {error}"))?;
        assert_eq!(property(&format!("lifecycle-{other}.scope"), "ActiveState")?, "active", "with {kill}");
    }
    container.scene.told(&["undo", &other]).ended(0);
    container.scene.begins_here()?;
    note(format!("{tried} kills of {possible} possible"));
    container.nothing_left()
}
