//! The likely correction of a misspelt name.

/// The known name that was most likely meant, if one is close enough.
///
/// Close is Damerau-Levenshtein distance: at most a third of the name's length, rounded up. A name that differs only in case or in
/// `-`, `_`, `.` always counts.
#[must_use]
pub fn did_you_mean<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = fold(wrong);
    let limit = wrong.chars().count().div_ceil(3).max(1);
    known
        .into_iter()
        .filter_map(|name| {
            let distance = if fold(name) == folded { 0 } else { strsim::damerau_levenshtein(wrong, name) };
            (distance <= limit).then_some((distance, name))
        })
        .min()
        .map(|(_, name)| name)
}

fn fold(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// `a, b and c`, each in backquotes; cut after twelve, so that a large catalogue does not fill the screen.
#[must_use]
pub fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    if names.len() > 12 {
        let more = names.len() - 11;
        names.truncate(11);
        names.push(format!("{more} more"));
    }
    match names.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_corrected_and_a_stranger_is_not() {
        let known = ["cgroup.create", "spec.load", "process.clone"];
        assert_eq!(did_you_mean("cgroup.creat", known), Some("cgroup.create"));
        assert_eq!(did_you_mean("cgroup_Create", known), Some("cgroup.create"));
        assert_eq!(did_you_mean("net.veth", known), None);
        assert_eq!(did_you_mean("", known), None);
    }

    #[test]
    fn lists_read_as_a_sentence() {
        assert_eq!(listed([]), "");
        assert_eq!(listed(["a"]), "`a`");
        assert_eq!(listed(["a", "b", "c"]), "`a`, `b` and `c`");
        let many: Vec<String> = (0..20).map(|n| n.to_string()).collect();
        assert!(listed(many.iter().map(String::as_str)).ends_with("`10` and 9 more"));
    }
}
