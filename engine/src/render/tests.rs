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

#[test]
fn graphs_for_other_programs() {
    for (name, run) in [("create", fixture::oci_create()), ("service", fixture::ci_service())] {
        snapshot(&format!("{name}.dot"), &dot::print(&run));
        snapshot(&format!("{name}.mermaid"), &mermaid::print(&run));
    }
}

#[test]
fn json_is_versioned_and_reads_back() {
    let run = fixture::oci_create();
    let text = json::print(&run);
    snapshot("create.json", &text);
    assert!(!text.contains("hunter2"), "shows a sensitive value");
    assert_eq!(json::parse(&text).expect("ours"), run);
    assert_eq!(json::print(&fixture::oci_create()), text, "not the same bytes twice");
    let newer = text.replacen("\"lifecycle_dry_run\": 1", "\"lifecycle_dry_run\": 99", 1);
    assert_eq!(json::parse(&newer).expect_err("newer"), "a dry run of format 99; this program reads format 1");
    assert!(json::parse("{}").expect_err("no version").contains("not a dry run"));
}

fn changed() -> DryRun {
    let mut run = fixture::oci_create();
    run.params[1].value = serde_json::json!("/srv/bundles/other");
    let at = |run: &DryRun, address: &str| run.steps.iter().position(|s| s.address == address).expect("a step");
    let sysctl = at(&run, "sysctl");
    run.steps.remove(sysctl);
    let cgroup = at(&run, "cgroup");
    run.steps[cgroup].effects.remove(1);
    let limit = &mut run.steps[cgroup].effects[2];
    limit.does = limit.does.replace("67108864", "134217728");
    limit.data = serde_json::json!({ "file": "memory.limit_in_bytes", "value": 134_217_728 });
    let privileges = at(&run, "privileges");
    run.steps[privileges].after.retain(|e| e.step != "protect");
    let mut limits = run.steps[privileges].clone();
    limits.address = "limits".into();
    limits.kind = "process.limits".into();
    limits.effects.truncate(1);
    run.steps.insert(privileges, limits);
    run.facts.host.insert("kernel.openat2".into(), false.into());
    run.facts.host.insert("lsm".into(), "landlock".into());
    for fact in run.facts.files.values_mut() {
        *fact = crate::facts::FileFact::Text("{}".into());
    }
    run
}

#[test]
fn a_difference_is_told_effect_by_effect() {
    let (old, new) = (fixture::oci_create(), changed());
    let text = diff::text(&old, &new, &diff::Look::default()).expect("differs");
    snapshot("diff.txt", &text);
    assert!(columns(&text) <= 80);
    assert_eq!(diff::text(&old, &old.clone(), &diff::Look::default()), None);
    assert_eq!(diff::text(&new, &new, &diff::Look::default()), None);
}

#[test]
fn lines_are_compared_with_their_surroundings() {
    let old = "1\n2\n3\n4\n5\n6\n7\n8\n9\n";
    let new = old.replace("5\n", "five\n5\n").replace("9\n", "");
    assert_eq!(
        diff::lines(old, &new, false).expect("differs"),
        "  …\n  2\n  3\n  4\n+ five\n  5\n  6\n  7\n  8\n- 9\n"
    );
    assert_eq!(diff::lines(old, old, false), None);
    assert!(diff::lines("a", "a\n", false).expect("differs").contains("end differs"));
}

#[test]
fn a_moved_line_is_no_difference() {
    let old = fixture::oci_create();
    let mut new = old.clone();
    new.steps.iter_mut().for_each(|s| s.place = "elsewhere.yaml:1".into());
    assert_eq!(diff::text(&old, &new, &diff::Look::default()), None);
}

fn saved() -> saved::Saved {
    let run = fixture::oci_create();
    saved::Saved {
        lifecycle_saved_plan: saved::VERSION,
        plan: "/etc/plans/create.yaml".into(),
        sources: vec![saved::Source::of("/etc/plans/create.yaml".into(), "plan: oci/create")],
        params: [("id".to_owned(), serde_json::json!("web"))].into(),
        sensitive: vec!["token".into()],
        command: Vec::new(),
        mask: Vec::new(),
        digest: saved::digest(&run),
        dry_run: run,
    }
}

#[test]
fn a_saved_plan_is_run_only_as_it_was_shown() {
    let saved = saved();
    let text = saved.print();
    assert!(!text.contains("hunter2"), "a sensitive value was saved");
    assert_eq!(saved::Saved::parse(&text).expect("ours"), saved);
    saved.check(&fixture::oci_create(), &saved.sources).expect("nothing has changed");

    let edited = [saved::Source::of("/etc/plans/create.yaml".into(), "plan: oci/other")];
    let refused = saved.check(&changed(), &edited).expect_err("much has changed");
    assert_eq!(refused.sources, ["/etc/plans/create.yaml was edited"]);
    snapshot("refused.txt", &refused.to_string());

    let forged = text.replace("/bin/httpd", "/bin/evil!");
    assert!(saved::Saved::parse(&forged).expect_err("edited").contains("was edited"));
}

#[test]
fn a_fact_alone_is_enough_to_refuse() {
    let saved = saved();
    let mut now = fixture::oci_create();
    now.facts.host.insert("kernel.openat2".into(), false.into());
    let refused = saved.check(&now, &saved.sources).expect_err("a fact has changed");
    assert_eq!(
        refused.to_string(),
        "the saved plan is no longer what would happen\nfacts that changed:\n  kernel.openat2: true → false\n\
         The effects would be the same."
    );
}

fn ran() -> Vec<show::StepRun> {
    let run = fixture::oci_create();
    let mut clock = 1_790_000_000_000_000;
    let mut steps: Vec<show::StepRun> = Vec::new();
    for (k, step) in (0u64..).zip(&run.steps) {
        let state = match step.address.as_str() {
            _ if step.skipped => show::State::Skipped,
            "exec" => show::State::Armed,
            "ready" => show::State::Failed,
            _ => show::State::Done,
        };
        let took = 90 + (k * 7919) % 1900;
        let start = (!matches!(state, show::State::Skipped | show::State::Armed)).then_some(clock);
        // The fifo is made while spec is being read.
        let overlaps = step.address == "spec";
        clock += if overlaps {
            20
        } else if start.is_some() {
            took
        } else {
            0
        };
        steps.push(show::StepRun {
            address: step.address.clone(),
            kind: step.kind.clone(),
            state,
            start,
            end: start.map(|s| s + took),
            undo: (step.address == "seccomp").then_some((clock + 5000, Some(clock + 5100))),
            site: step.site.clone(),
            after: step.after.iter().map(|e| e.step.clone()).collect(),
            effects: step.effects.len() as u32,
            note: (state == show::State::Failed)
                .then(|| "rename(\"state.json\"): No space left on device (errno 28)".into()),
        });
    }
    steps
}

#[test]
fn a_run_is_shown_with_its_critical_path() {
    let steps = ran();
    let head = show::RunHead { id: "web".into(), plan: "oci/create".into(), state: "failed, undone".into(), now: 0 };
    let text = show::text(&head, &steps, false, 100);
    snapshot("show.txt", &text);
    snapshot("show.json", &serde_json::to_string_pretty(&show::json(&head, &steps)).expect("json"));
    let times = show::Times::of(&steps, 0).expect("it ran");
    let path: Vec<&str> = times.critical.iter().map(|&i| steps[i].address.as_str()).collect();
    assert_eq!(path.first(), Some(&"spec"));
    assert!(path.windows(2).all(|w| {
        let end = |a: &str| steps.iter().find(|s| s.address == a).and_then(|s| s.end);
        end(w[0]) <= end(w[1])
    }));
    assert_eq!(show::Times::of(&[], 0), None);
}

#[test]
fn a_trace_has_a_lane_for_each_site_and_no_overlap_in_one() {
    let trace = trace::json("web", &ran(), 0);
    snapshot("trace.json", &serde_json::to_string_pretty(&trace).expect("json"));
    let events = trace["traceEvents"].as_array().expect("a list");
    let names: Vec<&str> =
        events.iter().filter(|e| e["name"] == "process_name").filter_map(|e| e["args"]["name"].as_str()).collect();
    assert_eq!(names, ["web: host", "web: inside ‹init›"]);
    let mut ends = std::collections::HashMap::new();
    for event in events.iter().filter(|e| e["ph"] == "X") {
        let number = |key: &str| event[key].as_u64().expect("a number");
        let end = ends.entry((number("pid"), number("tid"))).or_insert(0);
        assert!(*end <= number("ts"), "two slices overlap in one thread: {event}");
        *end = number("ts") + number("dur");
    }
}

#[test]
fn hostile_names_stay_names() {
    let evil = "\"];x[label=\"\\\" --> </text><script>alert(1)</script>\n%%{init: {}}%% ‹\x1b[2J\u{202e}";
    let run = fixture::hostile(evil);
    for (format, text) in [
        ("text", text::print(&run, text::Look::default())),
        ("svg", svg::print(&run)),
        ("dot", dot::print(&run)),
        ("mermaid", mermaid::print(&run)),
    ] {
        assert!(!text.contains('\x1b') && !text.contains('\u{202e}'), "{format} moves the cursor");
        snapshot(&format!("hostile.{format}"), &text);
    }
    let dot = dot::print(&run);
    assert!(dot.lines().all(balanced), "a name ends its quotes:\n{dot}");
    let picture = svg::print(&run);
    assert!(!picture.contains("<script"));
}

/// Every quote in a line of DOT or Mermaid is closed in it, and nothing between quotes opens one.
fn balanced(line: &str) -> bool {
    let mut inside = false;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' if inside => drop(chars.next()),
            '"' => inside = !inside,
            _ => {}
        }
    }
    !inside
}

/// The tags of an XML text without those of empty elements, for a check that they nest.
fn nests(xml: &str) -> bool {
    let mut open = Vec::new();
    for tag in xml.split('<').skip(1) {
        let Some((tag, text)) = tag.split_once('>') else { return false };
        if text.contains('>') {
            return false;
        }
        let name = tag.split_whitespace().next().unwrap_or("");
        match name.strip_prefix('/') {
            Some(name) if open.pop() != Some(name.to_owned()) => return false,
            None if !tag.ends_with('/') => open.push(name.to_owned()),
            _ => {}
        }
    }
    open.is_empty()
}

proptest::proptest! {
    #[test]
    fn no_name_breaks_a_format(name in ".{0,40}", wide in 0usize..200) {
        let run = fixture::hostile(&format!("x{name}"));
        let dot = dot::print(&run);
        proptest::prop_assert!(dot.lines().all(balanced), "{}", dot);
        let mermaid = mermaid::print(&run);
        let body = mermaid.split_once("flowchart TB\n").map_or("", |(_, body)| body);
        proptest::prop_assert!(body.lines().all(balanced), "{}", mermaid);
        proptest::prop_assert_eq!(body.matches("subgraph").count(), body.lines().filter(|l| l.trim() == "end").count());
        proptest::prop_assert!(nests(&svg::print(&run)));
        for fold in [false, true] {
            let text = text::print(&run, text::Look { color: true, width: wide, fold });
            proptest::prop_assert!(!text.contains('\x07'));
        }
        proptest::prop_assert_eq!(json::parse(&json::print(&run)), Ok(run.clone()));
        proptest::prop_assert_eq!(diff::text(&run, &run, &diff::Look::default()), None);
        proptest::prop_assert!(diff::text(&run, &fixture::ci_service(), &diff::Look::default()).is_some());
    }

    #[test]
    fn a_damaged_file_is_drawn_or_refused_but_never_panics(
        edges in proptest::collection::vec((0usize..18, 0usize..18), 0..40),
        sites in proptest::collection::vec((0usize..18, 0usize..18), 0..6),
    ) {
        let mut run = fixture::oci_create();
        let name = |run: &DryRun, i: usize| run.steps.get(i).map_or_else(|| "nowhere".to_owned(), |s| s.address.clone());
        for (a, b) in edges {
            let step = name(&run, b);
            if let Some(s) = run.steps.get_mut(a) {
                s.after.push(Edge { step, why: Why::Order });
            }
        }
        for (a, b) in sites {
            let site = name(&run, b);
            if let Some(s) = run.steps.get_mut(a) {
                s.site = Some(site);
            }
        }
        let text = text::print(&run, text::Look::default());
        for step in &run.steps {
            proptest::prop_assert!(text.contains(&step.address), "{} is not shown", step.address);
        }
        proptest::prop_assert!(nests(&svg::print(&run)));
        dot::print(&run);
        mermaid::print(&run);
    }
}

#[test]
fn events_become_steps_with_their_undo() {
    use crate::error::EffectError;
    use crate::events::{Event, Failure, Stuck};
    let mut draft = fixture::Draft::new("p", "");
    draft.step("a", "k", &[]).step("b", "k", &["a"]).step("c", "k", &["b"]);
    let failure = Failure {
        step: "b".into(),
        kind: "k".into(),
        origin: "p.yaml:2".into(),
        effect: "break".into(),
        error: EffectError::new("it broke"),
        at: 40,
    };
    let events = [
        Event::Began { step: "a".into(), at: 10 },
        Event::Done { step: "a".into(), from: 10, at: 20, site: None },
        Event::Began { step: "b".into(), at: 20 },
        Event::Failed(failure),
        Event::Undoing { step: "b".into(), at: 41 },
        Event::Undone { step: "b".into(), from: 41, at: 50, how: crate::journal::TakenBack::Whole },
        Event::Undoing { step: "a".into(), at: 50 },
        Event::Stuck(Stuck { step: "a".into(), effect: "x".into(), error: EffectError::new("it is busy") }),
        Event::Undone { step: "a".into(), from: 50, at: 60, how: crate::journal::TakenBack::Whole },
    ];
    let steps = from_events(&draft.program, &events);
    let states: Vec<show::State> = steps.iter().map(|s| s.state).collect();
    assert_eq!(states, [show::State::Stuck, show::State::Failed, show::State::Waiting]);
    assert_eq!(steps[0].undo, Some((50, Some(60))));
    assert_eq!((steps[1].start, steps[1].end), (Some(20), Some(40)));
    assert_eq!(steps[1].note.as_deref(), Some("it broke"));
    let trace: serde_json::Value = serde_json::from_str(&trace::print(&draft.program, &events)).expect("json");
    let names: Vec<&str> = trace["traceEvents"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|e| e["ph"] == "X")
        .filter_map(|e| e["name"].as_str())
        .collect();
    assert_eq!(names, ["a", "b", "undo b", "undo a"]);
}
