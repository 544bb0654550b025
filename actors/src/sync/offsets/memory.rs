//! What is known of groups from the rounds before. Without it more is read, and nothing else is done.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::plan::Targets;

/// What is in step isn't looked at again at the destination for so long, unless the source moves.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Offsets of a group without members expire, after seven days by default.
const COMMIT_AGAIN: Duration = Duration::from_secs(24 * 3_600);

/// A group with members is tried again after so long.
const IN_USE_WAIT: Duration = Duration::from_secs(5);

#[derive(Default)]
pub struct Memory {
    pub groups: BTreeMap<String, Group>,
    pub coordinators: BTreeMap<String, i32>,
}

#[derive(Default)]
pub struct Group {
    /// In step with these when the destination was last looked at.
    pub in_step: Option<(Targets, Instant)>,
    /// When all of ours was committed last.
    pub committed_at: Option<Instant>,
    /// It had members then.
    pub in_use_at: Option<Instant>,
    /// Partitions whose destination position is ahead, in words.
    pub ahead: Option<String>,
}

impl Memory {
    pub fn look_again(&mut self) {
        self.groups.values_mut().for_each(|group| group.in_step = None);
    }

    pub fn retain(&mut self, is_known: impl Fn(&str) -> bool) {
        self.groups.retain(|group, _| is_known(group));
        self.coordinators.retain(|group, _| is_known(group));
    }
}

impl Group {
    pub fn is_to_be_looked_at(&mut self, targets: &Targets, now: Instant) -> bool {
        if targets.is_empty() {
            // Nothing of it is ours to sync any more.
            (self.in_use_at, self.ahead) = (None, None);
            return false;
        }
        if self.in_use_at.is_some_and(|at| now - at < IN_USE_WAIT) {
            return false;
        }
        let is_in_step =
            self.in_step.as_ref().is_some_and(|(of, at)| of == targets && now - *at < LOOK_AGAIN);
        !is_in_step || self.is_due(now)
    }

    /// By whoever begins, and from then on in time.
    pub fn is_due(&self, now: Instant) -> bool {
        self.committed_at.is_none_or(|at| now - at >= COMMIT_AGAIN)
    }

    pub fn is_in_step(&mut self, targets: Targets, now: Instant) {
        self.in_use_at = None;
        if self.is_due(now) {
            self.committed_at = Some(now);
        }
        self.in_step = Some((targets, now));
    }
}

#[cfg(test)]
mod tests {
    use kafka::fetch::TopicPartition;

    use super::*;

    fn targets(offset: i64) -> Targets {
        [(TopicPartition { topic: "orders".into(), partition: 0 }, offset)].into()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_in_step_is_looked_at_seldom_and_committed_again_in_time() {
        let mut group = Group::default();
        let begun = Instant::now();
        assert!(group.is_to_be_looked_at(&targets(5), begun) && group.is_due(begun), "whoever begins");
        group.is_in_step(targets(5), begun);
        assert!(!group.is_to_be_looked_at(&targets(5), begun + LOOK_AGAIN / 2));
        assert!(group.is_to_be_looked_at(&targets(6), begun + LOOK_AGAIN / 2), "the source has moved");
        assert!(group.is_to_be_looked_at(&targets(5), begun + LOOK_AGAIN), "the destination may have");
        let day = begun + COMMIT_AGAIN;
        group.is_in_step(targets(5), day - LOOK_AGAIN / 2);
        assert!(group.is_due(day) && group.is_to_be_looked_at(&targets(5), day), "looked at isn't committed");
        group.is_in_step(targets(5), day);
        assert!(!group.is_due(day + COMMIT_AGAIN / 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_with_members_is_left_alone_for_a_while() {
        let now = Instant::now();
        let mut group = Group { in_use_at: Some(now), ..Group::default() };
        assert!(!group.is_to_be_looked_at(&targets(5), now + IN_USE_WAIT / 2));
        assert!(group.is_to_be_looked_at(&targets(5), now + IN_USE_WAIT));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_has_nothing_to_be_synced_any_more_is_no_trouble_any_more() {
        let now = Instant::now();
        let mut group = Group { in_use_at: Some(now), ahead: Some("AHEAD".into()), ..Group::default() };
        assert!(!group.is_to_be_looked_at(&Targets::new(), now));
        assert_eq!((group.in_use_at, group.ahead), (None, None));
    }
}
