//! Who may join the fleet at this node: whoever knows a token's secret, and only if the catalog takes it.

use std::sync::Arc;

use catalog::{Action, Catalog, NodeId};
use consensus::{Consensus, SubmitError};
use peers::join::{AdmitFuture, Admitted, JoinRequest};
use peers::token::SHARED;
use peers::{Gate, Token, authority};

use super::now_ms;

pub struct Door {
    pub consensus: Consensus,
    /// This node, which the joiner has just reached.
    pub node: NodeId,
    pub address: Arc<str>,
    pub shared: Option<Token>,
    /// Nodes have certificates of the operator's: none is signed here.
    pub own_certificates: bool,
}

impl Gate for Door {
    fn secret(&self, token: &str) -> Option<Arc<[u8]>> {
        if token == SHARED {
            return self.shared.as_ref().map(|token| token.secret.clone());
        }
        let applied = self.consensus.watch().borrow().clone();
        applied.catalog.fleet.join_tokens.get(token).map(|token| token.secret.clone())
    }

    fn admit(&self, request: JoinRequest) -> AdmitFuture {
        let consensus = self.consensus.clone();
        let (node, address, own_certificates) = (self.node, self.address.clone(), self.own_certificates);
        Box::pin(async move {
            let JoinRequest { node: joiner, description, public_key, token } = request;
            let name = description.name.clone();
            let admit = Action::AdmitNode { node: joiner, description, token };
            match consensus.submit(admit).await {
                Ok(_) => {}
                Err(SubmitError::Refused(refusal)) => return Err(refusal.to_string()),
                Err(other) => return Err(format!("not at the moment, try again: {other}")),
            }
            let applied = consensus.watch().borrow().clone();
            let key = (!own_certificates).then_some(&*public_key);
            let mut admitted = admitted(&applied.catalog, joiner, key)?;
            if !admitted.members.iter().any(|(id, _)| *id == node) {
                admitted.members.push((node, address));
            }
            tracing::info!(node = %joiner, %name, "a node was let into the fleet");
            Ok(admitted)
        })
    }
}

/// What the joiner takes with it.
fn admitted(catalog: &Catalog, joiner: NodeId, public_key: Option<&[u8]>) -> Result<Admitted, String> {
    let fleet = catalog.fleet.id.clone().ok_or("this fleet isn't founded yet, try again")?;
    let authorities = &catalog.fleet.authorities;
    // It signs for itself. Whoever asks again knows a secret and its id, and may be anybody.
    if public_key.is_some() && catalog.nodes.get(&joiner).is_some_and(|node| node.starts > 0) {
        return Err(format!(
            "node {joiner} is a member already and has started; if its data directory is lost, let it join as a \
             new node, with an empty one"
        ));
    }
    let certificate = public_key
        .map(|key| authority::sign(authorities, &fleet, joiner, key, now_ms()))
        .transpose()
        .map_err(|error| error.to_string())?;
    let others = catalog.nodes.iter().filter(|(id, _)| **id != joiner);
    let members = others.filter_map(|(id, node)| Some((*id, node.address.clone()?)));
    Ok(Admitted {
        fleet,
        certificate,
        authorities: authorities.iter().map(|authority| authority.certificate.clone()).collect(),
        members: members.collect(),
    })
}

#[cfg(test)]
mod tests {
    use catalog::command::NodeDescription;
    use catalog::{Command, FleetId};
    use peers::identity::NodeKey;

    use super::*;

    const FOUNDER: NodeId = NodeId(1);
    const JOINER: NodeId = NodeId(2);

    fn apply(catalog: &mut Catalog, action: Action) {
        catalog.apply(Command { at_ms: 1, action }).expect("applied");
    }

    fn description(name: &str) -> NodeDescription {
        let (name, version) = (name.into(), "test".into());
        NodeDescription { name, address: None, level: catalog::fleet::LEVEL, version }
    }

    #[test]
    fn nobody_gets_a_certificate_for_a_member_that_has_started() {
        let mut catalog = Catalog::default();
        let fleet = FleetId("fleet".into());
        let authority = authority::found(&fleet, now_ms()).expect("an authority");
        apply(&mut catalog, Action::RecordStart { node: FOUNDER, description: description("one") });
        apply(&mut catalog, Action::FoundFleet { fleet, authority });
        let admit = Action::AdmitNode { node: JOINER, description: description("two"), token: None };
        apply(&mut catalog, admit);
        let dirs = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
        let [key, other] = dirs.each_ref().map(|dir| NodeKey::open_or_create(dir.path()).expect("a key"));
        for _ in 0..2 {
            let first = admitted(&catalog, JOINER, Some(key.public())).expect("its answer may be lost");
            assert!(first.certificate.is_some());
        }
        apply(&mut catalog, Action::RecordStart { node: JOINER, description: description("two") });
        let Err(refused) = admitted(&catalog, JOINER, Some(other.public())) else { panic!("signed") };
        assert!(refused.contains("has started"), "{refused}");
        let without = admitted(&catalog, JOINER, None).expect("where nodes have certificates of their own");
        assert_eq!(without.certificate, None);
    }
}
