//! Configuration keys of the ACL sync. Read anew by each round: a change of theirs disturbs no mirror.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::filters::AclFilters;

pub const ENABLE: &str = catalog::Link::ACL_SYNC_KEY;
pub const MS: &str = "acl.sync.ms";
pub const FILTERS: &str = "acl.filters";
pub const MODE: &str = "acl.sync.mode";
pub const WRITE_ON_MIRRORS: &str = "acl.sync.write.on.mirrors";
pub const DELETE_MAX_PERCENT: &str = "acl.sync.delete.max.percent";
pub const OWN_PRINCIPALS: &str = "acl.sync.own.principals";

pub const MODES: [&str; 3] = ["owned", "mirror", "additive"];
pub const WRITES_ON_MIRRORS: [&str; 2] = ["at-stop", "copy"];

/// Names in the key of own principals, at most.
const OWN_PRINCIPALS_MAX: usize = 20;

const EVERY_DEFAULT_MS: u64 = 5_000;

/// More than half at once looks like a list that is wrong.
pub const DELETE_MAX_PERCENT_DEFAULT: &str = "50";

/// Keys that a running link doesn't have to begin anew for.
pub const KEYS: [&str; 7] = [ENABLE, MS, FILTERS, MODE, DELETE_MAX_PERCENT, WRITE_ON_MIRRORS, OWN_PRINCIPALS];

/// What is deleted at the destination when the source doesn't have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// What Lockstep wrote.
    Owned,
    /// Whatever the filters mean.
    Mirror,
    /// Nothing.
    Additive,
}

/// What lets others write to a mirror topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOnMirrors {
    /// Waits for the mirror's stop.
    AtStop,
    Copy,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclSettings {
    pub every: Duration,
    pub filters: AclFilters,
    pub mode: Mode,
    /// Of what the link has, at most so much is deleted at once.
    pub delete_max_percent: usize,
    pub write_on_mirrors: WriteOnMirrors,
    /// As whom brokers know Lockstep, where they have a rule of their own for it.
    pub own: BTreeSet<String>,
}

impl AclSettings {
    /// None where it isn't enabled. Values were checked when they were set.
    pub fn of(configs: &BTreeMap<String, String>) -> Option<Self> {
        let get = |key| configs.get(key).map(|value| value.trim());
        let is = |key, wanted: &str| get(key).is_some_and(|value| value.eq_ignore_ascii_case(wanted));
        if !is(ENABLE, "true") {
            return None;
        }
        let mode = match () {
            () if is(MODE, "mirror") => Mode::Mirror,
            () if is(MODE, "additive") => Mode::Additive,
            () => Mode::Owned,
        };
        Some(Self {
            every: Duration::from_millis(
                get(MS).and_then(|value| value.parse().ok()).unwrap_or(EVERY_DEFAULT_MS),
            ),
            filters: get(FILTERS).and_then(|json| AclFilters::parse(json).ok()).unwrap_or_default(),
            mode,
            delete_max_percent: [get(DELETE_MAX_PERCENT), Some(DELETE_MAX_PERCENT_DEFAULT)]
                .into_iter()
                .flatten()
                .find_map(|value| value.parse().ok())
                .unwrap_or_default(),
            write_on_mirrors: match is(WRITE_ON_MIRRORS, "copy") {
                true => WriteOnMirrors::Copy,
                false => WriteOnMirrors::AtStop,
            },
            own: own_principals_of(configs),
        })
    }
}

/// Whether ACLs are synced or not.
pub fn own_principals_of(configs: &BTreeMap<String, String>) -> BTreeSet<String> {
    configs.get(OWN_PRINCIPALS).and_then(|list| principals(list).ok()).unwrap_or_default()
}

/// Principals separated by `;`: names of certificates have commas.
///
/// # Errors
/// What is wrong, in words.
pub fn principals(list: &str) -> Result<BTreeSet<String>, String> {
    let given: BTreeSet<String> =
        list.split(';').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect();
    let is_one = |name: &String| name.split_once(':').is_some_and(|(kind, _)| !kind.is_empty());
    match given.iter().find(|name| !is_one(name)) {
        Some(name) => Err(format!("'{name}' is no principal; give User:NAME, several separated by ';'")),
        None if given.is_empty() => Err("give User:NAME, several separated by ';'".to_owned()),
        None if given.len() > OWN_PRINCIPALS_MAX => {
            Err(format!("{} names; at most {OWN_PRINCIPALS_MAX}", given.len()))
        }
        None => Ok(given),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_synced_unless_it_is_enabled_and_every_mode_is_one() {
        let configs =
            |of: &[(&str, &str)]| of.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        assert_eq!(AclSettings::of(&configs(&[(MODE, "mirror")])), None);
        let of = |key, value| AclSettings::of(&configs(&[(ENABLE, "TRUE"), (key, value)])).expect("enabled");
        let modes = MODES.map(|mode| of(MODE, mode).mode);
        assert_eq!(modes, [Mode::Owned, Mode::Mirror, Mode::Additive]);
        let writes = WRITES_ON_MIRRORS.map(|value| of(WRITE_ON_MIRRORS, value).write_on_mirrors);
        assert_eq!(writes, [WriteOnMirrors::AtStop, WriteOnMirrors::Copy]);
        assert_eq!(of(MODE, "owned").every, Duration::from_secs(5));
    }

    #[test]
    fn principals_may_have_commas_and_must_have_a_type() {
        let given = principals("User:CN=lockstep,O=Us; User:mirror").expect("two");
        assert_eq!(given.into_iter().collect::<Vec<_>>(), ["User:CN=lockstep,O=Us", "User:mirror"]);
        for wrong in ["", "mirror", ":mirror", "User:a;b"] {
            principals(wrong).expect_err(wrong);
        }
    }
}
