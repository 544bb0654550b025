//! Calls between the nodes of a fleet.
//!
//! - [`call`]: what consensus and actors see of it: a call carries bytes to a member's service and
//!   brings bytes back, within a deadline.
//! - [`transport`]: does so over connections ([`dial`]) that are protected ([`tls`]), to where members
//!   are ([`book`]), and knows when each was last heard of ([`heard`]).
//! - [`join`]: how a node that isn't a member becomes one, with a [`token`]; [`authority`] signs its
//!   certificate, [`identity`] keeps it.
//!
//! It never knows what it carries, and never retries: who calls knows whether that is safe.

// Simulation runs this crate: chance and time come through its seams.
#![warn(clippy::disallowed_methods)]

pub mod authority;
pub mod book;
pub mod call;
mod connection;
pub mod dial;
mod frame;
mod guest;
pub mod heard;
mod hello;
pub mod identity;
pub mod join;
mod lane;
mod late;
mod line;
mod meters;
mod names;
mod reception;
pub mod refusal;
mod shared;
pub mod tls;
pub mod token;
pub mod transport;
pub mod validity;

pub use book::Book;
pub use call::{Alone, Call, CallError, CallFuture, Serve, ServeFuture, Service};
pub use heard::Heard;
pub use join::Gate;
pub use late::LatePeers;
pub use refusal::Refusal;
pub use tls::{Security, Tls};
pub use token::Token;
pub use transport::Transport;
