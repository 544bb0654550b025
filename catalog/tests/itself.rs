//! Mirrors that a link makes by itself: when it may, and which it never makes again.

mod support;

use std::collections::BTreeMap;

use catalog::apply::FORGOTTEN_MAX;
use catalog::command::{NewLink, NewMirror};
use catalog::*;
use support::founded;

fn link() -> LinkId {
    LinkId("link-1".into())
}

fn configs(is_on: bool, more: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = [(Link::AUTO_CREATE_KEY, if is_on { "true" } else { "false" })].into_iter();
    pairs.chain(more.iter().copied()).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn catalog() -> Catalog {
    catalog_of(fleet::LEVEL)
}

/// With a link that makes mirrors by itself.
fn catalog_of(level: u32) -> Catalog {
    let mut catalog = founded(level, &["east", "west"]);
    let new = NewLink {
        id: link(),
        name: "east-west".into(),
        destination: "west".into(),
        source: Some("east".into()),
        source_cluster_id: "id-east".into(),
        configs: configs(true, &[]),
    };
    does(&mut catalog, Action::CreateLink(new));
    catalog
}

fn ask(catalog: &mut Catalog, action: Action) -> Result<Outcome, Refusal> {
    let before = catalog.clone();
    let answer = support::apply(catalog, action);
    if answer.is_err() {
        assert_eq!(*catalog, before, "a refusal changes nothing");
    }
    answer
}

fn does(catalog: &mut Catalog, action: Action) {
    assert_eq!(ask(catalog, action), Ok(Outcome::Done));
}

fn mirror(source: &str, name: &str) -> NewMirror {
    NewMirror {
        mirror: MirrorKey { link: link(), topic: name.into() },
        source_topic: source.into(),
        source_topic_id: TopicId([1; 16]),
        partitions: 1,
        replication_factor: None,
        configs: BTreeMap::new(),
    }
}

fn by_itself(topic: &str) -> Action {
    Action::CreateMirrorByItself(mirror(topic, topic))
}

fn delete(name: &str) -> Action {
    Action::DeleteMirror { mirror: MirrorKey { link: link(), topic: name.into() } }
}

fn alter(catalog: &mut Catalog, to: BTreeMap<String, String>) {
    let expected = catalog.links[&link()].configs.clone();
    does(catalog, Action::AlterLinkConfigs { link: link(), expected, configs: to });
}

#[test]
fn a_link_makes_a_mirror_once_and_only_while_it_is_to() {
    let mut catalog = catalog();
    does(&mut catalog, by_itself("orders"));
    assert!(matches!(ask(&mut catalog, by_itself("orders")), Err(Refusal::Exists { .. })));
    for not_now in [configs(false, &[]), configs(true, &[(Link::PAUSED_KEY, "true")])] {
        alter(&mut catalog, not_now);
        assert!(matches!(ask(&mut catalog, by_itself("payments")), Err(Refusal::Stale(_))));
    }
}

#[test]
fn a_topic_that_is_mirrored_under_any_name_is_not_mirrored_again() {
    let mut catalog = catalog();
    does(&mut catalog, Action::CreateMirror(mirror("orders", "orders-copy")));
    let Err(Refusal::Exists { name, .. }) = ask(&mut catalog, by_itself("orders")) else {
        panic!("made twice")
    };
    assert_eq!(name, "orders-copy");
}

#[test]
fn what_was_deleted_stays_deleted_until_the_link_stops_making_mirrors() {
    let mut catalog = catalog();
    does(&mut catalog, by_itself("orders"));
    does(&mut catalog, delete("orders"));
    let Err(refusal) = ask(&mut catalog, by_itself("orders")) else { panic!("made again") };
    assert_eq!(refusal.to_string(), "topic 'orders' was mirrored, and its mirror was deleted");
    // By hand it is made, and deleted again.
    does(&mut catalog, Action::CreateMirror(mirror("orders", "orders")));
    does(&mut catalog, delete("orders"));
    assert!(catalog.has_forgotten(&link(), "orders"));
    alter(&mut catalog, configs(true, &[("client.id", "x")]));
    assert!(catalog.has_forgotten(&link(), "orders"), "another key doesn't matter");
    alter(&mut catalog, configs(false, &[]));
    alter(&mut catalog, configs(true, &[]));
    does(&mut catalog, by_itself("orders"));
}

#[test]
fn nothing_is_remembered_of_links_that_make_none_nor_of_those_that_are_gone() {
    let mut catalog = catalog();
    alter(&mut catalog, configs(false, &[]));
    does(&mut catalog, Action::CreateMirror(mirror("orders", "orders")));
    does(&mut catalog, delete("orders"));
    assert!(catalog.forgotten.is_empty());
    alter(&mut catalog, configs(true, &[]));
    does(&mut catalog, by_itself("orders"));
    does(&mut catalog, delete("orders"));
    does(&mut catalog, Action::DeleteLink { link: link() });
    assert!(catalog.forgotten.is_empty());
}

#[test]
fn members_of_an_older_build_remember_nothing_and_so_nobody_does() {
    let mut catalog = catalog_of(3);
    does(&mut catalog, Action::CreateMirror(mirror("orders", "orders")));
    does(&mut catalog, delete("orders"));
    assert!(catalog.forgotten.is_empty());
}

#[test]
fn the_memory_is_bounded_and_the_way_out_is_told() {
    let mut catalog = catalog();
    let topics = (0..FORGOTTEN_MAX).map(|number| format!("t{number}").into()).collect();
    catalog.forgotten.insert(link(), std::sync::Arc::new(topics));
    does(&mut catalog, by_itself("orders"));
    does(&mut catalog, Action::CreateMirror(mirror("t5", "t5")));
    does(&mut catalog, delete("t5"));
    let told = ask(&mut catalog, delete("orders")).expect_err("full").to_string();
    assert!(told.contains("set auto.create.mirror.topics.enable to false first"), "{told}");
}

#[test]
fn mirrors_are_named_with_the_links_prefix() {
    let mut catalog = catalog();
    assert_eq!(catalog.links[&link()].mirror_name("orders"), "orders");
    alter(&mut catalog, configs(true, &[(Link::PREFIX_KEY, "east.")]));
    assert_eq!(catalog.links[&link()].mirror_name("orders"), "east.orders");
}

#[test]
fn what_older_members_do_not_know_is_not_switched_on_by_newer_ones() {
    let on = |key: &str| BTreeMap::from([(key.to_owned(), "TRUE".to_owned())]);
    let alter = |configs| Action::AlterLinkConfigs { link: link(), expected: BTreeMap::new(), configs };
    for (key, level) in [(Link::AUTO_CREATE_KEY, 4), (Link::ACL_SYNC_KEY, 5)] {
        assert_eq!(alter(on(key)).level(), level, "{key}");
        let refused = catalog_of(level - 1).may_propose(&alter(on(key))).expect_err("too early").to_string();
        assert_eq!(
            refused,
            "node 'n' runs a version of lockstep that doesn't know this yet: upgrade it first"
        );
        assert_eq!(catalog_of(level).may_propose(&alter(on(key))), Ok(()));
    }
    assert_eq!(alter(configs(false, &[("client.id", "x")])).level(), 1);
}
