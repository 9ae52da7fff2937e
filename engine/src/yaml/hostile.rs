//! Input that was written to hurt. Each is refused, or read, within bounds.

use std::fmt::Write;
use std::path::Path;

use super::*;
use crate::diag::{Diagnostics, FileId};

/// Quadratic work on 16 MiB takes hours: whoever runs the tests sees it.
fn refused(text: &str) -> String {
    let mut found = Diagnostics::default();
    parse(text, FileId::default(), &mut found);
    found.iter().map(|d| d.message.clone()).next().unwrap_or_default()
}

#[test]
fn a_billion_laughs_are_refused() {
    let mut text = String::from("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for level in 1..=9 {
        let before = format!("*a{}", level - 1);
        writeln!(text, "a{level}: &a{level} [{}]", vec![before; 9].join(", ")).unwrap();
    }
    assert!(refused(&text).contains("once its aliases are followed"));
}

#[test]
fn a_long_chain_of_doubling_aliases_is_refused() {
    let mut text = String::from("- &a0 [x]\n");
    for level in 1..=5_000 {
        writeln!(text, "- &a{level} [*a{0}, *a{0}]", level - 1).unwrap();
    }
    assert!(refused(&text).contains("once its aliases are followed"));
}

#[test]
fn ten_thousand_levels_are_refused() {
    for text in ["[".repeat(10_000), "{a: ".repeat(10_000), "- ".repeat(10_000)] {
        assert!(refused(&text).contains("nested deeper than"), "{}: {}", &text[..4], refused(&text));
    }
    let block = (0..10_000).fold(String::new(), |text, level| text + &" ".repeat(level) + "a:\n");
    assert!(refused(&block).contains("nested deeper than"));
}

#[test]
fn megabytes_of_one_character_take_linear_time() {
    for unit in [
        "\"", "'", "a", " ", "\n", ":", ": ", "&a ", "*a ", "!", "%", "|", ">", "#", "\\", "a: ", "a:\n", "- \n",
        "[],", "\t", "'' ", "\u{fffd}", "\0", "? \n", "---\n", "...\n", "${",
    ] {
        refused(&unit.repeat((2 << 20) / unit.len()));
    }
}

#[test]
fn more_nodes_than_the_limit_are_refused() {
    assert!(refused(&"- \n".repeat(4_100_000)).contains("more than 4000000 nodes"));
}

#[test]
fn a_mapping_of_many_keys_takes_linear_time() {
    let text: String = (0..100_000).map(|n| format!("k{n}: 1\n")).chain(["k5: 2\n".to_owned()]).collect();
    assert_eq!(refused(&text), "`k5` is given twice");
}

#[test]
fn a_file_that_is_too_large_is_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("huge.yaml");
    std::fs::File::create(&path).unwrap().set_len(100 << 20).unwrap();
    let error = read_file(&path).unwrap_err();
    assert!(error.to_string().contains("larger than 16 MiB"), "{error}");
    // A device without an end tells no size.
    let error = read_file(Path::new("/dev/zero")).unwrap_err();
    assert!(error.to_string().contains("larger than 16 MiB"), "{error}");
}

#[test]
fn a_byte_that_is_not_utf8_is_named() {
    let error = decode(Path::new("p.yaml"), b"a: 1\nb: \xff\n".to_vec()).unwrap_err();
    assert_eq!(error.to_string(), "p.yaml is not UTF-8: byte 0xff at offset 8 (line 2); save the file as UTF-8");
    let error = decode(Path::new("p.yaml"), b"\xff\xfea\0".to_vec()).unwrap_err();
    assert!(error.to_string().ends_with("it looks like UTF-16: save it as UTF-8"), "{error}");
    let error = read_file(Path::new("/")).unwrap_err();
    assert_eq!(error.to_string(), "/ is a directory, not a file");
    let error = read_file(Path::new("/nowhere/plan.yaml")).unwrap_err();
    assert!(error.to_string().starts_with("cannot read /nowhere/plan.yaml: No such file"), "{error}");
}
