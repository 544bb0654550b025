//! The root actor of a node: one link supervisor for each link of the applied catalog that has
//! work here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use catalog::{Catalog, Link, LinkId, NodeId};
use kafka::ClientConfig;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::oneshot;

use crate::link::{LinkArguments, LinkMessage, LinkSupervisor, Surroundings};
use crate::observe::LinkView;
use crate::preflight;

/// Before a link whose supervisor failed is started again.
const RESTART_WAIT: Duration = Duration::from_secs(2);

pub enum ReconcilerMessage {
    /// The applied catalog as of now.
    Applied(Arc<consensus::Applied>),
    LinkStopped(LinkId),
    Reconcile,
    Stop(oneshot::Sender<()>),
}

pub struct Reconciler;

/// What a running supervisor was started with; anything else means starting it afresh.
type Basis = (ClientConfig, ClientConfig, BTreeMap<String, String>);

struct RunningLink {
    actor: ActorRef<LinkMessage>,
    link: Arc<Link>,
    basis: Basis,
    stopping: bool,
}

pub struct ReconcilerState {
    surroundings: Surroundings,
    applied: Option<Arc<consensus::Applied>>,
    links: BTreeMap<LinkId, RunningLink>,
    /// Links that were started before in this process.
    started: BTreeSet<LinkId>,
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
            started: BTreeSet::new(),
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
            ReconcilerMessage::LinkStopped(id) => {
                state.links.remove(&id);
            }
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
                state.links.remove(&id);
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
            None => catalog.links.iter().filter(|(_, link)| has_work(link, node)).collect(),
        };
        let gone: Vec<LinkId> = self.links.keys().filter(|id| !wanted.contains_key(id)).cloned().collect();
        for id in gone {
            self.stop_link(myself, &id);
        }
        for (id, link) in wanted {
            let basis = match basis(catalog, link) {
                Ok(basis) => basis,
                Err(message) => {
                    tracing::error!(link = %link.name, "{message}");
                    let view = LinkView { state: "FAILED", error: "UNKNOWN", error_message: Some(message) };
                    self.surroundings.observatory.set_link(id, Some(view));
                    self.stop_link(myself, id);
                    continue;
                }
            };
            match self.links.get_mut(id) {
                Some(running) if running.basis != basis => self.stop_link(myself, id),
                Some(running) if !Arc::ptr_eq(&running.link, link) => {
                    running.link = link.clone();
                    let _ = running.actor.cast(LinkMessage::Update(link.clone()));
                }
                Some(_) => {}
                None => self.start_link(myself, link, basis).await,
            }
        }
        if self.links.is_empty()
            && let Some(answer) = self.stop.take()
        {
            let _ = answer.send(());
            myself.stop(None);
        }
    }

    async fn start_link(&mut self, myself: &ActorRef<ReconcilerMessage>, link: &Arc<Link>, basis: Basis) {
        let (source, destination, _) = basis.clone();
        let surroundings = self.surroundings.clone();
        let is_successor = !self.started.insert(link.id.clone());
        let arguments = LinkArguments { link: link.clone(), source, destination, surroundings, is_successor };
        match Actor::spawn_linked(None, LinkSupervisor, arguments, myself.get_cell()).await {
            Ok((actor, _)) => {
                let running = RunningLink { actor, link: link.clone(), basis, stopping: false };
                self.links.insert(link.id.clone(), running);
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
            if actor.cast(LinkMessage::Stop(answer)).is_ok() {
                // An error means the supervisor is gone: stopped as well.
                let _ = stopped.await;
            }
            let _ = myself.cast(ReconcilerMessage::LinkStopped(id));
        });
    }
}

fn has_work(link: &Link, node: NodeId) -> bool {
    let here = |p: &catalog::model::MirrorPartition| p.assignment.as_ref().is_some_and(|a| a.node == node);
    link.mirrors.values().any(|m| m.partitions.iter().any(here))
}

fn basis(catalog: &Catalog, link: &Link) -> Result<Basis, String> {
    let (source, destination) = preflight::client_configs(catalog, link).map_err(|e| e.to_string())?;
    Ok((source, destination, link.configs.clone()))
}
