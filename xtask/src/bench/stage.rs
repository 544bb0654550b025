//! Two brokers with a plain and a TLS listener each; the source has a third one that clients only
//! reach through the proxy.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use harness::cluster::{KafkaCluster, KafkaConfig};
use harness::ports::PortLease;
use harness::secured::{Authority, two_free_ports};

use super::client::Client;
use super::plan::Road;
use super::proxy::Proxy;

/// As brokers in production run: the full compiler and the default collector. Twice 1 GiB leaves
/// most of 8 GiB to the page cache and the mirrors.
const BROKER_JVM: [&str; 2] = ["-Xms1g", "-Xmx1g"];
/// Deleted topics give their space back before the next run fills it again.
const DELETE_DELAY: (&str, &str) = ("log.segment.delete.delay.ms", "500");

/// Both clusters, running.
pub struct Stage {
    pub source: Side,
    pub destination: Side,
    proxy: Proxy,
}

/// A cluster of one broker and the ways to it.
pub struct Side {
    cluster: KafkaCluster,
    /// HOST:PORT each.
    plain: String,
    tls: String,
    proxied: String,
    /// PEM file of the CA of the TLS listener.
    pub ca: PathBuf,
    _ports: Vec<PortLease>,
}

impl Stage {
    pub fn start(version: &str, directory: &Path) -> Result<Stage> {
        Stage::start_apart(version, directory, directory, &[])
    }

    /// Each below a directory of its own, with more options for the brokers' Java.
    pub fn start_apart(version: &str, source: &Path, destination: &Path, jvm: &[&str]) -> Result<Stage> {
        let (source, proxy) = Side::start("source", version, source, jvm)?;
        let (destination, _) = Side::start("destination", version, destination, jvm)?;
        Ok(Stage { source, destination, proxy })
    }

    /// Sets the road's round trip; the bootstrap addresses of source and destination.
    pub fn take_road(&self, road: Road) -> (String, String) {
        match road {
            Road::Plain => (self.source.plain.clone(), self.destination.plain.clone()),
            Road::Tls => (self.source.tls.clone(), self.destination.tls.clone()),
            Road::Proxied { round_trip_ms } => {
                self.proxy.set_round_trip(Duration::from_millis(round_trip_ms));
                (self.source.proxied.clone(), self.destination.plain.clone())
            }
        }
    }
}

impl Side {
    fn start(name: &str, version: &str, parent: &Path, jvm: &[&str]) -> Result<(Side, Proxy)> {
        let mut config = KafkaConfig::single(name, parent);
        version.clone_into(&mut config.version);
        fs::create_dir_all(&config.directory)
            .with_context(|| format!("create {}", config.directory.display()))?;
        let ca = config.directory.join("ca.pem");
        let pem = config.directory.join("broker.pem");
        let authority = Authority::new(&format!("CA of {name}"))?;
        let issued = authority.issue("broker", &["localhost"])?;
        fs::write(&ca, authority.pem()).context("write the CA")?;
        fs::write(&pem, format!("{}{}", issued.key, issued.chain)).context("write the certificate")?;

        let first = two_free_ports()?;
        let ports = [PortLease::take()?, PortLease::take()?, PortLease::take()?];
        let [tls, behind, proxied] = ports.each_ref().map(PortLease::port);
        config.first_port = Some(first);
        config.properties.extend(properties(first, [tls, behind, proxied], &pem));
        let jvm = BROKER_JVM.iter().chain(jvm).map(|option| (*option).to_owned()).collect();
        let cluster = KafkaCluster::start_tuned(config, &[], jvm)?;
        let local = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let proxy = Proxy::start(local(proxied), local(behind))?;
        let side = Side {
            plain: cluster.bootstrap(),
            tls: format!("localhost:{tls}"),
            proxied: local(proxied).to_string(),
            cluster,
            ca,
            _ports: ports.into(),
        };
        Ok((side, proxy))
    }

    /// HOST:PORT without TLS or detour.
    pub fn plain(&self) -> &str {
        &self.plain
    }

    pub fn client(&self) -> Result<Client> {
        Client::open(&self.plain)
    }

    /// An error when the broker has ended.
    pub fn pid(&self) -> Result<u32> {
        let facts = self.cluster.facts();
        Ok(facts.first().with_context(|| format!("{} has no broker", self.cluster.name()))?.pid)
    }
}

/// The proxied listener lies behind the proxy, whose port is what the broker tells clients.
fn properties(first: u16, [tls, behind, proxied]: [u16; 3], pem: &Path) -> Vec<(String, String)> {
    let plain = format!("PLAINTEXT://127.0.0.1:{first}");
    let tls = format!("TLS://localhost:{tls}");
    let controller = format!("CONTROLLER://127.0.0.1:{}", first + 1);
    [
        ("listeners", format!("{plain},{tls},PROXIED://127.0.0.1:{behind},{controller}")),
        ("advertised.listeners", format!("{plain},{tls},PROXIED://127.0.0.1:{proxied}")),
        (
            "listener.security.protocol.map",
            "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,TLS:SSL,PROXIED:PLAINTEXT".to_owned(),
        ),
        ("inter.broker.listener.name", "PLAINTEXT".to_owned()),
        ("listener.name.tls.ssl.keystore.type", "PEM".to_owned()),
        ("listener.name.tls.ssl.keystore.location", pem.display().to_string()),
        (DELETE_DELAY.0, DELETE_DELAY.1.to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .to_vec()
}
