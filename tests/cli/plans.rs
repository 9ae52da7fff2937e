//! Every built-in plan against fixed facts: its graph and its dry run, in every format, byte for byte.
//!
//! `snapshots/facts/` has three hosts. Each file also holds what planning reads besides: two bundles (`runc spec`, with a terminal and
//! without) and the journal of the container that `oci/start` and `oci/delete` work on, so nothing of this machine gets into a snapshot.

#![expect(clippy::unnecessary_wraps, reason = "every test has the shape that the harness asks for")]

use std::path::Path;
use std::process::Command;

use lifecycle_tests::bundle::{rootless_spec, spec};
use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::program;
use serde_json::{Value, json};

use crate::scene::{self, Told};

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::Root;
    let tests = lifecycle_tests::tests![
        text_folded,
        json,
        dot,
        mermaid,
        svg,
        text_by_the_programs_own_snapshots,
        no_plan_is_without_a_snapshot,
        a_part_of_a_plan_says_what_it_needs,
        the_facts_hold_the_bundles_of_runc,
        the_facts_name_every_fact,
        #[needs(Root)]
        the_same_for_another_user_in_another_directory,
    ];
    tests.into_iter().map(|test| test.within("plans")).collect()
}

/// The hosts.
const HOSTS: &[&str] = &["root-hybrid", "root-v2", "user"];

/// Every built-in plan that can be run by itself, under the name of its snapshot, with the parameters that it needs.
const PLANS: &[(&str, &[&str])] = &[
    ("hello", &[]),
    ("oci/create", &["id=c1", "bundle=/bundles/batch"]),
    ("oci/start", &["id=c1"]),
    ("oci/run", &["id=c1", "bundle=/bundles/shell"]),
    ("oci/delete", &["id=c1"]),
    ("oci/exec", &["id=c1", "command=[id, -u]", "user=1000:1000"]),
    ("oci/kill", &["id=c1", "signal=SIGRTMIN+3"]),
    ("oci/pause", &["id=c1"]),
    ("oci/resume", &["id=c1"]),
    ("oci/update", &["id=c1", "resources={pids: {limit: 5}}"]),
    ("oci/checkpoint", &["id=c1", "options={images: /images/c1}"]),
    ("oci/restore", &["id=c2", "bundle=/bundles/batch", "options={images: /images/c1}"]),
    ("ci/service", &[]),
];

/// What an ordinary user cannot run: there are no bridges and cgroups for him to make.
const NOT_FOR_USERS: &[&str] = &["ci/service", "oci/pause", "oci/resume", "oci/update"];

fn facts(host: &str) -> String {
    format!("snapshots/facts/{host}.json")
}

/// In the source tree, as a CI job runs it.
fn lifecycle(arguments: &[&str]) -> Command {
    let mut command = Command::new(program::lifecycle().unwrap_or_else(|error| panic!("{error}")));
    command.current_dir(program::source()).args(arguments).env_remove("XDG_RUNTIME_DIR").env_remove("NO_COLOR");
    command
}

fn shown(plan: &str, params: &[&str], host: &str, more: &[&str]) -> Told {
    let facts = facts(host);
    let mut arguments = vec!["plan", plan, "--facts", &facts];
    arguments.extend(params.iter().flat_map(|param| ["-p", *param]));
    scene::told(&mut lifecycle(&[arguments.as_slice(), more].concat()))
}

fn held_against(host: &str, name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(program::source().join("snapshots/plans").join(host));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

fn each(name: &str, more: &[&str]) {
    for host in HOSTS {
        on_host(host, name, more);
    }
}

fn on_host(host: &str, name: &str, more: &[&str]) {
    for (plan, params) in PLANS.iter().filter(|(plan, _)| host != "user" || !NOT_FOR_USERS.contains(plan)) {
        let told = shown(plan, params, host, more).ended(0);
        assert_eq!(told.err, "", "{plan} on {host}");
        assert!(
            !told.out.contains(&*program::source().to_string_lossy()),
            "{plan} on {host} names a path of this machine"
        );
        held_against(host, &format!("{}.{name}", plan.replace('/', ".")), &told.out);
    }
}

pub fn text_folded(_: &Lab) -> TestResult {
    each("folded.txt", &["--fold"]);
    Ok(())
}

pub fn json(_: &Lab) -> TestResult {
    each("json", &["--format", "json"]);
    Ok(())
}

pub fn dot(_: &Lab) -> TestResult {
    each("dot", &["--format", "dot"]);
    Ok(())
}

pub fn mermaid(_: &Lab) -> TestResult {
    each("mermaid", &["--format", "mermaid"]);
    Ok(())
}

pub fn svg(_: &Lab) -> TestResult {
    each("svg", &["--format", "svg"]);
    Ok(())
}

/// The unfolded text is what `lifecycle snapshot` keeps; here it is used on the built-in plans, as on a user's own in CI.
pub fn text_by_the_programs_own_snapshots(_: &Lab) -> TestResult {
    // The same variable that tells insta to accept what is there now.
    let update = std::env::var_os("INSTA_UPDATE").is_some_and(|mode| mode == "always");
    for host in HOSTS {
        let (facts, dir) = (facts(host), format!("snapshots/plans/{host}"));
        for (plan, params) in PLANS.iter().filter(|(plan, _)| *host != "user" || !NOT_FOR_USERS.contains(plan)) {
            let mut arguments = vec!["snapshot", plan, "--facts", &facts, "--dir", &dir];
            arguments.extend(params.iter().flat_map(|param| ["-p", *param]));
            if update {
                arguments.push("--update");
            }
            let told = scene::told(&mut lifecycle(&arguments));
            assert_eq!(told.code, 0, "{}{}", told.out, told.err);
            assert!(update || told.out.ends_with("as in its snapshot\n"), "{}", told.out);
        }
    }
    Ok(())
}

/// Every plan file of the source tree is one of the built-in ones, and has a snapshot.
pub fn no_plan_is_without_a_snapshot(_: &Lab) -> TestResult {
    // A part of ci/service, which needs a handle from it.
    const PARTS: &[&str] = &["ci/container"];
    let top = program::source().join("plans");
    let mut found = Vec::new();
    for dir in ["", "oci", "ci"] {
        for entry in std::fs::read_dir(top.join(dir))?.flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "yaml") {
                let path = entry.path().with_extension("");
                found.push(path.strip_prefix(&top)?.display().to_string());
            }
        }
    }
    found.sort_unstable();
    let mut known: Vec<&str> = PLANS.iter().map(|(plan, _)| *plan).chain(PARTS.iter().copied()).collect();
    known.sort_unstable();
    assert_eq!(found, known);
    Ok(())
}

pub fn a_part_of_a_plan_says_what_it_needs(_: &Lab) -> TestResult {
    shown("ci/container", &[], "root-hybrid", &[]).ended(1).says(&[
        "the parameter `command` has to be given",
        "the parameter `bridge` has to be given",
        "the parameter `address` has to be given",
    ]);
    Ok(())
}

/// The bundles of the facts are what `runc spec` writes, which another test holds against the real runc.
pub fn the_facts_hold_the_bundles_of_runc(_: &Lab) -> TestResult {
    for host in HOSTS {
        let facts: Value = serde_json::from_str(&std::fs::read_to_string(program::source().join(facts(host)))?)?;
        for (bundle, terminal) in [("shell", true), ("batch", false)] {
            let path = format!("/bundles/{bundle}/config.json");
            let text = facts["files"][&path]["text"].as_str().unwrap_or_else(|| panic!("{host} has no {path}"));
            let mut expected = if *host == "user" { rootless_spec() } else { spec() };
            expected["process"]["terminal"] = json!(terminal);
            if *host == "user" {
                for mappings in ["uidMappings", "gidMappings"] {
                    expected["linux"][mappings][0]["hostID"] = json!(1000);
                }
            }
            assert_eq!(serde_json::from_str::<Value>(text)?, expected, "{host}: {path}");
        }
    }
    Ok(())
}

/// Whoever adds a fact adds it to the hosts: a fact that is missing there reads as null, which no real host says.
pub fn the_facts_name_every_fact(_: &Lab) -> TestResult {
    let live = scene::told(&mut lifecycle(&["facts", "--format", "json"])).ended(0);
    let names = |text: &str| -> Result<Vec<String>, serde_json::Error> {
        let facts: Value = serde_json::from_str(text)?;
        let mut names: Vec<String> =
            facts["host"].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect();
        // Found out only for plans that ask: it has a program's name in its own.
        names.retain(|name| !name.starts_with("criu:"));
        names.sort_unstable();
        Ok(names)
    };
    for host in HOSTS {
        let fixed = std::fs::read_to_string(program::source().join(facts(host)))?;
        assert_eq!(names(&fixed)?, names(&live.out)?, "{host}");
    }
    Ok(())
}

/// Same input, same facts: same bytes, whoever asks from wherever.
pub fn the_same_for_another_user_in_another_directory(lab: &Lab) -> TestResult {
    let ours = shown("oci/run", &["id=c1", "bundle=/bundles/shell"], "root-hybrid", &["--format", "json"]).ended(0);
    let facts = std::fs::canonicalize(program::source().join(facts("root-hybrid")))?;
    // The source tree may be out of reach for an ordinary user.
    let copy = Path::new("/tmp").join(format!("{}.json", lab.token()));
    std::fs::copy(facts, &copy)?;
    let copied = copy.display().to_string();
    let arguments =
        ["plan", "oci/run", "--facts", &copied, "-p", "id=c1", "-p", "bundle=/bundles/shell", "--format", "json"];
    let mut command = lifecycle(&arguments);
    let theirs =
        scene::told(scene::as_nobody(command.current_dir("/").env("HOME", "/nonexistent").env("LANG", "de_DE")));
    std::fs::remove_file(copy)?;
    assert_eq!(theirs.ended(0).out, ours.out);
    Ok(())
}
