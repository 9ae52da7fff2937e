//! What a config may ask for and no step performs yet.

use super::Spec;

/// The fields that are set and that nothing performs yet, by their path. A container that asks for one is refused with the field's name: one
/// that ran without it would be less confined, or slower, than its author believes.
///
/// Whoever adds the step that performs a field takes its line out of the table below.
pub fn unperformed(spec: &Spec) -> Vec<String> {
    UNPERFORMED.iter().filter(|(_, is_set)| is_set(spec)).map(|(path, _)| (*path).to_owned()).collect()
}

/// Whether something performs the field of that path.
pub fn performs(path: &str) -> bool {
    !UNPERFORMED.iter().any(|(unperformed, _)| *unperformed == path)
}

type IsSet = fn(&Spec) -> bool;

const UNPERFORMED: &[(&str, IsSet)] = &[
    ("vm", |spec| spec.vm.is_some()),
    ("windows", |spec| spec.windows.is_some()),
    ("solaris", |spec| spec.solaris.is_some()),
    ("zos", |spec| spec.zos.is_some()),
    ("freebsd", |spec| spec.freebsd.is_some()),
];
