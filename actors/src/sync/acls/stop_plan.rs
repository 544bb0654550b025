//! What a mirror's stop has to do about ACLs, as a value: what lets others write to its topic, for it alone; after a
//! promotion's last look at the source, all that names it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use catalog::acls::{ACL_NAME_BYTES_MAX, AclState};
use kafka::acls::{Acl, Permission};

use super::limits::{self, Missing};
use super::mirrors::{names, narrowed};
use super::plan::Recorded;
use super::settings::{AclSettings, WriteOnMirrors};

/// What a stop knows, but for the destination's list.
pub struct Facts<'a> {
    pub topic: &'a Arc<str>,
    /// As the source told it last, whole. None: it didn't, or wasn't asked, and what is recorded counts.
    pub at_source: Option<&'a BTreeSet<Acl>>,
    pub recorded: &'a Recorded,
    pub settings: &'a AclSettings,
    pub own: &'a BTreeSet<String>,
    pub came_from_here: &'a BTreeSet<Acl>,
}

impl Facts<'_> {
    fn is_the_sources(&self, acl: &Acl) -> bool {
        !self.own.contains(&*acl.principal) && !self.came_from_here.contains(acl)
    }

    fn is_meant(&self, acl: &Acl) -> bool {
        let is_bounded = [&acl.principal, &acl.host].iter().all(|name| name.len() <= ACL_NAME_BYTES_MAX);
        is_bounded && self.settings.filters.includes(acl) && self.is_the_sources(acl)
    }

    /// What is to be there for the topic when it has stopped.
    pub fn wanted(&self) -> BTreeSet<Acl> {
        let waits = self.settings.write_on_mirrors == WriteOnMirrors::AtStop;
        let of = |acl: &Acl| match narrowed(acl, self.topic).filter(|_| waits) {
            Some(narrowed) => Some(narrowed),
            None => names(acl, self.topic).then(|| acl.clone()),
        };
        match self.at_source {
            Some(all) => all.iter().filter(|acl| self.is_meant(acl)).filter_map(of).collect(),
            None => {
                let meant = self.recorded.iter().filter(|(acl, _)| self.is_meant(acl));
                let open = meant.filter_map(|(acl, state)| match state {
                    AclState::Withheld => of(acl),
                    // By a stop or a round before, and whether it is there isn't known.
                    AclState::Intended => names(acl, self.topic).then(|| acl.clone()),
                    AclState::Written => None,
                });
                open.collect()
            }
        }
    }

    /// What denies at the source, as far as that is known, and isn't among these.
    pub fn missing(&self, at_destination: &BTreeSet<Acl>) -> BTreeSet<Acl> {
        let counts = |acl: &&Acl| {
            acl.permission == Permission::Deny && self.is_the_sources(acl) && !at_destination.contains(*acl)
        };
        match self.at_source {
            Some(all) => all.iter().filter(counts).cloned().collect(),
            None => self.recorded.keys().filter(counts).cloned().collect(),
        }
    }

    /// What the source took back since the last round: nobody takes it back at the destination any more.
    pub fn revoked(&self, at_destination: &BTreeSet<Acl>) -> Vec<Acl> {
        let Some(at_source) = self.at_source else { return Vec::new() };
        let wanted = self.wanted();
        let ours = self.recorded.iter().filter(|(_, state)| **state == AclState::Written).map(|(acl, _)| acl);
        let gone = ours.filter(|acl| names(acl, self.topic) && self.is_meant(acl));
        let gone = gone.filter(|acl| !at_source.contains(*acl) && !wanted.contains(*acl));
        gone.filter(|acl| at_destination.contains(*acl)).cloned().collect()
    }

    /// What was withheld for the topic, and the source's last list lacks.
    pub fn withdrawn(&self) -> Vec<Acl> {
        let Some(at_source) = self.at_source else { return Vec::new() };
        let withheld = self.recorded.iter().filter(|(_, state)| **state == AclState::Withheld);
        let withheld = withheld.map(|(acl, _)| acl).filter(|acl| self.is_meant(acl));
        let gone = withheld.filter(|acl| narrowed(acl, self.topic).is_some() && !at_source.contains(*acl));
        gone.cloned().collect()
    }

    /// ALLOWs that are wanted and not there: which may be written, and what the others wait for.
    pub fn allows(&self, at_destination: &BTreeSet<Acl>) -> (BTreeSet<Acl>, BTreeMap<Acl, String>) {
        let missing = self.missing(at_destination);
        let mut allows = self.wanted();
        allows.retain(|acl| acl.permission == Permission::Allow && !at_destination.contains(acl));
        let (free, held) = missing.iter().collect::<Missing<'_>>().hold(&allows);
        (free, held.into_iter().map(|(acl, deny)| (acl, limits::waits_for(deny))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::acls::filters::FORM;
    use crate::sync::acls::fixture::{acl, acls};
    use crate::sync::acls::settings::{ENABLE, FILTERS, WRITE_ON_MIRRORS};

    const WRITE: &str = "ALLOW User:a WRITE TOPIC LITERAL team-a *";
    const TEAM: &str = "ALLOW User:b ALL TOPIC PREFIXED team- *";
    const TEAM_FOR_IT: &str = "ALLOW User:b ALL TOPIC LITERAL team-a *";
    const EVERY: &str = "ALLOW User:c WRITE TOPIC LITERAL * *";
    const EVERY_FOR_IT: &str = "ALLOW User:c WRITE TOPIC LITERAL team-a *";
    const OTHER: &str = "ALLOW User:a WRITE TOPIC LITERAL team-b *";
    const READ: &str = "ALLOW User:a READ TOPIC LITERAL team-a *";
    const DENY: &str = "DENY User:b WRITE TOPIC PREFIXED team- 10.0.0.1";

    struct World {
        at_source: Option<BTreeSet<Acl>>,
        recorded: Recorded,
        settings: AclSettings,
    }

    fn world(configs: &[(&str, &str)], recorded: &[(&str, AclState)]) -> World {
        let configs = [&[(ENABLE, "true"), (FILTERS, FORM)], configs].concat();
        let configs = configs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        World {
            at_source: None,
            recorded: recorded.iter().map(|(text, state)| (acl(text), *state)).collect(),
            settings: AclSettings::of(&configs).expect("enabled"),
        }
    }

    impl World {
        fn at_source(mut self, of: &[&str]) -> Self {
            self.at_source = Some(acls(of));
            self
        }

        fn with<T>(&self, own: &[&str], ask: impl Fn(&Facts<'_>) -> T) -> T {
            let Self { at_source, recorded, settings } = self;
            let own = own.iter().map(|name| (*name).to_owned()).collect();
            ask(&Facts {
                topic: &"team-a".into(),
                at_source: at_source.as_ref(),
                recorded,
                settings,
                own: &own,
                came_from_here: &BTreeSet::new(),
            })
        }

        fn wanted(&self) -> BTreeSet<Acl> {
            self.with(&[], |facts| facts.wanted())
        }
    }

    use AclState::{Intended, Withheld, Written};

    #[test]
    fn a_stop_writes_what_was_withheld_for_its_topic_alone_whoever_else_it_was_about() {
        let world = world(&[], &[(WRITE, Withheld), (TEAM, Withheld), (EVERY, Withheld), (OTHER, Withheld)]);
        assert_eq!(world.wanted(), acls(&[WRITE, TEAM_FOR_IT, EVERY_FOR_IT]));
    }

    #[test]
    fn what_was_intended_and_perhaps_not_written_is_written_by_the_next_try() {
        let world = world(&[], &[(WRITE, Intended), (TEAM, Intended), (READ, Written)]);
        assert_eq!(world.wanted(), acls(&[WRITE]));
    }

    #[test]
    fn a_promotion_writes_what_the_source_has_by_now_and_not_what_it_had() {
        let world = world(&[], &[(WRITE, Withheld)]).at_source(&[TEAM, READ, OTHER, DENY]);
        assert_eq!(world.wanted(), acls(&[TEAM_FOR_IT, READ]));
    }

    #[test]
    fn filters_and_own_principals_count_as_they_are_by_now() {
        let of_a = r#"{"aclFilters":[{"resourceFilter":{},"accessFilter":{"principal":"User:a"}}]}"#;
        let recorded = [(WRITE, Withheld), (TEAM, Withheld)];
        assert_eq!(world(&[(FILTERS, of_a)], &recorded).wanted(), acls(&[WRITE]));
        assert_eq!(world(&[], &recorded).with(&["User:a"], |facts| facts.wanted()), acls(&[TEAM_FOR_IT]));
        let copied = world(&[(WRITE_ON_MIRRORS, "copy")], &[]).at_source(&[WRITE, TEAM]);
        assert_eq!(copied.wanted(), acls(&[WRITE]), "the other was copied as it is");
    }

    #[test]
    fn nothing_is_granted_that_a_deny_of_the_source_takes_and_the_destination_lacks() {
        let recorded = [(WRITE, Withheld), (TEAM, Withheld), (DENY, Withheld)];
        let failed_over = world(&[], &recorded);
        let promoted = world(&[], &[]).at_source(&[WRITE, TEAM, DENY]);
        for world in [failed_over, promoted] {
            let (free, held) = world.with(&[], |facts| facts.allows(&BTreeSet::new()));
            assert_eq!(free, acls(&[WRITE]));
            assert!(held[&acl(TEAM_FOR_IT)].contains("DENY User:b WRITE"), "{held:?}");
            let (free, held) = world.with(&[], |facts| facts.allows(&acls(&[DENY, WRITE])));
            assert_eq!((free, held.len()), (acls(&[TEAM_FOR_IT]), 0));
        }
    }

    #[test]
    fn what_the_source_revoked_since_the_last_round_is_known() {
        let written = [(WRITE, Written), (READ, Written), (OTHER, Written), (TEAM_FOR_IT, Written)];
        let world = world(&[], &written).at_source(&[WRITE, TEAM]);
        let there = acls(&[WRITE, READ, OTHER, TEAM_FOR_IT]);
        assert_eq!(world.with(&[], |facts| facts.revoked(&there)), [acl(READ)]);
        let withheld = [(WRITE, Withheld), (TEAM, Withheld), (OTHER, Withheld)];
        let promoted = self::world(&[], &withheld).at_source(&[WRITE]);
        assert_eq!(promoted.with(&[], |facts| facts.withdrawn()), [acl(TEAM)]);
    }
}
