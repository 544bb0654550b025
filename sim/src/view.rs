//! What can be seen of a node's process from outside, and what can be asked of it for the judge's sake.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actors::observe::Observatory;
use catalog::NodeId;
use consensus::{Applied, Consensus};
use tokio::sync::{mpsc, oneshot, watch};

use crate::judge::{Seen, Witness};

/// How often a node looks whether it is Raft leader.
const SAY_EVERY: Duration = Duration::from_millis(50);
/// Of the operator, which asks for one after the other.
const READS_WAITING_MAX: usize = 1;

#[derive(Clone)]
pub struct View {
    pub node: NodeId,
    /// Which of the node's.
    pub process: u64,
    pub applied: watch::Receiver<Arc<Applied>>,
    /// Told once the judge has seen a linearizable read; dropped when that can't be had here.
    pub reads: mpsc::Sender<oneshot::Sender<()>>,
    pub standing: Arc<Mutex<Standing>>,
    /// None before the data plane runs.
    pub observatory: Option<Arc<Observatory>>,
}

/// What it says of the Raft group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    pub leads: bool,
    pub voters: Vec<NodeId>,
}

impl View {
    pub fn standing(&self) -> Standing {
        lock(&self.standing).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub async fn say_how_it_stands(consensus: Consensus, standing: Arc<Mutex<Standing>>) {
    loop {
        let status = consensus.status();
        let now = Standing { leads: status.is_leader, voters: status.voters };
        let before = std::mem::replace(&mut *lock(&standing), now.clone());
        if before != now {
            tracing::info!(
                "node: {}, voters {:?}",
                if now.leads { "is Raft leader" } else { "follows" },
                now.voters
            );
        }
        tokio::time::sleep(SAY_EVERY).await;
    }
}

/// The API has no linearizable read, so the judge has its own at the node that the operator talks to. It
/// runs on the node's host, as moments of one host mean nothing on another.
pub fn judged_reads(consensus: Consensus, judge: Witness) -> mpsc::Sender<oneshot::Sender<()>> {
    let (reads, mut asked) = mpsc::channel::<oneshot::Sender<()>>(READS_WAITING_MAX);
    tokio::spawn(async move {
        while let Some(done) = asked.recv().await {
            match consensus.read().await {
                Ok(applied) if !done.is_closed() => {
                    judge.see(Seen::Settled(&applied));
                    // Whoever asked has gone meanwhile.
                    let _ = done.send(());
                }
                Ok(_) => {}
                Err(error) => tracing::info!("operator: can't read yet: {error}"),
            }
        }
    });
    reads
}
