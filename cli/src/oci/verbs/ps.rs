//! `lifecycle-oci ps`

use std::collections::BTreeSet;
use std::process::{Command, ExitCode, Stdio};

use lifecycle_engine::render::paint;
use lifecycle_steps::cgroup::pids;

use super::print;
use crate::args::{Ps, TableFormat};
use crate::containers::Container;
use crate::fault::Fault;
use crate::perform::Call;

/// Prints the container's processes.
pub fn run(call: &Call, args: &Ps) -> Result<ExitCode, Fault> {
    let container = Container::load(call, &args.id)?;
    let cgroups = &container.state.lifecycle.cgroups;
    if cgroups.is_empty() {
        return Err(Fault::new(format!(
            "container {} has no cgroup of its own: which processes belong to it cannot be told",
            args.id
        )));
    }
    let pids = pids(cgroups, &container.state.lifecycle.process)
        .map_err(|e| Fault::failed(format!("cannot list the processes of container {}", args.id), &e))?;
    match args.format {
        TableFormat::Json => print(&format!("{}\n", serde_json::json!(pids))),
        TableFormat::Table => print(&table(args, &pids.into_iter().collect())?),
    }
}

/// What ps(1) says of all processes, less those that are not the container's.
fn table(args: &Ps, pids: &BTreeSet<i32>) -> Result<String, Fault> {
    let mut ps = Command::new("ps");
    if args.options.is_empty() {
        ps.arg("-ef");
    } else {
        ps.args(&args.options);
    }
    let told = ps.stdin(Stdio::null()).output().map_err(|e| {
        Fault::failed(
            "cannot run ps, which prints the table (Debian's package procps has it; --format json does without)",
            &e,
        )
    })?;
    if !told.status.success() {
        let why = String::from_utf8_lossy(&told.stderr);
        return Err(Fault::new(format!("ps failed: {}: {}", told.status, why.trim())));
    }
    filter(&String::from_utf8_lossy(&told.stdout), pids)
        .ok_or_else(|| Fault::new("ps printed no column PID: add one to its options, such as -o pid,args"))
}

/// `None` if there is no column of process ids. Columns before it hold no spaces; the command, which does, comes last.
fn filter(text: &str, pids: &BTreeSet<i32>) -> Option<String> {
    let mut lines = text.lines();
    let head = lines.next()?;
    let column = head.split_whitespace().position(|name| name == "PID")?;
    let pid = |line: &str| line.split_whitespace().nth(column)?.parse().ok();
    let ours = lines.filter(|line| pid(line).is_some_and(|pid| pids.contains(&pid)));
    // Not every ps keeps what a process calls itself from the terminal.
    Some(std::iter::once(head).chain(ours).map(|line| paint::line(line) + "\n").collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_by_the_column_of_the_id_alone() {
        let text = "UID   PID  PPID CMD\nroot  12  1  sh -c 34\nroot  34  12  sleep 12\nx  - 12 odd\n";
        assert_eq!(filter(text, &BTreeSet::from([34])).unwrap(), "UID   PID  PPID CMD\nroot  34  12  sleep 12\n");
        assert_eq!(filter(text, &BTreeSet::new()).unwrap(), "UID   PID  PPID CMD\n");
        assert_eq!(filter("UID CMD\nroot sh\n", &BTreeSet::new()), None);
        assert_eq!(filter("", &BTreeSet::new()), None);
    }
}
