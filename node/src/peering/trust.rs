//! While the node runs: where members are, whom to trust, and whether this node still is one of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use catalog::{NodeId, fleet};
use consensus::{Applied, Consensus};
use peers::identity::Identity;
use peers::tls::Material;
use peers::{Book, Refusal, Tls, Transport, authority};
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use super::membership::{material, sign_own};
use super::{OwnCertificates, now_ms};

/// A certificate has a month left when it is renewed, and files are replaced by people.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// A removed voter is replaced within a second, if another can vote.
const VOTE_MAX: Duration = Duration::from_secs(10);
const VOTE_LOOK_EVERY: Duration = Duration::from_millis(100);

/// Where members are, as the catalog says; until it says anything, as whoever let this node in said.
pub fn book(consensus: &Consensus, first: &BTreeMap<NodeId, Arc<str>>) -> watch::Receiver<Arc<Book>> {
    let of = |applied: &Applied| (!applied.catalog.nodes.is_empty()).then(|| Book::of(&applied.catalog));
    let mut applied = consensus.watch();
    let members = first.iter().map(|(id, address)| (*id, Some(address.clone()))).collect();
    let begin =
        of(&applied.borrow_and_update()).unwrap_or_else(|| Book { members, removed: Default::default() });
    let (book, known) = watch::channel(Arc::new(begin));
    tokio::spawn(async move {
        while applied.changed().await.is_ok() {
            let Some(now) = of(&applied.borrow_and_update()) else { continue };
            book.send_if_modified(|held| {
                let changes = **held != now;
                if changes {
                    *held = Arc::new(now);
                }
                changes
            });
        }
    });
    known
}

/// Keeps certificate and trust as they should be. Never ends; an error is logged and tried again.
pub async fn keep(tls: Tls, consensus: Consensus, data_dir: PathBuf, own: Option<OwnCertificates>) {
    let mut applied = consensus.watch();
    let mut known: Option<Vec<fleet::Authority>> = None;
    loop {
        let fleet = applied.borrow_and_update().catalog.fleet.clone();
        let authorities_change = known.as_ref() != Some(&fleet.authorities);
        known = Some(fleet.authorities.clone());
        let looked = match &own {
            Some(own) => material(own).map(Some),
            None => of_fleet(&data_dir, &fleet, consensus.node_id()),
        };
        let replaced = looked.and_then(|material| match material {
            Some(material) => Ok(tls.replace(material)?),
            None => Ok(()),
        });
        if let Err(error) = replaced {
            tracing::error!("this node's certificate can't be renewed: {error:#}");
        } else if authorities_change {
            tracing::debug!(authorities = fleet.authorities.len(), "authorities as the catalog has them");
        }
        tls.measure(now_ms());
        let changes = applied.wait_for(|now| known.as_ref() != Some(&now.catalog.fleet.authorities));
        // An end of consensus is noticed elsewhere.
        let _ = tokio::time::timeout(LOOK_AGAIN, async {
            if changes.await.is_err() {
                std::future::pending::<()>().await;
            }
        })
        .await;
    }
}

/// The certificate that the directory holds under the authorities of the catalog, renewed when it is due.
pub fn of_fleet(data_dir: &Path, fleet: &fleet::Fleet, node: NodeId) -> anyhow::Result<Option<Material>> {
    if fleet.authorities.is_empty() {
        return Ok(None);
    }
    let held = Identity::load(data_dir)?;
    let trusted: Vec<_> =
        fleet.authorities.iter().map(|a| CertificateDer::from(a.certificate.to_vec())).collect();
    let is_good = |held: &Identity| {
        held.authorities == trusted
            && !authority::renewal_is_due(&held.certificate, &fleet.authorities, now_ms())
    };
    let identity = match held.filter(is_good) {
        Some(identity) => identity,
        None => {
            let renewed = sign_own(data_dir, fleet, node)?;
            tracing::info!("this node has a new certificate");
            renewed
        }
    };
    Ok(Some(Material::of_fleet(&identity)))
}

/// Until then a majority may need it.
async fn no_longer_votes(consensus: &Consensus) {
    while consensus.status().voters.contains(&consensus.node_id()) {
        tokio::time::sleep(VOTE_LOOK_EVERY).await;
    }
}

/// Returns when this node is no longer a member: by its own catalog, or by another's word.
pub async fn removed(consensus: &Consensus, transport: &Transport) -> String {
    let me = consensus.node_id();
    let (mut applied, mut refusals) = (consensus.watch(), transport.refusals());
    let here = applied.wait_for(|now| now.catalog.fleet.removed.contains_key(&me));
    let said = refusals.wait_for(|all| all.values().any(|refusal| matches!(refusal, Refusal::Removed(_))));
    let is_removed = tokio::select! {
        found = here => found.is_ok(),
        found = said => found.is_ok(),
    };
    if !is_removed {
        // Consensus or transport stops, which is noticed elsewhere.
        std::future::pending::<()>().await;
    }
    let gone = consensus.watch().borrow().catalog.fleet.removed.contains_key(&me);
    if gone && tokio::time::timeout(VOTE_MAX, no_longer_votes(consensus)).await.is_err() {
        tracing::warn!("this node's vote wasn't taken away within {VOTE_MAX:?}; going without it");
    }
    format!(
        "this node ({me}) was removed from its fleet and has stopped; to take part again it joins as a new node, \
         with an empty data directory: lockstep server --data-dir DIR --join ADDRESS --join-token TOKEN"
    )
}
