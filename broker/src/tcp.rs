//! A cluster on TCP ports of this machine.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::state::{Endpoint, Settings};

/// Connections of one broker at a time; a client beyond them waits to be accepted.
const CONNECTIONS_MAX: usize = 1_000;
/// Accepting fails for want of file handles, which others give back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Brokers 1, 2, … each behind a port of its own; they end with this value.
pub struct TcpCluster {
    pub cluster: Cluster,
    pub bootstrap: String,
    /// Dropped, they end, and their connections with them.
    _listeners: JoinSet<()>,
}

impl TcpCluster {
    /// Binds a port for each broker (0: any that is free) and serves.
    ///
    /// # Errors
    /// When a port can't be bound; the error names it.
    pub async fn listen(
        ip: IpAddr,
        ports: &[u16],
        settings: impl FnOnce(Vec<Endpoint>) -> Settings,
        clock: Clock,
    ) -> io::Result<Self> {
        let mut bound = Vec::new();
        let mut endpoints = Vec::new();
        for (id, port) in (1..).zip(ports) {
            let listener = TcpListener::bind((ip, *port)).await;
            let listener =
                listener.map_err(|error| io::Error::new(error.kind(), format!("{ip}:{port}: {error}")))?;
            endpoints.push(Endpoint { id, host: ip.to_string(), port: listener.local_addr()?.port() });
            bound.push((id, listener));
        }
        let addresses: Vec<String> = endpoints.iter().map(|at| format!("{}:{}", at.host, at.port)).collect();
        let cluster = Cluster::new(settings(endpoints), clock);
        let mut listeners = JoinSet::new();
        for (broker, listener) in bound {
            listeners.spawn(accept(cluster.clone(), broker, listener));
        }
        Ok(Self { cluster, bootstrap: addresses.join(","), _listeners: listeners })
    }
}

async fn accept(cluster: Cluster, broker: i32, listener: TcpListener) {
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = free.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(broker, %error, "a connection wasn't accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if stream.set_nodelay(true).is_err() {
            continue;
        }
        let cluster = cluster.clone();
        connections.spawn(async move {
            cluster.serve(broker, stream).await;
            drop(permit);
        });
        while connections.try_join_next().is_some() {}
    }
}
