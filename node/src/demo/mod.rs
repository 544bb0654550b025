//! `lockstep demo`: the product on one machine, proving itself. Two Kafka clusters in memory, a fleet of
//! three nodes as child processes, a link, live load; a node is killed on the way, and at the end a client
//! that shares nothing with the product reads both clusters and compares them, record by record. Then the
//! mirror is promoted.
//!
//! Everything here is for show: nothing of it runs in a node.

mod child;
mod clusters;
mod load;
mod nodes;
mod operator;
mod proof;
mod screen;
mod story;
mod wire;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use crate::cli::Failure;
use clusters::{BROKERS, Clusters};
use load::Load;
use nodes::Nodes;
use operator::Operator;
use proof::Proof;
use screen::Screen;
use story::{Event, Look, Story};

/// What is mirrored.
const TOPIC: &str = "orders";
/// Two a node: with one node lost, each of the others has three, and that is uneven enough for it to get
/// some back.
const PARTITIONS: i32 = 6;
const NODES: u16 = 3;
/// Of each node two, for API and peers; of each broker one.
const PORTS: u16 = 2 * NODES + 2 * BROKERS;
const OTHER_PORTS: &str =
    "choose other ports with --port N (twelve from there on), or leave it out for free ones";

const FOR_MIN: Duration = Duration::from_secs(5);
const FOR_MAX: Duration = Duration::from_secs(24 * 3600);
/// As much as two clusters, the nodes, the load and the proof do together on two cores.
const RECORDS_PER_SECOND_MAX: i64 = 50_000;
/// What is shown is this old at most.
const TICK: Duration = Duration::from_millis(100);
/// After the last record, both ends must be equal within this.
const CATCH_UP_MAX: Duration = Duration::from_secs(30);
/// The comparison looks several times in it whether the copy goes on where the source ends.
const SURPLUS_WAIT: Duration = Duration::from_secs(1);
/// A shell shows a command that SIGINT ended with this.
const INTERRUPTED: u8 = 130;

#[derive(Debug, Args)]
pub struct DemoCommand {
    /// How long records are produced, such as 30s or 5m; longer when a killed node isn't back by then
    #[arg(long = "for", default_value = "30s", value_name = "TIME", value_parser = duration)]
    lasts: Duration,
    /// First of twelve ports, three each: the nodes' APIs, the nodes for each other, brokers of east, of west;
    /// any free ones by default
    #[arg(long, value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=i64::from(u16::MAX - PORTS + 1)))]
    port: Option<u16>,
    /// How fast records are produced
    #[arg(long, default_value_t = 2_000, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=RECORDS_PER_SECOND_MAX))]
    records_per_second: u32,
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed = humantime::parse_duration(text).map_err(|error| format!("{error}; such as 30s or 5m"))?;
    if (FOR_MIN..=FOR_MAX).contains(&parsed) {
        Ok(parsed)
    } else {
        Err("must be 5s at least and 24h at most".to_owned())
    }
}

impl DemoCommand {
    /// Runs the demo to its end.
    ///
    /// # Errors
    /// When it can't be started, and when the proof fails.
    pub fn run(self) -> Result<ExitCode, Failure> {
        let runtime = tokio::runtime::Runtime::new()
            .map_err(|error| Failure::new(format!("start a runtime: {error}")))?;
        let done = runtime.block_on(self.play());
        runtime.shutdown_timeout(Duration::from_secs(1));
        done
    }

    async fn play(self) -> Result<ExitCode, Failure> {
        let listen =
            |kind| signal(kind).map_err(|error| Failure::new(format!("listen for signals: {error}")));
        let mut interrupts = listen(SignalKind::interrupt())?;
        let mut terminations = listen(SignalKind::terminate())?;
        // The terminal was closed.
        let mut hangups = listen(SignalKind::hangup())?;
        let clusters = Clusters::start(self.port).await?;
        let mut stage = Stage::new(clusters, Nodes::prepare(self.port)?);
        let done = tokio::select! {
            biased;
            _ = interrupts.recv() => None,
            _ = terminations.recv() => None,
            _ = hangups.recv() => None,
            done = stage.play(self.lasts, self.records_per_second) => Some(done),
        };
        stage.nodes.stop().await;
        match done {
            Some(done) => done,
            None => {
                stage.screen.say("interrupted: nodes and clusters are stopped, nothing is left behind");
                Ok(ExitCode::from(INTERRUPTED))
            }
        }
    }
}

/// Everything that takes part.
struct Stage {
    clusters: Clusters,
    nodes: Nodes,
    operator: Operator,
    screen: Screen,
}

impl Stage {
    fn new(clusters: Clusters, nodes: Nodes) -> Self {
        let operator = Operator::new(nodes.urls());
        Self { clusters, nodes, operator, screen: Screen::new() }
    }

    async fn play(&mut self, lasts: Duration, records_per_second: u32) -> Result<ExitCode, Failure> {
        self.screen.say(&self.programme());
        self.nodes.start_all().await?;
        let formed = self.operator.fleet().await;
        formed.map_err(|failure| failure.hint(self.nodes.keep_logs()))?;
        self.operator.link(&self.clusters).await?;
        let load = Arc::new(Load::new(PARTITIONS));
        let proof = Arc::new(Proof::new(PARTITIONS));
        let mut tasks = JoinSet::new();
        for partition in 0..PARTITIONS {
            let rate = f64::from(records_per_second) / f64::from(PARTITIONS);
            tasks.spawn(load.clone().run(self.clusters.east.bootstrap.clone(), partition, rate));
            let (east, west) = (self.clusters.east.bootstrap.clone(), self.clusters.west.bootstrap.clone());
            tasks.spawn(proof.clone().run(east, west, partition));
        }
        self.watch(lasts, &load, &proof).await?;
        load.stop();
        let equal = self.catch_up(&load, &proof).await;
        tasks.abort_all();
        self.screen.finish();
        let proved = match equal {
            Ok(()) => self.promote(&load.ends()).await,
            Err(why) => Err(Failure::new(why)),
        };
        proved.map_err(|failure| failure.hint(self.nodes.keep_logs()))?;
        self.screen.show(&proof.certificate(&load.ends()))?;
        Ok(ExitCode::SUCCESS)
    }

    /// What was mirrored becomes an ordinary topic, with as many records as were produced.
    async fn promote(&mut self, ends: &[i64]) -> Result<(), Failure> {
        self.screen.say(&format!("\nAll records are at both ends: '{TOPIC}' is promoted."));
        self.screen.say("  waits until east has been quiet for 10 s");
        let stopped = self.operator.promote().await?;
        let found: Vec<Option<i64>> = stopped.mirror_lags.iter().map(|row| row.mirror_end_offset).collect();
        if found != ends.iter().copied().map(Some).collect::<Vec<_>>() {
            return Err(Failure::new(format!(
                "promoted with records up to {found:?}, produced were {ends:?}"
            )));
        }
        self.screen.say(&format!("  STOPPED: '{TOPIC}' in west is an ordinary topic from now on"));
        Ok(())
    }

    /// Lets the story happen, and shows what comes of it.
    async fn watch(&mut self, lasts: Duration, load: &Load, proof: &Proof) -> Result<(), Failure> {
        let mut story = Story::new(lasts);
        let began = tokio::time::Instant::now();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let mirror = self.operator.look().await;
            let elapsed = began.elapsed();
            if let Some(difference) = proof.difference() {
                return Err(Failure::new(difference).hint(self.nodes.keep_logs()));
            }
            for node in self.lost_otherwise(elapsed) {
                story.lost(&node, elapsed, load.ends());
            }
            let verified = proof.ends();
            for event in story.next(Look { elapsed, mirror: &mirror, verified: &verified }) {
                match &event {
                    Event::Kill => {
                        let Some(node) = self.operator.raft_leader().await else { continue };
                        self.nodes.kill(&node);
                        let elapsed = began.elapsed();
                        story.lost(&node, elapsed, load.ends());
                        self.screen
                            .event(elapsed, &format!("{node}, which leads the fleet, is killed (SIGKILL)"));
                        continue;
                    }
                    Event::Restart { node } => self.nodes.start(node)?,
                    _ => {}
                }
                self.screen.event(elapsed, &event.to_string());
                if event == Event::End {
                    return Ok(());
                }
            }
            let nodes = self.nodes.running();
            self.screen.update(elapsed, lasts, nodes, &mirror, load, proof);
        }
    }

    /// Nodes that ended without this demo having ended them: told, and not the end of it.
    fn lost_otherwise(&mut self, elapsed: Duration) -> Vec<String> {
        let ended = self.nodes.ended();
        for (node, status, said) in &ended {
            self.screen.event(elapsed, &format!("{node} ended, not by this demo: {status}"));
            if status.code().is_some() {
                self.screen.say(said);
            }
        }
        ended.into_iter().map(|(node, _, _)| node).collect()
    }

    /// Waits until all that was produced is at both ends and compared.
    async fn catch_up(&mut self, load: &Load, proof: &Proof) -> Result<(), String> {
        let deadline = tokio::time::Instant::now() + CATCH_UP_MAX;
        load.settled(deadline).await?;
        load.check_all_produced()?;
        let mut quiet = false;
        loop {
            if let Some(difference) = proof.difference() {
                return Err(difference);
            }
            let missing = proof.missing(&load.ends());
            if missing == 0 && quiet {
                return Ok(());
            }
            if missing == 0 {
                // Time for what shouldn't be there to be seen.
                quiet = true;
                tokio::time::sleep(SURPLUS_WAIT).await;
                continue;
            }
            if tokio::time::Instant::now() >= deadline {
                let trouble = proof.trouble().map(|why| format!(" ({why})")).unwrap_or_default();
                return Err(format!(
                    "{missing} records weren't found equal at both ends within {CATCH_UP_MAX:?}{trouble}"
                ));
            }
            tokio::time::sleep(TICK).await;
        }
    }

    fn programme(&self) -> String {
        let urls = self.nodes.urls();
        format!(
            "Two Kafka clusters in memory, and three nodes that mirror\n\
             topic '{TOPIC}' from east to west while records are produced.\n\
             \n  east  {}\n  west  {}\n  API   {}\n  log   {}/*.log\n\
             \nAny Kafka client can look, such as\n  kcat -b {} -t {TOPIC} -C -o beginning\n\
             and so can\n  export LOCKSTEP_URL={}\n  lockstep mirror describe {TOPIC} --link east-west\n",
            self.clusters.east.bootstrap.replace(',', "\n        "),
            self.clusters.west.bootstrap.replace(',', "\n        "),
            urls.join("\n        "),
            self.nodes.directory().display(),
            first(&self.clusters.west.bootstrap),
            // Short enough for a narrow terminal: without the scheme, two of the three.
            urls[..2].join(",").replace("http://", ""),
        )
    }
}

fn first(addresses: &str) -> &str {
    addresses.split(',').next().unwrap_or(addresses)
}
