//! Everything that is drawn in a simulation comes from one seed through here.
//!
//! Each purpose has a stream of its own, so that one more draw for one purpose moves no other's.

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};

/// SplitMix64: a few lines whose numbers stay the same whatever crate is upgraded.
#[derive(Clone, Debug)]
pub struct Chance {
    state: u64,
}

const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Chance {
    /// The stream of one purpose under one seed.
    pub fn of(seed: u64, purpose: &str) -> Self {
        let state = purpose.bytes().fold(mix(seed.wrapping_add(GAMMA)), |state, byte| {
            mix(state.wrapping_add(GAMMA) ^ u64::from(byte))
        });
        Self { state }
    }

    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GAMMA);
        mix(self.state)
    }

    /// Evenly, but for what 64 bits don't divide evenly, which is nothing here.
    pub fn between(&mut self, range: RangeInclusive<u64>) -> u64 {
        let (low, high) = (*range.start(), *range.end());
        low + self.next() % (high - low + 1)
    }

    pub fn percent(&mut self, chance: u64) -> bool {
        self.between(0..=99) < chance
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.between(0..=from.len() as u64 - 1) as usize]
    }

    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.next() as u8)
    }
}

/// A stream that several owners draw from.
#[derive(Clone, Debug)]
pub struct SharedChance(Arc<Mutex<Chance>>);

impl SharedChance {
    pub fn of(seed: u64, purpose: &str) -> Self {
        Self(Arc::new(Mutex::new(Chance::of(seed, purpose))))
    }

    pub fn draw<T>(&self, how: impl FnOnce(&mut Chance) -> T) -> T {
        how(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_its_seed_and_purpose_and_nothing_else() {
        let first = |seed, purpose| Chance::of(seed, purpose).bytes::<8>();
        assert_eq!(first(1, "disk"), first(1, "disk"));
        assert_ne!(first(1, "disk"), first(2, "disk"));
        assert_ne!(first(1, "disk"), first(1, "operator"));
        // Seeds that were reported must stay what they were.
        assert_eq!(Chance::of(1, "disk").next(), PINNED);
    }

    const PINNED: u64 = 5_379_513_985_938_919_554;
}
