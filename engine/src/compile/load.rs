//! Pass 1: the plan and every plan that it uses, each read once.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::Library;
use crate::diag::{Diagnostic, Diagnostics, FileId, Place, Sources, Span, did_you_mean, listed};
use crate::plan::{self, Plan};
use crate::yaml;

/// What stands before a plan's name in `uses`.
pub(super) const PREFIX: &str = "plan:";

/// How deep plans may use plans.
const MAX_DEPTH: usize = 32;

/// A plan that has been read, and the plans that it uses.
pub(super) struct Loaded {
    pub(super) plan: Plan,
    /// By step: the plan that it uses.
    pub(super) uses: HashMap<u32, u32>,
    /// The plan that made the run which this plan opens.
    pub(super) opens: Option<u32>,
}

/// Whether a word looks like the name of a file rather than of a plan.
pub(super) fn is_yaml(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

/// What tells plans apart: a name, or a file's path without links.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    BuiltIn(String),
    File(PathBuf),
}

/// A plan that is being read: its key, its file, and where it is used.
struct Open {
    key: Key,
    shown: String,
    used_at: Option<Place>,
}

pub(super) struct Loader<'a> {
    library: Library<'a>,
    sources: &'a mut Sources,
    found: &'a mut Diagnostics,
    /// Each after those that it uses. `None` for one that could not be read.
    done: Vec<Loaded>,
    known: HashMap<Key, Option<u32>>,
    open: Vec<Open>,
}

impl<'a> Loader<'a> {
    pub(super) fn new(library: Library<'a>, sources: &'a mut Sources, found: &'a mut Diagnostics) -> Self {
        Self { library, sources, found, done: Vec::new(), known: HashMap::new(), open: Vec::new() }
    }

    pub(super) fn finish(self) -> Vec<Loaded> {
        self.done
    }

    pub(super) fn root_file(&mut self, path: &Path) {
        match yaml::read_file(path) {
            Ok(text) => {
                let key = Key::File(path.canonicalize().unwrap_or_else(|_| path.to_owned()));
                self.plan(key, &path.display().to_string(), &text, None);
            }
            Err(error) => {
                let file = self.sources.add(path.display().to_string(), "");
                self.found.push(Diagnostic::new("unreadable", Place::new(file, Span::default()), error.to_string()));
            }
        }
    }

    pub(super) fn root_text(&mut self, name: &str, text: &str) {
        let key = if self.library.text(name) == Some(text) {
            Key::BuiltIn(name.to_owned())
        } else {
            Key::File(PathBuf::from(name))
        };
        self.plan(key, name, text, None);
    }

    fn plan(&mut self, key: Key, shown: &str, text: &str, used_at: Option<Place>) -> Option<u32> {
        let file = self.sources.add(shown, text);
        // Until it is done, it is known as one that cannot be used: what uses it again is recursion, found by `used`.
        self.open.push(Open { key: key.clone(), shown: shown.to_owned(), used_at });
        let unit = plan::parse(text, file, self.found).map(|plan| self.parts(plan, file, &key));
        self.open.pop();
        self.known.insert(key, unit);
        unit
    }

    /// Reads what the plan uses, then keeps the plan.
    fn parts(&mut self, plan: Plan, file: FileId, key: &Key) -> u32 {
        let mut uses = HashMap::new();
        for (index, step) in plan.steps.iter().enumerate() {
            if let Some(name) = step.uses.value.strip_prefix(PREFIX) {
                let name_at = Span { start: step.uses.span.start, end: step.uses.span.end };
                if let Some(unit) = self.used(name.trim(), Place::new(file, name_at), key) {
                    uses.insert(index as u32, unit);
                }
            }
        }
        let opens = plan.opens.as_ref().and_then(|opens| {
            let name = opens.plan.value.strip_prefix(PREFIX).unwrap_or(&opens.plan.value);
            self.used(name.trim(), Place::new(file, opens.plan.span), key)
        });
        self.done.push(Loaded { plan, uses, opens });
        self.done.len() as u32 - 1
    }

    fn used(&mut self, name: &str, place: Place, user: &Key) -> Option<u32> {
        let (key, shown) = self.find(name, place, user)?;
        if let Some(first) = self.open.iter().position(|open| open.key == key) {
            self.recursion(first, place);
            return None;
        }
        if let Some(known) = self.known.get(&key) {
            return *known;
        }
        if self.open.len() == MAX_DEPTH {
            self.found.push(Diagnostic::new(
                "plan-depth",
                place,
                format!("plans use plans more than {MAX_DEPTH} levels deep"),
            ));
            return None;
        }
        let text = match &key {
            Key::BuiltIn(name) => self.library.text(name).unwrap_or_default().to_owned(),
            Key::File(path) => match yaml::read_file(path) {
                Ok(text) => text,
                Err(error) => {
                    self.found.push(
                        Diagnostic::new("unreadable", place, error.to_string())
                            .help("a path is relative to the file that uses it"),
                    );
                    self.known.insert(key, None);
                    return None;
                }
            },
        };
        self.plan(key, &shown, &text, Some(place))
    }

    /// The key and the shown name of a plan, if there can be such a plan.
    fn find(&mut self, name: &str, place: Place, user: &Key) -> Option<(Key, String)> {
        let is_path = name.starts_with("./") || name.starts_with("../") || name.starts_with('/');
        if !is_path {
            if self.library.text(name).is_some() {
                return Some((Key::BuiltIn(name.to_owned()), name.to_owned()));
            }
            let names = || self.library.plans.iter().map(|(name, _)| *name);
            let near = did_you_mean(name, names()).map(|near| format!("did you mean `{near}`?"));
            let file = is_yaml(name).then(|| format!("for a file write its path: `{PREFIX}./{name}`"));
            let path = format!("a file is named by its path, such as `{PREFIX}./{name}.yaml`");
            let known = match names().next() {
                Some(_) => format!("built in are {}; {path}", listed(names())),
                None => path,
            };
            self.found.push(
                Diagnostic::new("unknown-plan", place, format!("no plan `{name}` is built in"))
                    .help(near.or(file).unwrap_or(known)),
            );
            return None;
        }
        let base = match user {
            Key::File(path) => path.parent().map(Path::to_owned).unwrap_or_default(),
            Key::BuiltIn(_) if name.starts_with('/') => PathBuf::new(),
            Key::BuiltIn(_) => {
                self.found.push(Diagnostic::new("unknown-plan", place, "a built-in plan cannot use a file beside it"));
                return None;
            }
        };
        let path = base.join(name);
        let key = path.canonicalize().unwrap_or_else(|_| path.clone());
        // Shown as the user can open it: relative to the file that was named on the command line.
        let user_shown = self.open.last().map(|open| PathBuf::from(&open.shown)).unwrap_or_default();
        let shown =
            user_shown.parent().map_or_else(|| PathBuf::from(name), |dir| dir.join(name.trim_start_matches("./")));
        Some((Key::File(key), shown.display().to_string()))
    }

    fn recursion(&mut self, first: usize, place: Place) {
        let cycle = &self.open[first..];
        let path: Vec<&str> = cycle.iter().chain(cycle.first()).map(|open| open.shown.as_str()).collect();
        let mut diagnostic =
            Diagnostic::new("plan-recursion", place, format!("a plan uses itself: {}", path.join(" → ")))
                .label("and so on")
                .help("a plan cannot end that contains itself; for repetition use `for_each`");
        for open in cycle.iter().skip(1) {
            if let Some(used_at) = open.used_at {
                diagnostic = diagnostic.related(used_at, format!("`{}` is used here", open.shown));
            }
        }
        self.found.push(diagnostic);
    }
}
