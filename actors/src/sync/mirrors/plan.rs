//! Which of the source's topics a link is to make mirrors of by itself. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use catalog::{Catalog, Link, MirrorStatus};
use kafka::Metadata;

use crate::sync::filters::Filters;

/// Such topics belong to Kafka or to programs beside it: they are meant only by their names.
const RESERVED: &str = "__";

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Source topics that are to be mirrored and aren't.
    pub topics: Vec<String>,
    /// Why others aren't, that the filters mean.
    pub remarks: BTreeMap<Arc<str>, String>,
}

/// Of all topics that the source has.
pub fn wanted(catalog: &Catalog, link: &Link, filters: &Filters, source: &Metadata) -> Wanted {
    let mirrored: BTreeSet<&str> = link.mirrors.values().map(|mirror| &*mirror.source_topic).collect();
    let named: BTreeSet<&str> = filters.named().collect();
    let at_source = mirrors_at(catalog, &link.source_cluster_id);
    let mut wanted = Wanted::default();
    for (topic, found) in &source.topics {
        // One that can't be described now is looked at again soon.
        let Ok(found) = found else { continue };
        if found.is_internal || mirrored.contains(&**topic) || !filters.includes(topic) {
            continue;
        }
        let is_named = named.contains(&**topic);
        if topic.starts_with(RESERVED) && !is_named {
            continue;
        }
        if let Some(other) = at_source.get(&**topic).filter(|_| !is_named) {
            let remark = format!(
                "isn't mirrored on: it is a mirror of link '{other}' itself; name it in a LITERAL filter if it is to be"
            );
            wanted.remarks.insert(topic.as_str().into(), remark);
        } else if catalog.has_forgotten(&link.id, topic) {
            let remark = "isn't mirrored again: its mirror was deleted; create it by hand if it is to be";
            wanted.remarks.insert(topic.as_str().into(), remark.to_owned());
        } else {
            wanted.topics.push(topic.clone());
        }
    }
    wanted
}

/// Topics of a cluster that are mirrors there, and the link that keeps each.
fn mirrors_at<'a>(catalog: &'a Catalog, cluster_id: &str) -> BTreeMap<&'a str, &'a str> {
    let links = catalog.links.values().filter(|link| *link.destination_cluster_id == *cluster_id);
    let mirrors = links.flat_map(|link| link.mirrors.values().map(move |mirror| (link, mirror)));
    let kept = mirrors.filter(|(_, mirror)| mirror.status != MirrorStatus::Stopped);
    kept.map(|(link, mirror)| (&*mirror.name, &*link.name)).collect()
}

#[cfg(test)]
mod tests {
    use kafka::TopicMetadata;

    use super::*;
    use crate::fixture;
    use crate::sync::filters::EVERY_TOPIC;

    fn source(topics: &[(&str, bool)]) -> Metadata {
        let topic = |is_internal| TopicMetadata {
            topic_id: uuid::Uuid::from_bytes([7; 16]),
            is_internal,
            partitions: BTreeMap::new(),
        };
        let topics = topics.iter().map(|(name, is_internal)| ((*name).into(), Ok(topic(*is_internal))));
        Metadata { topics: topics.collect(), ..Metadata::default() }
    }

    fn named(json: &str) -> Filters {
        Filters::of_topics(json).expect("valid")
    }

    fn literal(names: &[&str]) -> Filters {
        let filter =
            |name: &&str| format!(r#"{{"name":"{name}","patternType":"LITERAL","filterType":"INCLUDE"}}"#);
        let filters: Vec<String> = names.iter().map(filter).collect();
        named(&format!(r#"{{"topicFilters":[{}]}}"#, filters.join(",")))
    }

    #[test]
    fn what_the_filters_mean_is_wanted_once_and_internal_topics_never_are() {
        let link = fixture::link(&[("orders", vec![Default::default()])]);
        let found = source(&[("__offsets", true), ("__own", false), ("orders", false), ("payments", false)]);
        let every = wanted(&Catalog::default(), &link, &named(EVERY_TOPIC), &found);
        assert_eq!(every, Wanted { topics: vec!["payments".into()], remarks: BTreeMap::new() });
        let by_name = literal(&["__offsets", "__own", "orders"]);
        assert_eq!(wanted(&Catalog::default(), &link, &by_name, &found).topics, ["__own"]);
        assert_eq!(wanted(&Catalog::default(), &link, &Filters::default(), &found), Wanted::default());
    }

    #[test]
    fn a_mirror_that_has_stopped_is_not_made_again() {
        let mut link = fixture::link(&[("orders", vec![Default::default()])]);
        let mirror = link.mirrors.get_mut("orders").expect("there");
        Arc::make_mut(mirror).status = MirrorStatus::Stopped;
        let found = source(&[("orders", false)]);
        assert_eq!(wanted(&Catalog::default(), &link, &named(EVERY_TOPIC), &found), Wanted::default());
    }

    #[test]
    fn a_deleted_one_is_told_and_not_made_again() {
        let link = fixture::link(&[]);
        let mut catalog = Catalog::default();
        catalog.forgotten.insert(link.id.clone(), Arc::new(["orders".into()].into()));
        let Wanted { topics, remarks } =
            wanted(&catalog, &link, &named(EVERY_TOPIC), &source(&[("orders", false)]));
        assert!(topics.is_empty());
        assert!(remarks["orders"].contains("its mirror was deleted"), "{remarks:?}");
    }

    #[test]
    fn a_mirror_at_the_source_is_mirrored_on_only_by_its_name() {
        let link = fixture::link(&[]);
        let mut back = fixture::link(&[("orders", vec![Default::default()])]);
        back.id = catalog::LinkId("back".into());
        back.name = "west-east".into();
        back.destination_cluster_id = link.source_cluster_id.clone();
        let mut catalog = Catalog::default();
        catalog.links.insert(back.id.clone(), Arc::new(back.clone()));
        let found = source(&[("orders", false), ("payments", false)]);
        let every = wanted(&catalog, &link, &named(EVERY_TOPIC), &found);
        assert_eq!(every.topics, ["payments"]);
        assert!(every.remarks["orders"].contains("a mirror of link 'west-east'"), "{:?}", every.remarks);
        assert_eq!(wanted(&catalog, &link, &literal(&["orders"]), &found).topics, ["orders"]);
        // Once it has stopped it is an ordinary topic.
        Arc::make_mut(back.mirrors.get_mut("orders").expect("there")).status = MirrorStatus::Stopped;
        catalog.links.insert(back.id.clone(), Arc::new(back));
        assert_eq!(wanted(&catalog, &link, &named(EVERY_TOPIC), &found).topics, ["orders", "payments"]);
    }
}
