//! An in-memory Kafka cluster of several brokers that speaks the real protocol over any byte stream, for
//! the demo, the simulation and tests. Its README lists what it leaves out.
//!
//! All brokers share one [`State`], a value that requests change; [`Cluster`] holds it, gives it time and
//! wakes who waits. Faults come in by [`Interceptors`] (per request), [`Cluster::stop_broker`] (per
//! broker) and [`State::partition_mut`] (per partition). Never used in production; shares no code with the
//! client that it is to prove.

mod alter;
mod api;
mod assignment;
mod broker_configs;
mod clock;
mod cluster;
mod configs;
mod connection;
mod coordinator;
mod decode;
mod fault;
mod fetch_session;
mod groups;
mod log;
mod partition;
mod state;
mod tcp;
mod transactions;

pub use clock::{Clock, system_clock};
pub use cluster::Cluster;
pub use configs::TopicConfigs;
pub use fault::{Caller, Change, Fault, InterceptorId, Interceptors};
pub use groups::{Committed, Committer, Group, GroupOffsets, GroupSettings, Groups, Phase};
pub use log::{Appended, Batch, Header, Log, Producer, Refusal, Rules, TimestampType};
pub use partition::{Partition, Stop};
pub use state::{Endpoint, Settings, State, Topic};
pub use tcp::TcpCluster;
pub use transactions::{Status, Transaction, Transactions};
