//! Asks the members what they see. Each has a second; who takes longer is silent.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actors::observe::Observatory;
use bytes::Bytes;
use catalog::{Catalog, Link, MirrorKey, MirrorTopic, NodeId};
use peers::{Call, Service, Tls};
use tokio::task::JoinSet;

use super::seen::{Answer, Question, Seen};

/// A person is waiting, and a member that is well answers within milliseconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Partitions in one call, at most: their rows stay far below what a call may carry.
const PARTITIONS_A_CALL: usize = 5_000;

/// The members, as this node can ask them.
#[derive(Clone)]
pub struct Fleet {
    pub me: NodeId,
    pub peers: Arc<dyn Call>,
    /// Set when the data plane has started; until then nothing is known of it.
    pub observatory: Arc<OnceLock<Arc<Observatory>>>,
    /// Set when this node talks to members.
    pub tls: Arc<OnceLock<Tls>>,
}

impl Fleet {
    /// What this node answers to others, and to itself.
    pub fn answer(&self, question: &Question) -> Answer {
        let seen = self.observatory.get().map(|o| Answer::of(o, question)).unwrap_or_default();
        let trust = self.tls.get().filter(|_| question.trust).map(|tls| tls.trust().into());
        Answer { trust, ..seen }
    }

    /// As [`Fleet::answer`], of and in bytes. An unreadable question gets an empty answer, which no
    /// member takes for one.
    pub fn serve(&self, question: &[u8]) -> Bytes {
        let answer = serde_json::from_slice(question).ok().map(|question| self.answer(&question));
        answer.and_then(|answer| serde_json::to_vec(&answer).ok()).unwrap_or_default().into()
    }

    /// Links alone, from every node that may run one of them.
    pub async fn links<'a>(&self, catalog: &Catalog, links: impl Iterator<Item = &'a Arc<Link>>) -> Seen {
        let question = Question { links: links.map(|link| link.id.clone()).collect(), ..Question::default() };
        self.ask(catalog, catalog.nodes.keys().copied().collect(), &question).await
    }

    /// Mirror topics with their links and partitions, from the nodes that own these.
    pub async fn mirrors(&self, catalog: &Catalog, mirrors: &[(&Link, &MirrorTopic)]) -> Seen {
        let mut seen = Seen::default();
        for part in in_parts(mirrors) {
            let owners = |mirror: &MirrorTopic| {
                let assignments = mirror.partitions.iter().filter_map(|p| p.assignment.as_ref());
                assignments.map(|a| a.node).collect::<BTreeSet<NodeId>>()
            };
            let nodes: BTreeSet<NodeId> = part.iter().flat_map(|(_, mirror)| owners(mirror)).collect();
            let links: BTreeSet<_> = part.iter().map(|(link, _)| link.id.clone()).collect();
            let mirrors: Vec<MirrorKey> = part.iter().map(|(link, mirror)| link.key(&mirror.name)).collect();
            let question = Question { links: links.into_iter().collect(), mirrors, trust: false };
            let found = self.ask(catalog, nodes, &question).await;
            seen.links.extend(found.links);
            seen.mirrors.extend(found.mirrors);
            seen.silent.extend(found.silent);
        }
        seen
    }

    /// Whether each member answers.
    pub async fn everybody(&self, catalog: &Catalog) -> Seen {
        self.ask(catalog, catalog.nodes.keys().copied().collect(), &Question::default()).await
    }

    /// Whose certificate each member has, and whom it trusts.
    pub async fn trust(&self, catalog: &Catalog) -> Seen {
        let question = Question { trust: true, ..Question::default() };
        self.ask(catalog, catalog.nodes.keys().copied().collect(), &question).await
    }

    async fn ask(&self, catalog: &Catalog, nodes: BTreeSet<NodeId>, question: &Question) -> Seen {
        let mut seen = Seen::default();
        let name =
            |node: NodeId| catalog.nodes.get(&node).filter(|_| catalog.nodes.len() > 1).map(|n| &*n.name);
        let Ok(request) = serde_json::to_vec(question).map(Bytes::from) else { return seen };
        let mut calls = JoinSet::new();
        for node in nodes.into_iter().filter(|node| *node != self.me) {
            let call = self.peers.call(node, Service::Status, request.clone(), ANSWER_WITHIN);
            calls.spawn(async move { (node, call.await) });
        }
        seen.add(self.me, name(self.me), self.answer(question));
        while let Some(Ok((node, answer))) = calls.join_next().await {
            let answer = answer.map_err(|error| error.to_string()).and_then(|bytes| {
                serde_json::from_slice(&bytes).map_err(|_| "its answer can't be read".to_owned())
            });
            match answer {
                Ok(answer) => seen.add(node, name(node), answer),
                Err(why) => drop(seen.silent.insert(node, why)),
            }
        }
        seen
    }
}

/// Runs of mirror topics of at most so many partitions together, or of one topic.
fn in_parts<'a, 'b>(mirrors: &'b [(&'a Link, &'a MirrorTopic)]) -> Vec<&'b [(&'a Link, &'a MirrorTopic)]> {
    let (mut parts, mut from, mut partitions) = (Vec::new(), 0, 0);
    for (index, (_, mirror)) in mirrors.iter().enumerate() {
        if index > from && partitions + mirror.partitions.len() > PARTITIONS_A_CALL {
            parts.push(&mirrors[from..index]);
            (from, partitions) = (index, 0);
        }
        partitions += mirror.partitions.len();
    }
    if from < mirrors.len() {
        parts.push(&mirrors[from..]);
    }
    parts
}
