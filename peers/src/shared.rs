//! What all connections of a node have in common.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use catalog::{FleetId, NodeId};
use tokio::sync::watch;

use crate::book::{Book, Said};
use crate::call::{CallError, Serve};
use crate::dial::Dial;
use crate::guest::Guests;
use crate::heard::Heard;
use crate::lane::Lane;
use crate::line::Line;
use crate::refusal::Refusal;
use crate::tls::{Configs, Security};

/// Whom this node refused and has logged; forgotten when there are so many.
const TURNED_AWAY_MAX: usize = 256;

pub(crate) struct Shared {
    pub node: NodeId,
    pub fleet: FleetId,
    pub own_address: Arc<str>,
    pub level: u32,
    pub version: Arc<str>,
    pub security: Security,
    pub dial: Arc<dyn Dial>,
    pub book: watch::Receiver<Arc<Book>>,
    pub said: Said,
    pub heard: Heard,
    pub refusals: watch::Sender<BTreeMap<NodeId, Refusal>>,
    /// Who answers calls, once someone does.
    pub serve: OnceLock<Arc<dyn Serve>>,
    pub guests: Guests,
    pub lines: Mutex<BTreeMap<(NodeId, Lane), Arc<Line>>>,
    pub turned_away: Mutex<BTreeSet<String>>,
    pub stop: watch::Sender<bool>,
}

impl Shared {
    fn lines(&self) -> MutexGuard<'_, BTreeMap<(NodeId, Lane), Arc<Line>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn book(&self) -> Arc<Book> {
        self.book.borrow().clone()
    }

    pub fn address(&self, node: NodeId, attempt: u32) -> Option<Arc<str>> {
        self.said.address(&self.book(), node, attempt)
    }

    /// # Errors
    /// [`CallError::NoAddress`].
    pub fn line(&self, node: NodeId, lane: Lane) -> Result<Arc<Line>, CallError> {
        if let Some(line) = self.lines().get(&(node, lane)) {
            return Ok(line.clone());
        }
        self.address(node, 0).ok_or(CallError::NoAddress(node))?;
        let line = Arc::new(Line::new(node, lane));
        Ok(self.lines().entry((node, lane)).or_insert(line).clone())
    }

    /// A member called, and said where it is.
    pub fn met(&self, node: NodeId, address: Arc<str>) {
        self.heard.mark(node);
        if !address.is_empty() {
            self.said.say(&self.book(), node, address);
        }
        self.lines().iter().filter(|((to, _), _)| *to == node).for_each(|(_, line)| line.retry_now());
        let mut turned_away = self.turned_away();
        turned_away.retain(|who| !who.starts_with(&node.to_string()));
    }

    /// Whether this is new and worth a line in the log.
    pub fn turns_away(&self, who: &str, words: &str) -> bool {
        let mut turned_away = self.turned_away();
        if turned_away.len() >= TURNED_AWAY_MAX {
            turned_away.clear();
        }
        turned_away.insert(format!("{who} {words}"))
    }

    fn turned_away(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.turned_away.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The book has changed: who left it is forgotten.
    pub fn tidy(&self) {
        let book = self.book();
        self.said.keep(|node| !book.removed.contains(&node));
        self.heard.keep(|node| !book.removed.contains(&node));
        self.lines().retain(|(node, _), line| {
            let stays = self.said.address(&book, *node, 0).is_some();
            if !stays {
                line.close("it isn't a member any more");
            }
            stays
        });
        self.refusals.send_if_modified(|refusals| {
            let before = refusals.len();
            refusals.retain(|node, _| book.members.contains_key(node));
            refusals.len() < before
        });
    }

    pub async fn stopped(&self) {
        // The sender lives as long as this does.
        let _ = self.stop.subscribe().wait_for(|stopping| *stopping).await;
    }

    /// Ends when this node trusts an authority no more that it trusted when these were in force.
    pub async fn distrusted(&self, configs: Option<Arc<Configs>>) {
        if let (Security::Tls(tls), Some(configs)) = (&self.security, configs) {
            let mut changes = tls.changes();
            if changes.wait_for(|now| now.generation > configs.generation).await.is_ok() {
                return;
            }
        }
        std::future::pending().await
    }
}
