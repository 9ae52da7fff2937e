//! Every renderer against the hand-made programs, and against names that attack its format.

use super::*;

/// The snapshots live beside those of the plans, at the top of the repository.
pub(super) fn snapshot(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../snapshots/render"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

fn columns(text: &str) -> usize {
    text.lines().map(paint::width).max().unwrap_or(0)
}

#[test]
fn text_fits_a_terminal_of_80_columns() {
    let all = [
        ("create.txt", text::print(&fixture::oci_create(), text::Look::default())),
        ("service.txt", text::print(&fixture::ci_service(), text::Look::default())),
        ("service.folded.txt", text::print(&fixture::ci_service(), text::Look { fold: true, ..text::Look::default() })),
    ];
    for (name, text) in all {
        snapshot(name, &text);
        assert!(columns(&text) <= 80, "{name} is {} columns wide", columns(&text));
        assert!(!text.contains("hunter2"), "{name} shows a sensitive value");
        assert!(!text.lines().any(|l| l.ends_with(' ')), "{name} has spaces at the end of a line");
    }
}

#[test]
fn the_picture_holds_every_step() {
    for (name, run) in [("create.svg", fixture::oci_create()), ("service.svg", fixture::ci_service())] {
        let picture = svg::print(&run);
        assert_eq!(picture.matches("<g").count(), run.steps.len(), "{name}");
        assert!(!picture.contains("hunter2"), "{name} shows a sensitive value");
        snapshot(name, &picture);
    }
}
