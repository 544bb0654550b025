//! Latency of 2,000 submits, one after the other, on a data directory (default: a temporary one).
//!
//!     cargo run --release -p consensus --example submit_latency [DATA_DIR]

use std::time::{Duration, Instant};

use catalog::{Action, NodeId};
use consensus::{Consensus, Options};

const SUBMITS: usize = 2_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let temporary = tempfile::tempdir()?;
    let dir = std::env::args_os().nth(1).map_or_else(|| temporary.path().to_owned(), Into::into);
    let started = Instant::now();
    let consensus = Consensus::bootstrap(Options::new(dir, "latency")).await?;
    println!("leader after {:?}", started.elapsed());
    let mut taken = Vec::with_capacity(SUBMITS);
    for n in 0..SUBMITS {
        let start = Instant::now();
        consensus.submit(Action::StartNode { node: NodeId(1), name: format!("n{n}").into() }).await?;
        taken.push(start.elapsed());
    }
    taken.sort();
    let total: Duration = taken.iter().sum();
    let at = |share: f64| taken[(SUBMITS as f64 * share) as usize];
    println!(
        "{SUBMITS} submits: p50 {:?}, p99 {:?}, max {:?}, {:.0} a second",
        at(0.50),
        at(0.99),
        taken[SUBMITS - 1],
        SUBMITS as f64 / total.as_secs_f64()
    );
    consensus.shutdown().await;
    Ok(())
}
