//! The product's way to brokers, over turmoil's network.

use std::sync::Arc;

use kafka::client::{Dial, DialFuture};
use kafka::dial::NONCE_BYTES;

use crate::chance::SharedChance;

pub struct SimDial {
    chance: SharedChance,
}

impl SimDial {
    pub fn new(chance: SharedChance) -> Self {
        Self { chance }
    }
}

impl Dial for SimDial {
    fn dial(&self, address: Arc<str>) -> DialFuture {
        Box::pin(async move {
            let found = turmoil::net::TcpStream::connect(&*address).await;
            match found {
                Ok(stream) => {
                    tracing::info!("dial: {address} is connected");
                    Ok(Box::new(stream) as kafka::connection::BoxedStream)
                }
                Err(error) => {
                    tracing::info!("dial: {address}: {}", error.kind());
                    Err(error)
                }
            }
        })
    }

    fn random(&self) -> [u8; NONCE_BYTES] {
        self.chance.draw(|chance| chance.bytes())
    }
}
