//! When a promotion has caught up, as a value: every partition of the mirror ends where its source ended
//! when that was read after the mirror's end, and no source end has moved for the quiet time (CT-4).

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// How long nothing may have come at the source: producers that are merely slow write within it.
pub const QUIET: Duration = Duration::from_secs(10);

/// At most this many partitions are named.
const NAMED_MAX: usize = 8;

/// Log ends of one partition; the mirror's was read first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    pub mirror: i64,
    pub source: i64,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    Done,
    /// For what, in words.
    Waits(String),
}

#[derive(Debug, Default)]
pub struct CatchUp {
    /// By partition: the source's log end, and when that was known.
    seen: BTreeMap<u32, (i64, Instant)>,
}

impl CatchUp {
    /// One look at all partitions; none: it couldn't be seen. The source's ends are those of a moment between
    /// `asked` and `answered`: an answer that comes late says nothing of what came at the source meanwhile.
    pub fn looked(
        &mut self,
        asked: Instant,
        answered: Instant,
        partitions: &BTreeMap<u32, Option<Ends>>,
    ) -> Progress {
        let mut unknown = Vec::new();
        let mut behind = Vec::new();
        let mut moving = Vec::new();
        let mut lag = 0;
        let mut quiet_at = asked;
        for (partition, ends) in partitions {
            let Some(ends) = ends else {
                // What happened there meanwhile isn't known.
                self.seen.remove(partition);
                unknown.push(*partition);
                continue;
            };
            let (end, since) = self.seen.entry(*partition).or_insert((ends.source, answered));
            if *end != ends.source {
                (*end, *since) = (ends.source, answered);
            }
            let until = *since + QUIET;
            if asked < until {
                quiet_at = quiet_at.max(until);
                moving.push(*partition);
            }
            if ends.mirror != ends.source {
                lag += ends.source - ends.mirror;
                behind.push(*partition);
            }
        }
        if !unknown.is_empty() {
            return Progress::Waits(format!("{} to be seen at both clusters", named(&unknown)));
        }
        if !behind.is_empty() {
            return Progress::Waits(format!("{} to catch up: {lag} offsets", named(&behind)));
        }
        if !moving.is_empty() {
            let left = quiet_at.saturating_duration_since(asked).as_secs_f32();
            let message = format!(
                "the source to be quiet: the end of {} moved within the last {} s; {left:.0} s more if nothing comes",
                named(&moving),
                QUIET.as_secs()
            );
            return Progress::Waits(message);
        }
        Progress::Done
    }
}

fn named(partitions: &[u32]) -> String {
    let names: Vec<String> = partitions.iter().take(NAMED_MAX).map(u32::to_string).collect();
    let more = match partitions.len().checked_sub(NAMED_MAX) {
        None | Some(0) => String::new(),
        Some(more) => format!(" and {more} more"),
    };
    let word = if partitions.len() == 1 { "partition" } else { "partitions" };
    format!("{word} {}{more}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(catch_up: &mut CatchUp, now: Instant, ends: &[Option<(i64, i64)>]) -> Progress {
        let ends = ends.iter().map(|e| e.map(|(mirror, source)| Ends { mirror, source }));
        catch_up.looked(now, now, &(0..).zip(ends).collect())
    }

    fn waits_for(progress: Progress, what: &str) {
        let Progress::Waits(message) = progress else { panic!("done, and not waiting for {what}") };
        assert!(message.contains(what), "{message}");
    }

    #[test]
    fn it_is_done_when_both_ends_have_been_equal_and_quiet_for_the_quiet_time() {
        let (start, mut catch_up) = (Instant::now(), CatchUp::default());
        waits_for(
            look(&mut catch_up, start, &[Some((3, 5)), Some((7, 7))]),
            "partition 0 to catch up: 2 offsets",
        );
        let caught_up = [Some((5, 5)), Some((7, 7))];
        let almost = start + QUIET - Duration::from_millis(1);
        waits_for(look(&mut catch_up, almost, &caught_up), "partitions 0, 1 moved");
        assert_eq!(look(&mut catch_up, start + QUIET, &caught_up), Progress::Done);
    }

    #[test]
    fn a_source_that_moves_begins_its_quiet_time_again() {
        let (start, mut catch_up) = (Instant::now(), CatchUp::default());
        look(&mut catch_up, start, &[Some((5, 5))]);
        let moved = start + Duration::from_secs(9);
        waits_for(look(&mut catch_up, moved, &[Some((6, 6))]), "partition 0 moved");
        waits_for(look(&mut catch_up, start + QUIET, &[Some((6, 6))]), "9 s more");
        assert_eq!(look(&mut catch_up, moved + QUIET, &[Some((6, 6))]), Progress::Done);
    }

    /// Of a look that was asked for early and answered late, nobody knows what came after it was asked.
    #[test]
    fn an_answer_that_came_late_does_not_tell_that_the_source_was_quiet_until_then() {
        let (start, mut catch_up) = (Instant::now(), CatchUp::default());
        let ends = [(0, Some(Ends { mirror: 5, source: 5 }))].into();
        let mut look = |asked, answered| catch_up.looked(start + asked, start + answered, &ends);
        let s = Duration::from_secs;
        waits_for(look(s(0), s(2)), "partition 0 moved");
        waits_for(look(s(3), s(30)), "9 s more");
        waits_for(look(s(11), s(11)), "1 s more");
        assert_eq!(look(s(12), s(13)), Progress::Done);
    }

    /// Also one that ends below the mirror: that partition is about to fail, and isn't caught up.
    #[test]
    fn ends_that_differ_either_way_are_not_caught_up() {
        let (start, mut catch_up) = (Instant::now(), CatchUp::default());
        look(&mut catch_up, start, &[Some((5, 4))]);
        waits_for(look(&mut catch_up, start + QUIET * 2, &[Some((5, 4))]), "to catch up: -1 offsets");
    }

    #[test]
    fn what_was_not_seen_meanwhile_is_not_known_to_have_been_quiet() {
        let (start, mut catch_up) = (Instant::now(), CatchUp::default());
        look(&mut catch_up, start, &[Some((5, 5))]);
        waits_for(look(&mut catch_up, start + QUIET, &[None]), "partition 0 to be seen");
        waits_for(look(&mut catch_up, start + QUIET * 2, &[Some((5, 5))]), "10 s more");
    }

    #[test]
    fn many_partitions_are_not_all_named() {
        let partitions: Vec<u32> = (0..20).collect();
        assert_eq!(named(&partitions), "partitions 0, 1, 2, 3, 4, 5, 6, 7 and 12 more");
    }
}
