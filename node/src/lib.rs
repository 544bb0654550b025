//! A node of Lockstep (`lockstep server`), and the commands that talk to one.
//!
//! The binary calls [`run`]. What else is public is what the simulation runs as it is: [`api`], what it shows
//! of other members ([`status`]), and what answers them ([`peering`]).

// What a public module is made of is named in its documentation, public or not.
#![allow(rustdoc::private_intra_doc_links)]

pub mod api;
mod cli;
mod config;
mod demo;
pub mod peering;
mod process;
mod server;
pub mod status;
mod telemetry;
#[cfg(feature = "audit")]
mod verify;

pub use cli::run;
