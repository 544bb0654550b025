//! Chance as a seam; simulation decides what is drawn. In production it is fit for secrets.

use std::sync::Arc;

use rand::RngCore as _;

type Fill = dyn Fn(&mut [u8]) + Send + Sync;

#[derive(Clone)]
pub struct Entropy(Arc<Fill>);

impl Entropy {
    pub fn new(fill: impl Fn(&mut [u8]) + Send + Sync + 'static) -> Self {
        Self(Arc::new(fill))
    }

    #[expect(clippy::disallowed_methods, reason = "production's source")]
    pub fn system() -> Self {
        Self::new(|bytes| rand::rng().fill_bytes(bytes))
    }

    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        (self.0)(&mut bytes);
        bytes
    }
}
