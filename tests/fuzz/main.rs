//! What the fuzz targets assert, of every input in their corpora and of some hundred changes to these: the same ones each time. The long form is
//! `./dev fuzz`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use lifecycle_tests::fuzzing::{TARGETS, Target, corpus, mutated};
use lifecycle_tests::harness::{Test, TestResult, main as run};

/// How many changes are tried, as far as there is time for them.
const CHANGES: u64 = 400;
/// The longest that the changes of one target may take.
const TIME: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    run(TARGETS.iter().map(|target| Test::new(target.name, |_| replay(*target))).collect())
}

fn replay(target: Target) -> TestResult {
    let mut paths: Vec<_> = std::fs::read_dir(corpus(target))?.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} has no corpus", target.name);
    let inputs = paths.iter().map(std::fs::read).collect::<Result<Vec<_>, _>>()?;
    for (path, input) in paths.iter().zip(&inputs) {
        eprintln!("{}", path.display());
        (target.body)(input);
    }
    let until = Instant::now() + TIME;
    for number in (0..CHANGES).take_while(|_| Instant::now() < until) {
        let [one, other] = [number, number / 3].map(|at| &inputs[at as usize % inputs.len()]);
        let changed = mutated(one, other, number);
        eprintln!("change {number}: {:?}", String::from_utf8_lossy(&changed));
        (target.body)(&changed);
    }
    Ok(())
}
