//! How actors ask the catalog to change, and hear what it holds.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use catalog::{Action, Outcome, Refusal};
use consensus::{Consensus, SubmitError};

/// Between two tries while nobody can take a command.
const RETRY: Duration = Duration::from_millis(500);

pub type SubmitFuture<'a> = Pin<Box<dyn Future<Output = Result<Outcome, SubmitError>> + Send + 'a>>;

/// The seam to consensus.
pub trait CatalogPort: Send + Sync {
    fn submit(&self, action: Action) -> SubmitFuture<'_>;
}

impl CatalogPort for Consensus {
    fn submit(&self, action: Action) -> SubmitFuture<'_> {
        Box::pin(Consensus::submit(self, action))
    }
}

impl dyn CatalogPort + '_ {
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
