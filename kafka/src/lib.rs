//! Kafka's wire protocol for mirroring: raw record batches in, raw record batches out.
//!
//! - [`connection`]: pipelined requests over any byte stream, a deadline on each.
//! - [`frame`]: response frames in reused buffers, shared as [`bytes::Bytes`].
//! - [`shape`]: the check that every count in a response fits its frame, before it is decoded.
//! - [`client`]: one cluster: brokers, metadata, control requests.
//! - [`batch`]: record-batch headers: checked, cut, re-written; records are never decoded.
//! - [`fetch`], [`produce`]: the data plane's two requests.
//! - [`acls`]: read whole, created and deleted one by one.
//! - [`log_dirs`]: how large logs are.
//! - [`groups`]: consumer groups from outside. [`coordinator`]: whom to ask about one.
//! - [`transactions`]: markers that fence a producer.
//! - [`config`]: Kafka client keys. [`secret`]: values that aren't shown, references to them.
//! - [`dial`]: from an address to a connection: byte stream, TLS (`tls`), SASL (`sasl`).
//!
//! Knows nothing of links, mirrors or Raft.

// Simulation runs this crate: chance and time come through its seams.
#![warn(clippy::disallowed_methods)]

pub mod acls;
pub mod batch;
pub mod client;
pub mod config;
pub mod connection;
pub mod coordinator;
pub mod dial;
pub mod error;
pub mod fetch;
pub mod filler;
pub mod frame;
pub mod groups;
pub mod log_dirs;
pub mod metadata;
pub mod offsets;
pub mod produce;
pub mod producers;
mod sasl;
pub mod secret;
pub mod shape;
mod tls;
pub mod topics;
pub mod transactions;

pub use client::Client;
pub use config::{ClientConfig, ConfigError};
pub use connection::Connection;
pub use error::{Error, ErrorCode};
pub use metadata::{Metadata, PartitionMetadata, TopicMetadata};
