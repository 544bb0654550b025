//! The Kafka clusters of a simulation.
//!
//! For now each is one host that no request gets an answer from, in one of several ways. The in-memory
//! clusters take their place: they serve the same addresses over turmoil's listeners.

use std::fmt;

use tokio::io::AsyncReadExt as _;
use turmoil::net::TcpListener;

/// What clients find at every broker's address.
pub const BROKER_PORT: u16 = 9092;

/// A cluster as it is registered.
#[derive(Clone, Copy, Debug)]
pub struct Cluster {
    pub name: &'static str,
    pub id: &'static str,
    /// Its one broker's host.
    pub host: &'static str,
}

/// The first is the source of all links.
pub const CLUSTERS: [Cluster; 3] = [
    Cluster { name: "north", id: "north-cluster-id", host: "north-1" },
    Cluster { name: "south", id: "south-cluster-id", host: "south-1" },
    Cluster { name: "west", id: "west-cluster-id", host: "west-1" },
];

/// How a cluster fails to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Refuses,
    HangsUp,
    Silent,
}

impl Mood {
    pub const ALL: [Mood; 3] = [Mood::Refuses, Mood::HangsUp, Mood::Silent];

    /// What a link between such clusters must be seen as once it has been checked often enough.
    pub const LINK_STATE: &str = "UNAVAILABLE";
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

/// A broker's host, for as long as it runs.
pub async fn broker(mood: Mood) -> turmoil::Result {
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
