//! The Kafka clusters of a simulation: two that hold data, each an in-memory cluster whose brokers are
//! hosts, and one that no request gets an answer from.

use std::fmt;
use std::sync::Arc;

use broker::{Endpoint, Settings};
use tokio::io::AsyncReadExt as _;
use turmoil::net::TcpListener;

use crate::chance::{Chance, SharedChance};
use crate::mischief::Mischief;
use crate::options::{Options, SourceTopic};
use crate::time::Time;

/// What clients find at every broker's address.
pub const BROKER_PORT: u16 = 9092;

/// A cluster as it is registered.
#[derive(Clone, Copy, Debug)]
pub struct Registered {
    pub name: &'static str,
    pub id: &'static str,
    /// Its brokers' hosts; broker ids count from 1.
    pub hosts: &'static [&'static str],
}

/// The source of all links.
pub const SOURCE: Registered =
    Registered { name: "north", id: "north-cluster-id", hosts: &["north-1", "north-2", "north-3"] };
pub const DESTINATION: Registered =
    Registered { name: "south", id: "south-cluster-id", hosts: &["south-1", "south-2", "south-3"] };
/// The one that never answers.
pub const UNREACHABLE: Registered = Registered { name: "west", id: "west-cluster-id", hosts: &["west-1"] };

pub const ALL: [Registered; 3] = [SOURCE, DESTINATION, UNREACHABLE];

/// Which of the two clusters with data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Source,
    Destination,
}

impl Side {
    pub const BOTH: [Side; 2] = [Side::Source, Side::Destination];

    pub fn registered(self) -> Registered {
        match self {
            Self::Source => SOURCE,
            Self::Destination => DESTINATION,
        }
    }

    pub fn host(self, broker: i32) -> &'static str {
        let place = usize::try_from(broker - 1).unwrap_or_default();
        self.registered().hosts[place]
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.registered().name)
    }
}

/// An in-memory cluster, with what is in the way of its requests.
#[derive(Clone)]
pub struct Embedded {
    pub cluster: broker::Cluster,
    pub mischief: Mischief,
}

impl Embedded {
    pub fn new(side: Side, options: &Options, time: &Time) -> Self {
        let Registered { name, id, hosts } = side.registered();
        let endpoints =
            (1..).zip(hosts).map(|(id, host)| Endpoint { id, host: (*host).to_owned(), port: BROKER_PORT });
        let mut chance = Chance::of(options.seed, name);
        let mut settings = Settings::new(id, endpoints.collect(), chance.next());
        settings.default_replication = hosts.len() as i16;
        settings.producer_id_expiration_check_ms = options.producer_check_ms;
        let clock = time.clone();
        let cluster = broker::Cluster::new(settings, Arc::new(move || clock.wall_ms()));
        let mischief = Mischief::put_in_the_way_of(
            &cluster,
            SharedChance::of(options.seed, &format!("{name} mischief")),
        );
        Self { cluster, mischief }
    }

    pub fn create_topics(&self, topics: &[SourceTopic]) {
        self.cluster.with(|state| {
            for SourceTopic { name, partitions, replication, in_sync_min, batch_bytes_max, .. } in topics {
                let mut configs = broker::TopicConfigs::default();
                // Old records are to stay; what goes, goes by a fault.
                for (key, value) in [
                    ("retention.ms", "-1"),
                    ("min.insync.replicas", &in_sync_min.to_string()),
                    ("max.message.bytes", &batch_bytes_max.to_string()),
                ] {
                    configs.set(key, value).expect("a config of Kafka's");
                }
                state.create_topic(name, *partitions, *replication, configs);
            }
        });
    }

    /// One broker's host, for as long as it runs.
    pub async fn serve(self, broker: i32) -> turmoil::Result {
        let listener = TcpListener::bind(("0.0.0.0", BROKER_PORT)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            let cluster = self.cluster.clone();
            tokio::spawn(async move { cluster.serve(broker, stream).await });
        }
    }
}

/// How a cluster fails to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Refuses,
    HangsUp,
    Silent,
}

impl Mood {
    pub const ALL: [Mood; 3] = [Mood::Refuses, Mood::HangsUp, Mood::Silent];
}

impl fmt::Display for Mood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refuses => "refuses connections",
            Self::HangsUp => "hangs up at once",
            Self::Silent => "never answers",
        })
    }
}

/// The host of the cluster that never answers.
pub async fn stand_in(mood: Mood) -> turmoil::Result {
    if mood == Mood::Refuses {
        return std::future::pending().await;
    }
    let listener = TcpListener::bind(("0.0.0.0", BROKER_PORT)).await?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        if mood == Mood::Silent {
            tokio::spawn(async move {
                let mut requests = [0; 1024];
                while stream.read(&mut requests).await.is_ok_and(|bytes| bytes > 0) {}
            });
        }
    }
}
