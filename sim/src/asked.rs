//! What the operator asks for, as a person means it: by names. What the product makes of it (ids that are
//! drawn, a plan made of what brokers answer) isn't the operator's to know, nor the judge's.

use std::collections::BTreeMap;
use std::sync::Arc;

use catalog::command::{NewLink, NewMirror};
use catalog::{Action, Catalog, Command, Link, LinkId, MirrorKey, MirrorTopic, ProducerIdentity, TopicId};

use crate::life;

type Configs = BTreeMap<String, String>;

/// [`Asked::Several`]: at once, each by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    CreateCluster { name: String, cluster_id: String, configs: Configs },
    DeleteCluster { name: String },
    CreateLink { link: LinkName, source: String, configs: Configs },
    AlterLink { link: LinkName, key: String, value: String },
    CreateMirror { mirror: MirrorName, source_topic: String },
    PauseMirror(MirrorName),
    ResumeMirror(MirrorName),
    DeleteMirror(MirrorName),
    PromoteMirror(MirrorName),
    CancelPromotion(MirrorName),
    FailOverMirror(MirrorName),
    Several(Vec<Asked>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkName {
    pub destination: String,
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorName {
    pub link: LinkName,
    pub topic: String,
}

impl LinkName {
    pub fn of(link: &Link) -> Self {
        Self { destination: link.destination.to_string(), name: link.name.to_string() }
    }

    /// In a catalog that only holds what was asked for.
    fn id(&self) -> LinkId {
        LinkId(format!("{}/{}", self.destination, self.name).into())
    }
}

impl MirrorName {
    fn key(&self) -> MirrorKey {
        MirrorKey { link: self.link.id(), topic: self.topic.as_str().into() }
    }

    /// As some node has it.
    pub fn find<'a>(&self, catalog: &'a Catalog) -> Option<&'a Arc<MirrorTopic>> {
        let link = catalog.link_on(&self.link.destination, &self.link.name)?;
        link.mirrors.get(self.topic.as_str())
    }
}

fn set_up(catalog: &mut Catalog, mirror: MirrorKey) {
    let producer = ProducerIdentity { producer_id: 0, producer_epoch: 0 };
    let ready = Action::MirrorReady { mirror, destination_topic_id: TopicId::NONE, producer };
    // Only a mirror that was just created is set up.
    let _ = catalog.apply(Command { at_ms: 0, action: ready });
}

/// One of a link, as the catalog and the API name it.
pub fn mirror(link: &str, topic: &str, source_topic: &str) -> String {
    format!("mirror {link}/{topic} of {source_topic}")
}

impl Asked {
    /// Does it in a catalog that only holds what was asked for; false when that can't be. `over` is what a
    /// link's configs may have been when a change was merged with them.
    pub fn apply(&self, catalog: &mut Catalog, over: &[Configs]) -> bool {
        if let Self::Several(all) = self {
            return all.iter().all(|asked| asked.apply(catalog, over));
        }
        let Some(action) = self.action(catalog, over) else { return false };
        let take = |catalog: &mut Catalog, action| catalog.apply(Command { at_ms: 0, action }).is_ok();
        if take(catalog, action.clone()) {
            if let Action::CreateMirror(new) = action {
                // Nobody asks for its set-up.
                set_up(catalog, new.mirror);
            }
            return true;
        }
        // What the product does by itself may have come first.
        self.mirror().is_some_and(|name| {
            [life::Own::IsOff, life::Own::HasStopped].into_iter().any(|own| {
                let mut after = catalog.clone();
                let is_taken = life::step(&mut after, &name.key(), own) && take(&mut after, action.clone());
                if is_taken {
                    *catalog = after;
                }
                is_taken
            })
        })
    }

    /// What becomes of a mirror, if it is that.
    pub fn mirror(&self) -> Option<&MirrorName> {
        match self {
            Self::PauseMirror(mirror)
            | Self::ResumeMirror(mirror)
            | Self::DeleteMirror(mirror)
            | Self::PromoteMirror(mirror)
            | Self::CancelPromotion(mirror)
            | Self::FailOverMirror(mirror) => Some(mirror),
            _ => None,
        }
    }

    /// A link's configs as they are there, if this alters them.
    pub fn merged_with(&self, catalog: &Catalog) -> Option<Configs> {
        let Self::AlterLink { link, .. } = self else { return None };
        Some(catalog.links.get(&link.id())?.configs.clone())
    }

    fn action(&self, catalog: &Catalog, over: &[Configs]) -> Option<Action> {
        let key = MirrorName::key;
        Some(match self {
            Self::Several(_) => return None,
            Self::CreateCluster { name, cluster_id, configs } => Action::CreateCluster {
                name: name.as_str().into(),
                cluster_id: cluster_id.as_str().into(),
                configs: configs.clone(),
            },
            Self::DeleteCluster { name } => Action::DeleteCluster { name: name.as_str().into() },
            Self::CreateLink { link, source, configs } => Action::CreateLink(NewLink {
                id: link.id(),
                name: link.name.as_str().into(),
                destination: link.destination.as_str().into(),
                source: Some(source.as_str().into()),
                source_cluster_id: catalog.cluster(source)?.cluster_id.clone(),
                configs: configs.clone(),
            }),
            Self::AlterLink { link, key, value } => {
                let expected = self.merged_with(catalog).filter(|now| over.contains(now))?;
                let mut configs = expected.clone();
                configs.insert(key.clone(), value.clone());
                Action::AlterLinkConfigs { link: link.id(), expected, configs }
            }
            // Nobody is shown partitions by what was asked for: they follow the source.
            Self::CreateMirror { mirror, source_topic } => Action::CreateMirror(NewMirror {
                mirror: key(mirror),
                source_topic: source_topic.as_str().into(),
                source_topic_id: TopicId::NONE,
                partitions: 1,
                replication_factor: None,
                configs: BTreeMap::new(),
            }),
            Self::PauseMirror(mirror) => Action::PauseMirror { mirror: key(mirror) },
            Self::ResumeMirror(mirror) => Action::ResumeMirror { mirror: key(mirror) },
            Self::DeleteMirror(mirror) => Action::DeleteMirror { mirror: key(mirror) },
            Self::PromoteMirror(mirror) => Action::PromoteMirror { mirror: key(mirror) },
            Self::CancelPromotion(mirror) => Action::CancelPromotion { mirror: key(mirror) },
            Self::FailOverMirror(mirror) => Action::FailOverMirror { mirror: key(mirror) },
        })
    }
}
