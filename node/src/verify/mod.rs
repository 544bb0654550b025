//! `lockstep verify`: do both ends of a mirror hold the same records at the same offsets?
//!
//! An audit must not share the product's mistakes. Records are read by librdkafka, a client that
//! most of the world's consumers run on, as consumers see them (`read_committed`); of the product
//! it takes names and client keys, no position and no byte.
//!
//! - [`record`]: two records, and what differs between them.
//! - [`comparison`]: two streams of records over a range of offsets.
//! - [`extent`]: which offsets are compared, and why others aren't.
//! - [`pace`]: how long to wait so that reading stays below a rate.
//! - [`report`]: what was found, as it is shown.
//! - [`settings`], [`pem`]: a cluster's client keys in librdkafka's words.
//! - [`reader`]: one end, through librdkafka. [`audit`]: both, partition by partition.
//!
//! Only [`reader`] touches the network and only [`audit`] reads the clock; both hold nothing but one
//! record an end and librdkafka's bounded queue. What librdkafka doesn't hand out isn't compared: a
//! header's name behind a NUL character, and how records were cut into batches.

pub mod audit;
pub mod comparison;
pub mod extent;
pub mod pace;
mod pem;
pub mod reader;
pub mod record;
pub mod report;
pub mod settings;

use std::fmt;

use serde::Serialize;

/// One end of a mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    Source,
    Mirror,
}

impl Side {
    /// The cluster it is on.
    fn cluster(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Mirror => "destination",
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Mirror => "mirror",
        })
    }
}
