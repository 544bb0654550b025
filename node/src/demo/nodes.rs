//! The fleet: three nodes, the first of which founds it and lets the others in by a shared secret.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{self, ExitStatus};
use std::time::Duration;

use tokio::time::Instant;

use super::child::Child;
use super::{NODES, OTHER_PORTS};
use crate::cli::Failure;

/// A node exits within 10 seconds of being told.
const STOP_MAX: Duration = Duration::from_secs(10);

pub struct Nodes {
    all: Vec<Child>,
    /// Behind the nodes, because it goes after them.
    directory: Directory,
}

impl Nodes {
    /// Chooses ports and a directory. `port` is the first node's API's; the others' follow, then as many
    /// for peers.
    pub fn prepare(port: Option<u16>) -> Result<Self, Failure> {
        let addresses = addresses(port)?;
        let (apis, peers) = addresses.split_at(usize::from(NODES));
        let directory = Directory::make()?;
        let path = directory.path();
        let secret = path.join("secret");
        fs::write(&secret, format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>()))
            .map_err(|error| Failure::new(format!("can't write {}: {error}", secret.display())))?;
        let (secret, first) = (secret.display().to_string(), peers[0].to_string());
        let all = (1..).zip(apis).zip(peers).map(|((number, api), peer): ((u16, _), _)| {
            let node = Child::new(format!("node-{number}"), path, *api, *peer);
            let node = node.with(&["--join-token-file", &secret]);
            if number == 1 { node.with(&["--bootstrap"]) } else { node.with(&["--join", &first]) }
        });
        Ok(Self { all: all.collect(), directory })
    }

    pub fn urls(&self) -> Vec<String> {
        self.all.iter().map(Child::url).collect()
    }

    /// Where logs and data are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn running(&self) -> usize {
        self.all.iter().filter(|node| node.runs()).count()
    }

    /// Starts the first, then the others; returns when all answer.
    pub async fn start_all(&mut self) -> Result<(), Failure> {
        let (first, others) = self.all.split_at_mut(1);
        for group in [first, others] {
            group.iter_mut().try_for_each(Child::start)?;
            for node in group {
                node.ready().await?;
            }
        }
        Ok(())
    }

    pub fn start(&mut self, name: &str) -> Result<(), Failure> {
        self.named(name).map_or(Ok(()), Child::start)
    }

    pub fn kill(&mut self, name: &str) {
        if let Some(node) = self.named(name) {
            node.kill();
        }
    }

    fn named(&mut self, name: &str) -> Option<&mut Child> {
        self.all.iter_mut().find(|node| node.name() == name)
    }

    /// Which nodes have ended by another's hand or their own, each told once, with what the log says last.
    pub fn ended(&mut self) -> Vec<(String, ExitStatus, String)> {
        let ended = self.all.iter_mut().filter_map(|node| {
            let status = node.ended()?;
            Some((node.name().to_owned(), status, node.last_lines(1)))
        });
        ended.collect()
    }

    /// Ends all as an operator would, and by force what doesn't end.
    pub async fn stop(&mut self) {
        let deadline = Instant::now() + STOP_MAX;
        self.all.iter_mut().for_each(Child::tell_to_stop);
        for node in &mut self.all {
            node.stopped(deadline).await;
        }
    }

    /// From now on the directory stays; where the logs are.
    pub fn keep_logs(&mut self) -> String {
        self.directory.kept = true;
        format!("the nodes' logs: {}/*.log", self.directory.path().display())
    }
}

/// All are held until all are found, so that they differ.
fn addresses(port: Option<u16>) -> Result<Vec<SocketAddr>, Failure> {
    let listen = |index: u16| {
        let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, port.map_or(0, |port| port + index)));
        TcpListener::bind(wanted)
            .and_then(|listener| Ok((listener.local_addr()?, listener)))
            .map_err(|error| Failure::new(format!("can't listen on {wanted}: {error}")).hint(OTHER_PORTS))
    };
    let held: Vec<_> = (0..2 * NODES).map(listen).collect::<Result<_, _>>()?;
    Ok(held.into_iter().map(|(address, _)| address).collect())
}

/// Goes with this value, unless it is kept.
struct Directory {
    path: PathBuf,
    kept: bool,
}

impl Directory {
    fn make() -> Result<Self, Failure> {
        let name = format!("lockstep-demo-{}-{:08x}", process::id(), rand::random::<u32>());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path)
            .map_err(|error| Failure::new(format!("can't make {}: {error}", path.display())))?;
        Ok(Self { path, kept: false })
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !self.kept {
            // A temporary directory that can't be removed is the system's to clean.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
