//! Ids that a cluster draws by itself: each end has its own, and both are told apart from their *marks*,
//! which are the same at both ends. A mark stands for the n-th id that came up in the sequence's answers.
//! Requests are drawn with marks, and each end gets its own ids.

use std::collections::BTreeMap;

use uuid::Uuid;

/// Marks of producer ids begin here: above all that a cluster gives out.
const PRODUCER_MARKS: i64 = 7_000_000_000;
/// Producer ids that a sequence makes up begin here; they are the same at both ends.
pub const FOREIGN_PRODUCERS: i64 = 1 << 40;
const SESSION_MARKS: i32 = 0x7d1f_0000;
const TOPIC_MARKS: u128 = 0x7d1f_7d1f_0000_0000_0000_0000_0000_0000;

/// The ids of one end.
#[derive(Debug, Default)]
pub struct Ids {
    producers: Marks<i64>,
    sessions: Marks<i32>,
    topics: Marks<Uuid>,
    members: Marks<String>,
}

#[derive(Debug)]
struct Marks<T> {
    own: Vec<T>,
    by_own: BTreeMap<T, usize>,
}

impl<T> Default for Marks<T> {
    fn default() -> Self {
        Marks { own: Vec::new(), by_own: BTreeMap::new() }
    }
}

impl<T: Ord + Clone> Marks<T> {
    fn number(&mut self, own: T) -> usize {
        let next = self.own.len();
        let number = *self.by_own.entry(own.clone()).or_insert(next);
        if number == next {
            self.own.push(own);
        }
        number
    }
}

impl Ids {
    /// The mark of an id in an answer.
    pub fn producer_mark(&mut self, own: i64) -> i64 {
        if !(0..FOREIGN_PRODUCERS).contains(&own) {
            return own;
        }
        PRODUCER_MARKS + self.producers.number(own) as i64
    }

    /// This end's id for a mark in a request.
    pub fn producer(&self, mark: i64) -> i64 {
        let number = mark.checked_sub(PRODUCER_MARKS).and_then(|number| usize::try_from(number).ok());
        number.and_then(|number| self.producers.own.get(number)).copied().unwrap_or(mark)
    }

    pub fn session_mark(&mut self, own: i32) -> i32 {
        if own == 0 {
            return own;
        }
        SESSION_MARKS + self.sessions.number(own) as i32
    }

    pub fn session(&self, mark: i32) -> i32 {
        let number = mark.checked_sub(SESSION_MARKS).and_then(|number| usize::try_from(number).ok());
        number.and_then(|number| self.sessions.own.get(number)).copied().unwrap_or(mark)
    }

    pub fn topic_mark(&mut self, own: Uuid) -> Uuid {
        // Those that the sequence makes up are small numbers.
        if own.as_u128() < u128::from(u64::MAX) {
            return own;
        }
        Uuid::from_u128(TOPIC_MARKS + self.topics.number(own) as u128)
    }

    pub fn topic(&self, mark: Uuid) -> Uuid {
        let number = mark.as_u128().checked_sub(TOPIC_MARKS).and_then(|number| usize::try_from(number).ok());
        number.and_then(|number| self.topics.own.get(number)).copied().unwrap_or(mark)
    }

    pub fn member_mark(&mut self, own: &str) -> String {
        if own.is_empty() {
            return String::new();
        }
        format!("member-{}", self.members.number(own.to_owned()))
    }

    pub fn member(&self, mark: &str) -> String {
        let number = mark.strip_prefix("member-").and_then(|number| number.parse::<usize>().ok());
        number.and_then(|number| self.members.own.get(number)).cloned().unwrap_or_else(|| mark.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ends_have_one_mark_for_the_ids_that_came_up_at_the_same_place() {
        let (mut here, mut there) = (Ids::default(), Ids::default());
        let marks = [here.producer_mark(4_000), here.producer_mark(17), here.producer_mark(4_000)];
        assert_eq!(marks, [there.producer_mark(0), there.producer_mark(9), there.producer_mark(0)]);
        assert_ne!(marks[0], marks[1]);
        assert_eq!((here.producer(marks[1]), there.producer(marks[1])), (17, 9));
        assert_eq!(here.producer_mark(-1), -1);
        assert_eq!(here.producer(FOREIGN_PRODUCERS + 1), FOREIGN_PRODUCERS + 1);
    }
}
