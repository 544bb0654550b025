//! What was withheld for a mirror is written when it stops, behind its fence and before it is STOPPED. Asks
//! nothing of the source: a failover can't.

use std::sync::Arc;

use catalog::acls::AclState;
use catalog::{Catalog, MirrorKey, Refusal};
use consensus::SubmitError;
use kafka::acls::Acl;
use kafka::connection::Gate;

use super::mirrors::Mirrors;
use super::settings::{AclSettings, WriteOnMirrors};
use super::{ACLS_A_REQUEST, Write, binding, changed, read, record, recorded};
use crate::catalog_port::CatalogPort;
use crate::plane::LinkPlane;

/// Whoever else records ACLs of the link meanwhile does so once in a round.
const TRIES_MAX: u32 = 5;

/// So many ACLs are named that are to be written by hand.
const NAMED_MAX: usize = 20;

/// What couldn't be written, in words. Can be done again.
pub async fn at_stop(
    plane: &Arc<LinkPlane>,
    catalog: &Arc<dyn CatalogPort>,
    key: &MirrorKey,
    gate: &Gate,
) -> Vec<String> {
    let mut left = Vec::new();
    for _ in 0..TRIES_MAX {
        match once(plane, &**catalog, key, gate, &mut left).await {
            Ok(()) => return left,
            Err(Again::Stale) => {}
            Err(Again::Not(why)) => return vec![by_hand(&**catalog, key, &why)],
        }
    }
    vec![by_hand(&**catalog, key, "what is recorded of them changes all the time")]
}

/// Nobody comes back to it once the mirror is STOPPED.
fn by_hand(catalog: &dyn CatalogPort, key: &MirrorKey, why: &str) -> String {
    let (wanted, _) = wanted(&catalog.applied().catalog, key);
    let mut named: Vec<String> = wanted.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    if wanted.len() > NAMED_MAX {
        named.push(format!("{} more", wanted.len() - NAMED_MAX));
    }
    format!("withheld ACLs may not be written ({why}); write by hand what is missing: {}", named.join(", "))
}

enum Again {
    Stale,
    Not(String),
}

async fn once(
    plane: &Arc<LinkPlane>,
    catalog: &dyn CatalogPort,
    key: &MirrorKey,
    gate: &Gate,
    left: &mut Vec<String>,
) -> Result<(), Again> {
    let (wanted, revision) = wanted(&catalog.applied().catalog, key);
    if wanted.is_empty() {
        return Ok(());
    }
    let at_destination = read(plane.destination()).await;
    let (found, connection) =
        at_destination.map_err(|error| Again::Not(format!("the destination: {error}")))?;
    let missing: Vec<Acl> = wanted.into_iter().filter(|acl| !found.acls.contains(acl)).collect();
    let changes = missing.iter().map(|acl| (binding(acl), Some(AclState::Written))).collect();
    match record(catalog, &key.link, changes, revision).await {
        Ok(()) => {}
        Err(SubmitError::Refused(Refusal::Stale(_))) => return Err(Again::Stale),
        Err(error) => return Err(Again::Not(error.to_string())),
    }
    for some in missing.chunks(ACLS_A_REQUEST) {
        let outcomes = kafka::acls::create(&connection, some, gate.clone()).await;
        let outcomes = outcomes.map_err(|error| Again::Not(format!("the destination: {error}")))?;
        let refused = changed(outcomes, Write::Create).into_iter();
        left.extend(refused.map(|(acl, error)| format!("{acl}, withheld until now, isn't written: {error}")));
    }
    Ok(())
}

/// What is to be there for the mirror when it has stopped, of what was withheld; also what a stop before this one
/// recorded and may not have written.
fn wanted(catalog: &Catalog, key: &MirrorKey) -> (Vec<Acl>, u64) {
    let (recorded, revision) = recorded(catalog.acls.get(&key.link).map(|record| &**record));
    let Some(link) = catalog.links.get(&key.link) else { return (Vec::new(), revision) };
    let settings = AclSettings::of(&link.configs);
    if settings.is_none_or(|settings| settings.write_on_mirrors == WriteOnMirrors::Copy) {
        return (Vec::new(), revision);
    }
    let mirrors = Mirrors::of(catalog, link);
    let applied = recorded.iter().filter_map(|(acl, state)| {
        let applied = mirrors.applied_at_stop(acl, &key.topic)?;
        (*state == AclState::Withheld || applied == *acl).then_some(applied)
    });
    let mut wanted: Vec<Acl> = applied.collect();
    wanted.sort();
    wanted.dedup();
    (wanted, revision)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use catalog::acls::AclRecord;

    use super::*;
    use crate::fixture;
    use crate::sync::acls::fixture::acl;
    use crate::sync::acls::settings::{ENABLE, WRITE_ON_MIRRORS};

    const WRITE: &str = "ALLOW User:a WRITE TOPIC LITERAL team-a *";
    const TEAM: &str = "ALLOW User:b ALL TOPIC PREFIXED team- *";
    const OTHER: &str = "ALLOW User:a WRITE TOPIC LITERAL team-b *";

    fn catalog(configs: &[(&str, &str)], withheld: &[&str], written: &[&str]) -> (Catalog, MirrorKey) {
        let mut link = fixture::link(&[("team-a", Vec::new()), ("team-b", Vec::new())]);
        link.configs = configs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        let of =
            |texts: &[&str], state| texts.iter().map(|text| (binding(&acl(text)), state)).collect::<Vec<_>>();
        let all = [of(withheld, AclState::Withheld), of(written, AclState::Written)].concat();
        let acls: BTreeMap<_, _> = all.into_iter().collect();
        let mut catalog = Catalog::default();
        let key = link.key(&"team-a".into());
        catalog.acls.insert(link.id.clone(), Arc::new(AclRecord { revision: 7, acls }));
        catalog.links.insert(link.id.clone(), Arc::new(link));
        (catalog, key)
    }

    #[test]
    fn a_stop_writes_what_was_withheld_of_its_topic_and_for_no_other() {
        let (catalog, key) = catalog(&[(ENABLE, "true")], &[WRITE, TEAM, OTHER], &[]);
        let narrowed = acl("ALLOW User:b ALL TOPIC LITERAL team-a *");
        let mut expected = vec![acl(WRITE), narrowed];
        expected.sort();
        assert_eq!(wanted(&catalog, &key), (expected, 7));
    }

    #[test]
    fn what_was_recorded_and_perhaps_not_written_is_written_by_the_next_stop() {
        let (catalog, key) = catalog(&[(ENABLE, "true")], &[], &[WRITE, TEAM]);
        assert_eq!(wanted(&catalog, &key).0, [acl(WRITE)]);
    }

    #[test]
    fn nothing_is_written_where_acls_arent_synced_or_nothing_is_withheld() {
        for configs in [&[][..], &[(ENABLE, "true"), (WRITE_ON_MIRRORS, "copy")]] {
            let (catalog, key) = catalog(configs, &[WRITE], &[]);
            assert_eq!(wanted(&catalog, &key).0, []);
        }
    }
}
