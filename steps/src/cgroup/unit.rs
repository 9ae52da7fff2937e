//! The systemd unit that a config's `linux.cgroupsPath` names: `slice:prefix:name`.

use lifecycle_engine::error::PlanError;

/// The longest name of a unit: UNIT_NAME_MAX, which counts the zero byte at its end.
const LONGEST: usize = 255;

/// The prefix of containers whose config names no unit.
const PREFIX: &str = "lifecycle";

/// A container's scope, and the slice that it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    /// `prefix-name.scope`
    pub(super) scope: String,
    /// `a-b.slice`, or `-.slice` for the topmost.
    pub(super) slice: String,
}

impl Unit {
    /// As every runtime with a systemd driver reads it. Without a path, or with empty parts: the default slice, and the container's id.
    pub(super) fn of(path: Option<&str>, id: &str, user: bool) -> Result<Self, PlanError> {
        let given = path.unwrap_or_default();
        let parts: Vec<&str> = given.split(':').collect();
        let (slice, prefix, name) = match parts[..] {
            [""] => ("", PREFIX, ""),
            [slice, prefix, name] => (slice, prefix, name),
            _ => {
                return Err(PlanError::new("path", format!("`{given}` is not of the form `slice:prefix:name`"))
                    .help("that is what systemd's driver takes, such as `machine.slice:web:1`; leave --systemd-cgroup out for a path"));
            }
        };
        let default = if user { "user.slice" } else { "system.slice" };
        let slice = slice_of(if slice.is_empty() { default } else { slice })?;
        if name.strip_suffix(".slice").is_some() {
            return Err(PlanError::new("path", format!("names the slice `{name}`, which can hold no process"))
                .help("name a scope: `slice:prefix:name` becomes `prefix-name.scope`"));
        }
        let name = if name.is_empty() { escaped(id) } else { name.to_owned() };
        let scope = if prefix.is_empty() { format!("{name}.scope") } else { format!("{prefix}-{name}.scope") };
        check(&scope)?;
        Ok(Self { scope, slice })
    }

    /// The slices that it is in, from the outermost in: systemd.slice(5) says how names nest. The topmost is none of them: it is always there.
    pub(super) fn slices(&self) -> Vec<String> {
        let stem = self.slice.trim_end_matches(".slice");
        let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
        ends.filter(|_| self.slice != "-.slice").map(|end| format!("{}.slice", &stem[..end])).collect()
    }

    /// Where its cgroup is below that of the manager, without a leading slash.
    pub(super) fn path(&self) -> String {
        [self.slices(), vec![self.scope.clone()]].concat().join("/")
    }
}

fn slice_of(slice: &str) -> Result<String, PlanError> {
    if slice == "-" || slice == "-.slice" {
        return Ok("-.slice".to_owned());
    }
    let stem = slice.strip_suffix(".slice").unwrap_or_default();
    if stem.is_empty() || stem.split('-').any(str::is_empty) || slice.contains('/') {
        return Err(PlanError::new("path", format!("`{slice}` is not a slice"))
            .help("a slice is called `name.slice`, one in it `name-inner.slice`; systemd nests them by that name"));
    }
    check(slice)?;
    Ok(slice.to_owned())
}

/// systemd.unit(5): what a unit's name may be made of.
fn plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || ":-_.\\@".contains(c)
}

fn check(unit: &str) -> Result<(), PlanError> {
    let wrong = |why: String| Err(PlanError::new("path", format!("`{unit}` is no name for a unit: {why}")));
    if unit.len() >= LONGEST {
        return wrong(format!("it is longer than {} bytes", LONGEST - 1));
    }
    match unit.chars().find(|c| !plain(*c)) {
        Some(c) => wrong(format!("`{c}` may not be in it")),
        None => Ok(()),
    }
}

/// As systemd-escape(1) does it: an id may have characters that a unit's name may not.
fn escaped(id: &str) -> String {
    let escape = |byte: u8| match char::from(byte) {
        c if plain(c) && c != '\\' => c.to_string(),
        _ => format!("\\x{byte:02x}"),
    };
    id.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(path: &str) -> (String, String) {
        let unit = Unit::of(Some(path), "web", false).expect("a unit");
        (unit.slice.clone(), unit.path())
    }

    #[test]
    fn a_slice_with_dashes_is_nested() {
        let (slice, path) = unit("kubepods-burstable-pod1.slice:cri-containerd:abc");
        assert_eq!(slice, "kubepods-burstable-pod1.slice");
        let nested = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice";
        assert_eq!(path, format!("{nested}/cri-containerd-abc.scope"));
        let top = Unit::of(Some("-:p:n"), "web", false).expect("a unit");
        assert!(top.slices().is_empty(), "the topmost is always there");
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        assert_eq!(unit(":p:n"), ("system.slice".into(), "system.slice/p-n.scope".into()));
        assert_eq!(unit("-:p:n"), ("-.slice".into(), "p-n.scope".into()));
        assert_eq!(unit("a.slice::n").1, "a.slice/n.scope");
        assert_eq!(unit("").1, "system.slice/lifecycle-web.scope");
        let own = Unit::of(None, "a+b", true).expect("a unit");
        assert_eq!(own.path(), "user.slice/lifecycle-a\\x2bb.scope");
    }

    #[test]
    fn what_is_no_unit_is_refused() {
        let long = format!(":p:{}", "n".repeat(255));
        for wrong in
            ["/a/b", "a:b", "a:b:c:d", "a/b.slice:p:n", "a:p:n", "a--b.slice:p:n", ":p:n/m", ":p:x.slice", &long]
        {
            assert!(Unit::of(Some(wrong), "web", false).is_err(), "{wrong}");
        }
    }
}
