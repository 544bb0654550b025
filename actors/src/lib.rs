//! Everything that runs on a node: who mirrors what, where it stands, what stopped it.
//!
//! - [`engine`]: starts and stops it all. [`fleet`]: this node among others: reports, leases, the
//!   coordinator. [`reconciler`]: the applied catalog to link supervisors.
//! - [`link`]: one link's supervisor; [`plan`]: what it should start and stop, [`doubts`]: what it must
//!   wait out, [`availability`]: whether its clusters answer, as values.
//! - [`partition`]: one mirror partition's life. [`fetcher`], [`filler`], [`appender`], [`lane`]: its
//!   bytes.
//! - [`pace`]: when an appender may send. [`governor`]: what a destination has to spare.
//! - [`setup`]: makes a new mirror ready; [`growth`]: follows added partitions; [`stop`]: ends it as a
//!   mirror. [`preflight`]: what would happen, before it is asked for.
//! - [`sync`]: what else follows the source.
//! - [`watch`]: idle mirrors that others write to. [`rest`]: how far behind those are that rest.
//! - [`verdict`]: what to do next about every error. [`observe`]: what anyone may see.
//!
//! Decisions are pure values (`machine`, `lane`, `plan`, `verdict`); actors and tasks perform
//! them. Bytes never travel through mailboxes. Nothing here sees openraft.

// Simulation runs this crate: chance and time come through its seams.
#![warn(clippy::disallowed_methods)]

pub mod appender;
pub mod availability;
pub mod catalog_port;
pub mod clock;
pub mod credit;
pub mod doubts;
pub mod engine;
pub mod fetcher;
pub mod filler;
#[cfg(test)]
mod fixture;
pub mod fleet;
pub mod governor;
pub mod growth;
pub mod lane;
pub mod link;
pub mod meters;
pub mod observe;
pub mod pace;
pub mod partition;
pub mod plan;
pub mod plane;
pub mod preflight;
pub mod reconciler;
pub mod rest;
pub mod settings;
pub mod setup;
pub mod stop;
pub mod sync;
pub mod verdict;
pub mod watch;
