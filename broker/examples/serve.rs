//! Serves an in-memory cluster of three brokers until Ctrl-C, for trying clients on:
//! `cargo run -p broker --example serve [FIRST_PORT [CLUSTER_ID]]`.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr};

use broker::{Settings, TcpCluster, TopicConfigs, system_clock};

const BROKERS: u16 = 3;
const TOPIC: &str = "events";
const PARTITIONS: i32 = 4;
const REPLICATION: i16 = 3;
const SEED: u64 = 1;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let first = std::env::args().nth(1).map(|port| port.parse::<u16>()).transpose()?;
    let ports: Vec<u16> = (0..BROKERS).map(|index| first.map_or(0, |first| first + index)).collect();
    let cluster_id = std::env::args().nth(2).unwrap_or_else(|| "in-memory".to_owned());
    let settings =
        |endpoints| Settings { auto_create_topics: true, ..Settings::new(&cluster_id, endpoints, SEED) };
    let served =
        TcpCluster::listen(IpAddr::V4(Ipv4Addr::LOCALHOST), &ports, settings, system_clock()).await?;
    let configs = TopicConfigs::default();
    served.cluster.with(|state| state.create_topic(TOPIC, PARTITIONS, REPLICATION, configs));
    println!("{} (topic {TOPIC}, {PARTITIONS} partitions)", served.bootstrap);
    tokio::signal::ctrl_c().await?;
    Ok(())
}
