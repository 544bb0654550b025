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
    of_others: BTreeSet<Acl>,
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
        of_others: BTreeSet::new(),
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
        let Self { at_source, at_destination, recorded, settings, came_from_here, of_others, mirrors } = self;
        let own = &own;
        plan(Facts { at_source, at_destination, recorded, settings, own, came_from_here, of_others, mirrors })
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
fn what_the_source_has_is_written_and_what_denies_comes_first() {
    let world = world(&[]).at_source(&[READ, DENY, GROUP]).at_destination(&[GROUP]);
    assert_eq!(world.does(), [line("create", READ), line("create", DENY)]);
    let plan = world.plan();
    assert_eq!(plan.of(Permission::Deny), acls(&[DENY]));
    assert_eq!(plan.of(Permission::Allow), acls(&[READ]));
}

#[test]
fn what_allows_waits_for_what_denies_whatever_the_reason_why_that_isnt_there() {
    const LIMIT: &str = "DENY User:* READ TOPIC PREFIXED ord *";
    let groups = r#"{"aclFilters":[{"resourceFilter":{},"accessFilter":{"permissionType":"ALLOW"}}]}"#;
    let waits = |world: World, written: &[&str]| {
        let (plan, written) = (world.plan(), acls(written));
        let held = plan.held(&written).into_iter().map(|(acl, deny)| (acl, deny.clone()));
        held.collect::<Vec<_>>()
    };
    let expected = [(acl(READ), acl(LIMIT))];
    let both = || world(&[]).at_source(&[READ, GROUP, LIMIT]);
    assert_eq!(waits(both(), &[]), expected, "refused, not sent, or another node's part");
    assert_eq!(waits(both(), &[LIMIT]), [], "written just now");
    assert_eq!(waits(both().at_destination(&[LIMIT]), &[]), []);
    assert_eq!(waits(both().stopped("ord-1"), &[]), expected, "frozen");
    let unmeant = world(&[("acl.filters", groups)]).at_source(&[READ, GROUP, LIMIT]);
    assert_eq!(waits(unmeant, &[]), expected, "not meant");
    let mut from_here = both();
    from_here.came_from_here = acls(&[LIMIT]);
    assert_eq!(waits(from_here, &[]), [], "revoked here");
    let own = world(&[])
        .at_source(&["ALLOW User:* READ TOPIC LITERAL x *", "DENY User:lockstep READ TOPIC LITERAL x *"]);
    assert_eq!(waits(own, &[]), [], "Lockstep's rights at the source");
}

#[test]
fn what_denies_and_isnt_written_is_recorded_because_a_failover_cant_ask_the_source() {
    const FROZEN: &str = "DENY User:a WRITE TOPIC PREFIXED o *";
    let frozen = world(&[]).at_source(&[FROZEN]).stopped("old");
    assert_eq!(frozen.does(), [line("Withheld", FROZEN)]);
    assert!(frozen.recorded(&[FROZEN], AclState::Withheld).does().is_empty());
    let allows = r#"{"aclFilters":[{"resourceFilter":{},"accessFilter":{"permissionType":"ALLOW"}}]}"#;
    let unmeant = || world(&[("acl.filters", allows)]).at_source(&[WRITE, FROZEN, DENY]).mirrored("orders");
    assert_eq!(
        unmeant().does(),
        [line("Withheld", WRITE), line("Withheld", FROZEN)],
        "it limits what is withheld"
    );
    assert!(unmeant().recorded(&[FROZEN, WRITE], AclState::Withheld).does().is_empty());
}

#[test]
fn what_was_only_intended_is_written_when_it_is_found_and_never_deleted_as_ours() {
    let intended = |world: World| world.recorded(&[READ], AclState::Intended);
    assert_eq!(intended(world(&[]).at_source(&[READ])).does(), [line("create", READ)]);
    assert_eq!(
        intended(world(&[]).at_source(&[READ]).at_destination(&[READ])).does(),
        [line("Written", READ)]
    );
    let revoked = intended(world(&[]).at_destination(&[READ]));
    assert!(revoked.does().is_empty());
    assert!(revoked.plan().remarks[&acl(READ)].contains("delete it by hand"));
    assert_eq!(intended(world(&[])).does(), [line("forget", READ)]);
    let withheld = world(&[]).at_source(&[WRITE]).at_destination(&[WRITE]).mirrored("orders");
    let withheld = withheld.recorded(&[WRITE], AclState::Intended);
    assert_eq!(withheld.does(), [line("Withheld", WRITE)]);
}

#[test]
fn what_was_intended_for_a_topic_that_stopped_is_forgotten() {
    let intended = world(&[]).at_source(&[READ]).recorded(&[READ], AclState::Intended).stopped("orders");
    assert_eq!(intended.does(), [line("forget", READ)]);
}

#[test]
fn what_names_a_mirror_is_its_stops_while_that_goes_on() {
    for state in [AclState::Intended, AclState::Written, AclState::Withheld] {
        for (at_source, at_destination) in
            [(&[WRITE][..], &[WRITE][..]), (&[], &[WRITE]), (&[WRITE], &[]), (&[], &[])]
        {
            let world = world(&[]).mirrored("orders").stopped("orders").recorded(&[WRITE], state);
            let plan = world.at_source(at_source).at_destination(at_destination).plan();
            let (does, told) =
                (plan.record.len() + plan.delete.len(), plan.errors.len() + plan.remarks.len());
            assert_eq!((does, told), (0, 0), "{state:?} {at_source:?} {at_destination:?}");
        }
    }
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
fn mirror_makes_what_is_meant_equal_but_for_what_other_links_wrote() {
    let mut world = world(&[("acl.sync.mode", "mirror")]).at_destination(&[READ, GROUP]).at_source(&[READ]);
    assert_eq!(world.does(), [line("delete", GROUP)]);
    world.of_others = acls(&[GROUP]);
    assert!(world.does().is_empty());
}

#[test]
fn more_than_a_share_of_what_the_link_has_never_goes_at_once() {
    let names: Vec<String> = (0..30).map(|i| format!("ALLOW User:a READ TOPIC LITERAL t{i} *")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let has = |gone: usize, of: usize| {
        let world = world(&[]).at_destination(&names[..of]).ours(&names[..of]).at_source(&names[gone..of]);
        world.plan()
    };
    for (gone, of, percent, goes) in [
        (9, 9, 50, true),
        (10, 10, 50, false),
        (10, 10, 100, true),
        (10, 20, 50, true),
        (11, 20, 50, false),
        (11, 30, 50, true),
        (16, 30, 50, false),
        (10, 30, 10, false),
    ] {
        let mut plan = has(gone, of);
        let told = plan.keep_too_many(percent);
        let what = format!("{gone} of {of}, {percent} percent");
        assert_eq!((plan.delete.len(), told.is_none()), (if goes { gone } else { 0 }, goes), "{what}");
        if let Some(told) = told {
            assert!(
                told.contains(&format!("{gone} of the link's {of} ACLs"))
                    && told.contains("raise acl.sync.delete")
            );
        }
    }
    // Of what was withheld, as much.
    let mut withheld = world(&[]).recorded(&names[..12], AclState::Withheld).plan();
    assert!(withheld.record.len() == 12 && withheld.keep_too_many(50).is_some());
    assert!(withheld.record.is_empty());
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
    assert_eq!(denied.does(), [line("create", DENY)], "what denies is written");
    let copied = world(&[("acl.sync.write.on.mirrors", "copy")]).at_source(&[WRITE]).mirrored("orders");
    assert_eq!(copied.does(), [line("create", WRITE)]);
}

#[test]
fn what_was_written_before_the_topic_became_a_mirror_is_taken_back() {
    let world = world(&[]).at_source(&[WRITE]).at_destination(&[WRITE]).mirrored("orders");
    let by_hand = world.plan();
    assert!(by_hand.delete.is_empty());
    assert!(by_hand.remarks[&acl(WRITE)].starts_with("isn't known as Lockstep's, and stays"));
    let ours = world.recorded(&[WRITE], AclState::Written);
    assert_eq!(ours.does(), [line("delete", WRITE)]);
    assert_eq!(ours.at_destination(&[]).does(), [line("Withheld", WRITE)]);
}

#[test]
fn nothing_is_written_about_a_mirror_that_has_stopped_and_what_stays_is_told() {
    for mode in ["owned", "mirror"] {
        let world = || world(&[("acl.sync.mode", mode)]).stopped("orders");
        let created = world().at_source(&[READ, WRITE_ALL]);
        assert!(created.does().is_empty());
        assert!(created.plan().remarks[&acl(READ)].contains("which has stopped"));
        let revoked = world().at_destination(&[READ, WRITE_ALL]).ours(&[READ, WRITE_ALL]);
        assert!(revoked.does().is_empty());
        for text in [READ, WRITE_ALL] {
            assert!(
                revoked.plan().remarks[&acl(text)].contains("it stays: it is about mirror topic 'orders'")
            );
        }
        assert!(revoked.plan().errors.is_empty());
        let withheld = world().at_source(&[WRITE]).recorded(&[WRITE], AclState::Withheld);
        assert_eq!(withheld.does(), [line("forget", WRITE)]);
        // As long as the stop goes on it may still be needed.
        assert!(withheld.mirrored("orders").does().is_empty());
    }
}

#[test]
fn a_deletion_that_is_held_back_and_leaves_a_mirror_open_is_an_error() {
    let open = || world(&[]).at_destination(&[WRITE_ALL]).ours(&[WRITE_ALL]).mirrored("payments");
    let revoked = || open().stopped("orders");
    let withheld = || open().stopped("orders").at_source(&[WRITE_ALL]);
    for world in [revoked(), withheld(), open().failed_over()] {
        assert!(world.does().is_empty());
        let error = &world.plan().errors[&acl(WRITE_ALL)];
        assert!(
            error.starts_with("others may write to mirror topic 'payments' by it: delete it by hand"),
            "{error}"
        );
    }
    let additive = world(&[("acl.sync.mode", "additive")]).at_destination(&[WRITE_ALL]).ours(&[WRITE_ALL]);
    assert!(additive.mirrored("payments").plan().errors.is_empty(), "somebody's choice");
}

#[test]
fn what_one_list_lacks_is_deleted_when_another_lacks_it_too() {
    let world = world(&[]).at_source(&[DENY]).at_destination(&[READ]).ours(&[READ, GROUP]);
    let mut first = world.plan();
    let before = first.absent();
    first.confirm(&BTreeSet::new());
    assert!(first.delete.is_empty() && first.record.is_empty() && first.gone.is_empty());
    assert_eq!(first.create, acls(&[DENY]), "what is there needs nobody who confirms it");
    let mut second = world.plan();
    second.confirm(&before);
    assert_eq!(second.delete, acls(&[READ]));
    assert_eq!(second.record[&acl(GROUP)], None, "ours, and gone at both ends");
}
