//! What happens when: a pure value that is told the time, how the mirror looks, and who was lost.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::TOPIC;
use super::operator::Mirror;
use crate::api::types::LagRow;

/// So long all is seen to go on without the node that was lost.
const WITHOUT: Duration = Duration::from_secs(2);
/// It is started again then in any case: a second loss may have left the fleet without a majority.
const AWAY_MAX: Duration = Duration::from_secs(20);
/// Beyond the time that was asked for. The proof decides what then is missing.
const LATE_MAX: Duration = Duration::from_secs(40);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It is time to kill a node; who was killed is to be told by [`Story::lost`].
    Kill,
    Moved {
        partition: u32,
        from: String,
        to: String,
    },
    /// All partitions run elsewhere, and what was produced until the loss has arrived, so long after it.
    Recovered {
        after: Duration,
    },
    Restart {
        node: String,
    },
    /// The node that was lost has so many partitions again, and all run.
    Returned {
        node: String,
        partitions: usize,
    },
    /// What should have happened hasn't.
    Late,
    End,
}

/// All that decides.
#[derive(Debug, Clone, Copy)]
pub struct Look<'a> {
    pub elapsed: Duration,
    pub mirror: &'a Mirror,
    /// Records verified, by partition.
    pub verified: &'a [i64],
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Act {
    Running,
    Lost { node: String, at: Duration, produced: Vec<i64> },
    Flows { node: String, since: Duration },
    Restarted { node: String },
    Over,
}

#[derive(Debug)]
pub struct Story {
    lasts: Duration,
    act: Act,
    owners: BTreeMap<u32, String>,
}

impl Story {
    pub fn new(lasts: Duration) -> Self {
        Self { lasts, act: Act::Running, owners: BTreeMap::new() }
    }

    /// A node was killed, by whoever it was; `produced` until now. One that was lost before its time takes
    /// the place of the one that was to be killed.
    pub fn lost(&mut self, node: &str, at: Duration, produced: Vec<i64>) {
        if self.act == Act::Running {
            self.act = Act::Lost { node: node.to_owned(), at, produced };
        }
    }

    pub fn next(&mut self, look: Look<'_>) -> Vec<Event> {
        let mut events = self.moves(look.mirror);
        let next = match &self.act {
            Act::Running => {
                events.extend((look.elapsed >= self.lasts / 3).then_some(Event::Kill));
                None
            }
            Act::Lost { node, at, produced } => {
                let arrived = produced.iter().zip(look.verified).all(|(end, verified)| verified >= end);
                if arrived && run(look.mirror, |owner| owner != node) {
                    events.push(Event::Recovered { after: look.elapsed.saturating_sub(*at) });
                    Some(Act::Flows { node: node.clone(), since: look.elapsed })
                } else if look.elapsed >= *at + AWAY_MAX {
                    events.push(Event::Restart { node: node.clone() });
                    Some(Act::Restarted { node: node.clone() })
                } else {
                    None
                }
            }
            Act::Flows { node, since } if look.elapsed >= *since + WITHOUT => {
                events.push(Event::Restart { node: node.clone() });
                Some(Act::Restarted { node: node.clone() })
            }
            Act::Restarted { node } => {
                let partitions = rows(look.mirror).filter(|row| row.node.as_ref() == Some(node)).count();
                let back = partitions > 0 && run(look.mirror, |_| true);
                events.extend(back.then(|| Event::Returned { node: node.clone(), partitions }));
                back.then_some(Act::Over)
            }
            Act::Flows { .. } | Act::Over => None,
        };
        self.act = next.unwrap_or_else(|| self.act.clone());
        events.extend(self.end(look.elapsed));
        events
    }

    fn end(&self, elapsed: Duration) -> Vec<Event> {
        match self.act {
            Act::Over if elapsed >= self.lasts => vec![Event::End],
            _ if elapsed >= self.lasts + LATE_MAX => vec![Event::Late, Event::End],
            _ => Vec::new(),
        }
    }

    fn moves(&mut self, mirror: &Mirror) -> Vec<Event> {
        let mut moves = Vec::new();
        for row in rows(mirror) {
            let Some(to) = &row.node else { continue };
            if let Some(from) = self.owners.insert(row.partition, to.clone()).filter(|from| from != to) {
                moves.push(Event::Moved { partition: row.partition, from, to: to.clone() });
            }
        }
        moves
    }
}

fn rows(mirror: &Mirror) -> impl Iterator<Item = &LagRow> {
    mirror.iter().flat_map(|mirror| &mirror.mirror_lags)
}

/// Whether every partition runs, at such an owner, and its lag is known.
fn run(mirror: &Mirror, at: impl Fn(&String) -> bool) -> bool {
    let runs =
        |row: &LagRow| row.state == "RUNNING" && row.lag.is_some() && row.node.as_ref().is_some_and(&at);
    rows(mirror).next().is_some() && rows(mirror).all(runs)
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Kill => write!(f, "the node that leads is killed (SIGKILL)"),
            Event::Moved { partition, from, to } => {
                write!(f, "{TOPIC}-{partition} moved from {from} to {to}")
            }
            Event::Recovered { after } => {
                write!(f, "all partitions flow again, {:.1} s after that", after.as_secs_f64())
            }
            Event::Restart { node } => write!(f, "{node} is started again"),
            Event::Returned { node, partitions } => write!(f, "{node} has {partitions} partitions again"),
            Event::Late => write!(f, "not all is as it should be; the proof decides"),
            Event::End => write!(f, "the load ends; what is left is compared"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::MirrorRow;

    /// A mirror whose partitions run at these nodes; `-` runs nowhere.
    fn mirror(owners: &[&str]) -> Mirror {
        let rows = (0..).zip(owners).map(|(partition, owner): (u32, _)| {
            let state = if *owner == "-" { "UNKNOWN" } else { "RUNNING" };
            serde_json::json!({ "partition": partition, "lag": 0, "node": owner, "state": state })
        });
        let row: MirrorRow = serde_json::from_value(serde_json::json!({
            "link_name": "l", "destination_cluster": "west", "mirror_topic_name": TOPIC,
            "source_topic_name": TOPIC, "num_partitions": owners.len(), "mirror_lags": rows.collect::<Vec<_>>(),
            "mirror_status": "ACTIVE", "mirror_topic_error": "NO_ERROR", "state_time_ms": 0,
            "mirror_state_transition_errors": [],
        }))
        .unwrap();
        Some(row)
    }

    fn told(story: &mut Story, seconds: u64, owners: &[&str], verified: &[i64]) -> Vec<String> {
        let mirror = mirror(owners);
        let look = Look { elapsed: Duration::from_secs(seconds), mirror: &mirror, verified };
        story.next(look).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_loss_is_overcome_when_all_runs_elsewhere_and_all_that_was_produced_has_arrived() {
        let story = &mut Story::new(Duration::from_secs(30));
        assert!(told(story, 9, &["a", "b"], &[5, 5]).is_empty());
        assert_eq!(told(story, 10, &["a", "b"], &[5, 5]), ["the node that leads is killed (SIGKILL)"]);
        story.lost("a", Duration::from_secs(10), vec![7, 7]);
        assert!(told(story, 11, &["a", "b"], &[7, 7]).is_empty(), "its owner is the one that was lost");
        assert_eq!(told(story, 12, &["c", "b"], &[6, 9]), ["orders-0 moved from a to c"]);
        assert_eq!(told(story, 13, &["c", "b"], &[7, 9]), ["all partitions flow again, 3.0 s after that"]);
        assert!(told(story, 14, &["c", "b"], &[9, 9]).is_empty());
        assert_eq!(told(story, 15, &["c", "b"], &[9, 9]), ["a is started again"]);
        assert!(told(story, 16, &["c", "b"], &[9, 9]).is_empty());
        let back = ["orders-1 moved from b to a", "a has 1 partitions again"];
        assert_eq!(told(story, 17, &["c", "a"], &[9, 9]), back);
        assert!(told(story, 29, &["c", "a"], &[9, 9]).is_empty());
        assert_eq!(told(story, 30, &["c", "a"], &[9, 9]), ["the load ends; what is left is compared"]);
    }

    #[test]
    fn who_is_lost_before_the_kill_takes_its_place_and_is_started_again_even_if_nothing_flows() {
        let story = &mut Story::new(Duration::from_secs(30));
        told(story, 1, &["a", "b"], &[5, 5]);
        story.lost("b", Duration::from_secs(2), vec![5, 5]);
        story.lost("a", Duration::from_secs(3), vec![5, 5]);
        assert!(told(story, 21, &["-", "-"], &[5, 5]).iter().all(|words| words.contains("moved")));
        assert_eq!(told(story, 22, &["-", "-"], &[5, 5]), ["b is started again"]);
        assert!(told(story, 69, &["-", "-"], &[5, 5]).is_empty());
        let late =
            ["not all is as it should be; the proof decides", "the load ends; what is left is compared"];
        assert_eq!(told(story, 70, &["-", "-"], &[5, 5]), late);
    }
}
