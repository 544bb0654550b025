//! The regular check whether a link's two clusters are there. On connections of its own: it waits
//! for nobody's requests, and nobody's requests wait for it.

use std::time::Duration;

use kafka::{Client, ClientConfig};
use ractor::ActorRef;
use tokio::task::AbortHandle;
use tokio::time::MissedTickBehavior;

use super::LinkMessage;

/// How a check reaches a cluster: no answer until the next check is due is none.
pub fn config(of: &ClientConfig, every: Duration) -> ClientConfig {
    ClientConfig { request_timeout: of.request_timeout.min(every), ..of.clone() }
}

/// Asks both clusters until the supervisor is gone or the task is aborted.
pub fn start(
    source: Client,
    destination: Client,
    every: Duration,
    supervisor: ActorRef<LinkMessage>,
) -> AbortHandle {
    let checks = async move {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let ask = async |client: &Client| client.metadata(Some(&[])).await.err();
            let (source, destination) = tokio::join!(ask(&source), ask(&destination));
            if supervisor.cast(LinkMessage::Checked { source, destination }).is_err() {
                return;
            }
        }
    };
    tokio::spawn(checks).abort_handle()
}
