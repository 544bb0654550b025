//! The catalog: everything a fleet agrees on, as one pure value.
//!
//! - [`model`]: what is kept: clusters, links, mirror topics, assignments.
//! - [`fleet`]: its members, their trust, and partitions that change hands.
//! - [`command`]: what may be asked of it.
//! - [`apply`](Catalog::apply): the only way it changes; total, deterministic, never panics.
//! - [`placement`]: which node should run which mirror partition, as a plan.
//! - [`events`]: what has happened, why, and who asked.
//! - [`stop`]: how a mirror topic stops being one.
//! - [`voters`]: which members should vote in Raft, one change at a time.
//! - [`codec`]: its bytes, versioned; the only place that names bincode.
//!
//! The catalog never awaits, reads a clock, draws a random number or iterates a hash map:
//! times and fresh ids arrive inside commands, so that equal logs give equal catalogs (CT-1).

// Simulation runs this crate: chance and time come through its seams.
#![warn(clippy::disallowed_methods)]

pub mod acls;
pub mod apply;
pub mod codec;
pub mod command;
pub mod events;
pub mod fleet;
pub mod model;
pub mod placement;
pub mod stop;
pub mod voters;

pub use command::{Action, Command, Outcome, Refusal};
pub use fleet::{Duty, FleetId, Node, PartitionKey};
pub use model::{
    Assignment, Catalog, Cluster, Failure, Link, LinkId, MirrorError, MirrorKey, MirrorStatus, MirrorTopic,
    NodeId, Prefix, ProducerIdentity, TopicId,
};
