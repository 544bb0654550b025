//! What nodes see of links, mirrors and themselves, as values.

use std::collections::BTreeMap;

use actors::observe::{LinkView, Observatory, TaskError, TaskView};
use catalog::{Catalog, Link, LinkId, MirrorKey, MirrorTopic, NodeId};
use peers::tls::Trust;
use serde::{Deserialize, Serialize};

use crate::api::rows;
use crate::api::types::{ErrorRow, LagRow};

/// What a member is asked about. Empty: only whether it answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Question {
    pub links: Vec<LinkId>,
    pub mirrors: Vec<MirrorKey>,
    /// Whose certificate it has, and whom it trusts.
    pub trust: bool,
}

/// What a member sees; what it doesn't see isn't in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Answer {
    pub links: Vec<(LinkId, SeenLink)>,
    pub mirrors: Vec<(MirrorKey, SeenMirror)>,
    /// None: it wasn't asked, doesn't talk to members yet, or is of a version that doesn't tell.
    pub trust: Option<SeenTrust>,
}

/// As [`peers::tls::Trust`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SeenTrust {
    pub own: bool,
    pub signed_by: Option<String>,
    pub authorities: Vec<String>,
}

impl From<Trust> for SeenTrust {
    fn from(trust: Trust) -> Self {
        let Trust { own, signed_by, authorities } = trust;
        Self { own, signed_by, authorities }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenLink {
    pub state: String,
    pub error: String,
    pub error_message: Option<String>,
    pub source_available: bool,
    /// What a node does for the link beside its records, by the task's name: errors, by mirror topic.
    #[serde(default)]
    pub tasks: BTreeMap<String, BTreeMap<String, ErrorRow>>,
    /// Likewise, what isn't wrong.
    #[serde(default)]
    pub remarks: BTreeMap<String, BTreeMap<String, String>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SeenMirror {
    pub partitions: Vec<LagRow>,
    /// What a mirror that isn't ready yet waits for.
    pub waiting_for: Option<String>,
}

/// What was seen anywhere.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// As the node sees it that sees the worst.
    pub links: BTreeMap<LinkId, SeenLink>,
    pub mirrors: BTreeMap<MirrorKey, BTreeMap<NodeId, SeenMirror>>,
    /// Of members that were asked and told.
    pub trust: BTreeMap<NodeId, SeenTrust>,
    /// Who was asked and didn't answer, and why.
    pub silent: BTreeMap<NodeId, String>,
}

impl Answer {
    /// What this node sees.
    pub fn of(observatory: &Observatory, question: &Question) -> Self {
        let link = |id: &LinkId| {
            let mut seen = SeenLink::from(observatory.link(id)?);
            let errors = |task: TaskView| {
                let row = |error: TaskError| ErrorRow {
                    error_code: error.code.to_owned(),
                    error_message: error.message,
                };
                task.errors.into_iter().map(|(topic, error)| (topic.to_string(), row(error))).collect()
            };
            for mut task in observatory.tasks(id) {
                let remarks = std::mem::take(&mut task.remarks).into_iter();
                let remarks = remarks.map(|(what, remark)| (what.to_string(), remark)).collect();
                seen.remarks.insert(task.name.to_owned(), remarks);
                seen.tasks.insert(task.name.to_owned(), errors(task));
            }
            Some((id.clone(), seen))
        };
        let mirror = |key: &MirrorKey| {
            let partitions: Vec<LagRow> =
                observatory.partitions(key).into_iter().map(rows::observed).collect();
            let waiting_for = observatory.waiting_for(key);
            let sees = !partitions.is_empty() || waiting_for.is_some();
            sees.then(|| (key.clone(), SeenMirror { partitions, waiting_for }))
        };
        Self {
            links: question.links.iter().filter_map(link).collect(),
            mirrors: question.mirrors.iter().filter_map(mirror).collect(),
            trust: None,
        }
    }
}

impl From<LinkView> for SeenLink {
    fn from(view: LinkView) -> Self {
        let LinkView { state, error, error_message, source_available } = view;
        let (state, error) = (state.to_owned(), error.to_owned());
        Self {
            state,
            error,
            error_message,
            source_available,
            tasks: BTreeMap::new(),
            remarks: BTreeMap::new(),
        }
    }
}

impl SeenLink {
    /// The higher, the more an operator has to do.
    fn badness(&self) -> u8 {
        match self.state.as_str() {
            "FAILED" => 3,
            "UNAVAILABLE" => 2,
            "ACTIVE" => 1,
            _ => 0,
        }
    }
}

impl Seen {
    /// `name`: of the node, to be shown with what it sees; none where there are no others.
    pub fn add(&mut self, node: NodeId, name: Option<&str>, answer: Answer) {
        for (id, mut link) in answer.links {
            if let Some((message, name)) = link.error_message.as_mut().zip(name) {
                message.push_str(&format!(" (seen by node {name})"));
            }
            let held = self.links.entry(id).or_default();
            // Each node does its part of a task.
            let mut tasks = std::mem::take(&mut held.tasks);
            for (name, errors) in std::mem::take(&mut link.tasks) {
                tasks.entry(name).or_default().extend(errors);
            }
            let mut remarks = std::mem::take(&mut held.remarks);
            for (name, some) in std::mem::take(&mut link.remarks) {
                remarks.entry(name).or_default().extend(some);
            }
            if link.badness() > held.badness() {
                *held = link;
            }
            (held.tasks, held.remarks) = (tasks, remarks);
        }
        for (key, mirror) in answer.mirrors {
            self.mirrors.entry(key).or_default().insert(node, mirror);
        }
        self.trust.extend(answer.trust.map(|trust| (node, trust)));
    }

    pub fn link(&self, id: &LinkId) -> Option<&SeenLink> {
        self.links.get(id)
    }

    /// Each partition as its owner sees it; what others remember of it is past.
    pub fn partitions(&self, link: &Link, mirror: &MirrorTopic) -> BTreeMap<u32, LagRow> {
        let Some(by_node) = self.mirrors.get(&link.key(&mirror.name)) else { return BTreeMap::new() };
        let owner =
            |partition: u32| Some(mirror.partitions.get(partition as usize)?.assignment.as_ref()?.node);
        let rows =
            by_node.iter().flat_map(|(node, seen)| seen.partitions.iter().map(move |row| (*node, row)));
        rows.filter(|(node, row)| owner(row.partition) == Some(*node))
            .map(|(_, row)| (row.partition, row.clone()))
            .collect()
    }

    pub fn waiting_for(&self, key: &MirrorKey) -> Option<String> {
        self.mirrors.get(key)?.values().find_map(|seen| seen.waiting_for.clone())
    }

    /// Why nothing is known of what that node runs.
    pub fn silence(&self, catalog: &Catalog, node: NodeId) -> Option<String> {
        let why = self.silent.get(&node)?;
        let name = catalog.nodes.get(&node).map_or_else(|| node.to_string(), |node| node.name.to_string());
        Some(format!("node {name} doesn't answer: {why}"))
    }
}
