//! What is to be done about the ACLs of a link, as a value (SPEC section 5, CT-7).

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use catalog::acls::{ACL_NAME_BYTES_MAX, AclState};
use kafka::acls::{Acl, Permission};

use super::limits::Missing;
use super::mirrors::Mirrors;
use super::settings::{self, AclSettings, Mode, WriteOnMirrors};

pub type Recorded = BTreeMap<Acl, AclState>;

/// Of fewer, any share may go at once.
const GONE_FREE_MAX: usize = 9;

/// What a round knows. Both lists are whole: of a read that failed there is no plan.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    pub at_source: &'a BTreeSet<Acl>,
    pub at_destination: &'a BTreeSet<Acl>,
    pub recorded: &'a Recorded,
    pub settings: &'a AclSettings,
    /// Lockstep's own principals at both ends, and those of all links of the destination.
    pub own: &'a BTreeSet<String>,
    /// What a link of the other direction wrote at the source: it comes from this destination.
    pub came_from_here: &'a BTreeSet<Acl>,
    /// What other links wrote at the destination.
    pub of_others: &'a BTreeSet<Acl>,
    pub mirrors: &'a Mirrors,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// To be recorded; what is created is recorded as intended, and again when it is written.
    pub record: BTreeMap<Acl, Option<AclState>>,
    pub create: BTreeSet<Acl>,
    pub delete: BTreeSet<Acl>,
    /// Of what is deleted or forgotten: what the source's list lacks.
    pub gone: BTreeSet<Acl>,
    /// ACLs that the link has, of which those are a part.
    pub has: usize,
    /// What denies at the source and isn't at the destination, whoever is to write it.
    pub missing: BTreeSet<Acl>,
    /// What the source has and isn't written, or is at the destination and isn't deleted, and why.
    pub remarks: BTreeMap<Acl, String>,
    /// What a person must see to.
    pub errors: BTreeMap<Acl, String>,
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
    let Facts { at_source, at_destination, recorded, .. } = facts;
    let (mut plan, missing) = (Plan::default(), facts.missing());
    let limits = facts.limits_of_withheld(&missing);
    let known = at_source.iter().chain(recorded.keys());
    let by_others = at_destination.iter().filter(|acl| facts.is_mirrored_away(acl));
    // What names a mirror whose stop goes on is that stop's.
    let all = known.chain(by_others).filter(|acl| !facts.mirrors.is_of_a_stop(acl));
    for acl in all.collect::<BTreeSet<_>>() {
        match facts.wish(acl) {
            Wish::Absent if limits.contains(acl) => plan.leave(facts, acl, NOT_MEANT.into()),
            Wish::Absent => plan.take_away(facts, acl),
            Wish::Left(why) => plan.leave(facts, acl, why),
            Wish::Withheld(why) => plan.withhold(facts, acl, why),
            Wish::Wanted => plan.write(facts, acl),
        }
    }
    let mirrored_away = at_destination.iter().filter(|acl| facts.is_mirrored_away(acl));
    plan.has = recorded.len() + mirrored_away.filter(|acl| !recorded.contains_key(*acl)).count();
    plan.missing = missing;
    plan
}

const GONE: &str = "the source doesn't have it";
const NOT_MEANT: &str = "denies at the source a part of what is withheld, and acl.filters don't mean it";

impl Facts<'_> {
    fn is_meant(&self, acl: &Acl) -> bool {
        self.settings.filters.includes(acl) && self.is_the_sources(acl)
    }

    /// Neither about Lockstep itself, nor what came from this destination.
    fn is_the_sources(&self, acl: &Acl) -> bool {
        !self.own.contains(&*acl.principal) && !self.came_from_here.contains(acl)
    }

    /// At the destination, and to be deleted in mode `mirror` if the source doesn't have it.
    fn is_mirrored_away(&self, acl: &Acl) -> bool {
        self.settings.mode == Mode::Mirror && self.is_meant(acl) && !self.of_others.contains(acl)
    }

    fn missing(&self) -> BTreeSet<Acl> {
        let denies = self.at_source.iter().filter(|acl| acl.permission == Permission::Deny);
        denies
            .filter(|acl| self.is_the_sources(acl) && !self.at_destination.contains(*acl))
            .cloned()
            .collect()
    }

    /// What denies, isn't meant and limits what is withheld: recorded, because a failover can't ask the source.
    fn limits_of_withheld<'a>(&self, missing: &'a BTreeSet<Acl>) -> BTreeSet<&'a Acl> {
        let unmeant = missing.iter().filter(|acl| !self.settings.filters.includes(acl));
        let unmeant: Missing<'_> = unmeant.collect();
        let withheld = self.at_source.iter().filter(|acl| matches!(self.wish(acl), Wish::Withheld(_)));
        withheld.flat_map(|acl| unmeant.limiting(acl)).collect()
    }

    fn wish(&self, acl: &Acl) -> Wish {
        if !self.at_source.contains(acl) || !self.is_meant(acl) {
            return Wish::Absent;
        }
        if !is_bounded(acl) {
            return Wish::Left(format!("has a name of more than {ACL_NAME_BYTES_MAX} bytes"));
        }
        if let Some(topic) = self.opens(acl) {
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

    /// The mirror that it would let others write to, where that is to wait.
    fn opens(&self, acl: &Acl) -> Option<&str> {
        let waits = self.settings.write_on_mirrors == WriteOnMirrors::AtStop;
        self.mirrors.written_by(acl).filter(|_| waits).map(|topic| &**topic)
    }
}

fn is_bounded(acl: &Acl) -> bool {
    let names = [&acl.resource_name, &acl.principal, &acl.host];
    names.into_iter().all(|name| name.len() <= ACL_NAME_BYTES_MAX)
}

/// What becomes of an ACL, by what is recorded of it and whether it is at the destination.
impl Plan {
    fn write(&mut self, facts: Facts<'_>, acl: &Acl) {
        match (facts.recorded.get(acl), facts.at_destination.contains(acl)) {
            (_, false) => drop(self.create.insert(acl.clone())),
            // It wasn't there when it was intended, and nobody refused it.
            (Some(AclState::Intended), true) => self.record(acl, Some(AclState::Written)),
            (Some(AclState::Withheld), true) => self.record(acl, None),
            (Some(AclState::Written) | None, true) => {}
        }
    }

    fn withhold(&mut self, facts: Facts<'_>, acl: &Acl, why: String) {
        match (facts.recorded.get(acl), facts.at_destination.contains(acl)) {
            (Some(AclState::Written), true) => self.delete(facts, acl, &why),
            (state, is_there) => {
                if state != Some(&AclState::Withheld) {
                    self.record(acl, Some(AclState::Withheld));
                }
                let why = if is_there { format!("isn't known as Lockstep's, and stays; {why}") } else { why };
                self.remarks.insert(acl.clone(), why);
            }
        }
    }

    fn leave(&mut self, facts: Facts<'_>, acl: &Acl, why: String) {
        let (state, is_there) = (facts.recorded.get(acl), facts.at_destination.contains(acl));
        let limits = acl.permission == Permission::Deny && !is_there && is_bounded(acl);
        match state {
            Some(AclState::Withheld) if limits => {}
            _ if limits => self.record(acl, Some(AclState::Withheld)),
            Some(AclState::Withheld) => self.record(acl, None),
            // By now it may be written by others. What a stop intends is that stop's.
            Some(AclState::Intended) if !is_there && !facts.mirrors.is_of_a_stop(acl) => {
                self.record(acl, None)
            }
            _ => {}
        }
        if !is_there {
            self.remarks.insert(acl.clone(), why);
        }
    }

    fn take_away(&mut self, facts: Facts<'_>, acl: &Acl) {
        let state = facts.recorded.get(acl);
        match (state, facts.at_destination.contains(acl)) {
            (Some(AclState::Withheld), _) | (Some(_), false) => {
                self.record(acl, None);
                if !facts.at_source.contains(acl) {
                    self.gone.insert(acl.clone());
                }
            }
            // What the filters don't mean any more stays as it is.
            (_, true) if !facts.is_meant(acl) => {}
            (Some(AclState::Intended), true) if facts.settings.mode != Mode::Mirror => {
                let why = "was about to be written, and whether it was isn't known: delete it by hand";
                self.remarks.insert(acl.clone(), format!("{GONE}, and it stays: it {why}"));
            }
            (_, true) => self.delete(facts, acl, GONE),
            (None, false) => {}
        }
    }

    fn record(&mut self, acl: &Acl, state: Option<AclState>) {
        self.record.insert(acl.clone(), state);
    }

    fn delete(&mut self, facts: Facts<'_>, acl: &Acl, why: &str) {
        let (frozen, failed_over) = (facts.mirrors.freezes(acl), facts.mirrors.has_failed_over);
        let kept = match (frozen, facts.settings.mode, failed_over) {
            (Some(topic), ..) => format!("it is about mirror topic '{topic}', which has stopped"),
            (_, Mode::Additive, _) => "acl.sync.mode is additive".to_owned(),
            (_, _, true) => {
                "nothing is deleted while a mirror of the link was failed over and isn't restored".to_owned()
            }
            (None, Mode::Owned | Mode::Mirror, false) => {
                self.delete.insert(acl.clone());
                if !facts.at_source.contains(acl) {
                    self.gone.insert(acl.clone());
                }
                return;
            }
        };
        let told = format!("{why}, and it stays: {kept}");
        // Additive is somebody's choice.
        match facts.opens(acl).filter(|_| frozen.is_some() || facts.settings.mode != Mode::Additive) {
            Some(topic) => {
                let told =
                    format!("others may write to mirror topic '{topic}' by it: delete it by hand; {told}");
                self.errors.insert(acl.clone(), told);
            }
            None => drop(self.remarks.insert(acl.clone(), told)),
        }
    }
}

/// What is left of it.
impl Plan {
    /// Only what `is_ours` to do.
    pub fn retain(&mut self, is_ours: impl Fn(&Acl) -> bool) {
        self.record.retain(|acl, _| is_ours(acl));
        self.create.retain(|acl| is_ours(acl));
        self.delete.retain(|acl| is_ours(acl));
        self.remarks.retain(|acl, _| is_ours(acl));
        self.errors.retain(|acl, _| is_ours(acl));
    }

    /// What is deleted or forgotten because a list didn't have it.
    pub fn absent(&self) -> BTreeSet<Acl> {
        let forgotten = self.record.iter().filter(|(_, state)| state.is_none()).map(|(acl, _)| acl);
        forgotten.chain(&self.delete).cloned().collect()
    }

    /// Leaves out what another look doesn't delete or forget, too: brokers tell what they know by now, and one may know
    /// less than another.
    pub fn confirm(&mut self, other: &BTreeSet<Acl>) {
        self.record.retain(|acl, state| state.is_some() || other.contains(acl));
        self.delete.retain(|acl| other.contains(acl));
        self.gone.retain(|acl| other.contains(acl));
    }

    /// Leaves out all that the source's list lacks where that is more than may go at once: it looks like a list that is
    /// wrong, and only a person can tell. In words, then.
    pub fn keep_too_many(&mut self, percent_max: usize) -> Option<String> {
        let (gone, has) = (self.gone.len(), self.has);
        if gone <= GONE_FREE_MAX || gone * 100 <= percent_max * has {
            return None;
        }
        self.record.retain(|acl, state| state.is_some() || !self.gone.contains(acl));
        self.delete.retain(|acl| !self.gone.contains(acl));
        self.gone.clear();
        Some(format!(
            "the source has no longer {gone} of the link's {has} ACLs, more than {percent_max} percent: nothing is \
             deleted, and nothing forgotten. If that is meant, raise {} until they are gone",
            settings::DELETE_MAX_PERCENT
        ))
    }

    /// Of what is created, what must wait, each with what it waits for: what denies and isn't there, `but` for this.
    pub fn held<'a>(&'a self, but: &'a BTreeSet<Acl>) -> BTreeMap<Acl, &'a Acl> {
        let missing: Missing<'_> = self.missing.difference(but).collect();
        missing.hold(&self.of(Permission::Allow)).1
    }

    /// What is created and denies, or allows.
    pub fn of(&self, permission: Permission) -> BTreeSet<Acl> {
        self.create.iter().filter(|acl| acl.permission == permission).cloned().collect()
    }

    /// Deletions in the order in which they are safe: what denies last.
    pub fn deletions(&self) -> Vec<Acl> {
        let (mut ordered, denies): (Vec<Acl>, Vec<Acl>) =
            self.delete.iter().cloned().partition(|acl| acl.permission == Permission::Allow);
        ordered.extend(denies);
        ordered
    }
}
