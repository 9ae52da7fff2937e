//! `lifecycle-oci events`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use lifecycle_steps::cgroup::{OomWatch, stats};
use lifecycle_steps::effects::Status;
use lifecycle_steps::outcomes::RdtGroups;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde_json::{Value, json};

use super::print;
use crate::args::Events;
use crate::containers::Container;
use crate::fault::Fault;
use crate::perform::Call;

/// Prints a line of JSON for each event, until the container ends.
pub fn run(call: &Call, args: &Events) -> Result<ExitCode, Fault> {
    let interval = duration(&args.interval).ok_or_else(|| {
        Fault::new(format!(
            "duration interval must be greater than 0: --interval {:?} is to be a length of time, such as 5s, 500ms or 1m30s",
            args.interval
        ))
    })?;
    let container = Container::load(call, &args.id)?;
    if container.status == Status::Stopped {
        return Err(Fault::new(format!("container with id {} is not running", args.id)));
    }
    if args.stats {
        return line(&told(&container)?);
    }
    follow(&container, interval)
}

/// Waits for whatever comes first: the end, memory that runs out, the time to tell what has been used.
fn follow(container: &Container, interval: Duration) -> Result<ExitCode, Fault> {
    let failed = |what: &'static str| move |e: std::io::Error| Fault::failed(what, &e);
    let process = container.state.lifecycle.process.watch().map_err(failed("cannot watch the container's process"))?;
    let mut oom =
        OomWatch::new(&container.state.lifecycle.cgroups).map_err(failed("cannot watch the container's memory"))?;
    let Some(process) = process else { return Ok(ExitCode::SUCCESS) };
    let mut next = Instant::now() + interval;
    loop {
        let ended = wait(process.as_fd(), oom.as_ref().map(OomWatch::as_fd), next)?;
        // The container may have ended for just that reason: it is told before the end.
        let out = oom
            .as_mut()
            .map_or(Ok(false), OomWatch::take)
            .map_err(failed("cannot read the container's memory events"))?;
        if out {
            line(&json!({ "type": "oom", "id": container.names.id }))?;
        }
        if ended {
            return Ok(ExitCode::SUCCESS);
        }
        if Instant::now() >= next {
            line(&told(container)?)?;
            next = Instant::now() + interval;
        }
    }
}

/// Whether the process has ended.
fn wait(process: std::os::fd::BorrowedFd, oom: Option<std::os::fd::BorrowedFd>, until: Instant) -> Result<bool, Fault> {
    let mut fds = vec![PollFd::from_borrowed_fd(process, PollFlags::IN)];
    fds.extend(oom.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
    let left = until.saturating_duration_since(Instant::now());
    let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
    match poll(&mut fds, Some(&left)) {
        Ok(_) | Err(Errno::INTR) => Ok(!fds[0].revents().is_empty()),
        Err(e) => Err(Fault::failed("poll", &e)),
    }
}

/// In the shape of runc's: containerd and others parse it.
fn told(container: &Container) -> Result<Value, Fault> {
    let id = &container.names.id;
    let mut used = stats::stats(&container.state.lifecycle.cgroups)
        .map_err(|e| Fault::failed(format!("cannot read what container {id} has used"), &e))?;
    used.network_interfaces = interfaces(container.state.lifecycle.process.pid)
        .map_err(|e| Fault::failed(format!("cannot read the network interfaces of container {id}"), &e))?;
    let RdtGroups { group, monitor } = &container.state.lifecycle.rdt;
    if let Some(class) = group {
        // A class of the container's own counts nobody else, either.
        let counted = monitor.as_ref().or(group.as_ref().filter(|group| group.ends_with(id)));
        used.intel_rdt = stats::rdt(class, counted.map(PathBuf::as_path))
            .map_err(|e| Fault::failed(format!("cannot read the resctrl group of container {id}"), &e))?;
    }
    Ok(json!({ "type": "stats", "id": id, "data": used }))
}

/// Those of a network namespace of its own; the host's are not the container's.
fn interfaces(pid: i32) -> std::io::Result<Option<Vec<stats::NetworkInterface>>> {
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net"));
    // It may have ended, and it may be another user's.
    let Ok(own) = namespace(&pid.to_string()) else { return Ok(None) };
    if own == namespace("self")? {
        return Ok(None);
    }
    match stats::network(pid) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

fn line(event: &Value) -> Result<ExitCode, Fault> {
    print(&format!("{event}\n"))
}

/// A length of time as Go writes it: numbers with units, one after the other. `None` if it is none, or not above zero.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let units = [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
        let (unit, seconds) = units.iter().find(|(unit, _)| rest.starts_with(unit))?;
        rest = &rest[unit.len()..];
        sum += number * seconds;
    }
    Duration::try_from_secs_f64(sum).ok().filter(|length| !length.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_read_as_go_writes_them() {
        for (text, ms) in [("5s", 5000), ("500ms", 500), ("1m30s", 90_000), ("1.5s", 1500), ("1h", 3_600_000)] {
            assert_eq!(duration(text).map(|d| d.as_millis()), Some(ms), "{text}");
        }
        for text in ["", "0s", "5", "s", "-1s", "1x", "1s2", "1.2.3s"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
