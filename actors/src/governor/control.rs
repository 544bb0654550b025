//! How much mirroring may write to a cluster: decided from what was seen there since the last look.
//!
//! Without clients that write there is no limit. With them the budget is what does them no harm: so much that less
//! than one request of ours waits at a broker, and less after a quota's throttle time. It never falls below
//! a floor, so that mirroring isn't starved for ever (LV-3).

use std::time::Duration;

/// Between two decisions.
pub const STEP: Duration = Duration::from_millis(250);

/// Mirroring's own, whatever clients do (LV-3).
pub const FLOOR_BYTES_PER_SECOND: u64 = 1024 * 1024;
/// More than any node sends: as good as no limit.
const CEILING_BYTES_PER_SECOND: u64 = 4 * 1024 * 1024 * 1024;
/// With what it begins while nothing is known of the cluster yet.
const BEGIN_BYTES_PER_SECOND: u64 = 16 * 1024 * 1024;

/// Clients that wrote so lately may go on any moment; those that write now and then are waited for longer.
const CLIENTS_STAY_MIN: Duration = Duration::from_secs(2);
const CLIENTS_STAY_MAX: Duration = Duration::from_secs(30);

/// So many requests of ours may wait at each broker. Less than one: what waits there makes clients wait.
const QUEUED: f64 = 0.2;
/// In one step.
const RISE_MAX: f64 = 1.15;
const CUT_MAX: f64 = 0.7;
/// After a quota's throttle time, once a second.
const THROTTLED_CUT: f64 = 0.6;
const THROTTLED_CUT_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// A step, once the clients are gone.
const RELEASE: f64 = 2.0;
/// A limit that holds nothing back mustn't grow: it would hold nothing back when clients need it.
const USED_MIN: f64 = 0.7;
/// Each time clients are seen.
const GAP_FADES: f64 = 0.9;

/// Whether clients write to the cluster.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Clients {
    /// Nothing that was asked tells.
    Unknown,
    /// So many bytes a second, where bytes are known.
    Write(Option<f64>),
    Quiet,
}

/// What was seen since the last step.
#[derive(Clone, Copy, Debug)]
pub struct Signs {
    /// When there was a look at them.
    pub clients: Option<Clients>,
    /// Requests of ours that wait at a broker, on average.
    pub queued: Option<f64>,
    /// The cluster told a client quota's throttle time.
    pub throttled: bool,
    pub sent_bytes: u64,
}

/// What may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    Free,
    Limited { bytes_per_second: u64 },
}

/// One node's budget for one cluster.
#[derive(Clone, Debug)]
pub struct Control {
    bytes_per_second: f64,
    is_free: bool,
    clients: Presence,
    cut_at: Option<Duration>,
    stepped_at: Duration,
}

/// Whether clients may be about to write.
#[derive(Clone, Copy, Debug)]
struct Presence {
    until: Duration,
    wrote_at: Option<Duration>,
    usual_gap: Duration,
}

impl Control {
    pub fn new(now: Duration) -> Self {
        Self {
            bytes_per_second: BEGIN_BYTES_PER_SECOND as f64,
            is_free: false,
            clients: Presence { until: now + CLIENTS_STAY_MIN, wrote_at: None, usual_gap: Duration::ZERO },
            cut_at: None,
            stepped_at: now,
        }
    }

    pub fn budget(&self) -> Budget {
        match self.is_free {
            true => Budget::Free,
            false => Budget::Limited { bytes_per_second: self.bytes_per_second as u64 },
        }
    }

    pub fn step(&mut self, now: Duration, signs: &Signs) -> Budget {
        let seconds = now.saturating_sub(self.stepped_at).as_secs_f64();
        self.stepped_at = now;
        let sent = if seconds > 0.0 { signs.sent_bytes as f64 / seconds } else { 0.0 };
        if matches!(signs.clients, Some(Clients::Unknown | Clients::Write(_))) {
            self.clients.wrote(now);
        }
        if now >= self.clients.until {
            self.release();
        } else if self.is_free {
            // What was sent until now may be all that the cluster can do.
            self.is_free = false;
            self.bytes_per_second = (sent / 2.0).max(BEGIN_BYTES_PER_SECOND as f64);
        } else if signs.throttled {
            self.cut(now, sent);
        } else if let Some(queued) = signs.queued {
            let wanted = if queued > 0.0 { QUEUED / queued } else { RISE_MAX };
            let is_used = sent >= self.bytes_per_second * USED_MIN;
            let rise_max = if is_used { RISE_MAX } else { 1.0 };
            self.bytes_per_second *= wanted.clamp(CUT_MAX, rise_max);
        }
        let bounds = (FLOOR_BYTES_PER_SECOND as f64, CEILING_BYTES_PER_SECOND as f64);
        self.bytes_per_second = self.bytes_per_second.clamp(bounds.0, bounds.1);
        self.budget()
    }

    fn release(&mut self) {
        if self.bytes_per_second * RELEASE >= CEILING_BYTES_PER_SECOND as f64 {
            self.is_free = true;
        }
        self.bytes_per_second *= RELEASE;
    }

    fn cut(&mut self, now: Duration, sent: f64) {
        if self.cut_at.is_some_and(|at| now < at + THROTTLED_CUT_AGAIN_AFTER) {
            return;
        }
        self.cut_at = Some(now);
        // A limit above what was sent had no part in it.
        self.bytes_per_second = self.bytes_per_second.min(sent.max(1.0)) * THROTTLED_CUT;
    }
}

impl Presence {
    fn wrote(&mut self, now: Duration) {
        let gap = self.wrote_at.map_or(Duration::ZERO, |at| now.saturating_sub(at));
        // One that came back after an hour says nothing of the next.
        let gap = if gap <= CLIENTS_STAY_MAX { gap } else { Duration::ZERO };
        self.usual_gap = gap.max(self.usual_gap.mul_f64(GAP_FADES));
        self.wrote_at = Some(now);
        self.until = now + self.usual_gap.mul_f64(1.5).clamp(CLIENTS_STAY_MIN, CLIENTS_STAY_MAX);
    }
}

#[cfg(test)]
mod tests;
