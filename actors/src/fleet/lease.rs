//! The right to append what no broker guards: ends by itself unless the coordinator extends it.
//!
//! A grant counts from when the node asked, not from when it was answered, and only once everything is
//! applied here that the coordinator had applied: whoever holds a lease knows of every partition that
//! was taken from it before. A lease that ended and was granted again is another: what was begun under
//! the first must look at the catalog and at both logs anew.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kafka::connection::Gate;
use tokio::sync::watch;

use super::coordinator::QUORUM_ACK_AGE_MAX;
use crate::clock::Uptime;

/// How long a grant lasts, from when the report that asked for it was sent: five reports may be lost. It
/// ends before its node counts as lost, and before a new coordinator, that others had to elect first, could
/// take anything from the node of an isolated one. Until then the node may still send old records, which
/// make a broker forget the producer, and with it what guards the next owner's batches.
/// The next owner of an unguarded partition waits as long.
pub const LEASE: Duration = Duration::from_millis(2_200);

const _: () = assert!(LEASE.as_millis() < super::presence::LOST_AFTER.as_millis());

/// How long whoever lost a partition without being seen to stop may still begin to write to it, by its
/// lease and by those that an isolated coordinator still grants.
pub const OUTLASTS: Duration = LEASE.saturating_add(QUORUM_ACK_AGE_MAX);

/// Grants that wait for the catalog to be applied up to them; more can't be valid at once.
const GRANTS_MAX: usize = 16;

/// Which of a node's leases something was begun under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass(u64);

/// What the coordinator granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// What the coordinator had applied.
    pub applied: u64,
    /// When the node asked, by its own clock.
    pub asked_at: Duration,
}

/// The lease as a value.
#[derive(Debug, Default)]
pub struct Lease {
    /// The only member of its fleet: nobody else can be given its partitions.
    alone: bool,
    applied: u64,
    grants: VecDeque<Grant>,
    until: Duration,
    generation: u64,
}

impl Lease {
    /// True when it is held now and wasn't before.
    pub fn granted(&mut self, grant: Grant, now: Duration) -> bool {
        let held = self.pass(now).is_some();
        self.grants.retain(|grant| now < grant.asked_at + LEASE);
        if self.grants.len() == GRANTS_MAX {
            self.grants.pop_front();
        }
        self.grants.push_back(grant);
        self.settle(held, now)
    }

    /// The catalog of that index is applied here. True when the lease is held now and wasn't before.
    pub fn applied(&mut self, index: u64, alone: bool, now: Duration) -> bool {
        let held = self.pass(now).is_some();
        self.applied = index;
        self.alone = alone;
        self.settle(held, now)
    }

    fn settle(&mut self, held: bool, now: Duration) -> bool {
        let known = self.grants.iter().filter(|grant| grant.applied <= self.applied);
        let until = known.map(|grant| grant.asked_at + LEASE).max();
        self.until = self.until.max(until.unwrap_or_default());
        let begins = !held && (self.alone || now < self.until);
        self.generation += u64::from(begins);
        begins
    }

    /// The lease as of now, if there is one.
    pub fn pass(&self, now: Duration) -> Option<Pass> {
        (self.alone || now < self.until).then_some(Pass(self.generation))
    }
}

/// The node's lease, shared by all that append.
pub struct LeaseKeeper {
    clock: Uptime,
    lease: Mutex<Lease>,
    /// Told when a lease begins.
    begun: watch::Sender<()>,
}

impl LeaseKeeper {
    pub fn new(clock: Uptime) -> Arc<Self> {
        Arc::new(Self { clock, lease: Mutex::default(), begun: watch::Sender::default() })
    }

    /// Of a node that is its whole fleet.
    pub fn alone(clock: Uptime) -> Arc<Self> {
        let keeper = Self::new(clock);
        keeper.applied(0, true);
        keeper
    }

    pub fn granted(&self, grant: Grant) {
        let begins = self.lock().granted(grant, self.clock.now());
        self.tell(begins);
    }

    pub fn applied(&self, index: u64, alone: bool) {
        let begins = self.lock().applied(index, alone, self.clock.now());
        self.tell(begins);
    }

    fn tell(&self, begins: bool) {
        if begins {
            self.begun.send_replace(());
        }
    }

    pub fn pass(&self) -> Option<Pass> {
        self.lock().pass(self.clock.now())
    }

    /// How long there has been no lease; none while there is one.
    pub fn without_for(&self) -> Option<Duration> {
        let now = self.clock.now();
        let lease = self.lock();
        lease.pass(now).is_none().then(|| now.saturating_sub(lease.until))
    }

    /// By the clock that the lease runs by.
    pub fn now(&self) -> Duration {
        self.clock.now()
    }

    /// A gate for requests that may go under this lease, and without one as long as they are guarded.
    pub fn gate(self: &Arc<Self>, pass: Option<Pass>, guarded_until: Duration) -> Gate {
        let keeper = self.clone();
        Arc::new(move || {
            let now = keeper.clock.now();
            now < guarded_until || (pass.is_some() && keeper.lock().pass(now) == pass)
        })
    }

    /// Waits until there is a lease.
    pub async fn held(&self) {
        let mut begun = self.begun.subscribe();
        while self.pass().is_none() {
            // An error is impossible while `self` holds the sender.
            let _ = begun.changed().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lease> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn grant(applied: u64, asked_at: u64) -> Grant {
        Grant { applied, asked_at: ms(asked_at) }
    }

    #[test]
    fn a_lease_counts_from_when_it_was_asked_for() {
        let mut lease = Lease::default();
        assert_eq!(lease.pass(ms(0)), None, "nothing was granted yet");
        assert!(lease.granted(grant(0, 1_000), ms(1_900)));
        assert!(lease.pass(ms(3_199)).is_some());
        assert_eq!(lease.pass(ms(3_200)), None);
        assert!(!lease.granted(grant(0, 1_000), ms(3_200)), "an answer that comes too late grants nothing");
    }

    #[test]
    fn a_grant_waits_until_what_the_coordinator_knew_is_applied_here() {
        let mut lease = Lease::default();
        assert!(!lease.granted(grant(7, 0), ms(100)));
        assert!(!lease.applied(6, false, ms(200)));
        assert!(lease.applied(7, false, ms(300)));
        // It goes on by older grants while newer ones wait.
        lease.granted(grant(9, 400), ms(500));
        assert!(lease.pass(ms(2_199)).is_some());
        assert_eq!(lease.pass(ms(2_200)), None);
        assert!(lease.applied(9, false, ms(2_300)));
        assert!(lease.pass(ms(2_599)).is_some());
    }

    #[test]
    fn an_extended_lease_is_the_same_and_one_that_ended_never_comes_back() {
        let mut lease = Lease::default();
        lease.granted(grant(0, 0), ms(1));
        let first = lease.pass(ms(1));
        lease.granted(grant(0, 2_100), ms(2_150));
        assert_eq!(lease.pass(ms(4_000)), first);
        lease.granted(grant(0, 6_000), ms(6_001));
        let second = lease.pass(ms(6_001));
        assert!(second.is_some() && second != first);
    }

    #[test]
    fn a_node_that_is_its_whole_fleet_always_holds_one() {
        let mut lease = Lease::default();
        assert!(lease.applied(1, true, ms(0)));
        let pass = lease.pass(ms(1_000_000));
        assert!(pass.is_some());
        // Others come: from then on it needs grants, and goes on without a break if it has some.
        lease.granted(grant(1, 1_000_000), ms(1_000_000));
        lease.applied(2, false, ms(1_000_001));
        assert_eq!(lease.pass(ms(1_000_001)), pass);
        assert_eq!(lease.pass(ms(1_003_000)), None);
        // The others are removed.
        assert!(lease.applied(3, true, ms(1_009_000)));
        assert_ne!(lease.pass(ms(1_009_000)), pass);
    }

    #[tokio::test]
    async fn whoever_waits_for_a_lease_hears_of_it_and_its_gate_shuts_with_it() {
        let (now, clock) = crate::fixture::clock();
        let keeper = LeaseKeeper::new(clock);
        let waiting = tokio::spawn({
            let keeper = keeper.clone();
            async move { keeper.held().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        keeper.granted(grant(0, 0));
        waiting.await.expect("told");
        let pass = keeper.pass();
        let (unguarded, guarded) = (keeper.gate(pass, ms(0)), keeper.gate(None, ms(3_500)));
        assert!(unguarded() && guarded());
        assert_eq!(keeper.without_for(), None);
        now.set(ms(2_200));
        assert_eq!(keeper.without_for(), Some(ms(0)));
        assert!(!unguarded() && guarded());
        keeper.granted(grant(0, 2_200));
        assert!(keeper.pass().is_some() && !unguarded(), "another lease");
        now.set(ms(3_500));
        assert!(!guarded());
    }
}
