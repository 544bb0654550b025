//! Whether what isn't right at the end only needs more time: a link with little credit between clusters that
//! are far apart carries so little that a long fault's backlog outlasts the quiet time.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::history::Key;
use crate::judge::Shown;

/// In so long each partition that is behind must have got on: longer than a round trip with a full link's
/// other partitions in between.
const GETS_ON_WITHIN: Duration = Duration::from_secs(10);
/// More than that is no matter of a backlog.
pub const LONGER_MAX: Duration = Duration::from_secs(300);

#[derive(Debug, Default)]
pub struct CatchingUp {
    looked_at: Duration,
    /// Where each partition that was behind then ended.
    ends: BTreeMap<Key, i64>,
    until: Duration,
}

impl CatchingUp {
    /// Until when it may take, as of the last look.
    pub fn until(&self) -> Duration {
        self.until
    }

    /// Looks now and then; `behind` tells which partitions are behind, if nothing else is wrong, and where
    /// they end.
    pub fn look(&mut self, now: Duration, behind: impl FnOnce() -> BTreeMap<Key, i64>) {
        if now < self.looked_at + GETS_ON_WITHIN {
            return;
        }
        let ends = behind();
        let gets_on = |(key, end): (&Key, &i64)| self.ends.get(key).is_some_and(|before| before < end);
        if !ends.is_empty() && ends.iter().all(gets_on) {
            self.until = now + GETS_ON_WITHIN * 2;
        }
        (self.looked_at, self.ends) = (now, ends);
    }
}

/// None is behind unless all of them run.
pub fn behind(shown: &Shown<'_>) -> BTreeMap<Key, i64> {
    let owned = || shown.rows.iter().filter(|row| row.is_owned && row.view.state != "FAILED");
    if owned().any(|row| row.view.state != "RUNNING") {
        return BTreeMap::new();
    }
    let late = owned().filter(|row| row.view.lag != Some(0));
    late.filter_map(|row| Some((row.key.clone(), row.view.mirror_end_offset?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    fn ends(of: &[(i32, i64)]) -> BTreeMap<Key, i64> {
        of.iter().map(|(index, end)| (("m".to_owned(), *index), *end)).collect()
    }

    #[test]
    fn it_may_take_longer_only_while_every_partition_that_is_behind_gets_on() {
        let mut catching_up = CatchingUp::default();
        catching_up.look(s(100), || ends(&[(0, 5), (1, 5)]));
        assert_eq!(catching_up.until(), s(0), "seen once");
        catching_up.look(s(105), || panic!("not so often"));
        catching_up.look(s(110), || ends(&[(1, 6)]));
        assert_eq!(catching_up.until(), s(130));
        catching_up.look(s(120), || ends(&[(1, 6)]));
        catching_up.look(s(130), || ends(&[]));
        assert_eq!(catching_up.until(), s(130), "it stood still, and then something else was wrong");
    }
}
