//! A partition: its replicas, its leader, and the leader's log. Replicas have no logs of their own: a
//! follower is how far it has replicated, so what a failure takes away is what lies above that.

use crate::log::Log;

#[derive(Debug, Clone)]
pub struct Partition {
    pub replicas: Vec<i32>,
    pub in_sync: Vec<i32>,
    pub leader: Option<i32>,
    pub leader_epoch: i32,
    pub log: Log,
    /// Followers stand still here (the high watermark with them), though they count as in sync: what a
    /// broker shows until `replica.lag.time.max.ms` is over.
    held_at: Option<i64>,
    /// No replica is up; whether the last one crashed.
    down: Option<Stop>,
}

/// How a broker went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// What it held in memory reached the disk.
    Clean,
    Crash,
}

impl Partition {
    pub fn new(replicas: Vec<i32>, leader: Option<i32>) -> Self {
        let mut log = Log::new();
        log.begin_epoch(0);
        let in_sync = replicas.clone();
        Self { replicas, in_sync, leader, leader_epoch: 0, log, held_at: None, down: None }
    }

    /// What consumers may read up to.
    pub fn high_watermark(&self) -> i64 {
        self.held_at.map_or(self.log.end(), |held| held.min(self.log.end()))
    }

    pub fn last_stable_offset(&self) -> i64 {
        self.log.last_stable_offset(self.high_watermark())
    }

    /// From now on followers replicate nothing. Without followers there is nothing to hold.
    pub fn hold_followers(&mut self) {
        if self.in_sync.len() > 1 {
            self.held_at.get_or_insert(self.log.end());
        }
    }

    pub fn release_followers(&mut self) {
        self.held_at = None;
    }

    /// Leadership goes to a replica in sync; what it doesn't hold is cut. Returns whether it could.
    pub fn lead(&mut self, broker: i32) -> bool {
        if !self.in_sync.contains(&broker) {
            return false;
        }
        let end = if self.leader == Some(broker) { self.log.end() } else { self.high_watermark() };
        self.become_leader(broker, end);
        true
    }

    /// Leadership goes to a replica that was not in sync and holds the log only up to `end`: records that
    /// were acknowledged are gone (`unclean.leader.election.enable`).
    pub fn lead_unclean(&mut self, broker: i32, end: i64) -> bool {
        if !self.replicas.contains(&broker) {
            return false;
        }
        self.become_leader(broker, end);
        self.in_sync = vec![broker];
        true
    }

    fn become_leader(&mut self, broker: i32, end: i64) {
        self.log.truncate(end);
        self.log.producers.expect_nothing();
        self.held_at = None;
        self.leader = Some(broker);
        self.leader_epoch += 1;
        self.log.begin_epoch(self.leader_epoch);
    }

    /// A broker went; `live` are those that are left.
    pub fn lose(&mut self, broker: i32, stop: Stop, live: &[i32]) {
        if !self.replicas.contains(&broker) {
            return;
        }
        if self.in_sync.len() > 1 {
            self.in_sync.retain(|replica| *replica != broker);
        }
        if self.leader != Some(broker) {
            if self.in_sync.len() == 1 {
                self.held_at = None;
            }
            return;
        }
        let heir =
            self.replicas.iter().find(|replica| self.in_sync.contains(replica) && live.contains(replica));
        match heir.copied() {
            Some(heir) => {
                self.lead(heir);
            }
            None => {
                self.leader = None;
                self.leader_epoch += 1;
                self.down = Some(stop);
            }
        }
    }

    /// A broker came back: it catches up, or leads again what nobody else could.
    pub fn regain(&mut self, broker: i32, now_ms: i64, producer_expiration_ms: i64) {
        if !self.replicas.contains(&broker) {
            return;
        }
        if self.leader.is_none() && self.in_sync.contains(&broker) {
            let crashed = self.down.take() == Some(Stop::Crash);
            self.log.reload(crashed, now_ms, producer_expiration_ms);
            self.become_leader(broker, self.log.end());
        } else if self.leader.is_some() && !self.in_sync.contains(&broker) {
            self.in_sync.push(broker);
        }
    }
}
