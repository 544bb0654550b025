//! How actors ask the catalog to change, and hear what it holds.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use catalog::voters::{Change, Members};
use catalog::{Action, MirrorKey, NodeId, Outcome, Refusal};
use consensus::{Applied, Consensus, MemberError, Status, SubmitError};
use tokio::sync::watch;

/// Between two tries while nobody can take a command.
const RETRY: Duration = Duration::from_millis(500);

pub type SubmitFuture<'a> = Pin<Box<dyn Future<Output = Result<Outcome, SubmitError>> + Send + 'a>>;
pub type ReadFuture<'a> = Pin<Box<dyn Future<Output = Result<Arc<Applied>, SubmitError>> + Send + 'a>>;
pub type ChangeFuture<'a> = Pin<Box<dyn Future<Output = Result<(), MemberError>> + Send + 'a>>;

/// The seam to consensus.
pub trait CatalogPort: Send + Sync {
    /// This node.
    fn node(&self) -> NodeId;
    fn submit(&self, action: Action) -> SubmitFuture<'_>;
    /// What is applied here.
    fn watch(&self) -> watch::Receiver<Arc<Applied>>;
    /// Everything that was acknowledged before, anywhere, once it is applied here.
    fn read(&self) -> ReadFuture<'_>;
    fn status(&self) -> Status;
    /// Who is in the Raft group, for the Raft leader to change.
    fn members(&self) -> Option<Members>;
    fn change(&self, change: Change) -> ChangeFuture<'_>;
}

impl CatalogPort for Consensus {
    fn node(&self) -> NodeId {
        self.node_id()
    }

    fn submit(&self, action: Action) -> SubmitFuture<'_> {
        Box::pin(Consensus::submit(self, action))
    }

    fn watch(&self) -> watch::Receiver<Arc<Applied>> {
        Consensus::watch(self)
    }

    fn read(&self) -> ReadFuture<'_> {
        Box::pin(Consensus::read(self))
    }

    fn status(&self) -> Status {
        Consensus::status(self)
    }

    fn members(&self) -> Option<Members> {
        Some(Consensus::members(self))
    }

    fn change(&self, change: Change) -> ChangeFuture<'_> {
        Box::pin(async move {
            let changed = match change {
                Change::AddLearner(node) => self.add_learner(node).await,
                Change::SetVoters(voters) => self.set_voters(voters).await,
                Change::Remove(node) => self.remove(node).await,
            };
            if let Err(MemberError::Leads) = changed {
                // The next Raft leader's coordinator takes the vote away.
                let to = self.yield_leadership().await;
                tracing::info!(to = to.map(|node| node.to_string()), "the Raft leader gives its vote up");
                return Ok(());
            }
            changed
        })
    }
}

impl dyn CatalogPort + '_ {
    pub fn applied(&self) -> Arc<Applied> {
        self.watch().borrow().clone()
    }

    /// Whether the partition is this node's under that epoch, by what is applied at this moment.
    pub fn owns(&self, mirror: &MirrorKey, partition: u32, assignment_epoch: u64) -> bool {
        let watch = self.watch();
        let applied = watch.borrow();
        let partition = applied.catalog.mirror(mirror).and_then(|m| m.partitions.get(partition as usize));
        let assignment = partition.and_then(|p| p.assignment.as_ref());
        assignment.is_some_and(|a| a.node == self.node() && a.epoch == assignment_epoch)
    }

    /// Submits until the catalog has taken or refused it. Commands carry what they expect, so
    /// that one taken twice does nothing the second time.
    pub async fn submit_until_taken(&self, action: Action) -> Result<Outcome, Refusal> {
        loop {
            match self.submit(action.clone()).await {
                Ok(outcome) => return Ok(outcome),
                Err(SubmitError::Refused(refusal)) => return Err(refusal),
                Err(SubmitError::Stopped) => {
                    return Err(Refusal::Illegal("this node is stopping".into()));
                }
                Err(error) => {
                    tracing::warn!(%error, "the catalog can't change now; trying again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}
