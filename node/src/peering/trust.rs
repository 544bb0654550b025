//! While the node runs: where members are, whom to trust, and whether this node still is one of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use catalog::{Catalog, NodeId, fleet};
use consensus::Consensus;
use peers::book::Addresses;
use peers::identity::Identity;
use peers::tls::{Material, Trust};
use peers::validity::Validity;
use peers::{Book, Refusal, Tls, Transport, authority};
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use super::membership::{material, sign_own};
use super::{OwnCertificates, now_ms};
use crate::status::{self, Seen};

/// A certificate has a month left when it is renewed, and files are replaced by people.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// While this node's certificate is of an authority that is being replaced: an operator waits.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// A removed voter is replaced within a second, if another can vote.
const VOTE_MAX: Duration = Duration::from_secs(10);
const VOTE_LOOK_EVERY: Duration = Duration::from_millis(100);

/// Where members are. What the directory keeps of it is for a start at which the catalog doesn't say.
pub fn book(consensus: &Consensus, kept: Addresses, data_dir: PathBuf) -> watch::Receiver<Arc<Book>> {
    consensus::book(consensus, kept, move |addresses| {
        if let Err(error) = peers::book::keep(&data_dir, addresses) {
            tracing::warn!("where members are can't be kept for the next start: {error:#}");
        }
    })
}

/// Keeps certificate and trust as they should be. Never ends; an error is logged and tried again.
pub async fn keep(
    tls: Tls,
    consensus: Consensus,
    members: status::Fleet,
    data_dir: PathBuf,
    own: Option<OwnCertificates>,
) {
    let mut applied = consensus.watch();
    let mut known: Option<Vec<fleet::Authority>> = None;
    loop {
        let now = applied.borrow_and_update().clone();
        let fleet = &now.catalog.fleet;
        let waits = || own.is_none() && changes_over(fleet, &tls.trust());
        let all_trust = waits() && everyone_trusts(&now.catalog, &members.trust(&now.catalog).await);
        let authorities_change = known.as_ref() != Some(&fleet.authorities);
        known = Some(fleet.authorities.clone());
        let looked = match &own {
            Some(own) => material(own).map(Some),
            None => of_fleet(&data_dir, fleet, consensus.node_id(), all_trust),
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
        let look_again = if waits() { ASK_AGAIN } else { LOOK_AGAIN };
        // An end of consensus is noticed elsewhere.
        let _ = tokio::time::timeout(look_again, async {
            if changes.await.is_err() {
                std::future::pending::<()>().await;
            }
        })
        .await;
    }
}

/// Whether this node's certificate is to be replaced by one of another authority.
fn changes_over(fleet: &fleet::Fleet, trust: &Trust) -> bool {
    let signs = fleet.authorities.last().map(|last| authority::fingerprint(&last.certificate));
    signs.is_some() && signs != trust.signed_by
}

/// Whether each member trusts the authority that signs, and has said so. A member that is away knows nothing
/// of it: if all others showed its certificates, that member could never be told.
fn everyone_trusts(catalog: &Catalog, seen: &Seen) -> bool {
    let Some(last) = catalog.fleet.authorities.last() else { return false };
    let signs = authority::fingerprint(&last.certificate);
    let trusts = |node| seen.trust.get(node).is_some_and(|trust| trust.authorities.contains(&signs));
    catalog.nodes.keys().all(trusts)
}

/// The certificate that the directory holds under the authorities of the catalog, renewed when it is due.
/// Which is when another authority signs only if all members are known to trust that; before, the one that
/// all have trusted so far goes on signing.
pub fn of_fleet(
    data_dir: &Path,
    fleet: &fleet::Fleet,
    node: NodeId,
    all_trust: bool,
) -> anyhow::Result<Option<Material>> {
    let (Some(first), Some(last)) = (fleet.authorities.first(), fleet.authorities.last()) else {
        return Ok(None);
    };
    let held = Identity::load(data_dir)?;
    let trusted: Vec<_> =
        fleet.authorities.iter().map(|a| CertificateDer::from(a.certificate.to_vec())).collect();
    if let Some(held) = held.as_ref().filter(|held| is_ahead(held, &trusted)) {
        return Ok(Some(Material::of_fleet(held)));
    }
    let is_of_last = |held: &Identity| authority::has_signed(&last.certificate, &held.certificate);
    let stays = !all_trust && held.as_ref().is_some_and(|held| !is_of_last(held));
    let signs = if stays { first } else { last };
    let signing = std::slice::from_ref(signs);
    let is_good = |held: &Identity| !authority::renewal_is_due(&held.certificate, signing, now_ms());
    let identity = match held.filter(is_good) {
        Some(held) if held.authorities == trusted => held,
        Some(held) => {
            let identity = Identity { authorities: trusted, ..held };
            identity.save(data_dir)?;
            identity
        }
        None => {
            let renewed = sign_own(data_dir, fleet, signing, node)?;
            let signed_by = authority::fingerprint(&signs.certificate);
            tracing::info!(%signed_by, "this node has a new certificate");
            renewed
        }
    };
    Ok(Some(Material::of_fleet(&identity)))
}

/// Whether the catalog here is behind what this node knew already, as that of one that starts or has just
/// joined may be: it follows no further back. An authority isn't removed before each member has a
/// certificate of the next one, so the newest that is held stays in any later catalog.
fn is_ahead(held: &Identity, trusted: &[CertificateDer<'static>]) -> bool {
    let ends_ms = Validity::of(&held.certificate).map(|validity| validity.not_after_ms);
    ends_ms.is_some_and(|ends_ms| now_ms() < ends_ms)
        && held.authorities.last().is_some_and(|newest| !trusted.contains(newest))
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

#[cfg(test)]
mod tests {
    use catalog::fleet::{Authority, Fleet};
    use catalog::{FleetId, Node};

    use super::*;
    use crate::status::seen::SeenTrust;

    const ME: NodeId = NodeId(1);

    fn authority() -> Authority {
        authority::found(&FleetId("aB_-xyzXYZ0123456789ab".into()), now_ms()).expect("an authority")
    }

    fn fleet(authorities: &[&Authority]) -> Fleet {
        let authorities = authorities.iter().map(|authority| (*authority).clone()).collect();
        Fleet { id: Some(FleetId("aB_-xyzXYZ0123456789ab".into())), authorities, ..Fleet::default() }
    }

    fn ids(authorities: &[&Authority]) -> Vec<String> {
        authorities.iter().map(|held| authority::fingerprint(&held.certificate)).collect()
    }

    /// Who signed for the node and whom it trusts, once it has seen this catalog.
    fn follow(dir: &Path, authorities: &[&Authority], all_trust: bool) -> (Option<String>, Vec<String>) {
        let material = of_fleet(dir, &fleet(authorities), ME, all_trust).expect("followed").expect("some");
        let trust = Tls::new(material).expect("usable").trust();
        (trust.signed_by, trust.authorities)
    }

    #[test]
    fn a_new_authority_is_trusted_at_once_and_signs_when_all_trust_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let (old, new) = (authority(), authority());
        let (old_id, new_id) = (ids(&[&old]).pop(), ids(&[&new]).pop());
        assert_eq!(follow(dir.path(), &[&old], false), (old_id.clone(), ids(&[&old])));
        assert_eq!(follow(dir.path(), &[&old, &new], false), (old_id, ids(&[&old, &new])));
        assert_eq!(follow(dir.path(), &[&old, &new], true), (new_id.clone(), ids(&[&old, &new])));
        assert_eq!(follow(dir.path(), &[&old, &new], false), (new_id.clone(), ids(&[&old, &new])));
        assert_eq!(follow(dir.path(), &[&new], false), (new_id, ids(&[&new])));
    }

    #[test]
    fn a_catalog_that_is_behind_takes_nothing_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let (old, new) = (authority(), authority());
        let new_id = ids(&[&new]).pop();
        follow(dir.path(), &[&old, &new], true);
        assert_eq!(follow(dir.path(), &[&old], false), (new_id.clone(), ids(&[&old, &new])));
        follow(dir.path(), &[&new], false);
        assert_eq!(follow(dir.path(), &[&old], true), (new_id.clone(), ids(&[&new])));
        assert_eq!(follow(dir.path(), &[&old, &new], false).0, new_id);
    }

    #[test]
    fn who_doesnt_say_that_it_trusts_the_new_one_is_waited_for() {
        let (old, new, other) = (authority(), authority(), NodeId(2));
        let mut catalog = Catalog { fleet: fleet(&[&old, &new]), ..Catalog::default() };
        for node in [ME, other] {
            catalog.nodes.insert(node, Node::of_level_1(node.to_string().into(), 1));
        }
        let mut seen = Seen::default();
        let says = |ids| SeenTrust { authorities: ids, ..SeenTrust::default() };
        seen.trust.insert(ME, says(ids(&[&old, &new])));
        assert!(!everyone_trusts(&catalog, &seen), "the other is silent");
        seen.trust.insert(other, says(ids(&[&old])));
        assert!(!everyone_trusts(&catalog, &seen), "the other hasn't heard of it");
        seen.trust.insert(other, says(ids(&[&old, &new])));
        assert!(everyone_trusts(&catalog, &seen));
    }
}
