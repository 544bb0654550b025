//! What an operator does and sees, through the API of whichever node answers.

use std::time::Duration;

use tokio::time::Instant;

use crate::api::types::{
    AlterMirrorRow, AlterMirrors, ConfigEntry, CreateCluster, CreateLink, CreateMirror, MirrorRow, NodeRow,
};
use crate::cli::{Client, Failure, typed, typed_all};

use super::clusters::Clusters;
use super::{NODES, TOPIC};

const LINK: &str = "/kafka/v3/clusters/west/links/east-west";
/// Longer than a node waits for others whose partitions it is asked about.
const LOOK_MAX: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(100);
/// Until three nodes vote, from their start on.
const FLEET_MAX: Duration = Duration::from_secs(60);

/// Ten seconds of it are those in which a source has to be quiet.
const PROMOTE_MAX: Duration = Duration::from_secs(60);

/// The mirror as the API shows it; None when nobody answers.
pub type Mirror = Option<MirrorRow>;

pub struct Operator {
    urls: Vec<String>,
    /// Who answered last is asked first: a node that has just come may not know yet what others know.
    first: usize,
}

impl Operator {
    pub fn new(urls: Vec<String>) -> Self {
        Self { urls, first: 0 }
    }

    /// Waits until every node has a vote, so that any of them can be lost.
    pub async fn fleet(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + FLEET_MAX;
        loop {
            let nodes = self.nodes().await;
            let voters = nodes.iter().filter(|node| node.raft_role != "LEARNER").count();
            if voters == usize::from(NODES) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let message = format!("{voters} of {NODES} nodes vote after {FLEET_MAX:?}");
                return Err(Failure::new(message));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Registers both clusters, links them, mirrors the topic.
    pub async fn link(&self, clusters: &Clusters) -> Result<(), Failure> {
        let (east, west) = (clusters.east.bootstrap.clone(), clusters.west.bootstrap.clone());
        let client = Client::new(&self.urls);
        call(move || {
            for (name, servers) in [("east", east), ("west", west)] {
                let configs = vec![entry("bootstrap.servers", &servers)];
                client.post(
                    "/lockstep/v1/clusters",
                    &CreateCluster { name: name.into(), configs, cluster_id: None },
                )?;
            }
            let link = CreateLink { source_cluster_id: None, configs: vec![entry("source.cluster", "east")] };
            client.post("/kafka/v3/clusters/west/links?link_name=east-west", &link)?;
            let mirror = CreateMirror {
                source_topic_name: TOPIC.into(),
                mirror_topic_name: None,
                replication_factor: None,
                configs: Vec::new(),
            };
            client.post(&format!("{LINK}/mirrors"), &mirror)
        })
        .await
        .map(drop)
    }

    /// Promotes the mirror, and waits until it has STOPPED.
    ///
    /// # Errors
    /// When nobody takes the promotion, or it doesn't end in time.
    pub async fn promote(&mut self) -> Result<MirrorRow, Failure> {
        let deadline = Instant::now() + PROMOTE_MAX;
        let (mut asked, mut why) = (false, String::new());
        while Instant::now() < deadline {
            if !asked {
                // Given again it is the same promotion: an answer may have been lost.
                match self.ask(ask_to_promote).await.map(|row| row.error_message) {
                    Some(None) => asked = true,
                    Some(Some(message)) => why = message,
                    None => "no node answers".clone_into(&mut why),
                }
            }
            match self.look().await {
                Some(row) if row.mirror_status == "STOPPED" => return Ok(row),
                Some(MirrorRow { waiting_for: Some(waits_for), .. }) => {
                    why = format!("it waits for {waits_for}")
                }
                _ => {}
            }
            tokio::time::sleep(POLL).await;
        }
        Err(Failure::new(format!("the promotion hasn't ended after {PROMOTE_MAX:?}: {why}")))
    }

    pub async fn look(&mut self) -> Mirror {
        self.ask(|client| typed(&client.get(&format!("{LINK}/mirrors/{TOPIC}"))?)).await
    }

    /// Who leads the fleet, by name.
    pub async fn raft_leader(&mut self) -> Option<String> {
        self.nodes().await.into_iter().find(|node| node.raft_role == "LEADER").map(|node| node.name)
    }

    async fn nodes(&mut self) -> Vec<NodeRow> {
        let asked = self.ask(|client| typed_all(&client.list("/lockstep/v1/nodes")?)).await;
        asked.unwrap_or_default()
    }

    /// One node after the other, until one answers in time.
    async fn ask<T: Send + 'static>(
        &mut self,
        question: impl Fn(&Client) -> Result<T, Failure> + Clone + Send + 'static,
    ) -> Option<T> {
        for step in 0..self.urls.len() {
            let asked = (self.first + step) % self.urls.len();
            let (client, question) = (quick(&self.urls[asked]), question.clone());
            if let Ok(answer) = call(move || question(&client)).await {
                self.first = asked;
                return Some(answer);
            }
        }
        None
    }
}

fn ask_to_promote(client: &Client) -> Result<AlterMirrorRow, Failure> {
    let names =
        AlterMirrors { mirror_topic_names: Some(vec![TOPIC.into()]), mirror_topic_name_pattern: None };
    typed(&client.post(&format!("{LINK}/mirrors:promote"), &names)?["data"][0])
}

pub async fn answers(url: &str) -> bool {
    let client = quick(url);
    call(move || client.get("/lockstep/v1/clusters")).await.is_ok()
}

fn quick(url: &str) -> Client {
    Client::within(&[url.to_owned()], LOOK_MAX)
}

async fn call<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let called = tokio::task::spawn_blocking(call).await;
    called.map_err(|error| Failure::new(error.to_string()))?
}

fn entry(name: &str, value: &str) -> ConfigEntry {
    ConfigEntry { name: name.into(), value: value.into() }
}
