//! Rounds.

use super::*;

#[tokio::test(start_paused = true)]
async fn what_the_source_has_is_written_and_recorded_as_ours() {
    let mut world = world(1, &[]);
    world.source.set(&[READ, GROUP, DENY, WRITE]);
    let found = world.round().await;
    assert!(found.errors.is_empty(), "{:?}", found.errors);
    assert_eq!(world.destination.acls(), acls(&[READ, GROUP, DENY]));
    let mut expected: Vec<_> = [GROUP, READ, DENY].iter().map(|text| (acl(text), Written)).collect();
    expected.push((acl(WRITE), Withheld));
    expected.sort_by(|(a, _), (b, _)| a.cmp(b));
    assert_eq!(world.recorded(), expected);
    assert_eq!(world.applied.borrow().catalog.acls[&world.sync.link].as_of_ms, NOW_MS);
}

#[tokio::test(start_paused = true)]
async fn what_a_broker_refuses_isnt_ours_and_stays_when_somebody_else_writes_it() {
    let mut world = world(1, &[]);
    world.source.set(&[READ]);
    world.destination.fails(1, ApiKey::CreateAcls, Fault::Refuses(INVALID_REQUEST), 1);
    let found = world.round().await;
    assert!(found.errors.values().any(|error| error.message.contains("42")), "{:?}", found.errors);
    assert_eq!(world.recorded(), []);
    world.destination.set(&[READ]);
    for at_source in [&[READ][..], &[], &[], &[]] {
        world.source.set(at_source);
        world.round().await;
    }
    assert_eq!(world.destination.acls(), acls(&[READ]));
}

#[tokio::test(start_paused = true)]
async fn a_refused_one_isnt_tried_in_every_round() {
    let mut world = world(1, &[]);
    world.source.set(&[READ]);
    world.destination.fails(1, ApiKey::CreateAcls, Fault::Refuses(INVALID_REQUEST), 9);
    for _ in 0..5 {
        assert_eq!(world.round().await.errors.len(), 1);
    }
    assert_eq!(world.destination.was_asked(1, ApiKey::CreateAcls), 1);
    tokio::time::sleep(Duration::from_secs(61)).await;
    world.round().await;
    assert_eq!(world.destination.was_asked(1, ApiKey::CreateAcls), 2);
}

#[tokio::test(start_paused = true)]
async fn what_allows_waits_when_what_denies_was_refused() {
    let mut world = world(1, &[]);
    world.source.set(&[READ, GROUP, DENY]);
    world.destination.fails(1, ApiKey::CreateAcls, Fault::Refuses(INVALID_REQUEST), 1);
    let found = world.round().await;
    assert_eq!(world.destination.acls(), acls(&[GROUP]));
    assert!(found.remarks[&*acl(READ).to_string()].contains("DENY User:* READ"), "{:?}", found.remarks);
    assert_eq!(world.recorded(), [(acl(DENY), Withheld), (acl(GROUP), Written)], "a failover is to know it");
}

#[tokio::test(start_paused = true)]
async fn what_allows_waits_for_what_another_node_is_to_deny() {
    const EVERY_READ: &str = "ALLOW User:a READ TOPIC LITERAL * *";
    let mut world = world(1, &[]);
    world.change(|catalog| {
        let ours = fixture::link(&[("a", vec![fixture::owned_by(HERE, false)])]).mirrors;
        let link = Arc::make_mut(catalog.links.get_mut(&world.key.link).expect("a link"));
        let theirs = link.mirrors.get_mut(&world.key.topic).expect("a mirror");
        Arc::make_mut(theirs).partitions = vec![fixture::owned_by(NodeId(2), false)];
        link.mirrors.extend(ours);
    });
    world.source.set(&[EVERY_READ, GROUP, DENY]);
    world.round().await;
    assert_eq!(world.destination.acls(), acls(&[GROUP]));
    world.destination.set(&[GROUP, DENY]);
    world.round().await;
    assert_eq!(world.destination.acls(), acls(&[EVERY_READ, GROUP, DENY]));
}

#[tokio::test(start_paused = true)]
async fn what_denies_stays_as_long_as_what_comes_in_its_place_may_be_missing() {
    const WIDER: &str = "DENY User:* READ TOPIC LITERAL orders *";
    let mut world = world(1, &[]);
    world.source.set(&[DENY, GROUP]);
    world.round().await;
    world.source.set(&[WIDER]);
    world.destination.fails(1, ApiKey::CreateAcls, Fault::Refuses(INVALID_REQUEST), 1);
    for _ in 0..3 {
        world.round().await;
    }
    assert_eq!(world.destination.acls(), acls(&[DENY]), "what allowed is gone");
    tokio::time::sleep(Duration::from_secs(61)).await;
    world.round().await;
    assert_eq!(world.destination.acls(), acls(&[WIDER]));
}

#[tokio::test(start_paused = true)]
async fn a_write_without_an_answer_is_known_by_the_next_round() {
    let mut world = world(1, &[]);
    world.source.set(&[READ]);
    world.destination.fails(1, ApiKey::CreateAcls, Fault::ActsAndCloses, 1);
    assert!(!world.round().await.errors.is_empty());
    assert_eq!(world.recorded(), [(acl(READ), Intended)]);
    assert!(world.round().await.errors.is_empty());
    assert_eq!(world.recorded(), [(acl(READ), Written)]);
}

#[tokio::test(start_paused = true)]
async fn a_list_deletes_only_what_another_broker_doesnt_have_either() {
    let mut world = world(2, &[]);
    world.source.set(&[READ, GROUP]);
    world.round().await;
    world.source.doesnt_tell(1, &[READ]);
    for _ in 0..4 {
        world.round().await;
        assert_eq!(world.destination.acls(), acls(&[READ, GROUP]), "the second broker has it");
    }
    world.source.fails(2, ApiKey::DescribeAcls, Fault::Closes, 1);
    world.source.set(&[GROUP]);
    let found = world.round().await;
    assert!(found.remarks[""].contains("no second broker confirms it"), "{:?}", found.remarks);
    assert_eq!(world.destination.acls(), acls(&[READ, GROUP]));
    world.round().await;
    assert_eq!(world.destination.acls(), acls(&[GROUP]));
}

#[tokio::test(start_paused = true)]
async fn where_there_is_one_broker_a_second_round_confirms() {
    let mut world = world(1, &[]);
    world.source.set(&[READ, GROUP]);
    world.round().await;
    world.source.set(&[GROUP]);
    world.round().await;
    assert_eq!(world.destination.acls(), acls(&[READ, GROUP]));
    world.round().await;
    assert_eq!(world.destination.acls(), acls(&[GROUP]));
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_whole_and_wrong_deletes_nothing_and_is_an_error() {
    let mut world = world(1, &[]);
    let many: Vec<String> = (0..12).map(|i| format!("ALLOW User:a READ GROUP LITERAL g{i} *")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    world.source.set(&many);
    world.round().await;
    world.source.set(&[]);
    for _ in 0..3 {
        let errors = world.round().await.errors;
        assert_eq!(world.destination.acls().len(), 12);
        assert!(world.recorded().len() == 12);
        let told = errors.get("").map(|error| error.message.as_str()).unwrap_or_default();
        assert!(told.is_empty() || told.contains("no longer 12 of the link's 12 ACLs"), "{told}");
    }
    assert!(world.round().await.errors.contains_key(""));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_while_names_of_stopped_mirrors_are_lost() {
    let mut world = world(1, &[]);
    world.source.set(&[READ]);
    let record = AclRecord { stopped_unnamed: 2, ..AclRecord::default() };
    world.change(|catalog| drop(catalog.acls.insert(world.sync.link.clone(), Arc::new(record))));
    let found = world.round().await;
    assert!(found.errors[""].message.starts_with("2 deleted mirrors that had stopped"));
    assert!(world.destination.acls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn at_the_limit_what_is_forgotten_makes_room() {
    let world = world(1, &[]);
    let name = |i: usize| acl(&format!("ALLOW User:a READ GROUP LITERAL g{i:05} *"));
    let full = (0..ACLS_MAX).map(|i| (record::binding(&name(i)), Written)).collect();
    let full = AclRecord { acls: full, ..AclRecord::default() };
    world.change(|catalog| drop(catalog.acls.insert(world.sync.link.clone(), Arc::new(full))));
    let change = |i, expected, state| AclChange { acl: record::binding(&name(i)), expected, state };
    let added = (0..ACL_CHANGES_MAX).map(|i| change(ACLS_MAX + i, None, Some(Intended)));
    let forgotten = (0..ACL_CHANGES_MAX).map(|i| change(i, Some(Written), None));
    let changes = added.chain(forgotten).collect();
    record::record(&*world.catalog, &world.sync.link, changes).await.expect("there is room");
}

#[tokio::test(start_paused = true)]
async fn mode_mirror_spares_principals_of_the_destinations_other_links() {
    let mut world = world(1, &[(MODE, "mirror")]);
    let of_other = "ALLOW User:other READ TOPIC LITERAL x *";
    let of_reader = "ALLOW User:reader READ TOPIC LITERAL x *";
    let of_nobody = "ALLOW User:nobody READ TOPIC LITERAL x *";
    world.destination.set(&[of_other, of_reader, of_nobody]);
    world.change(|catalog| {
        let cluster = |name: &str| catalog::Cluster {
            name: name.into(),
            cluster_id: name.into(),
            configs: [("bootstrap.servers".to_owned(), "a:1".to_owned())].into(),
        };
        for name in ["west", "north"] {
            catalog.clusters.insert(name.into(), Arc::new(cluster(name)));
        }
        let configs = |principal: &str| {
            let servers = ("bootstrap.servers".to_owned(), "a:1".to_owned());
            [servers, (OWN_PRINCIPALS.to_owned(), principal.to_owned())].into()
        };
        let id = |id: &str| catalog::LinkId(id.into());
        let other = Link {
            id: id("other"),
            destination_cluster_id: "west".into(),
            configs: configs("User:other"),
            ..fixture::link(&[])
        };
        let reader = Link {
            id: id("reader"),
            destination: "north".into(),
            source_cluster_id: "west".into(),
            destination_cluster_id: "north".into(),
            configs: configs("User:reader"),
            ..fixture::link(&[])
        };
        for link in [other, reader] {
            catalog.links.insert(link.id.clone(), Arc::new(link));
        }
    });
    for _ in 0..2 {
        let errors = world.round().await.errors;
        assert!(errors.is_empty(), "{errors:?}");
    }
    assert_eq!(world.destination.acls(), acls(&[of_other, of_reader]));
    let applied = world.applied.borrow().clone();
    let link = &applied.catalog.links[&world.sync.link];
    let owned = principals_of_others(&world.sync.dial, &applied.catalog, link, Mode::Owned).await;
    assert_eq!(owned, Ok(BTreeSet::new()), "they aren't touched anyway");
}

#[tokio::test(start_paused = true)]
async fn the_record_is_as_old_as_what_is_kept_in_it() {
    let mut world = world(1, &[]);
    world.record(&[(READ, Written), (GROUP, Written)]);
    let long_ago = NOW_MS - 120_000;
    world.change(|catalog| {
        catalog.acls.values_mut().for_each(|record| Arc::make_mut(record).as_of_ms = long_ago);
    });
    world.destination.set(&[READ, GROUP]);
    world.source.set(&[GROUP]);
    let as_of_ms = |world: &World| world.applied.borrow().catalog.acls[&world.sync.link].as_of_ms;
    world.round().await;
    assert_eq!(as_of_ms(&world), long_ago, "one that may be revoked is in it");
    world.round().await;
    assert_eq!((as_of_ms(&world), world.destination.acls()), (NOW_MS, acls(&[GROUP])));
}
