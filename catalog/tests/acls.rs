//! What is remembered of a link's ACLs, a sentence a test.

use catalog::acls::{ACL_CHANGES_MAX, ACL_NAME_BYTES_MAX, ACLS_MAX, AclBinding, AclChange, AclState};
use catalog::command::NewLink;
use catalog::*;

fn link() -> LinkId {
    LinkId("link-1".into())
}

fn acl(name: &str) -> AclBinding {
    AclBinding {
        resource_type: 2,
        pattern_type: 3,
        resource_name: name.into(),
        principal: "User:app".into(),
        host: "*".into(),
        operation: 3,
        permission: 3,
    }
}

fn with_a_link() -> Catalog {
    let mut catalog = Catalog::default();
    let cluster = |name: &str| Action::CreateCluster {
        name: name.into(),
        cluster_id: format!("id-{name}").into(),
        configs: Default::default(),
    };
    let link = Action::CreateLink(NewLink {
        id: link(),
        name: "east-west".into(),
        destination: "west".into(),
        source: Some("east".into()),
        source_cluster_id: "id-east".into(),
        configs: Default::default(),
    });
    for action in [cluster("east"), cluster("west"), link] {
        catalog.apply(Command { at_ms: 1, action }).expect("taken");
    }
    catalog
}

fn record(
    catalog: &mut Catalog,
    expected_revision: u64,
    changes: Vec<AclChange>,
) -> Result<Outcome, Refusal> {
    catalog
        .apply(Command { at_ms: 2, action: Action::RecordAcls { link: link(), expected_revision, changes } })
}

#[test]
fn what_was_written_is_remembered_until_it_is_forgotten_or_its_link_is_gone() {
    let mut catalog = with_a_link();
    let (a, b) = (acl("a"), acl("b"));
    let changes = vec![(a.clone(), Some(AclState::Written)), (b.clone(), Some(AclState::Withheld))];
    assert_eq!(record(&mut catalog, 0, changes.clone()), Ok(Outcome::Done));
    assert_eq!(record(&mut catalog, 1, changes), Ok(Outcome::Unchanged));
    let recorded = &catalog.acls[&link()];
    assert_eq!(recorded.written().collect::<Vec<_>>(), [&a]);
    assert_eq!((recorded.withheld().collect::<Vec<_>>(), recorded.revision), (vec![&b], 1));
    assert_eq!(codec::decode_catalog(&codec::encode_catalog(&catalog)).expect("readable"), catalog);
    assert_eq!(record(&mut catalog, 1, vec![(a, None)]), Ok(Outcome::Done));
    assert_eq!(catalog.acls[&link()].acls.len(), 1);
    catalog.apply(Command { at_ms: 3, action: Action::DeleteLink { link: link() } }).expect("no mirrors");
    assert!(catalog.acls.is_empty());
    assert!(matches!(record(&mut catalog, 2, Vec::new()), Err(Refusal::NotFound { .. })));
}

#[test]
fn whoever_decided_on_an_older_record_is_refused() {
    let mut catalog = with_a_link();
    record(&mut catalog, 0, vec![(acl("a"), Some(AclState::Written))]).expect("taken");
    let before = catalog.clone();
    for revision in [0, 2] {
        let refused = record(&mut catalog, revision, vec![(acl("a"), None)]);
        assert!(matches!(refused, Err(Refusal::Stale(_))), "{refused:?}");
    }
    assert_eq!(catalog, before);
}

#[test]
fn a_record_is_bounded_in_all_directions() {
    let mut catalog = with_a_link();
    let written = |range: std::ops::Range<usize>| {
        range.map(|i| (acl(&format!("{i}")), Some(AclState::Written))).collect::<Vec<_>>()
    };
    let refused = |outcome| matches!(outcome, Err(Refusal::Invalid { .. }));
    assert!(refused(record(&mut catalog, 0, written(0..ACL_CHANGES_MAX + 1))));
    let long = acl(&"x".repeat(ACL_NAME_BYTES_MAX + 1));
    assert!(refused(record(&mut catalog, 0, vec![(long, Some(AclState::Written))])));
    for (revision, from) in (0..ACLS_MAX).step_by(ACL_CHANGES_MAX).enumerate() {
        let changes = written(from..from + ACL_CHANGES_MAX);
        assert_eq!(record(&mut catalog, revision as u64, changes), Ok(Outcome::Done));
    }
    let full = catalog.acls[&link()].revision;
    assert!(refused(record(&mut catalog, full, written(ACLS_MAX..ACLS_MAX + 1))));
    assert_eq!(record(&mut catalog, full, vec![(acl("0"), None)]), Ok(Outcome::Done));
}
