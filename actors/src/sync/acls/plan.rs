//! What is to be done about the ACLs of a link, as a value (SPEC section 5, CT-7).

use std::collections::{BTreeMap, BTreeSet};

use catalog::acls::{ACL_NAME_BYTES_MAX, AclState};
use kafka::acls::{Acl, Permission};

use super::mirrors::Mirrors;
use super::settings::{AclSettings, Mode, WriteOnMirrors};

pub type Recorded = BTreeMap<Acl, AclState>;

/// What a round knows. Both lists are whole: of a read that failed there is no plan.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    pub at_source: &'a BTreeSet<Acl>,
    pub at_destination: &'a BTreeSet<Acl>,
    pub recorded: &'a Recorded,
    pub settings: &'a AclSettings,
    /// Lockstep's own principals at both ends.
    pub own: &'a BTreeSet<String>,
    /// What a link of the other direction wrote at the source: it comes from this destination.
    pub came_from_here: &'a BTreeSet<Acl>,
    pub mirrors: &'a Mirrors,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// To be recorded before anything is written.
    pub record: BTreeMap<Acl, Option<AclState>>,
    pub create: BTreeSet<Acl>,
    pub delete: BTreeSet<Acl>,
    /// What the source has and isn't written, or is at the destination and isn't deleted, and why.
    pub remarks: BTreeMap<Acl, String>,
}

/// What is to become of an ACL.
enum Wish {
    Wanted,
    /// Until the mirror stops.
    Withheld(String),
    /// The source has it; all the same nothing is done about it.
    Left(String),
    /// The source doesn't have it, or it isn't meant.
    Absent,
}

pub fn plan(facts: Facts<'_>) -> Plan {
    let Facts { at_source, at_destination, recorded, settings, .. } = facts;
    let mut plan = Plan::default();
    let known = at_source.iter().chain(recorded.keys());
    let by_others = at_destination.iter().filter(|_| settings.mode == Mode::Mirror);
    for acl in known.chain(by_others).collect::<BTreeSet<_>>() {
        let is_there = at_destination.contains(acl);
        match (facts.wish(acl), recorded.get(acl), is_there) {
            (Wish::Wanted, Some(AclState::Withheld), true) => plan.record(acl, None),
            (Wish::Wanted, _, true) => {}
            (Wish::Wanted, state, false) => {
                if state != Some(&AclState::Written) {
                    plan.record(acl, Some(AclState::Written));
                }
                plan.create.insert(acl.clone());
            }
            (Wish::Withheld(why), Some(AclState::Written), true) => plan.delete(facts, acl, &why),
            (Wish::Withheld(why), state, _) => {
                if state != Some(&AclState::Withheld) {
                    plan.record(acl, Some(AclState::Withheld));
                }
                let why = if is_there { format!("isn't Lockstep's, and stays; {why}") } else { why };
                plan.remarks.insert(acl.clone(), why);
            }
            (Wish::Left(why), state, _) => {
                if state == Some(&AclState::Withheld) {
                    plan.record(acl, None);
                }
                if !is_there {
                    plan.remarks.insert(acl.clone(), why);
                }
            }
            (Wish::Absent, Some(AclState::Withheld), _) | (Wish::Absent, Some(_), false) => {
                plan.record(acl, None);
            }
            // What the filters don't mean any more stays as it is.
            (Wish::Absent, _, true) if facts.is_meant(acl) => plan.delete(facts, acl, GONE),
            (Wish::Absent, ..) => {}
        }
    }
    plan
}

const GONE: &str = "the source doesn't have it";

impl Facts<'_> {
    fn is_meant(&self, acl: &Acl) -> bool {
        self.settings.filters.includes(acl)
            && !self.own.contains(&*acl.principal)
            && !self.came_from_here.contains(acl)
    }

    fn wish(&self, acl: &Acl) -> Wish {
        if !self.at_source.contains(acl) || !self.is_meant(acl) {
            return Wish::Absent;
        }
        let written = self.mirrors.written_by(acl);
        let withholds = self.settings.write_on_mirrors == WriteOnMirrors::AtStop;
        let names = [&acl.resource_name, &acl.principal, &acl.host];
        if names.into_iter().any(|name| name.len() > ACL_NAME_BYTES_MAX) {
            return Wish::Left(format!("has a name of more than {ACL_NAME_BYTES_MAX} bytes"));
        }
        if let Some(topic) = written.filter(|_| withholds) {
            return Wish::Withheld(format!(
                "lets others write to mirror topic '{topic}': waits for its promotion or failover"
            ));
        }
        match self.mirrors.freezes(acl) {
            Some(topic) => Wish::Left(format!(
                "is about mirror topic '{topic}', which has stopped: write it by hand if it is to hold there"
            )),
            None => Wish::Wanted,
        }
    }
}

impl Plan {
    fn record(&mut self, acl: &Acl, state: Option<AclState>) {
        self.record.insert(acl.clone(), state);
    }

    fn delete(&mut self, facts: Facts<'_>, acl: &Acl, why: &str) {
        if facts.mirrors.freezes(acl).is_some() {
            return;
        }
        let kept = match (facts.settings.mode, facts.mirrors.has_failed_over) {
            (Mode::Additive, _) => "acl.sync.mode is additive",
            (_, true) => "nothing is deleted while a mirror of the link was failed over and isn't restored",
            (Mode::Owned | Mode::Mirror, false) => {
                self.delete.insert(acl.clone());
                return;
            }
        };
        self.remarks.insert(acl.clone(), format!("{why}, and it stays: {kept}"));
    }

    /// Only what `is_ours` to do.
    pub fn retain(&mut self, is_ours: impl Fn(&Acl) -> bool) {
        self.record.retain(|acl, _| is_ours(acl));
        self.create.retain(|acl| is_ours(acl));
        self.delete.retain(|acl| is_ours(acl));
        self.remarks.retain(|acl, _| is_ours(acl));
    }

    /// What is deleted or forgotten because a list didn't have it.
    fn absent(&self) -> BTreeSet<Acl> {
        let forgotten = self.record.iter().filter(|(_, state)| state.is_none()).map(|(acl, _)| acl);
        forgotten.chain(&self.delete).cloned().collect()
    }

    /// Leaves out what the plan before didn't delete or forget, too: brokers tell what they know by now, and one
    /// may know less than the one that was asked before. Returns what the next plan is to be held against.
    pub fn confirm(&mut self, before: &BTreeSet<Acl>) -> BTreeSet<Acl> {
        let absent = self.absent();
        self.record.retain(|acl, state| state.is_some() || before.contains(acl));
        self.delete.retain(|acl| before.contains(acl));
        absent
    }

    /// Creations in the order in which they are safe: what denies first.
    pub fn creations(&self) -> Vec<Acl> {
        ordered(&self.create, Permission::Deny)
    }

    /// Deletions in the order in which they are safe: what denies last.
    pub fn deletions(&self) -> Vec<Acl> {
        ordered(&self.delete, Permission::Allow)
    }
}

fn ordered(acls: &BTreeSet<Acl>, first: Permission) -> Vec<Acl> {
    let (mut ordered, others): (Vec<Acl>, Vec<Acl>) =
        acls.iter().cloned().partition(|acl| acl.permission == first);
    ordered.extend(others);
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::acls::fixture::{acl, acls};
    use crate::sync::acls::settings;

    const READ: &str = "ALLOW User:a READ TOPIC LITERAL orders *";
    const WRITE: &str = "ALLOW User:a WRITE TOPIC LITERAL orders *";
    const WRITE_ALL: &str = "ALLOW User:a ALL TOPIC LITERAL * *";
    const DENY: &str = "DENY User:b WRITE TOPIC LITERAL orders 10.0.0.1";
    const GROUP: &str = "ALLOW User:a READ GROUP PREFIXED app- *";

    struct World {
        at_source: BTreeSet<Acl>,
        at_destination: BTreeSet<Acl>,
        recorded: Recorded,
        settings: AclSettings,
        came_from_here: BTreeSet<Acl>,
        mirrors: Mirrors,
    }

    fn world(configs: &[(&str, &str)]) -> World {
        let mut all = BTreeMap::from([
            (settings::ENABLE.to_owned(), "true".to_owned()),
            (settings::FILTERS.to_owned(), crate::sync::acls::filters::FORM.to_owned()),
        ]);
        all.extend(configs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        World {
            at_source: BTreeSet::new(),
            at_destination: BTreeSet::new(),
            recorded: Recorded::new(),
            settings: AclSettings::of(&all).expect("enabled"),
            came_from_here: BTreeSet::new(),
            mirrors: Mirrors::default(),
        }
    }

    impl World {
        fn at_source(mut self, of: &[&str]) -> Self {
            self.at_source = acls(of);
            self
        }

        fn at_destination(mut self, of: &[&str]) -> Self {
            self.at_destination = acls(of);
            self
        }

        fn ours(self, of: &[&str]) -> Self {
            self.recorded(of, AclState::Written)
        }

        fn recorded(mut self, of: &[&str], state: AclState) -> Self {
            self.recorded.extend(of.iter().map(|text| (acl(text), state)));
            self
        }

        fn mirrored(mut self, topic: &str) -> Self {
            self.mirrors.mirrored.insert(topic.into());
            self
        }

        fn stopped(mut self, topic: &str) -> Self {
            self.mirrors.stopped.insert(topic.into());
            self
        }

        fn failed_over(mut self) -> Self {
            self.mirrors.has_failed_over = true;
            self
        }

        fn plan(&self) -> Plan {
            let own = BTreeSet::from(["User:lockstep".to_owned()]);
            let Self { at_source, at_destination, recorded, settings, came_from_here, mirrors } = self;
            plan(Facts { at_source, at_destination, recorded, settings, own: &own, came_from_here, mirrors })
        }

        /// What is written, a line each.
        fn does(&self) -> Vec<String> {
            let Plan { record, create, delete, .. } = self.plan();
            let recorded = record.iter().map(|(acl, state)| match state {
                Some(state) => format!("{state:?} {acl}"),
                None => format!("forget {acl}"),
            });
            let created = create.iter().map(|acl| format!("create {acl}"));
            recorded.chain(created).chain(delete.iter().map(|acl| format!("delete {acl}"))).collect()
        }
    }

    fn line(what: &str, text: &str) -> String {
        format!("{what} {}", acl(text))
    }

    #[test]
    fn what_the_source_has_is_recorded_and_written() {
        let world = world(&[]).at_source(&[READ, DENY, GROUP]).at_destination(&[GROUP]);
        let mut expected: Vec<String> = acls(&[READ, DENY]).iter().map(|a| format!("Written {a}")).collect();
        expected.extend(acls(&[READ, DENY]).iter().map(|a| format!("create {a}")));
        assert_eq!(world.does(), expected);
        let creations = world.plan().creations();
        assert_eq!(creations, [acl(DENY), acl(READ)], "what denies comes first");
    }

    #[test]
    fn what_was_taken_away_by_hand_comes_again_and_what_was_there_before_never_becomes_ours() {
        assert_eq!(world(&[]).at_source(&[READ]).ours(&[READ]).does(), [line("create", READ)]);
        assert!(world(&[]).at_source(&[READ]).at_destination(&[READ]).does().is_empty());
    }

    #[test]
    fn owned_deletes_what_lockstep_wrote_and_nothing_else() {
        let world = world(&[]).at_destination(&[READ, GROUP]).ours(&[READ]);
        assert_eq!(world.does(), [line("delete", READ)]);
    }

    #[test]
    fn mirror_makes_what_is_meant_equal() {
        let world = world(&[("acl.sync.mode", "mirror")]).at_destination(&[READ, GROUP]).at_source(&[READ]);
        assert_eq!(world.does(), [line("delete", GROUP)]);
    }

    #[test]
    fn additive_deletes_nothing_and_says_so() {
        let world = world(&[("acl.sync.mode", "additive")]).at_destination(&[READ]).ours(&[READ]);
        assert!(world.does().is_empty());
        let told = &world.plan().remarks[&acl(READ)];
        assert_eq!(told, "the source doesn't have it, and it stays: acl.sync.mode is additive");
    }

    #[test]
    fn nothing_is_deleted_while_a_mirror_was_failed_over() {
        for mode in ["owned", "mirror"] {
            let world = world(&[("acl.sync.mode", mode)]).at_destination(&[READ]).ours(&[READ]).failed_over();
            assert!(world.does().is_empty());
            assert!(world.plan().remarks[&acl(READ)].contains("was failed over"));
        }
    }

    #[test]
    fn lockstep_never_touches_acls_of_its_own_principal() {
        let own = "ALLOW User:lockstep ALL CLUSTER LITERAL kafka-cluster *";
        assert!(world(&[]).at_source(&[own]).does().is_empty());
        let mirror = world(&[("acl.sync.mode", "mirror")]).at_destination(&[own]);
        assert!(mirror.does().is_empty());
        assert!(mirror.ours(&[own]).does().is_empty());
    }

    #[test]
    fn what_came_from_the_destination_doesnt_come_back_when_it_is_revoked_there() {
        for mode in ["owned", "mirror"] {
            let mut world = world(&[("acl.sync.mode", mode)]).at_source(&[READ]);
            world.came_from_here = acls(&[READ]);
            assert!(world.does().is_empty(), "revoked here, and not there yet");
            assert!(world.at_source(&[]).at_destination(&[READ]).does().is_empty(), "granted here");
        }
    }

    #[test]
    fn what_the_filters_dont_mean_stays() {
        let groups = r#"{"aclFilters":[{"resourceFilter":{"resourceType":"group"},"accessFilter":{}}]}"#;
        for mode in ["owned", "mirror"] {
            let world = world(&[("acl.filters", groups), ("acl.sync.mode", mode)]);
            let world = world.at_source(&[DENY]).at_destination(&[READ]).ours(&[READ]);
            assert!(world.does().is_empty(), "{mode}");
        }
    }

    #[test]
    fn what_lets_others_write_to_a_mirror_is_withheld_and_told() {
        for text in [WRITE, WRITE_ALL] {
            let world = world(&[]).at_source(&[text]).mirrored("orders");
            assert_eq!(world.does(), [line("Withheld", text)]);
            assert_eq!(
                world.plan().remarks[&acl(text)],
                "lets others write to mirror topic 'orders': waits for its promotion or failover"
            );
            let known = world.recorded(&[text], AclState::Withheld);
            assert!(known.does().is_empty());
            assert_eq!(known.plan().remarks.len(), 1);
            assert_eq!(known.at_source(&[]).does(), [line("forget", text)]);
        }
        let denied = world(&[]).at_source(&[DENY]).mirrored("orders");
        assert_eq!(denied.does().len(), 2, "what denies is written");
        let copied = world(&[("acl.sync.write.on.mirrors", "copy")]).at_source(&[WRITE]).mirrored("orders");
        assert_eq!(copied.does(), [line("Written", WRITE), line("create", WRITE)]);
    }

    #[test]
    fn what_was_written_before_the_topic_became_a_mirror_is_taken_back() {
        let world = world(&[]).at_source(&[WRITE]).at_destination(&[WRITE]).mirrored("orders");
        let by_hand = world.plan();
        assert!(by_hand.delete.is_empty());
        assert!(by_hand.remarks[&acl(WRITE)].starts_with("isn't Lockstep's, and stays"));
        let ours = world.recorded(&[WRITE], AclState::Written);
        assert_eq!(ours.does(), [line("delete", WRITE)]);
        assert_eq!(ours.at_destination(&[]).does(), [line("Withheld", WRITE)]);
    }

    #[test]
    fn nothing_is_written_about_a_mirror_that_has_stopped() {
        for mode in ["owned", "mirror"] {
            let world = || world(&[("acl.sync.mode", mode)]).stopped("orders");
            let created = world().at_source(&[READ, WRITE_ALL]);
            assert!(created.does().is_empty());
            assert!(created.plan().remarks[&acl(READ)].contains("which has stopped"));
            assert!(world().at_destination(&[READ, WRITE_ALL]).ours(&[READ, WRITE_ALL]).does().is_empty());
            let withheld = world().at_source(&[WRITE]).recorded(&[WRITE], AclState::Withheld);
            assert_eq!(withheld.does(), [line("forget", WRITE)]);
            // As long as the stop goes on it may still be needed.
            assert!(withheld.mirrored("orders").does().is_empty());
        }
    }

    #[test]
    fn what_is_absent_once_is_deleted_when_it_is_absent_again() {
        let world = world(&[]).at_source(&[DENY]).at_destination(&[READ]).ours(&[READ, GROUP]);
        let mut first = world.plan();
        let before = first.confirm(&BTreeSet::new());
        assert!(first.delete.is_empty());
        assert_eq!(first.record.keys().collect::<Vec<_>>(), [&acl(DENY)]);
        let mut second = world.plan();
        second.confirm(&before);
        assert_eq!(second.delete, acls(&[READ]));
        assert_eq!(second.record[&acl(GROUP)], None, "ours, and gone at both ends");
    }
}
