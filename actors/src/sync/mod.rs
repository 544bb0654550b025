//! A link's tasks beside its records: what else is kept in step with the source.
//!
//! - [`configs`]: topic configs.

pub mod configs;
