//! Authorities: made, shown, and removed only when nobody needs them.

use catalog::command::NodeDescription;
use catalog::fleet::Authority;
use catalog::{Action, Catalog, Command, FleetId, NodeId};
use peers::authority::{fingerprint, found};
use peers::identity::{Identity, NodeKey};
use peers::tls::{Material, Tls};
use serde_json::{Value, json};

use super::Node;
use crate::api::authorities::{may_remove, rows_from};
use crate::peering::{now_ms, trust};
use crate::status::Seen;
use crate::status::seen::SeenTrust;

const AUTHORITIES: &str = "/lockstep/v1/authorities";
const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);

fn fleet() -> FleetId {
    FleetId("aB_-xyzXYZ0123456789ab".into())
}

fn authority() -> Authority {
    found(&fleet(), now_ms()).expect("an authority")
}

/// A fleet of one and two, with these authorities.
fn catalog(authorities: &[Authority]) -> Catalog {
    let mut catalog = Catalog::default();
    let mut apply = |action| {
        catalog.apply(Command { at_ms: 1, action }).expect("applied");
    };
    let description = |name: &str| NodeDescription {
        name: name.into(),
        address: None,
        level: catalog::fleet::LEVEL,
        version: "1".into(),
    };
    apply(Action::RecordStart { node: ONE, description: description("one") });
    apply(Action::FoundFleet { fleet: fleet(), authority: authorities[0].clone() });
    apply(Action::AdmitNode { node: TWO, description: description("two"), token: None });
    authorities[1..].iter().for_each(|held| apply(Action::AddAuthority { authority: held.clone() }));
    catalog
}

fn says(signed_by: &Authority) -> SeenTrust {
    let id = fingerprint(&signed_by.certificate);
    SeenTrust { own: false, signed_by: Some(id.clone()), authorities: vec![id] }
}

fn refused(catalog: &Catalog, seen: &Seen, authority: &Authority) -> Option<String> {
    may_remove(catalog, seen, &authority.certificate, 1).err().map(|error| error.message)
}

#[tokio::test]
async fn an_authority_is_made_shown_and_removed_and_its_key_never_leaves() {
    let node = Node::start().await;
    let early = node.post(AUTHORITIES, Value::Null).await;
    assert_eq!(early.error().2, "this fleet isn't founded yet; try again in a moment");
    let (first, id) = (authority(), node.api.consensus.node_id());
    let old = fingerprint(&first.certificate);
    node.api
        .consensus
        .submit(Action::FoundFleet { fleet: fleet(), authority: first })
        .await
        .expect("founded");
    let directory = tempfile::tempdir().expect("a directory");
    let renewed = |all_trust| {
        let fleet = node.catalog().fleet;
        trust::of_fleet(directory.path(), &fleet, id, all_trust).expect("renewed").expect("a certificate")
    };
    let tls = Tls::new(renewed(false)).expect("usable");
    assert!(node.api.fleet.tls.set(tls.clone()).is_ok());

    let only = node.delete(&format!("{AUTHORITIES}/{old}")).await;
    let message = "this authority signs the fleet's certificates: make a new one first, with 'lockstep node \
                   authority rotate'";
    assert_eq!(only.error(), (409, 409, message));
    let made = node.post(AUTHORITIES, Value::Null).await;
    let new = made.body["authority_id"].as_str().expect("an id").to_owned();
    assert_eq!((made.status, &made.body["signs"]), (201, &json!(true)), "{made:?}");
    let fields: Vec<&String> = made.body.as_object().expect("an object").keys().collect();
    let shown =
        ["authority_id", "held_by", "kind", "metadata", "not_after", "not_before", "not_known_of", "signs"];
    assert_eq!(fields, shown);
    let again = node.post(AUTHORITIES, Value::Null).await;
    assert!(again.error().2.contains("lockstep node authority remove ID"), "{again:?}");

    let used = node.delete(&format!("{AUTHORITIES}/{old}")).await;
    assert!(used.error().2.contains("still in use: node 'node-1' has a certificate of it"), "{used:?}");
    tls.replace(renewed(false)).expect("replaced");
    assert_eq!(tls.trust().signed_by.as_ref(), Some(&old), "until all trust the new one");
    tls.replace(renewed(true)).expect("replaced");
    tls.replace(renewed(false)).expect("replaced");
    assert_eq!(tls.trust().signed_by.as_ref(), Some(&new), "and never back");
    let rows = node.get(AUTHORITIES).await.body["data"].clone();
    let held_by = |id: &str| {
        let row = rows.as_array().expect("rows").iter().find(|row| row["authority_id"] == *id);
        row.expect("a row")["held_by"].clone()
    };
    assert_eq!((held_by(&old), held_by(&new)), (json!([]), json!(["node-1"])));

    assert_eq!(node.delete(&format!("{AUTHORITIES}/{new}")).await.error(), (409, 409, message));
    let unknown = node.delete(&format!("{AUTHORITIES}/0f")).await;
    assert_eq!(unknown.error().0, 404, "{unknown:?}");
    assert_eq!(node.delete(&format!("{AUTHORITIES}/{}", old.to_uppercase())).await.status, 200);
    assert_eq!(node.get(AUTHORITIES).await.body["data"].as_array().expect("rows").len(), 1);
}

#[tokio::test]
async fn where_nodes_have_certificates_of_their_own_the_file_is_named() {
    let node = Node::start().await;
    let directory = tempfile::tempdir().expect("a directory");
    let key = NodeKey::open_or_create(directory.path()).expect("a key");
    let held = authority();
    let signing = std::slice::from_ref(&held);
    let certificate =
        peers::authority::sign(signing, &fleet(), ONE, key.public(), now_ms()).expect("a certificate");
    let identity = Identity::of(key, certificate.to_vec().into(), vec![held.certificate.to_vec().into()]);
    let material = Material { fleet: None, ..Material::of_fleet(&identity.expect("an identity")) };
    assert!(node.api.fleet.tls.set(Tls::new(material).expect("usable")).is_ok());
    let refused = node.post(AUTHORITIES, Value::Null).await;
    assert!(refused.error().2.ends_with("in the files that --peer-authority names"), "{refused:?}");
}

#[test]
fn an_authority_is_kept_while_a_member_has_or_may_have_a_certificate_of_it() {
    let (old, new) = (authority(), authority());
    let catalog = catalog(&[old.clone(), new.clone()]);
    let mut seen = Seen::default();
    seen.trust.insert(ONE, says(&new));
    let message = refused(&catalog, &seen, &old).expect("two may be of an older version");
    assert!(message.contains("node 'two' doesn't say whose certificate it has"), "{message}");
    assert_eq!(rows_from(&catalog, &seen)[0].not_known_of, ["two"]);
    seen.silent.insert(TWO, "no route".into());
    let message = refused(&catalog, &seen, &old).expect("two is silent");
    assert!(message.contains("node 'two' doesn't answer (no route)"), "{message}");
    assert!(message.contains("lockstep node remove NAME --lost"), "{message}");
    seen.trust.insert(TWO, says(&old));
    let message = refused(&catalog, &seen, &old).expect("two holds one");
    assert!(
        message.contains("node 'two' has a certificate of it") && !message.contains("'one'"),
        "{message}"
    );
    seen.trust.insert(TWO, says(&new));
    assert_eq!(refused(&catalog, &seen, &old), None);
    assert!(refused(&catalog, &seen, &new).expect("it signs").contains("authority rotate"));
    let own = SeenTrust { own: true, ..says(&old) };
    seen.trust.insert(TWO, own);
    assert_eq!(refused(&catalog, &seen, &old), None, "the fleet's don't matter to it");
}
