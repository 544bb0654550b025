//! A node among the others, as the binary wires it (`node/src/peering`), over the simulation's network:
//! how it is reached, who joins at it, where the others are. Without TLS and certificates.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use catalog::command::NodeDescription;
use catalog::{Action, FleetId, NodeId, fleet};
use consensus::{Consensus, SubmitError};
use peers::dial::{AcceptFuture, Accepted, BoxedStream, Dial, DialFuture, Listen};
use peers::join::{AdmitFuture, Admitted, Channel, JoinRequest, Joiner};
use peers::token::SHARED;
use peers::{Gate, Token};
use turmoil::net::{TcpListener, TcpStream};

use crate::chance::SharedChance;

const PORT: u16 = 7400;

/// What all nodes were given: joining is proven as in production, but for the TLS session that the proof
/// is bound to.
const SECRET: &[u8] = b"the secret of a simulated fleet.";

/// Between two rounds through the other nodes.
const JOIN_AGAIN: Duration = Duration::from_secs(1);

/// Where others reach the node on this host.
pub fn address(host: &str) -> Arc<str> {
    format!("{host}:{PORT}").into()
}

/// The fleet of every simulation.
pub fn fleet_id() -> FleetId {
    FleetId("simulated".into())
}

/// Nobody reads it: connections aren't protected.
pub fn authority() -> fleet::Authority {
    fleet::Authority { certificate: (*b"certificate").into(), key: (*b"key").into() }
}

pub struct PeerDial(pub SharedChance);

impl Dial for PeerDial {
    fn dial(&self, address: Arc<str>) -> DialFuture {
        Box::pin(async move {
            let stream = TcpStream::connect(&*address).await?;
            Ok(Box::new(stream) as BoxedStream)
        })
    }

    fn random(&self) -> u64 {
        self.0.draw(|chance| chance.next())
    }
}

pub struct PeerListen(TcpListener);

impl PeerListen {
    /// # Errors
    /// As turmoil's network has them.
    pub async fn bind() -> io::Result<Self> {
        Ok(Self(TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?))
    }
}

impl Listen for PeerListen {
    fn accept(&mut self) -> AcceptFuture<'_> {
        Box::pin(async move {
            let (stream, from) = self.0.accept().await?;
            Ok(Accepted { stream: Box::new(stream), from: from.to_string() })
        })
    }
}

/// Who may join at this node.
pub struct Door {
    pub consensus: Consensus,
    pub node: NodeId,
    pub address: Arc<str>,
}

impl Gate for Door {
    fn secret(&self, token: &str) -> Option<Arc<[u8]>> {
        (token == SHARED).then(|| SECRET.into())
    }

    fn admit(&self, request: JoinRequest) -> AdmitFuture {
        let consensus = self.consensus.clone();
        let (node, address) = (self.node, self.address.clone());
        Box::pin(async move {
            let JoinRequest { node: joiner, description, token, .. } = request;
            let admit = Action::AdmitNode { node: joiner, description, token };
            match consensus.submit(admit).await {
                Ok(_) => {}
                Err(SubmitError::Refused(refusal)) => return Err(refusal.to_string()),
                Err(other) => return Err(format!("not at the moment, try again: {other}")),
            }
            let applied = consensus.watch().borrow().clone();
            let catalog = &applied.catalog;
            let fleet = catalog.fleet.id.clone().ok_or("this fleet isn't founded yet, try again")?;
            let known = catalog.nodes.iter().filter_map(|(id, node)| Some((*id, node.address.clone()?)));
            let mut members: Vec<_> = known.filter(|(id, _)| *id != joiner).collect();
            if !members.iter().any(|(id, _)| *id == node) {
                members.push((node, address));
            }
            Ok(Admitted { fleet, certificate: None, authorities: Vec::new(), members })
        })
    }
}

/// Asks one node after the other, until one lets this one in.
pub async fn join(
    dial: &PeerDial,
    others: &[&'static str],
    node: NodeId,
    description: NodeDescription,
) -> Admitted {
    let token = Token { id: SHARED.into(), secret: SECRET.into() };
    let joiner = Joiner { node, description, key: None, channel: Channel::UnprotectedForSimulation };
    loop {
        for host in others {
            match peers::join::join(dial, &address(host), &token, &joiner).await {
                Ok(admitted) => return admitted,
                Err(error) => tracing::info!("node: {error}"),
            }
        }
        tokio::time::sleep(JOIN_AGAIN).await;
    }
}
