//! The two clusters, in this process.

use std::net::{IpAddr, Ipv4Addr};

use broker::{Settings, TcpCluster, TopicConfigs, system_clock};

use super::{NODES, OTHER_PORTS, PARTITIONS, TOPIC};
use crate::cli::Failure;

pub struct Clusters {
    pub east: TcpCluster,
    pub west: TcpCluster,
}

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Of each.
pub const BROKERS: u16 = 3;
/// Kafka's default is a week; memory is bounded here, and the proof follows within seconds.
const RETENTION_CHECK_MS: i64 = 1_000;
/// Of each partition and cluster.
const RETENTION_BYTES: &str = "33554432";
const SEGMENT_BYTES: &str = "4194304";

impl Clusters {
    /// Starts both, with the source topic. `port` is the first of all; the brokers' follow the nodes'.
    pub async fn start(port: Option<u16>) -> Result<Self, Failure> {
        let east = listen("east", port.map(|port| port + 2 * NODES)).await?;
        let west = listen("west", port.map(|port| port + 2 * NODES + BROKERS)).await?;
        let mut configs = TopicConfigs::default();
        for (name, value) in [("retention.bytes", RETENTION_BYTES), ("segment.bytes", SEGMENT_BYTES)] {
            configs.set(name, value).map_err(Failure::new)?;
        }
        east.cluster.with(|state| state.create_topic(TOPIC, PARTITIONS, BROKERS as i16, configs));
        Ok(Self { east, west })
    }
}

async fn listen(name: &str, first: Option<u16>) -> Result<TcpCluster, Failure> {
    let ports: Vec<u16> = (0..BROKERS).map(|index| first.map_or(0, |first| first + index)).collect();
    let settings = |brokers| Settings {
        retention_check_ms: RETENTION_CHECK_MS,
        ..Settings::new(&format!("demo-{name}"), brokers, rand::random())
    };
    TcpCluster::listen(LOOPBACK, &ports, settings, system_clock())
        .await
        .map_err(|error| Failure::new(format!("can't listen for cluster {name}: {error}")).hint(OTHER_PORTS))
}
