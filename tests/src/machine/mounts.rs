//! Mounts, as `/proc/PID/mountinfo` tells them (proc(5)).

use std::collections::HashMap;
use std::fs;

use super::Things;
use crate::{Result, While};

/// One line of mountinfo, without what differs from one mount to the next of the same: mount ids, device numbers, peer group numbers.
pub(super) struct Mount<'a> {
    pub root: &'a str,
    pub point: &'a str,
    options: &'a str,
    propagation: String,
    pub kind: &'a str,
    source: &'a str,
    pub super_options: &'a str,
}

/// The mounts of our own mount namespace and of the witnesses'.
pub(super) fn look(witnesses: &[i32]) -> Result<Things> {
    let mut things = Things::new();
    add("", "/proc/thread-self/mountinfo", &mut things)?;
    for pid in witnesses {
        add(&format!("seen by {pid}: "), &format!("/proc/{pid}/mountinfo"), &mut things)?;
    }
    Ok(things)
}

fn add(prefix: &str, file: &str, things: &mut Things) -> Result<()> {
    let text = fs::read_to_string(file).when(|| format!("reading {file}"))?;
    // Mounts may be stacked on one point: what counts is their order there.
    let mut height: HashMap<&str, usize> = HashMap::new();
    for mount in text.lines().filter_map(parse) {
        let level = height.entry(mount.point).or_default();
        *level += 1;
        let name = if *level == 1 { mount.point.to_owned() } else { format!("{} #{level}", mount.point) };
        let Mount { root, options, propagation, kind, source, super_options, .. } = mount;
        things.insert(
            format!("{prefix}{name}"),
            format!("{kind} from {source} root {root} {options} {propagation} ({super_options})"),
        );
    }
    Ok(())
}

/// Reads one line; none when it is not of mountinfo's form.
pub(super) fn parse(line: &str) -> Option<Mount<'_>> {
    let (front, back) = line.split_once(" - ")?;
    let mut front = front.split(' ').skip(3);
    let (root, point, options) = (front.next()?, front.next()?, front.next()?);
    let propagation: Vec<&str> = front.map(|tag| tag.split(':').next().unwrap_or(tag)).collect();
    let propagation = if propagation.is_empty() { "private".to_owned() } else { propagation.join(",") };
    let mut back = back.split(' ');
    let (kind, source, super_options) = (back.next()?, back.next()?, back.next()?);
    Some(Mount { root, point, options, propagation, kind, source, super_options })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_groups_are_named_but_not_numbered() {
        let mount =
            parse("36 35 98:0 /mnt1 /mnt2 rw,noatime shared:7 master:1 - ext3 /dev/root rw,errors=continue").unwrap();
        assert_eq!((mount.root, mount.point, mount.kind), ("/mnt1", "/mnt2", "ext3"));
        assert_eq!(mount.propagation, "shared,master");
        assert_eq!(mount.super_options, "rw,errors=continue");
    }

    #[test]
    fn a_mount_without_tags_is_private() {
        assert_eq!(parse("36 35 98:0 / /mnt2 rw - tmpfs none rw").unwrap().propagation, "private");
    }
}
