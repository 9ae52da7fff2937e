//! `docs/security.md` names the attacks, and the attacks are named there.

use std::collections::BTreeSet;
use std::fs;

use lifecycle_tests::harness::{Test, TestResult};
use lifecycle_tests::{Result, While, program};
use regex::Regex;

/// Where it is, below the top of the source tree.
const FILE: &str = "docs/security.md";

/// The files whose tests are attacks.
const ATTACKS: [&str; 12] = [
    "attacks",
    "attacks_cgroups",
    "attacks_checkpoints",
    "attacks_descriptors",
    "attacks_net",
    "bystanders",
    "exchanged",
    "floods",
    "images",
    "locked",
    "races",
    "state_root",
];

/// The test of it, given all others.
pub fn test(others: &[Test]) -> Test {
    let names: BTreeSet<String> = others.iter().map(|test| test.name().to_owned()).collect();
    Test::new("security::every_promise_has_a_test_and_every_attack_a_promise", move |_| check(&names))
}

fn check(tests: &BTreeSet<String>) -> TestResult {
    let named = named()?;
    let absent: Vec<_> = named.difference(tests).collect();
    assert!(absent.is_empty(), "{FILE} names what is no test: {absent:?}");
    let attack = |name: &&String| name.split_once("::").is_some_and(|(file, _)| ATTACKS.contains(&file));
    let silent: Vec<_> = tests.difference(&named).filter(attack).collect();
    assert!(silent.is_empty(), "{FILE} does not say what these show: {silent:?}");
    let without = |file: &&&str| !tests.iter().any(|name| name.starts_with(&format!("{file}::")));
    let empty: Vec<_> = ATTACKS.iter().filter(without).collect();
    assert!(empty.is_empty(), "there are no such tests: {empty:?}");
    Ok(())
}

fn named() -> Result<BTreeSet<String>> {
    let text = fs::read_to_string(program::source().join(FILE)).when(|| format!("reading {FILE}"))?;
    // What stands in code marks and has the form of a test's name, but for the form itself.
    let name = Regex::new("`([a-z0-9_]+::[a-z0-9_]+)`").when(|| "reading a constant".into())?;
    Ok(name.captures_iter(&text).map(|found| found[1].to_owned()).filter(|name| name != "file::test").collect())
}
