//! `docs/coverage.md`: each field of the runtime-spec and each verb and option of `lifecycle-oci`, and the tests that cover it.
//!
//! Nothing in it is written by hand. The fields are those of [`Spec`], the verbs and options those that `lifecycle-oci completions` knows, the
//! tests those of the test programs. What a test covers is in its name, or in [`super::covers::COVERS`].

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

use lifecycle_steps::spec::Spec;
use lifecycle_tests::harness::{Test, TestResult};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::{Error, Result, While, program};
use regex::Regex;
use serde_json::Value;

use crate::covers::COVERS;

/// All of them.
pub fn tests() -> Vec<Test> {
    let tests = lifecycle_tests::tests![a_tests_name_says_what_it_covers,];
    tests.into_iter().map(|test| test.within("coverage")).collect()
}

/// Where the table is, below the top of the source tree.
const FILE: &str = "docs/coverage.md";

/// A field, verb or option, and what is below it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Row {
    /// How people write it: `process.user.uid`, `exec`, `exec --cwd`.
    path: String,
    /// Its last part as tests are named: `uid`, `exec`, `cwd`.
    name: String,
    below: Vec<Row>,
}

impl Row {
    /// This one and all below, each before what is below it.
    fn all(&self) -> Vec<&Row> {
        std::iter::once(self).chain(self.below.iter().flat_map(Row::all)).collect()
    }
}

/// The test of the table, given the names of all other tests of this program.
pub fn test(others: &[Test]) -> Test {
    let names: Vec<String> = others.iter().map(|test| test.name().to_owned()).collect();
    Test::new("coverage::every_field_verb_and_option_has_a_test", move |_| check(&names))
}

/// What the table rests on: that a name is read as it is meant, and that nothing passes for covered that is not.
pub fn a_tests_name_says_what_it_covers(_: &Lab) -> TestResult {
    let (fields, verbs) = (fields(), verbs()?);
    let covers = |words: &str| {
        let rows = words.strip_prefix("oci_").map_or_else(|| named(words, &fields), |words| named(words, &verbs));
        rows.iter().map(|row| row.path.clone()).collect::<Vec<_>>()
    };
    for (name, paths) in [
        ("process_args_env_and_cwd", &["process.args", "process.env", "process.cwd"][..]),
        ("process_exec_cpu_affinity_final_is_late", &["process.execCPUAffinity.final"]),
        ("linux_resources_block_io_throttle_read_iops_device", &["linux.resources.blockIO.throttleReadIOPSDevice"]),
        ("linux_resources_memory_disable_oom_killer_x", &["linux.resources.memory.disableOOMKiller"]),
        ("hooks_timeout_ends_a_hook", &["hooks.*.timeout"]),
        ("linux_memory_policy", &["linux.memoryPolicy"]),
        ("no_such_field", &[]),
        ("oci_exec_process_label_is_set", &["exec --process-label"]),
        ("oci_create_and_run_no_pivot", &["create --no-pivot", "run --no-pivot"]),
        ("oci_kill_ends_it", &["kill"]),
        ("oci_log_format", &["--log-format"]),
        ("oci_nosuch_verb", &[]),
    ] {
        assert_eq!(covers(name), paths, "{name}");
    }
    let rows: Vec<&Row> = fields.iter().chain(&verbs).flat_map(Row::all).collect();
    let none = covered(&[], &fields, &verbs);
    assert!(none.is_err_and(|error| error.to_string().contains("there is no test")), "COVERS may name what is no test");
    let every =
        |rows: &[&Row]| rows.iter().map(|row| (row.path.clone(), Vec::new())).collect::<BTreeMap<_, Vec<String>>>();
    check_gaps(&rows, &every(&rows))?;
    let told = check_gaps(&rows, &every(&rows[5..])).map_err(|error| error.to_string());
    assert!(told.is_err_and(|told| told.contains(&rows[0].path)), "a field without a test passes");
    Ok(())
}

fn check(own: &[String]) -> TestResult {
    let (fields, verbs) = (fields(), verbs()?);
    let tests = [own, &of_callers()?, &of_law()?].concat();
    let found = covered(&tests, &fields, &verbs)?;
    let rows: Vec<&Row> = fields.iter().chain(&verbs).flat_map(Row::all).collect();
    check_gaps(&rows, &found)?;
    let text = table(&fields, &verbs, &found)?;
    let file = program::source().join(FILE);
    // The same variable that tells insta to accept what is there now.
    if std::env::var_os("INSTA_UPDATE").is_some_and(|mode| mode == "always") {
        fs::write(&file, &text)?;
    }
    let kept = fs::read_to_string(&file).when(|| format!("reading {FILE}"))?;
    match text.lines().zip(kept.lines()).find(|(now, kept)| now != kept) {
        None if text == kept => Ok(()),
        different => {
            let (now, kept) = different.unwrap_or_default();
            let how = "INSTA_UPDATE=always cargo test -p lifecycle-tests --test cli coverage";
            Err(format!("{FILE} is not what the tests say; `{how}` writes it anew\nin the file: {kept}\nnow: {now}")
                .into())
        }
    }
}

/// A field's name as tests are named: `execCPUAffinity` is `exec_cpu_affinity`, `--pid-file` is `pid_file`.
fn snake(name: &str) -> String {
    let letters: Vec<char> = name.trim_start_matches('-').chars().collect();
    let mut snake = String::new();
    for (at, letter) in letters.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| letters.get(at));
        let begins = before.is_some_and(|before| {
            !before.is_uppercase() && *before != '-' || letters.get(at + 1).is_some_and(|next| next.is_lowercase())
        });
        if letter.is_uppercase() && begins {
            snake.push('_');
        }
        snake.push(if *letter == '-' { '_' } else { letter.to_ascii_lowercase() });
    }
    snake
}

/// All fields of config.json, from the schema of the type that reads it.
fn fields() -> Vec<Row> {
    let schema = schemars::schema_for!(Spec).to_value();
    members(&schema, &schema["$defs"], "")
}

/// The schema of what is in it, if it is a list, a map, or may be absent; and the name of its type, if it has one.
fn inner<'a>(schema: &'a Value, types: &'a Value) -> (&'a Value, Option<&'a str>) {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/")) {
        return (inner(&types[name], types).0, Some(name));
    }
    let present = schema["anyOf"].as_array().and_then(|any| any.iter().find(|one| one["type"] != "null"));
    match present.or(schema.get("items")).or(schema.get("additionalProperties").filter(|map| map.is_object())) {
        Some(inside) => inner(inside, types),
        None => (schema, None),
    }
}

/// The fields of a structure. What lists of one type have in common is there once, as `hooks.*.path`.
fn members(schema: &Value, types: &Value, path: &str) -> Vec<Row> {
    let Some(properties) = schema["properties"].as_object() else { return Vec::new() };
    let inside: Vec<_> = properties.iter().map(|(name, schema)| (name, inner(schema, types))).collect();
    let shared =
        |kind: Option<&str>| kind.is_some() && inside.iter().filter(|(_, (_, other))| *other == kind).count() > 1;
    let at = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    let mut rows: Vec<Row> = Vec::new();
    let mut common: Vec<Row> = Vec::new();
    for (name, (schema, kind)) in &inside {
        let below = if shared(*kind) {
            for row in members(schema, types, &at("*")) {
                if !common.contains(&row) {
                    common.push(row);
                }
            }
            Vec::new()
        } else {
            members(schema, types, &at(name))
        };
        rows.push(Row { path: at(name), name: snake(name), below });
    }
    rows.extend(common);
    rows
}

/// All verbs, each with its options, and the options that all of them share, as the completions for bash list them.
fn verbs() -> Result<Vec<Row>> {
    let oci = program::lifecycle_oci()?;
    let script = program::output(&oci.display().to_string(), &["completions", "bash"])?;
    let sections = Regex::new(r#"(?m)^ *(lifecycle__[a-z_]*)\)\n *opts="([^"]*)""#).when(|| "compiling".into())?;
    let words: BTreeMap<&str, Vec<&str>> = sections
        .captures_iter(&script)
        .map(|section| section.extract::<2>().1)
        .map(|[name, words]| (name, words.split(' ').collect()))
        .collect();
    let all = words.get("lifecycle__oci").ok_or_else(|| Error::new("reading the completions", "no verbs"))?;
    let is_option = |word: &&&str| word.starts_with("--") && **word != "--help";
    let option = |verb: &str, word: &str| Row {
        path: format!("{verb} {word}").trim_start().to_owned(),
        name: snake(word),
        below: Vec::new(),
    };
    let mut of_verbs = Vec::new();
    for verb in all.iter().filter(|word| !word.starts_with('-') && **word != "help") {
        let own =
            words.iter().find(|(name, _)| name.ends_with(&format!("subcmd__{verb}")) && !name.contains("__help__"));
        let own = own.ok_or_else(|| Error::new("reading the completions", format!("no options of {verb}")))?.1;
        of_verbs.push((*verb, own));
    }
    // An option that every verb has stands once, behind them.
    let is_shared = |word: &str| of_verbs.iter().all(|(_, own)| own.contains(&word));
    let own = |verb: &str, own: &[&str]| {
        own.iter().filter(is_option).filter(|word| !is_shared(word)).map(|word| option(verb, word)).collect()
    };
    let row =
        |(verb, words): &(&str, &Vec<&str>)| Row { path: (*verb).into(), name: snake(verb), below: own(verb, words) };
    let mut rows: Vec<Row> = of_verbs.iter().map(row).collect();
    rows.extend(all.iter().filter(is_option).map(|word| option("", word)));
    Ok(rows)
}

/// The names that a test program's source gives to its tests, where this is the whole of its list.
fn named_in(file: &str, list: &str, name: &str) -> Result<Vec<String>> {
    let text = fs::read_to_string(program::source().join(file)).when(|| format!("reading {file}"))?;
    let compiled = |pattern: &str| Regex::new(pattern).when(|| format!("compiling {pattern}"));
    let list =
        compiled(list)?.captures(&text).ok_or_else(|| Error::new(format!("reading {file}"), "no list of tests"))?;
    let names: Vec<String> = compiled(name)?.captures_iter(&list[1]).map(|found| found[1].to_owned()).collect();
    if names.is_empty() { Err(Error::new(format!("reading {file}"), "no tests in the list")) } else { Ok(names) }
}

/// The tests of `callers`, another test program, whose source is beside ours.
fn of_callers() -> Result<Vec<String>> {
    let of = |module: &str| {
        let file = format!("tests/callers/{module}.rs");
        let names = named_in(&file, r"(?s)tests!\[(.*?)\n    \];", r"(?m)^ +([a-z0-9_]+),$")?;
        Ok(names.into_iter().map(|name| format!("callers {module}::{name}")).collect::<Vec<_>>())
    };
    Ok([of("podman")?, of("containerd")?].concat())
}

/// The tests of `law` that kill a verb.
fn of_law() -> Result<Vec<String>> {
    let names = named_in("tests/law/verbs.rs", r"(?s)let verbs = \[(.*?)\n    \];", r#"\(\s*"([a-z_:]+)", ?\s*Verb"#)?;
    Ok(names.into_iter().map(|name| format!("law oci::{name}")).collect())
}

/// The row whose name the words begin with, the longest one, and the words behind it.
fn first<'r, 'w>(words: &'w str, rows: &'r [Row]) -> Option<(&'r Row, &'w str)> {
    let rest = |row: &Row| {
        let rest = words.strip_prefix(row.name.as_str())?;
        if rest.is_empty() { Some(rest) } else { rest.strip_prefix('_') }
    };
    rows.iter().filter_map(|row| Some((row, rest(row)?))).max_by_key(|(row, _)| row.name.len())
}

/// What a test covers by its name: the longest path that it begins with, and others of the same structure where they follow, as in
/// `process_args_env_and_cwd`.
fn named<'r>(words: &str, rows: &'r [Row]) -> Vec<&'r Row> {
    let Some((row, mut rest)) = first(words, rows) else { return Vec::new() };
    let below = named(rest, &row.below);
    if !below.is_empty() {
        return below;
    }
    let mut found = vec![row];
    while let Some((next, behind)) = first(rest.strip_prefix("and_").unwrap_or(rest), rows) {
        found.push(next);
        rest = behind;
    }
    // `oci_create_and_exec_pidfd_socket`: of both.
    let below: Vec<&Row> = found.iter().flat_map(|row| named(rest, &row.below)).collect();
    if below.is_empty() { found } else { below }
}

/// `a.{b,c}` is `a.b` and `a.c`.
fn spread(pattern: &str) -> Vec<String> {
    let parts = pattern.split_once('{').and_then(|(head, rest)| Some((head, rest.split_once('}')?)));
    match parts {
        None => vec![pattern.to_owned()],
        Some((head, (names, tail))) => {
            names.split(',').flat_map(|name| spread(&format!("{head}{name}{tail}"))).collect()
        }
    }
}

/// The tests that cover each row, by its path.
fn covered(tests: &[String], fields: &[Row], verbs: &[Row]) -> Result<BTreeMap<String, Vec<String>>> {
    let mut found = BTreeMap::<String, Vec<String>>::new();
    let mut add = |path: &str, test: &str| {
        let tests = found.entry(path.to_owned()).or_default();
        if !tests.iter().any(|known| known == test) {
            tests.push(test.to_owned());
        }
    };
    for test in tests {
        let words = test.rsplit("::").next().unwrap_or_default();
        let rows = match (test.starts_with("fields_"), words.strip_prefix("oci_")) {
            (true, _) => named(words, fields),
            (_, Some(words)) => named(words, verbs),
            _ => Vec::new(),
        };
        for row in rows {
            add(&row.path, test);
        }
    }
    let paths: Vec<&str> = fields.iter().chain(verbs).flat_map(Row::all).map(|row| row.path.as_str()).collect();
    for (test, patterns) in COVERS {
        if !tests.iter().any(|known| known == test) {
            return Err(Error::new("reading COVERS", format!("there is no test {test}")));
        }
        for path in patterns.iter().flat_map(|pattern| spread(pattern)) {
            if !paths.contains(&path.as_str()) {
                return Err(Error::new(
                    format!("reading COVERS of {test}"),
                    format!("there is no field or option {path}"),
                ));
            }
            add(&path, test);
        }
    }
    Ok(found)
}

/// Whatever has no test is an error.
fn check_gaps(rows: &[&Row], found: &BTreeMap<String, Vec<String>>) -> Result<()> {
    // A structure is covered by its fields, a verb with options by these.
    let missing = rows.iter().filter(|row| row.below.is_empty() && !found.contains_key(&row.path));
    let missing: Vec<&str> = missing.map(|row| row.path.as_str()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join("\n  ");
    let help = "a test is named after what it covers, or listed in tests/cli/covers.rs";
    Err(Error::new("looking for fields and options without a test", format!("no test covers:\n  {list}\n({help})")))
}

fn table(fields: &[Row], verbs: &[Row], found: &BTreeMap<String, Vec<String>>) -> Result<String> {
    let mut text = String::from(HEAD);
    for (title, column, rows) in [("config.json", "field", fields), ("lifecycle-oci", "verb or option", verbs)] {
        write!(text, "\n## {title}\n\n| {column} | covered by |\n|---|---|\n").when(|| "writing the table".into())?;
        for row in rows.iter().flat_map(Row::all) {
            let tests = found.get(&row.path).map(|tests| format!("`{}`", tests.join("`<br>`")));
            // A structure without tests of its own is covered by its fields.
            if let Some(tests) = tests {
                writeln!(text, "| `{}` | {tests} |", row.path).when(|| "writing the table".into())?;
            }
        }
    }
    Ok(text)
}

const HEAD: &str = "\
# What the tests cover

Each field of `config.json` (runtime-spec 1.3, as the program reads it), each verb of `lifecycle-oci` and each of its options, and the
whole-program tests that look at what it does. A structure or a verb is also covered by the tests of what is below it. `*` stands for each of
the lists of one kind beside it.

`file::test` is in `tests/cli/file.rs`, `callers file::test` in `tests/callers/file.rs` (with podman or containerd, compared with runc), and
`law oci::verb` kills that verb at many points (`tests/law/verbs.rs`).

Written by the tests themselves, which fail where it is not what they say; not to be edited:
`INSTA_UPDATE=always cargo test -p lifecycle-tests --test cli coverage`.
";
