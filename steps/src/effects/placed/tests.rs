use super::*;
use crate::effects::testing::Bench;
use crate::effects::{Device, Directory, Fifo, File, Symlink};
use lifecycle_engine::effect::EffectDef;
use lifecycle_engine::types::Mode as Permissions;
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// Names below the directory, in order.
fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(tree(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}

fn law<E: EffectDef>() {
    let dir = tempfile::tempdir().unwrap();
    for effect in E::examples(dir.path()) {
        let before = tree(dir.path());
        let mut bench = Bench::new(dir.path());
        let (record, outcome) = bench.apply(&effect);
        outcome.unwrap();
        bench.undo(&effect, &record).unwrap();
        assert_eq!(tree(dir.path()), before, "{}", effect.describe());
        bench.undo(&effect, &record).unwrap();
        // What is there already is kept, and nothing is ever put aside.
        if record.started.is_some() {
            for recorded in [false, true] {
                let record = bench.cut(&effect, recorded);
                assert_ne!(tree(dir.path()), before);
                bench.undo(&effect, &record).unwrap();
                assert_eq!(tree(dir.path()), before, "{}", effect.describe());
            }
        }
    }
}

#[test]
fn what_is_made_is_taken_back_from_every_moment() {
    law::<Directory>();
    law::<File>();
    law::<Fifo>();
    law::<Symlink>();
    law::<Device>();
}

fn directory(path: PathBuf, existing: Existing) -> Directory {
    Directory { path, mode: Permissions(0o750), owner: None, existing, keep: false }
}

#[test]
fn the_mode_is_what_was_asked_for_whatever_the_umask() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b");
    let effect = Directory { mode: Permissions(0o777), ..directory(path.clone(), Existing::Refuse) };
    let (_, outcome) = Bench::new(dir.path()).apply(&effect);
    assert_eq!(outcome.unwrap()["path"], json!(path));
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o7777, 0o777);
}

#[test]
fn what_somebody_else_put_in_its_place_stays() {
    let dir = tempfile::tempdir().unwrap();
    let effect = directory(dir.path().join("a"), Existing::Refuse);
    let mut bench = Bench::new(dir.path());
    let (record, _) = bench.apply(&effect);
    fs::remove_dir(&effect.path).unwrap();
    fs::create_dir(&effect.path).unwrap();
    bench.undo(&effect, &record).unwrap();
    assert!(effect.path.is_dir());
}

#[test]
fn what_is_there_is_refused_or_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    fs::create_dir(&path).unwrap();
    let mut bench = Bench::new(dir.path());
    let (record, outcome) = bench.apply(&directory(path.clone(), Existing::Refuse));
    assert_eq!(outcome.unwrap_err().errno, Some(Errno::EXIST.raw_os_error()));
    bench.undo(&directory(path.clone(), Existing::Refuse), &record).unwrap();
    let keep = directory(path.clone(), Existing::Keep);
    let (record, outcome) = bench.apply(&keep);
    outcome.unwrap();
    bench.undo(&keep, &record).unwrap();
    assert!(path.is_dir());
    fs::write(dir.path().join("file"), "").unwrap();
    let (_, outcome) = bench.apply(&directory(dir.path().join("file"), Existing::Keep));
    assert!(outcome.unwrap_err().help.unwrap().contains("RegularFile"));
}

#[test]
fn a_directory_that_others_use_is_stuck_and_those_around_it_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let effect = directory(dir.path().join("a/b"), Existing::Refuse);
    let mut bench = Bench::new(dir.path());
    let (record, _) = bench.apply(&effect);
    fs::write(dir.path().join("a/b/theirs"), "").unwrap();
    let stuck = bench.undo(&effect, &record).unwrap_err();
    assert!(stuck.help.unwrap().contains("move it away"));
    fs::rename(dir.path().join("a/b/theirs"), dir.path().join("a/theirs")).unwrap();
    bench.undo(&effect, &record).unwrap();
    assert_eq!(tree(dir.path()), [dir.path().join("a"), dir.path().join("a/theirs")]);
}

#[test]
fn a_relative_path_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (_, outcome) = Bench::new(dir.path()).apply(&directory("a".into(), Existing::Refuse));
    assert!(outcome.unwrap_err().what.contains("absolute"));
}
