//! A tiny Kafka client of our own: blocking, one request at a time, every call with a time limit.
//! It sees raw batch bytes, which no public client shows, and takes them apart with code that
//! shares nothing with the product.
//!
//! It never writes records, never speaks TLS or SASL, and is slow by design: clarity first.

mod connection;
mod cursor;
pub mod groups;
mod metadata;

#[cfg(feature = "witness")]
mod batch;
#[cfg(feature = "witness")]
mod compression;
#[cfg(feature = "witness")]
mod reader;
#[cfg(feature = "witness")]
mod stream;

pub use connection::{Api, Connection};
pub use cursor::{Cursor, put_string};
pub use metadata::{Broker, Metadata, PartitionMetadata};

#[cfg(feature = "witness")]
pub use batch::{BATCH_HEADER_BYTES, RawBatch, RawRecord};
#[cfg(feature = "witness")]
pub use reader::{RawReader, TopicEnds};
#[cfg(feature = "witness")]
pub use stream::Batches;
