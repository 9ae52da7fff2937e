//! The `config.json` as a file: what is wrong with it is told with its place, what is unknown does no harm, and annotations are kept.

use std::fs;

use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use serde_json::json;

use crate::boxed::Boxed;

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![
        config_json_with_a_wrong_type_or_value_is_refused_with_file_line_and_column,
        config_json_unknown_members_are_ignored_with_a_warning,
        annotations_are_kept_those_that_nobody_knows_too,
        annotations_named_as_the_journal_marks_its_values_are_annotations,
    ];
    tests.into_iter().map(|test| test.within("fields_config").needs(&[Root, Program("busybox")])).collect()
}

/// The line and column, counted from 1, at which the text has these words.
fn place(text: &str, words: &str) -> Result<String, Box<dyn std::error::Error>> {
    let at = text.find(words).ok_or("not there")?;
    let line = text[..at].matches('\n').count() + 1;
    let column = at - text[..at].rfind('\n').map_or(0, |end| end + 1) + 1;
    Ok(format!("config.json:{line}:{column}: "))
}

pub fn config_json_with_a_wrong_type_or_value_is_refused_with_file_line_and_column(lab: &Lab) -> TestResult {
    let mut container = Boxed::runs(lab, "true")?;
    let file = container.bundle.dir().join("config.json");
    container.edit(|config| {
        config["process"]["cwd"] = json!(["a list"]);
    })?;
    let wanted = place(&fs::read_to_string(&file)?, "[\n      \"a list\"")?;
    container.plan("oci/run", &[]).ended(125).says(&[&wanted, "process.cwd: invalid type: sequence"]);
    // Two at once, each in its place.
    container.edit(|config| {
        config["process"]["cwd"] = json!("relative");
        config["process"]["user"]["uid"] = json!(u32::MAX);
        config["hostname"] = json!("x".repeat(65));
    })?;
    let text = fs::read_to_string(&file)?;
    let (cwd, uid, name) = (place(&text, "\"relative\"")?, place(&text, "4294967295")?, place(&text, "\"xxx")?);
    let told = container.plan("oci/run", &[]).ended(125);
    told.says(&[&format!("{cwd}process.cwd"), &format!("{uid}process.user.uid"), &format!("{name}hostname")]);
    // A secret is not quoted.
    container.edit(|config| {
        config["process"]["cwd"] = json!("/");
        config["process"]["env"] = json!({ "PASSWORD": "hunter2" });
    })?;
    let told = container.plan("oci/run", &[]).ended(125).says(&["process.env"]);
    assert!(!told.err.contains("hunter2"), "{}", told.err);
    fs::write(&file, "{ \"ociVersion\": \"1.3.0\",\n  nonsense }")?;
    container.scene.begins_here()?;
    container.plan("oci/run", &[]).ended(125).says(&["config.json:2:3: this is not JSON"]);
    Ok(container.scene.nothing_left()?)
}

pub fn config_json_unknown_members_are_ignored_with_a_warning(lab: &Lab) -> TestResult {
    let mut container = Boxed::runs(lab, "echo it runs")?;
    container.edit(|config| {
        config["process"]["colour"] = json!("red");
        config["linux"]["resources"]["memory"] = json!({ "limits": 1 });
        config["com.example.own"] = json!({ "x": 1 });
        config["nothing"] = json!(null);
    })?;
    let told = container.plan("oci/run", &[]).ended(0);
    assert_eq!(told.out, "it runs\n");
    let told =
        told.says(&["warning:", "process.colour", "linux.resources.memory.limits", "com.example.own", "ignored"]);
    assert!(!told.err.contains("nothing"), "{}", told.err);
    Ok(container.scene.nothing_left()?)
}

pub fn annotations_are_kept_those_that_nobody_knows_too(lab: &Lab) -> TestResult {
    let mut container = Boxed::runs(lab, "true")?;
    let annotations = json!({ "org.example.team": "web", "run.oci.unheard.of": "", "x": "y" });
    container.edit(|config| config["annotations"] = annotations.clone())?;
    container.create()?;
    assert_eq!(container.state()?["annotations"], annotations);
    container.plan("oci/start", &["--keep"]).ended(0);
    assert_eq!(container.state()?["annotations"], annotations);
    container.delete().ended(0);
    container.edit(|config| config["annotations"] = json!({ "": "x" }))?;
    container.plan("oci/run", &[]).ended(125).says(&["annotations: a key is empty"]);
    container.edit(|config| config["annotations"] = json!({ "n": 1 }))?;
    container.plan("oci/run", &[]).ended(125).says(&["annotations.n: invalid type: integer"]);
    Ok(container.scene.nothing_left()?)
}

pub fn annotations_named_as_the_journal_marks_its_values_are_annotations(lab: &Lab) -> TestResult {
    let seen = lab.dir().join("seen");
    let mut container = Boxed::runs(lab, "echo $A")?;
    for name in ["$sensitive", "$handle", "$text", "$", "$$text"] {
        let annotations = json!({ name: "x" });
        let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", format!("cat >{}", seen.display())] });
        container.edit(|config| {
            config["annotations"] = annotations.clone();
            config["hostname"] = json!("$handle");
            config["process"]["env"] = json!(["PATH=/bin", format!("A={{\"{name}\":\"x\"}} ${{params.id}}")]);
            config["hooks"] = json!({ "poststop": [hook] });
        })?;
        container.create()?;
        assert_eq!(container.state()?["annotations"], annotations);
        container.plan("oci/start", &["--keep"]).ended(0);
        assert_eq!(container.state()?["annotations"], annotations, "after start");
        container.delete().ended(0);
        let told: serde_json::Value = serde_json::from_slice(&fs::read(&seen)?)?;
        assert_eq!(told["annotations"], annotations, "to the hook");
        fs::remove_file(&seen)?;
        container.scene.nothing_left()?;
        let ran = container.plan("oci/run", &[]).ended(0);
        assert_eq!(ran.out, format!("{{\"{name}\":\"x\"}} ${{params.id}}\n"));
        fs::remove_file(&seen)?;
    }
    Ok(())
}
