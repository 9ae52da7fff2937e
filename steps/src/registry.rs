//! The catalogue: every kind of step and effect, one line each.

use lifecycle_engine::step::Registry;

/// Every kind of step and effect that this program knows. Journals of older versions name effects by kind: a kind's name is never reused.
pub fn registry() -> Registry {
    Registry::new(
        [
            // Steps: StepKind::of::<subject::Step>(), sorted by kind.
        ],
        [
            // Effects: EffectKind::of::<effects::subject::Effect>(), sorted by kind.
        ],
    )
}
