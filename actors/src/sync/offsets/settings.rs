//! Configuration keys of the group-offset sync. Read anew by each round: a change of theirs disturbs no mirror.

use std::collections::BTreeMap;
use std::time::Duration;

use super::plan::Policy;
use crate::sync::filters::Filters;

pub const ENABLE: &str = "consumer.offset.sync.enable";
pub const MS: &str = "consumer.offset.sync.ms";
pub const FILTERS: &str = "consumer.offset.group.filters";
pub const POLICY: &str = "consumer.offset.sync.policy";

pub const POLICIES: [&str; 2] = ["no-rewind", "source"];

/// Of this sync.
pub const KEYS: [&str; 4] = [ENABLE, MS, FILTERS, POLICY];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetSettings {
    pub every: Duration,
    pub filters: Filters,
    pub policy: Policy,
}

impl OffsetSettings {
    /// None where it isn't enabled. Values were checked when they were set.
    pub fn of(configs: &BTreeMap<String, String>) -> Option<Self> {
        let get = |key| configs.get(key).map(|value| value.trim());
        if !get(ENABLE).is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return None;
        }
        let every = get(MS).and_then(|value| value.parse().ok()).unwrap_or(1_000);
        Some(Self {
            every: Duration::from_millis(every),
            filters: get(FILTERS).and_then(|json| Filters::of_groups(json).ok()).unwrap_or_default(),
            policy: match get(POLICY) {
                Some("source") => Policy::Source,
                _ => Policy::NoRewind,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_synced_unless_it_is_enabled_and_every_policy_is_one() {
        let configs =
            |of: &[(&str, &str)]| of.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        assert_eq!(OffsetSettings::of(&configs(&[(MS, "5")])), None);
        assert_eq!(OffsetSettings::of(&configs(&[(ENABLE, "false")])), None);
        let of =
            |policy| OffsetSettings::of(&configs(&[(ENABLE, "TRUE"), (POLICY, policy)])).expect("enabled");
        assert_eq!(POLICIES.map(|policy| of(policy).policy), [Policy::NoRewind, Policy::Source]);
        assert_eq!(of("source").every, Duration::from_secs(1));
    }
}
