//! The root actor of a node: one link supervisor for each link of the applied catalog that this
//! node is to run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use catalog::{Catalog, Link, LinkId, NodeId};
use kafka::ClientConfig;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::oneshot;

use crate::doubts::Doubts;
use crate::link::{LinkArguments, LinkMessage, LinkSupervisor, Surroundings, released};
use crate::observe::LinkView;
use crate::plan::{self, Leaving, Running};
use crate::preflight;
use crate::sync;

/// Before a link whose supervisor failed is started again.
const RESTART_WAIT: Duration = Duration::from_secs(2);

pub enum ReconcilerMessage {
    /// The applied catalog as of now.
    Applied(Arc<consensus::Applied>),
    /// A supervisor has ended; what it knew may still be under way, if it told.
    LinkStopped {
        id: LinkId,
        actor: ActorId,
        doubts: Option<Doubts>,
    },
    Reconcile,
    Stop(oneshot::Sender<()>),
}

pub struct Reconciler;

/// What a running supervisor was started with; anything else means starting it afresh.
type Basis = (ClientConfig, ClientConfig, BTreeMap<String, String>);

struct RunningLink {
    actor: ActorRef<LinkMessage>,
    link: Arc<Link>,
    leaving: Leaving,
    basis: Basis,
    stopping: bool,
}

pub struct ReconcilerState {
    surroundings: Surroundings,
    applied: Option<Arc<consensus::Applied>>,
    links: BTreeMap<LinkId, RunningLink>,
    /// What the last supervisor of a link that runs no more has left to the next.
    doubts: BTreeMap<LinkId, Doubts>,
    stop: Option<oneshot::Sender<()>>,
}

impl Actor for Reconciler {
    type Msg = ReconcilerMessage;
    type State = ReconcilerState;
    type Arguments = Surroundings;

    async fn pre_start(
        &self,
        _: ActorRef<ReconcilerMessage>,
        surroundings: Surroundings,
    ) -> Result<ReconcilerState, ActorProcessingErr> {
        Ok(ReconcilerState {
            surroundings,
            applied: None,
            links: BTreeMap::new(),
            doubts: BTreeMap::new(),
            stop: None,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<ReconcilerMessage>,
        message: ReconcilerMessage,
        state: &mut ReconcilerState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ReconcilerMessage::Applied(applied) => state.applied = Some(applied),
            ReconcilerMessage::LinkStopped { id, actor, doubts } => state.link_ended(&id, actor, doubts),
            ReconcilerMessage::Reconcile => {}
            ReconcilerMessage::Stop(answer) => state.stop = Some(answer),
        }
        state.reconcile(&myself).await;
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<ReconcilerMessage>,
        event: SupervisionEvent,
        state: &mut ReconcilerState,
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorFailed(cell, error) = event {
            let failed = state.links.iter().find(|(_, l)| l.actor.get_id() == cell.get_id());
            if let Some(id) = failed.map(|(id, _)| id.clone()) {
                tracing::error!(link = %id, %error, "a link's supervisor failed; starting it again");
                state.link_ended(&id, cell.get_id(), None);
                myself.send_after(RESTART_WAIT, || ReconcilerMessage::Reconcile);
            }
        }
        Ok(())
    }
}

impl ReconcilerState {
    async fn reconcile(&mut self, myself: &ActorRef<ReconcilerMessage>) {
        let Some(applied) = self.applied.clone() else { return };
        let catalog = &applied.catalog;
        let node = self.surroundings.node;
        let wanted: BTreeMap<&LinkId, &Arc<Link>> = match self.stop {
            Some(_) => BTreeMap::new(),
            None => catalog.links.iter().filter(|(_, link)| runs_on(catalog, link, node)).collect(),
        };
        self.doubts.retain(|id, _| catalog.links.contains_key(id));
        let gone: Vec<LinkId> = self.links.keys().filter(|id| !wanted.contains_key(id)).cloned().collect();
        for id in gone {
            self.stop_link(myself, &id);
        }
        for (id, link) in wanted {
            let leaving = plan::leaving(catalog, link, node);
            let basis = match basis(catalog, link) {
                Ok(basis) => basis,
                Err(message) => {
                    tracing::error!(link = %link.name, "{message}");
                    let view = LinkView {
                        state: "FAILED",
                        error: "UNKNOWN",
                        error_message: Some(message),
                        source_available: false,
                    };
                    self.surroundings.observatory.set_link(id, Some(view));
                    self.stop_link(myself, id);
                    self.release(link, &leaving);
                    continue;
                }
            };
            match self.links.get_mut(id) {
                Some(running) if running.basis != basis => self.stop_link(myself, id),
                Some(running) if !Arc::ptr_eq(&running.link, link) || running.leaving != leaving => {
                    running.link = link.clone();
                    running.leaving = leaving.clone();
                    let _ = running.actor.cast(LinkMessage::Update(link.clone(), leaving));
                }
                Some(_) => {}
                None => self.start_link(myself, link, leaving, basis).await,
            }
        }
        if self.links.is_empty()
            && let Some(answer) = self.stop.take()
        {
            let _ = answer.send(());
            myself.stop(None);
        }
    }

    /// What is to be handed over of a link that can't run.
    fn release(&self, link: &Link, leaving: &Leaving) {
        if self.links.contains_key(&link.id) {
            return;
        }
        let doubts = self.doubts.get(&link.id).cloned().unwrap_or_default();
        let plan = plan::plan(link, self.surroundings.node, &Running::new(), leaving);
        self.surroundings.releases.add(plan.releases.iter().map(|owned| released(link, owned, &doubts)));
    }

    async fn start_link(
        &mut self,
        myself: &ActorRef<ReconcilerMessage>,
        link: &Arc<Link>,
        leaving: Leaving,
        basis: Basis,
    ) {
        let (source, destination, _) = basis.clone();
        let surroundings = self.surroundings.clone();
        let doubts = self.doubts.get(&link.id).cloned().unwrap_or_default();
        let link = link.clone();
        let arguments = LinkArguments {
            link: link.clone(),
            source,
            destination,
            surroundings,
            leaving: leaving.clone(),
            doubts,
        };
        match Actor::spawn_linked(None, LinkSupervisor, arguments, myself.get_cell()).await {
            Ok((actor, _)) => {
                self.doubts.remove(&link.id);
                let id = link.id.clone();
                self.links.insert(id, RunningLink { actor, link, leaving, basis, stopping: false });
            }
            Err(error) => {
                tracing::error!(link = %link.name, %error, "can't start the link's supervisor");
                myself.send_after(RESTART_WAIT, || ReconcilerMessage::Reconcile);
            }
        }
    }

    fn stop_link(&mut self, myself: &ActorRef<ReconcilerMessage>, id: &LinkId) {
        let Some(running) = self.links.get_mut(id).filter(|l| !l.stopping) else { return };
        running.stopping = true;
        let (answer, stopped) = oneshot::channel();
        let (actor, myself, id) = (running.actor.clone(), myself.clone(), id.clone());
        tokio::spawn(async move {
            let told = actor.cast(LinkMessage::Stop(answer)).is_ok();
            let doubts = if told { stopped.await.ok() } else { None };
            let _ = myself.cast(ReconcilerMessage::LinkStopped { id, actor: actor.get_id(), doubts });
        });
    }

    /// What is another node's now isn't shown here any more, nor what was deleted.
    fn forget_moved(&self, id: &LinkId) {
        let Some(applied) = &self.applied else { return };
        let owned = |topic: &Arc<str>, partition: u32| {
            let mirror = catalog::MirrorKey { link: id.clone(), topic: topic.clone() };
            let owner = applied.catalog.owner(&catalog::PartitionKey { mirror, partition });
            owner == Some(self.surroundings.node)
        };
        self.surroundings.observatory.retain(id, owned);
    }

    /// `doubts`: none when the supervisor wasn't seen to stop.
    fn link_ended(&mut self, id: &LinkId, actor: ActorId, doubts: Option<Doubts>) {
        if self.links.get(id).is_none_or(|running| running.actor.get_id() != actor) {
            return;
        }
        let Some(ended) = self.links.remove(id) else { return };
        self.forget_moved(id);
        self.doubts.insert(id.clone(), doubts.unwrap_or_else(|| Doubts::of_all(&ended.link)));
        // Shown again by the next supervisor, if there is to be one; cleared here and not by the one
        // that ended, which may still be doing so when the next has begun.
        self.surroundings.observatory.set_link(id, None);
        self.surroundings.observatory.set_plane(id, None);
    }
}

/// Whether this node runs a supervisor for the link: where it owns a partition or is to get one, and, to
/// show whether the clusters answer, on the first node that runs mirrors when nobody owns one.
fn runs_on(catalog: &Catalog, link: &Link, node: NodeId) -> bool {
    let owners = || link.mirrors.values().flat_map(|m| &m.partitions).filter_map(|p| p.assignment.as_ref());
    owners().any(|a| a.node == node)
        || sync::keeper(catalog, link) == Some(node)
        || plan::receives(catalog, link, node)
}

fn basis(catalog: &Catalog, link: &Link) -> Result<Basis, String> {
    let (source, destination) = preflight::client_configs(catalog, link).map_err(|e| e.to_string())?;
    let configs = link.configs.iter().filter(|(key, _)| !sync::is_live(key));
    Ok((source, destination, configs.map(|(key, value)| (key.clone(), value.clone())).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn a_link_runs_where_its_partitions_are_or_come_and_on_the_first_node_without_any() {
        let mut catalog = Catalog::default();
        for id in [1, 2] {
            catalog.nodes.insert(NodeId(id), catalog::Node::of_level_1("n".into(), 1));
        }
        fn on_each(catalog: &Catalog, link: &Link) -> [bool; 2] {
            [1, 2].map(|id| runs_on(catalog, link, NodeId(id)))
        }
        let on = |link: &Link| on_each(&catalog, link);
        assert_eq!(on(&fixture::link(&[])), [true, false]);
        let unassigned = vec![Default::default()];
        assert_eq!(on(&fixture::link(&[("orders", unassigned)])), [true, false]);
        let owned = vec![Default::default(), fixture::owned_by(NodeId(2), false)];
        let link = fixture::link(&[("orders", owned)]);
        assert_eq!(on(&link), [false, true]);
        let key = catalog::PartitionKey { mirror: link.key(&"orders".into()), partition: 1 };
        let mut moving = catalog.clone();
        moving.fleet.hand_overs.insert(key, NodeId(1));
        assert_eq!(on_each(&moving, &link), [true, true]);
        let mut draining = catalog.clone();
        draining.nodes.get_mut(&NodeId(1)).expect("a member").duty = catalog::Duty::Drains;
        assert_eq!(on_each(&draining, &fixture::link(&[])), [false, true]);
    }
}
