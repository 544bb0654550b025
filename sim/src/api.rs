//! The product's HTTP API on a simulated node: its listener, and what its handlers work with.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use actors::clock::WallClock;
use axum::serve::Listener;
use consensus::Consensus;
use lockstep::api::Api;
use lockstep::api::entropy::Entropy;
use lockstep::api::preflight::LivePreflight;
use lockstep::status::Fleet;
use metrics_exporter_prometheus::PrometheusBuilder;
use turmoil::net::{TcpListener, TcpStream};

use crate::chance::SharedChance;
use crate::network::SimDial;
use crate::time::Clock;

/// Where it is at every node.
pub const PORT: u16 = 8080;

/// After an error, as `axum` has it.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

pub struct ApiListen(TcpListener);

impl ApiListen {
    /// # Errors
    /// As turmoil's network has them.
    pub async fn bind() -> io::Result<Self> {
        Ok(Self(TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?))
    }
}

impl Listener for ApiListen {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.0.accept().await {
                Ok(accepted) => return accepted,
                Err(_) => tokio::time::sleep(ACCEPT_AGAIN).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// As the binary makes it. Counters go nowhere: no recorder is installed.
pub fn of(
    consensus: &Consensus,
    fleet: &Fleet,
    dial: Arc<SimDial>,
    clock: &Clock,
    chance: &SharedChance,
) -> Api {
    let (clock, chance) = (clock.clone(), chance.clone());
    Api {
        consensus: consensus.clone(),
        preflight: Arc::new(LivePreflight(dial)),
        metrics: PrometheusBuilder::new().build_recorder().handle(),
        fleet: fleet.clone(),
        clock: WallClock::new(move || clock.wall_ms()),
        entropy: Entropy::new(move |bytes| chance.draw(|chance| bytes.fill_with(|| chance.next() as u8))),
    }
}
