//! One mirror partition: an actor that owns its life, a pure machine that decides, a look at both
//! logs that says where it stands. Bytes never pass through here.

mod actor;
mod footing;
mod leader;
mod look;
pub mod machine;
mod prefix;
mod seam;

pub use actor::{PartitionArguments, PartitionMessage, PartitionMirror, Runner};
pub use footing::{Footing, FootingError, Question, topic_partition};
pub use machine::{Event, Quiet};
pub(crate) use seam::read_at;
