//! What runs anywhere in the fleet, as any node can tell it: each member is asked for what it sees of
//! its own partitions, and who doesn't answer in time is named.
//!
//! - [`seen`]: what one node sees, and everything that was seen.
//! - [`gather`]: asks the members.
//!
//! JSON between nodes: members of two versions understand each other.

pub(crate) mod gather;
pub(crate) mod seen;

pub use gather::Fleet;
pub(crate) use seen::Seen;
