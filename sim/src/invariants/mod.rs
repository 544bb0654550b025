//! What must always hold: one file an invariant, named by its id in the design.
//!
//! Each keeps its own record of what was seen and shares no code with what it judges. Invariants of the
//! data plane (DP-1 to DP-5) join here with the clusters whose logs they read: a variant of
//! [`Seen`] for what they hear, a file, a line in [`all`].

mod ct_1;
mod ct_2;
mod ct_6;

use crate::judge::Seen;

pub trait Invariant: Send {
    fn id(&self) -> &'static str;

    /// # Errors
    /// What is wrong, in words.
    fn see(&mut self, seen: Seen<'_>) -> Result<(), String>;
}

pub fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::<ct_1::EqualIndex>::default(),
        Box::<ct_2::EpochsRise>::default(),
        Box::<ct_6::Durable>::default(),
    ]
}
