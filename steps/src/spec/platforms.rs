//! The sections of a config.json that are for other platforms than Linux.

use super::{Problem, Spec};

type IsSet = fn(&Spec) -> bool;

/// The sections, and what a container of theirs would be.
const SECTIONS: [(&str, IsSet, &str); 5] = [
    ("vm", |spec| spec.vm.is_some(), "in a virtual machine"),
    ("windows", |spec| spec.windows.is_some(), "for Windows"),
    ("solaris", |spec| spec.solaris.is_some(), "for Solaris"),
    ("zos", |spec| spec.zos.is_some(), "for z/OS"),
    ("freebsd", |spec| spec.freebsd.is_some(), "for FreeBSD"),
];

/// The sections that are set: each "MAY be set if the target platform" is another one (config.md, "Platform-specific configuration"). A container
/// that asks for one is refused: one that ran without it would not be what its author describes.
pub fn other_platforms(spec: &Spec) -> Vec<Problem> {
    let set = SECTIONS.iter().filter(|(_, is_set, _)| is_set(spec));
    let problem = |(path, _, what): &(&str, IsSet, &str)| Problem {
        path: (*path).to_owned(),
        message: format!(
            "describes a container {what}, and this runtime makes containers of the host's own Linux kernel; take the section out, or use a \
             runtime that makes such containers"
        ),
    };
    set.map(problem).collect()
}
