//! What a command did, for the history. It compares before with after, so that no way to change a status can be
//! forgotten here.
//!
//! Members of a build below [`KEPT_FROM_LEVEL`] keep no history. So it is kept only from the first command on that
//! finds every member recorded with that level: by then each of them has said, in this same log, that it runs a build
//! that keeps it. Level and history are both part of the catalog, so every node begins at the same command, and a
//! build of before finds nothing in the catalog that it doesn't know. Once it is kept, no older build gets in:
//! whoever starts or joins with a lower level is refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::command::{Action, Outcome, Refusal};
use crate::events::{
    AskedBy, Cause, KEPT_FROM_LEVEL, LinkChange, LinkName, NodeChange, Step, Transition, What, beginning,
    remember,
};
use crate::fleet::{Duty, PartitionKey};
use crate::model::{Catalog, Failure, Link, MirrorKey, MirrorStatus, NodeId};
use crate::stop::lost_of_all;

/// What a command does if it is taken, as far as that is known before.
pub(super) struct Watched {
    asked_by: AskedBy,
    what: Watch,
}

enum Watch {
    Mirror { key: MirrorKey, from: Option<MirrorStatus>, cause: Cause },
    Link { link: LinkName, change: LinkChange },
    Nodes(Vec<(Arc<str>, NodeChange)>),
}

/// What is asked, and by a person through which node.
pub(super) fn asked(action: Action) -> Result<(Option<NodeId>, Action), Refusal> {
    match action {
        Action::Asked { through, action } if !matches!(*action, Action::Asked { .. }) => {
            Ok((Some(through), *action))
        }
        Action::Asked { .. } => Err(asked_twice()),
        action => Ok((None, action)),
    }
}

pub(super) fn asked_twice() -> Refusal {
    Refusal::Illegal("a command says once who asked".into())
}

impl Catalog {
    /// Before there is a member the level is this build's own, not what was agreed on.
    fn keeps_events(&self) -> bool {
        !self.nodes.is_empty() && self.level() >= KEPT_FROM_LEVEL
    }

    /// To be asked before the command is applied; none when there is nothing to be told of it.
    pub(super) fn watch(&self, through: Option<NodeId>, action: &Action) -> Option<Watched> {
        if !self.keeps_events() {
            return None;
        }
        let what = self.watch_mirror(action).or_else(|| self.watch_others(action))?;
        let asked_by = match through {
            Some(node) => AskedBy::Operator { through: self.name(node) },
            None => self.asked_by(action),
        };
        Some(Watched { asked_by, what })
    }

    fn watch_mirror(&self, action: &Action) -> Option<Watch> {
        let (key, cause) = match action {
            Action::CreateMirror(new) | Action::CreateMirrorByItself(new) => {
                (&new.mirror, Cause::CreateAsked)
            }
            Action::MirrorReady { mirror, .. } => (mirror, Cause::SetUp),
            Action::FailPartition { mirror, partition, failure, .. } => {
                (mirror, failed(Some(*partition), failure))
            }
            Action::FailMirror { mirror, failure } => (mirror, failed(None, failure)),
            Action::PauseMirror { mirror } => (mirror, Cause::PauseAsked),
            Action::ResumeMirror { mirror } => (mirror, Cause::ResumeAsked),
            Action::DeleteMirror { mirror } => (mirror, Cause::DeleteAsked),
            Action::PromoteMirror { mirror } => (mirror, Cause::PromoteAsked),
            Action::CancelPromotion { mirror } => (mirror, Cause::CancelAsked),
            Action::FailOverMirror { mirror } => (mirror, Cause::FailOverAsked),
            Action::FenceMirror { mirror, .. } => (mirror, Cause::CaughtUp),
            Action::MirrorStopped { mirror, ends, .. } => {
                let kind = self.mirror(mirror)?.stop.as_ref()?.kind;
                (mirror, Cause::Stopped { kind, lost: lost_of_all(ends) })
            }
            _ => return None,
        };
        let from = self.mirror(key).map(|mirror| mirror.status);
        Some(Watch::Mirror { key: key.clone(), from, cause })
    }

    fn watch_others(&self, action: &Action) -> Option<Watch> {
        let node = |id: &NodeId, change| Some((self.name(*id)?, change));
        let nodes = match action {
            Action::CreateLink(new) => {
                let link = LinkName { name: new.name.clone(), destination: new.destination.clone() };
                return Some(Watch::Link { link, change: LinkChange::Created });
            }
            Action::AlterLinkConfigs { link, configs, .. } => {
                let link = self.links.get(link)?;
                let change = match (link.is_paused(), Link::pauses(configs)) {
                    (false, true) => LinkChange::Paused,
                    (true, false) => LinkChange::Resumed,
                    _ => return None,
                };
                return Some(Watch::Link { link: name_of(link), change });
            }
            Action::DeleteLink { link } => {
                let link = name_of(self.links.get(link)?);
                return Some(Watch::Link { link, change: LinkChange::Deleted });
            }
            Action::AdmitNode { node, description, .. } if !self.nodes.contains_key(node) => {
                Some((description.name.clone(), NodeChange::Joined))
            }
            Action::RecordStart { description, .. } => {
                Some((description.name.clone(), NodeChange::Started { version: description.version.clone() }))
            }
            Action::SetDuty { node: id, duty } => node(
                id,
                match duty {
                    Duty::Mirrors => NodeChange::Undrained,
                    Duty::Drains => NodeChange::Drains,
                    Duty::Stops => NodeChange::Stops,
                },
            ),
            Action::RemoveNode { node: id, lost } => node(id, NodeChange::Removed { lost: *lost }),
            Action::Assign { moves } => {
                let mut lost: BTreeMap<NodeId, u32> = BTreeMap::new();
                for m in moves {
                    let key = PartitionKey { mirror: m.mirror.clone(), partition: m.partition };
                    if let Some(owner) = self.owner(&key).filter(|owner| *owner != m.node) {
                        *lost.entry(owner).or_default() += 1;
                    }
                }
                // Of one that was removed that was told.
                let lost =
                    lost.iter().filter_map(|(id, &partitions)| node(id, NodeChange::Lost { partitions }));
                return Some(Watch::Nodes(lost.collect()));
            }
            _ => None,
        };
        Some(Watch::Nodes(vec![nodes?]))
    }

    /// Of a command that doesn't say that a person asked for it through the API.
    fn asked_by(&self, action: &Action) -> AskedBy {
        let owner = |mirror: &MirrorKey, partition: u32| {
            let owner = self.owner(&PartitionKey { mirror: mirror.clone(), partition });
            AskedBy::Node(owner.and_then(|owner| self.name(owner)))
        };
        match action {
            Action::FailPartition { mirror, partition, .. } => owner(mirror, *partition),
            // The owner of partition 0 sees to the topic.
            Action::MirrorReady { mirror, .. }
            | Action::FailMirror { mirror, .. }
            | Action::FenceMirror { mirror, .. }
            | Action::MirrorStopped { mirror, .. } => owner(mirror, 0),
            Action::RecordStart { description, .. } | Action::AdmitNode { description, .. } => {
                AskedBy::Node(Some(description.name.clone()))
            }
            Action::SetDuty { node, duty: Duty::Stops } => AskedBy::Node(self.name(*node)),
            Action::Assign { .. } => AskedBy::Coordinator,
            Action::CreateMirrorByItself(_) => AskedBy::Link,
            _ => AskedBy::Operator { through: None },
        }
    }

    fn name(&self, id: NodeId) -> Option<Arc<str>> {
        self.nodes.get(&id).map(|node| node.name.clone())
    }

    /// The command that was watched is applied.
    pub(super) fn record(&mut self, watched: Watched, outcome: &Outcome, at_ms: i64) {
        let Watched { asked_by, what } = watched;
        if *outcome == Outcome::Unchanged {
            return;
        }
        match what {
            Watch::Mirror { key, from, cause } => self.record_step(key, from, cause, asked_by, at_ms),
            Watch::Link { link, change } => {
                Arc::make_mut(&mut self.events).record(at_ms, asked_by, What::Link { link, change });
            }
            Watch::Nodes(nodes) => {
                for (node, change) in nodes {
                    let what = What::Node { node, change };
                    Arc::make_mut(&mut self.events).record(at_ms, asked_by.clone(), what);
                }
            }
        }
    }

    fn record_step(
        &mut self,
        key: MirrorKey,
        from: Option<MirrorStatus>,
        cause: Cause,
        asked_by: AskedBy,
        at_ms: i64,
    ) {
        let to = self.mirror(&key).map(|mirror| mirror.status);
        // Both leave it PENDING_STOPPED, and there is no way back from then on. The tenth partition that fails
        // says nothing new of the topic.
        let only_the_cause_tells = matches!(cause, Cause::CaughtUp | Cause::FailOverAsked);
        let Some(link) = self.links.get(&key.link).filter(|_| from != to || only_the_cause_tells) else {
            return;
        };
        let step = Step { from, to, cause };
        let what = What::Mirror { link: name_of(link), topic: key.topic.clone(), step: step.clone() };
        let number = Arc::make_mut(&mut self.events).record(at_ms, asked_by.clone(), what);
        let mirrors = self.links.values().map(|link| link.mirrors.len()).sum();
        // Deleted, with its history.
        if let Ok(mirror) = self.mirror_mut(&key) {
            remember(&mut mirror.history, Transition { number, at_ms, asked_by, step }, mirrors);
        }
    }
}

fn name_of(link: &Link) -> LinkName {
    LinkName { name: link.name.clone(), destination: link.destination.clone() }
}

fn failed(partition: Option<u32>, failure: &Failure) -> Cause {
    let Failure { error, offset, message, .. } = failure;
    Cause::Failed { error: *error, partition, offset: *offset, message: beginning(message) }
}
