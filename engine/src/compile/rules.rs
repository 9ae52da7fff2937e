//! The conditions and options of a step: what cannot be combined, and in which process it happens.

use super::names::Here;
use super::unit::Checks;
use super::value::Checker;
use crate::diag::{Diagnostic, Diagnostics, Place, Span, listed};
use crate::expr;
use crate::graph::{Extras, Target, Uses};
use crate::plan::{self, ArgKind};
use crate::step::{Nature, Place as Where};

impl Checks<'_, '_, '_> {
    pub(super) fn extras(
        &self,
        step: &plan::Step,
        written: &plan::Extras,
        here: &Here<'_>,
        uses: Uses<'_>,
        found: &mut Diagnostics,
    ) -> Extras {
        let mut later = None;
        // The condition itself is decided before anything that it says can be relied on.
        let here = Here { conditions: &[], condition: true, ..*here };
        let condition = written.condition.as_ref().map(|condition| {
            let mut checker = Checker { names: self.names, here, pure: false, found };
            let (condition, handle) = checker.condition(&condition.value);
            later = handle;
            condition
        });
        let site = written.site.as_ref().and_then(|arg| self.site(arg, found));
        self.rules(step, written, later, uses, found);
        Extras {
            condition,
            for_each: None,
            timeout: written.timeout.as_ref().map(|at| at.value),
            retries: written.retry.as_ref().map_or(0, |at| at.value.count),
            backoff: written.retry.as_ref().map_or_else(Default::default, |at| at.value.backoff),
            continue_on_error: written.continue_on_error.as_ref().is_some_and(|at| at.value),
            site,
        }
    }

    /// What cannot be combined.
    fn rules(
        &self,
        step: &plan::Step,
        written: &plan::Extras,
        later: Option<Span>,
        uses: Uses<'_>,
        found: &mut Diagnostics,
    ) {
        let id = &step.id.value;
        let mut refuse = |code, span, message: String, help: &str| {
            found.push(Diagnostic::new(code, Place::new(self.plan.file, span), message).help(help));
        };
        let retry = written.retry.as_ref().map(|at| at.span);
        let lenient = written.continue_on_error.as_ref().filter(|at| at.value).map(|at| at.span);
        let timeout = written.timeout.as_ref().map(|at| at.span);
        if let (Some(site), Uses::Kind(kind)) = (&written.site, uses)
            && kind.place == Where::Host
        {
            let message = format!("`{}` happens on the host, never in a site", kind.kind);
            refuse("site", site.span, message, "remove `site`");
        }
        if written.site.is_some() {
            let help = "what runs in a site is one prepared program: make the step on the host retry, or the step that needs it";
            if let Some(span) = retry {
                refuse("site-retry", span, format!("`{id}` happens in a site, where nothing can be tried again"), help);
            }
            let help = "a step that fails in a site ends its process";
            if let Some(span) = lenient {
                refuse(
                    "site-continue",
                    span,
                    format!("`{id}` happens in a site, where a failure cannot be passed over"),
                    help,
                );
            }
            let help =
                "what runs in a site is decided before its process is made: use a parameter, or a step that reads";
            if let Some(span) = later {
                refuse("site-if", span, format!("`{id}` happens in a site, and its `if` is known only later"), help);
            }
        }
        match uses {
            Uses::Plan(_) => {
                let help = "give it to the steps of that plan";
                for (key, span) in [
                    ("retry", retry),
                    ("timeout", timeout),
                    ("continue-on-error", lenient),
                    ("site", written.site.as_ref().map(|arg| arg.span)),
                ] {
                    if let Some(span) = span {
                        refuse("plan-step", span, format!("`{key}` is for a step, and `{id}` is a whole plan"), help);
                    }
                }
            }
            Uses::Kind(kind) if kind.nature == Nature::Pure => {
                let help = "a step that only reads either knows or does not; another try would read the same";
                for (key, span) in [("retry", retry), ("timeout", timeout), ("continue-on-error", lenient)] {
                    if let Some(span) = span {
                        refuse(
                            "pure-step",
                            span,
                            format!("`{key}` is for what happens, and `{id}` runs while planning"),
                            help,
                        );
                    }
                }
                let help = "what a step needs while planning comes from parameters and from other steps that only read";
                if let Some(span) = later {
                    refuse(
                        "pure-handle",
                        span,
                        format!("`{id}` runs while planning, and its `if` is known only later"),
                        help,
                    );
                }
            }
            _ => {}
        }
    }

    fn site(&self, arg: &plan::Arg, found: &mut Diagnostics) -> Option<(crate::graph::Reference, Span)> {
        let ArgKind::Text(expr::Template::Reference(written)) = &arg.kind else { return None };
        let reference = match self.names.resolve(written, Here::default()) {
            Ok((reference, _)) => reference,
            Err(diagnostic) => {
                found.push(diagnostic);
                return None;
            }
        };
        let wrong = match reference.target {
            Target::Param(_) => false,
            Target::Step(index) => match self.uses[index as usize] {
                Uses::Kind(kind) => !kind.makes_site,
                Uses::Plan(_) => reference.path.is_empty(),
                Uses::Unknown => false,
            },
            _ => true,
        };
        if wrong {
            let diagnostic = Diagnostic::new(
                "site",
                self.names.place(written.span),
                format!("`{written}` is no step that makes a process"),
            );
            found.push(diagnostic.help_if(self.makers()));
            return None;
        }
        Some((reference, written.span))
    }

    pub(super) fn lacks_site(&self, step: &plan::Step, found: &mut Diagnostics) {
        let message = format!("`{}` happens inside a process that another step makes", step.uses.value);
        let help = self
            .makers()
            .unwrap_or_else(|| "the plan has no step that makes a process, such as `process.clone`".to_owned());
        found.push(Diagnostic::new("site", Place::new(self.plan.file, step.uses.span), message).help(help));
    }

    fn makers(&self) -> Option<String> {
        let makes = |uses: &Uses<'_>| matches!(uses, Uses::Kind(kind) if kind.makes_site);
        let makers: Vec<&str> = self
            .plan
            .steps
            .iter()
            .zip(self.uses)
            .filter(|(_, uses)| makes(uses))
            .map(|(step, _)| &*step.id.value)
            .collect();
        match makers.as_slice() {
            [] => None,
            [one] => Some(format!("add `site: \"${{{one}}}\"`")),
            many => Some(format!("`site` is one of {}", listed(many.iter().copied()))),
        }
    }
}
