//! A node of the fleet: the product's own consensus, coordinator and actors, wired as the binary wires
//! them, with the simulation's disk, network, clock and chance. It has no HTTP API; the operator stands
//! where its handlers do.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actors::clock::{Clocks, Uptime, WallClock};
use actors::credit::CreditLimits;
use actors::engine::{self, Engine};
use actors::observe::Observatory;
use catalog::command::NodeDescription;
use consensus::{Applied, Consensus};
use tokio::sync::watch;

use crate::chance::SharedChance;
use crate::disk::{Disk, Life};
use crate::judge::{Judge, Witness};
use crate::network::SimDial;
use crate::operator::Operator;
use crate::time::Time;

pub const HOST: &str = "node-1";

/// What is left of a node when its process ends.
pub struct Seat {
    pub name: &'static str,
    pub disk: Disk,
    pub time: Time,
    pub chance: SharedChance,
    pub judge: Judge,
    pub operator: Operator,
    pub credit: CreditLimits,
    /// Its store was founded: from then on it must open whatever happens.
    founded: AtomicBool,
    view: Mutex<Option<View>>,
}

/// What can be seen of a process from outside.
#[derive(Clone)]
pub struct View {
    pub applied: watch::Receiver<Arc<Applied>>,
    /// None before the data plane runs.
    pub observatory: Option<Arc<Observatory>>,
}

impl Seat {
    pub fn new(
        name: &'static str,
        disk: Disk,
        time: Time,
        chance: SharedChance,
        judge: Judge,
        operator: Operator,
        credit: CreditLimits,
    ) -> Arc<Self> {
        let (founded, view) = (AtomicBool::new(false), Mutex::default());
        Arc::new(Self { name, disk, time, chance, judge, operator, credit, founded, view })
    }

    /// One process of the node, until it is crashed.
    pub async fn run(self: Arc<Self>) -> turmoil::Result {
        let life = self.disk.life();
        match self.live(&life).await {
            // Dead already, for want of its disk; the crash follows.
            Err(error) if life.is_over() => tracing::info!("node: {error}"),
            outcome => outcome?,
        }
        std::future::pending().await
    }

    async fn live(&self, life: &Life) -> turmoil::Result {
        let options = self.options();
        let peers = options.peers.clone();
        let consensus = Consensus::bootstrap_on(life.clone(), options).await?;
        self.founded.store(true, Ordering::Relaxed);
        tracing::info!("node: {} is open", consensus.node_id());
        self.set_view(Some(View { applied: consensus.watch(), observatory: None }));
        let witness = Witness { judge: self.judge.clone(), life: life.clone() };
        let dial = Arc::new(SimDial::new(self.chance.clone()));
        tokio::spawn(self.operator.clone().work(consensus.clone(), dial.clone(), witness));
        let description = NodeDescription {
            name: self.name.into(),
            address: None,
            level: catalog::fleet::LEVEL,
            version: "simulated".into(),
        };
        engine::record_start(&consensus, &description).await?;
        let engine = Engine::start(consensus.clone(), self.clocks(), dial, peers, self.credit).await?;
        tokio::spawn(engine.member().clone().run());
        tracing::info!("node: data plane runs");
        let observatory = Some(engine.observatory().clone());
        self.set_view(Some(View { applied: consensus.watch(), observatory }));
        Ok(())
    }

    fn clocks(&self) -> Clocks {
        let (wall, uptime) = (self.time.clone(), self.time.clone());
        Clocks { wall: WallClock::new(move || wall.wall_ms()), uptime: Uptime::new(move || uptime.elapsed()) }
    }

    fn options(&self) -> consensus::Options {
        let (time, chance) = (self.time.clone(), self.chance.clone());
        consensus::Options {
            clock: Arc::new(move || time.wall_ms()),
            entropy: Arc::new(move || chance.draw(|chance| chance.next())),
            ..consensus::Options::new(PathBuf::from(self.name), self.name)
        }
    }

    pub fn view(&self) -> Option<View> {
        self.guard().clone()
    }

    pub fn is_founded(&self) -> bool {
        self.founded.load(Ordering::Relaxed)
    }

    pub fn end(&self) {
        self.set_view(None);
    }

    fn set_view(&self, view: Option<View>) {
        *self.guard() = view;
    }

    fn guard(&self) -> MutexGuard<'_, Option<View>> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
