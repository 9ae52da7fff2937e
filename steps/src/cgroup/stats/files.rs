//! The shapes of a cgroup's files. One that the kernel does not have is an empty one.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::{Hugetlb, Pressure, PressureLine};

/// The text; empty if there is no such file, or nothing can be counted in it.
pub(super) fn text(at: &Path, file: &str) -> io::Result<String> {
    match std::fs::read_to_string(at.join(file)) {
        Ok(text) => Ok(text),
        // Pressure is not counted where it is switched off, and a threaded cgroup counts only what its threads use.
        Err(e) if matches!(e.raw_os_error(), Some(nix::libc::ENOENT | nix::libc::EOPNOTSUPP)) => Ok(String::new()),
        Err(e) => Err(io::Error::new(e.kind(), format!("{}: {e}", at.join(file).display()))),
    }
}

/// One number; 0 if it is absent, the largest for `max`.
pub(super) fn number(at: &Path, file: &str) -> io::Result<u64> {
    Ok(word(text(at, file)?.trim()))
}

fn word(text: &str) -> u64 {
    if text == "max" { u64::MAX } else { text.parse().unwrap_or(0) }
}

/// Lines of a name and a number.
pub(super) fn keyed(at: &Path, file: &str) -> io::Result<BTreeMap<String, u64>> {
    let text = text(at, file)?;
    let pair = |line: &str| line.split_once(' ').map(|(key, value)| (key.to_owned(), word(value.trim())));
    Ok(text.lines().filter_map(pair).collect())
}

/// Numbers in one line.
pub(super) fn numbers(at: &Path, file: &str) -> io::Result<Vec<u64>> {
    Ok(text(at, file)?.split_whitespace().filter_map(|word| word.parse().ok()).collect())
}

/// `0-2,7` as 0, 1, 2, 7.
pub(super) fn list(text: &str) -> Vec<u16> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<u16>().ok()?..=last.parse::<u16>().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and the same for `full`.
pub(super) fn pressure(text: &str) -> Option<Pressure> {
    let line = |name: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        let mut all = PressureLine::default();
        for (key, value) in rest.split(' ').filter_map(|pair| pair.split_once('=')) {
            match key {
                "avg10" => all.avg10 = value.parse().unwrap_or_default(),
                "avg60" => all.avg60 = value.parse().unwrap_or_default(),
                "avg300" => all.avg300 = value.parse().unwrap_or_default(),
                "total" => all.total = value.parse().unwrap_or_default(),
                _ => {}
            }
        }
        Some(all)
    };
    Some(Pressure { some: line("some")?, full: line("full").unwrap_or_default() })
}

/// By page size, the sizes being those that the directory has files for. `usage`, `max` and `failcnt` are the ends of the files' names.
pub(super) fn huge_pages(at: &Path, usage: &str) -> io::Result<Vec<String>> {
    let mut sizes = Vec::new();
    for entry in std::fs::read_dir(at)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let size = name.strip_prefix("hugetlb.").and_then(|rest| rest.strip_suffix(usage)?.strip_suffix('.'));
        // `2MB.rsvd` is what is reserved of 2MB.
        sizes.extend(size.filter(|size| !size.contains('.')).map(str::to_owned));
    }
    sizes.sort_unstable();
    Ok(sizes)
}

/// The reserved pages where the kernel counts them (Linux 5.7): a mapping takes them before it uses any.
pub(super) fn huge_page(
    at: &Path,
    size: &str,
    usage: &str,
    read: impl Fn(&str) -> io::Result<Hugetlb>,
) -> io::Result<Hugetlb> {
    let reserved = format!("hugetlb.{size}.rsvd");
    if at.join(format!("{reserved}.{usage}")).exists() { read(&reserved) } else { read(&format!("hugetlb.{size}")) }
}
