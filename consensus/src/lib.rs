//! The Raft group that replicates the catalog.
//!
//! One [`Consensus`] a process. The node's API and the actors talk to it: [`Consensus::submit`]
//! proposes a change, [`Consensus::watch`] shows what was applied, [`Consensus::read`] reads what
//! no later leader can contradict. An acknowledged command is on disk and stays (CT-6).
//!
//! - [`Options`]: where the data is, timing, and the seams: peers, clock, entropy, the disk's pace.
//! - `handle`: founding, entering, opening, stopping; `status`: what can be said at once.
//! - `forward`: submitting and reading on any node, through the Raft leader.
//! - [`book`]: where members are.
//! - `campaign`: when a node stands for election; `handover`: making another the Raft leader.
//! - `membership`: who votes and who learns, as the coordinator orders it.
//! - `network`: openraft's calls to the other members, over [`peers::Call`], and their answers.
//! - `directory`: the data directory: its lock, its store file, how both come to be.
//! - `store`: log, vote and snapshots in one redb file; what openraft asks of a store.
//! - `recover`: one node goes on alone after the majority is lost for good.
//! - `runtime`: where openraft's tasks run and draw from.
//!
//! It never knows Kafka, never decides what a command means (that is [`catalog::Catalog::apply`]),
//! and never shows a type of openraft: that library can be replaced behind this crate.

// Simulation runs this crate: chance and time come through its seams.
#![warn(clippy::disallowed_methods)]

mod book;
mod campaign;
mod directory;
mod error;
mod forward;
mod handle;
mod handover;
mod membership;
mod network;
mod options;
mod raft;
mod recover;
mod runtime;
mod status;
mod store;

pub use book::book;
pub use error::{MemberError, OpenError, RecoverError, SubmitError};
pub use handle::Consensus;
pub use options::{Clock, Entropy, Options, Pace};
pub use recover::{Prospect, Recovered, recover, recover_on, would_recover};
pub use status::Status;
pub use store::Applied;
