//! From a data directory to a fleet's certificate: held already, made of what the catalog holds, or
//! brought home by joining.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use catalog::fleet::{Authority, Fleet};
use catalog::{Action, FleetId, NodeId, Refusal};
use consensus::{Consensus, SubmitError};
use peers::authority;
use peers::book::Addresses;
use peers::dial::TcpDial;
use peers::identity::{Identity, NodeKey};
use peers::join::{Admitted, Channel, JoinError, Joiner, join};
use peers::tls::Material;
use rustls::pki_types::CertificateDer;

use super::{OwnCertificates, Setup, now_ms};
use crate::config::join_token;

/// Between two rounds through the addresses: members may still be starting.
const JOIN_AGAIN: Duration = Duration::from_secs(1);

/// What a node needs to talk to its peers.
pub struct Membership {
    pub fleet: FleetId,
    pub material: Material,
    /// Where members are, for as long as the catalog doesn't say.
    pub members: Addresses,
}

impl Membership {
    /// What needs nobody's help; none for a node that is to join or to found first.
    ///
    /// # Errors
    /// Files that can't be read, or aren't what they should be.
    pub fn held(setup: &Setup, consensus: &Consensus) -> anyhow::Result<Option<Self>> {
        let applied = consensus.watch().borrow().clone();
        let fleet = &applied.catalog.fleet;
        // A hint: the catalog may know them all.
        let members = peers::book::kept(&setup.data_dir).unwrap_or_else(|error| {
            tracing::warn!("where members were isn't known: {error:#}");
            Addresses::new()
        });
        if let Some(own) = &setup.own {
            let Some(id) = fleet.id.clone() else { return Ok(None) };
            return Ok(Some(Self { fleet: id, material: material(own)?, members }));
        }
        let held = Identity::load(&setup.data_dir)?.filter(|held| held.node == consensus.node_id());
        let identity = match held {
            Some(identity) => Some(identity),
            // Deleted, or from before there were fleets: any member can sign for itself.
            None if fleet.id.is_some() => {
                Some(sign_own(&setup.data_dir, fleet, &fleet.authorities, consensus.node_id())?)
            }
            None => None,
        };
        Ok(identity.map(|identity| Self {
            fleet: identity.fleet.clone(),
            material: Material::of_fleet(&identity),
            members,
        }))
    }

    /// Founds the fleet of this node, which has recorded its start.
    ///
    /// # Errors
    /// When consensus doesn't take it, or a file can't be written.
    pub async fn found(setup: &Setup, consensus: &Consensus) -> anyhow::Result<Self> {
        let id = FleetId(URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>()).into());
        let authority = authority::found(&id, now_ms())?;
        match consensus.submit(Action::FoundFleet { fleet: id, authority }).await {
            // The answer of an earlier try was lost.
            Ok(_) | Err(SubmitError::Refused(Refusal::Exists { .. })) => {}
            Err(error) => return Err(error).context("found the fleet"),
        }
        Self::held(setup, consensus)?.context("the fleet was founded, but isn't in the catalog")
    }

    /// Asks the members that were named, until one lets this node in.
    ///
    /// # Errors
    /// When each of them refuses it: then asking again is of no use.
    pub async fn join(setup: &Setup, consensus: &Consensus) -> anyhow::Result<Self> {
        let (node, name) = (consensus.node_id(), consensus.status().node_name);
        let token = match &setup.token {
            Some(text) => join_token(text)?,
            None => setup.shared.clone().context("no join token")?,
        };
        let key = match &setup.own {
            Some(_) => None,
            None => Some(Arc::new(NodeKey::open_or_create(&setup.data_dir)?)),
        };
        let joiner = Joiner { node, description: setup.description(&name), key, channel: Channel::Tls };
        let mut told = None;
        loop {
            let mut refusals = Vec::new();
            for address in &setup.join {
                match join(&TcpDial, &address.as_str().into(), &token, &joiner).await {
                    Ok(admitted) => return Self::admitted(setup, node, admitted),
                    Err(error @ JoinError::Unreachable { .. }) => say_once(&mut told, &error.to_string()),
                    Err(error) => refusals.push(error.to_string()),
                }
            }
            if refusals.len() == setup.join.len() {
                bail!("this node can't join: {}", refusals.join("; "));
            }
            tokio::time::sleep(JOIN_AGAIN).await;
        }
    }

    fn admitted(setup: &Setup, node: NodeId, admitted: Admitted) -> anyhow::Result<Self> {
        let Admitted { fleet, certificate, authorities, members } = admitted;
        let material = match (&setup.own, certificate) {
            (Some(own), _) => material(own)?,
            (None, Some(certificate)) => {
                let identity = identity(&setup.data_dir, &certificate, &authorities)?;
                if identity.node != node {
                    bail!("the fleet signed a certificate for node {}, not for {node}", identity.node);
                }
                identity.save(&setup.data_dir)?;
                Material::of_fleet(&identity)
            }
            (None, None) => bail!(
                "nodes of this fleet have certificates of an authority of their own: give this one its with \
                 --peer-certificate, --peer-key and --peer-authority"
            ),
        };
        let members: Addresses = members.into_iter().collect();
        peers::book::keep(&setup.data_dir, &members)?;
        tracing::info!(%fleet, "this node was let into the fleet");
        Ok(Self { fleet, material, members })
    }
}

/// A new certificate for this node, by the last of these authorities, durable with all that are trusted.
pub fn sign_own(
    data_dir: &Path,
    fleet: &Fleet,
    signing: &[Authority],
    node: NodeId,
) -> anyhow::Result<Identity> {
    let id = fleet.id.as_ref().context("the fleet has no id")?;
    let key = NodeKey::open_or_create(data_dir)?;
    let certificate = authority::sign(signing, id, node, key.public(), now_ms())?;
    let authorities: Vec<Arc<[u8]>> = fleet.authorities.iter().map(|a| a.certificate.clone()).collect();
    let identity = identity(data_dir, &certificate, &authorities)?;
    identity.save(data_dir)?;
    Ok(identity)
}

pub fn material(own: &OwnCertificates) -> anyhow::Result<Material> {
    Ok(Material::own(&own.certificate, &own.key, &own.authority)?)
}

fn identity(data_dir: &Path, certificate: &[u8], authorities: &[Arc<[u8]>]) -> anyhow::Result<Identity> {
    let der = |bytes: &[u8]| CertificateDer::from(bytes.to_vec());
    let key = NodeKey::open_or_create(data_dir)?;
    let authorities = authorities.iter().map(|authority| der(authority)).collect();
    Identity::of(key, der(certificate), authorities).map_err(|why| anyhow!(why))
}

/// A line whenever the reason changes, not with each try.
fn say_once(told: &mut Option<String>, why: &str) {
    if told.as_deref() != Some(why) {
        tracing::warn!("{why}; trying again");
        *told = Some(why.to_owned());
    }
}
