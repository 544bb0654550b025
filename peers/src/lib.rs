//! Calls between the nodes of a fleet.
//!
//! - [`call`]: what consensus and actors see of it: a call carries bytes to a member's service and
//!   brings bytes back, within a deadline.
//!
//! It never knows what it carries, and never retries: who calls knows whether that is safe.

// Simulation runs this crate: chance and time come through its seams.
#![warn(clippy::disallowed_methods)]

pub mod call;

pub use call::{Alone, Call, CallError, CallFuture, Serve, ServeFuture, Service};
