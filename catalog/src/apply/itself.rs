//! Mirrors that a link makes by itself, and never again once a person has ended one.

use std::sync::Arc;

use super::Applied;
use crate::command::{NewMirror, Refusal};
use crate::model::{Catalog, Link, LinkId};

/// Source topics that one link remembers, at most.
pub const FORGOTTEN_MAX: usize = 20_000;

/// Members that don't know of mirrors that are made so don't remember either.
const REMEMBERED_FROM_LEVEL: u32 = 4;

impl Catalog {
    pub(super) fn create_mirror_by_itself(&mut self, new: NewMirror, at_ms: i64) -> Applied {
        let id = &new.mirror.link;
        let link = self.links.get(id).ok_or_else(|| Refusal::not_found("link", &id.0))?;
        if !link.makes_mirrors() || link.is_paused() {
            return Err(Refusal::Stale(format!("link '{}'", link.name)));
        }
        if let Some(mirror) = link.mirrors.values().find(|mirror| mirror.source_topic == new.source_topic) {
            return Err(Refusal::exists("mirror topic", &mirror.name));
        }
        if self.has_forgotten(id, &new.source_topic) {
            let message = format!("topic '{}' was mirrored, and its mirror was deleted", new.source_topic);
            return Err(Refusal::Illegal(message));
        }
        self.create_mirror(new, at_ms)
    }

    /// Whether a mirror of the source topic was deleted, so that the link never makes one by itself.
    pub fn has_forgotten(&self, link: &LinkId, source_topic: &str) -> bool {
        self.forgotten.get(link).is_some_and(|topics| topics.contains(source_topic))
    }

    /// A mirror of the source topic is about to be deleted.
    pub(super) fn forget(&mut self, id: &LinkId, source_topic: Arc<str>) -> Result<(), Refusal> {
        if self.level() < REMEMBERED_FROM_LEVEL
            || !self.links.get(id).is_some_and(|link| link.makes_mirrors())
        {
            return Ok(());
        }
        let topics = self.forgotten.entry(id.clone()).or_default();
        if topics.len() >= FORGOTTEN_MAX && !topics.contains(&source_topic) {
            return Err(Refusal::Illegal(format!(
                "this link remembers {FORGOTTEN_MAX} deleted mirrors already, so that it doesn't make them again; \
                 set {} to false first, which forgets them",
                Link::AUTO_CREATE_KEY
            )));
        }
        Arc::make_mut(topics).insert(source_topic);
        Ok(())
    }
}
