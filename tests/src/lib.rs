//! The harness: real Kafka clusters, live load, the built `lockstep` binary, and two witnesses
//! (a raw reader of its own and rdkafka) that compare what both ends hold.
//!
//! It never links product code: what it knows of the protocol and of record batches is written
//! here a second time, so that a mistake in the product can't excuse itself.
//!
//! One part stands apart: [`differential`] plays requests to the embedded cluster and to real Kafka, and
//! links the embedded cluster for it.
//!
//! Without the feature `witness` only the parts that start things are left; `xtask` uses those.

pub mod artifacts;
pub mod cluster;
pub mod machine;
pub mod ports;
pub mod process;
pub mod wire;

#[cfg(feature = "witness")]
pub mod acls;
#[cfg(feature = "witness")]
pub mod client;
#[cfg(feature = "witness")]
pub mod compare;
#[cfg(feature = "differential")]
pub mod differential;
#[cfg(feature = "node")]
pub mod fleet;
#[cfg(feature = "witness")]
pub mod groups;
#[cfg(feature = "witness")]
pub mod load;
#[cfg(feature = "witness")]
pub mod mirror;
#[cfg(feature = "node")]
pub mod node;
#[cfg(feature = "witness")]
pub mod operator;
#[cfg(feature = "witness")]
pub mod pair;
#[cfg(any(feature = "differential", feature = "witness"))]
pub mod scenario;
#[cfg(feature = "secured")]
pub mod secured;
#[cfg(feature = "witness")]
pub mod settled;
#[cfg(feature = "witness")]
pub mod shapes;
#[cfg(feature = "witness")]
pub mod stopped;

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The checkout this crate was built from.
pub fn workspace_root() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().expect("the tests crate lies directly under the workspace root").to_path_buf()
}

/// Calls `attempt` every `pause` until it yields a value; `None` when `limit` has passed.
pub fn poll_until<T>(limit: Duration, pause: Duration, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = attempt() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(pause);
    }
}
