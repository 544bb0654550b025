//! What must always hold: one file an invariant, named by its id in the design.
//!
//! Each keeps its own record of what was seen and shares no code with what it judges. A new one is a file,
//! a line in [`all`] and, for what it hears, a variant of [`Seen`].

mod ct_1;
mod ct_2;
mod ct_3;
mod ct_4;
mod ct_5;
mod ct_6;
mod dp_1;
mod dp_2;
mod dp_3;
mod dp_4;
mod dp_5;
mod lv_1;
mod lv_2;
mod mirror_states;
mod ow_1;
#[cfg(test)]
mod tests;
mod walk;

pub use dp_5::{in_flight, in_flight_by_link};
pub use lv_1::has_come_right;

use walk::OfEach;

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
        Box::<ct_3::NothingOfOurs>::default(),
        Box::<ct_4::HoldsAll>::default(),
        Box::<ct_5::Clamped>::default(),
        Box::<ct_6::Durable>::default(),
        Box::<mirror_states::AsWritten>::default(),
        Box::<OfEach<dp_1::InOrderImage>>::default(),
        Box::<dp_1::NothingCut>::default(),
        Box::<OfEach<dp_2::NoneTwice>>::default(),
        Box::<OfEach<dp_3::BytesUntouched>>::default(),
        Box::<dp_4::NeverBack>::default(),
        Box::<dp_5::WithinCredit>::default(),
        Box::<ow_1::Untouched>::default(),
        Box::<lv_2::Finishes>::default(),
        Box::<lv_1::ComesRight>::default(),
    ]
}
