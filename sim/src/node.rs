//! A node of the fleet: the product's own consensus, peers, coordinator, actors and HTTP API, wired as the binary
//! wires them (`node/src/server.rs`), with the simulation's disk, network, clock and chance.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use actors::clock::{Clocks, Uptime, WallClock};
use actors::credit::CreditLimits;
use actors::engine::{self, Engine};
use catalog::command::NodeDescription;
use catalog::{Action, NodeId, Refusal, fleet};
use consensus::{Consensus, Pace, SubmitError};
use lockstep::peering::services::Services;
use lockstep::status;
use peers::book::Addresses;
use peers::{Call, LatePeers, Security, Transport};
use tokio::sync::watch;

use crate::api::{self, ApiListen};
use crate::chance::SharedChance;
use crate::disk::{Disk, Life};
use crate::ends;
use crate::judge::{Judge, Witness};
use crate::network::SimDial;
use crate::operator::Operator;
use crate::peering::{self, Door, PeerDial, PeerListen};
use crate::time::Clock;
use crate::view::{self, Standing, View};

/// The first one founds the fleet, the others join it. A fleet has some of them.
pub const HOSTS: [&str; 5] = ["node-1", "node-2", "node-3", "node-4", "node-5"];

/// What is left of a node when its process ends.
pub struct Seat {
    pub place: usize,
    pub name: &'static str,
    /// Of its whole fleet.
    pub hosts: &'static [&'static str],
    pub disk: Disk,
    pub clock: Clock,
    pub chance: SharedChance,
    pub judge: Judge,
    pub operator: Operator,
    pub credit: CreditLimits,
    log: (u64, u64),
    /// Its store was founded: from then on it must open whatever happens.
    founded: AtomicBool,
    /// It is to join a fleet that there is, also the one that once founded it.
    joins: AtomicBool,
    /// What the binary has in files: a certificate of its fleet, and where the members are.
    let_in: Arc<Mutex<Option<Addresses>>>,
    /// The process has ended by itself: it was told to stop, or removed.
    left: AtomicBool,
    stop: watch::Sender<bool>,
    view: Mutex<Option<View>>,
    id: Mutex<Option<NodeId>>,
    /// Begun so far.
    processes: AtomicU64,
}

/// What a fleet's nodes have in common.
#[derive(Clone)]
pub struct Common {
    pub hosts: &'static [&'static str],
    pub judge: Judge,
    pub operator: Operator,
    pub credit: CreditLimits,
    /// Entries between snapshots, and kept behind one.
    pub log: (u64, u64),
}

impl Seat {
    pub fn new(place: usize, disk: Disk, clock: Clock, chance: SharedChance, common: Common) -> Arc<Self> {
        let Common { hosts, judge, operator, credit, log } = common;
        Arc::new(Self {
            place,
            name: hosts[place],
            hosts,
            disk,
            clock,
            chance,
            judge,
            operator,
            credit,
            log,
            founded: AtomicBool::new(false),
            joins: AtomicBool::new(place > 0),
            let_in: Arc::default(),
            left: AtomicBool::new(false),
            stop: watch::Sender::new(false),
            view: Mutex::default(),
            id: Mutex::default(),
            processes: AtomicU64::new(0),
        })
    }

    /// One process of the node, until it is crashed.
    pub async fn run(self: Arc<Self>) -> turmoil::Result {
        let life = self.disk.life();
        match self.live(&life).await {
            // Dead already, for want of its disk; what follows is a crash, or another disk.
            Err(error) if life.is_over() || self.disk.is_full() || self.disk.is_damaged() => {
                tracing::info!("node: {error}");
            }
            outcome => outcome?,
        }
        std::future::pending().await
    }

    async fn live(&self, life: &Life) -> turmoil::Result {
        let mut stopping = self.stop.subscribe();
        let (http, listener) = (ApiListen::bind().await?, PeerListen::bind().await?);
        let peers = LatePeers::default();
        let consensus = self.open(life, &peers).await?;
        let node = consensus.node_id();
        *lock(&self.id) = Some(node);
        self.founded.store(true, Ordering::Relaxed);
        tracing::info!("node: {node} is open");
        let standing = Arc::<Mutex<Standing>>::default();
        tokio::spawn(view::say_how_it_stands(consensus.clone(), standing.clone()));
        let witness = Witness { judge: self.judge.clone(), life: life.clone() };
        let view = View {
            node,
            process: self.processes.fetch_add(1, Ordering::Relaxed),
            applied: consensus.watch(),
            reads: view::judged_reads(consensus.clone(), witness),
            standing,
            observatory: None,
        };
        self.set_view(Some(view.clone()));
        let dial = Arc::new(SimDial::new(self.chance.clone()));
        let fleet = status::Fleet {
            me: node,
            peers: Arc::new(peers.clone()),
            observatory: Arc::default(),
            tls: Arc::default(),
        };
        let (stop, stops) = watch::channel(false);
        let api = api::of(&consensus, &fleet, dial.clone(), &self.clock, &self.chance);
        let server = tokio::spawn(lockstep::api::serve(http, lockstep::api::router(api), stops));
        let started = async {
            let (transport, engine) = self.start(&consensus, &peers, &fleet, dial, listener).await?;
            tracing::info!("node: data plane runs");
            let observatory = Some(engine.observatory().clone());
            self.set_view(Some(View { observatory, ..view }));
            let member = tokio::spawn(engine.member().clone().run());
            Ok::<_, SubmitError>((transport, engine, member))
        };
        let running = tokio::select! {
            biased;
            started = started => match started {
                Ok(running) => Some(running),
                // The binary ends with this, too.
                Err(error) => {
                    tracing::info!("node: can't start: {error}");
                    self.left.store(true, Ordering::Relaxed);
                    return Ok(());
                }
            },
            _ = stopping.wait_for(|stops| *stops) => None,
        };
        let why = match &running {
            Some((transport, ..)) => tokio::select! {
                biased;
                _ = stopping.wait_for(|stops| *stops) => "is told to stop".to_owned(),
                () = ends::removed(&consensus, transport) => "was removed".to_owned(),
                why = ends::stopped(&consensus) => format!("stops: {why}"),
            },
            None => "is told to stop".to_owned(),
        };
        tracing::info!("node: {why}");
        let engine = running.as_ref().map(|(_, engine, _)| engine);
        ends::finish(engine, &consensus, &stop, server).await;
        if let Some((transport, _, member)) = running {
            transport.stop();
            member.abort();
        }
        tracing::info!("node: has stopped");
        self.left.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn open(&self, life: &Life, peers: &LatePeers) -> Result<Consensus, consensus::OpenError> {
        let options = self.options(peers);
        if self.joins.load(Ordering::Relaxed) {
            Consensus::enter_on(life.clone(), options).await
        } else {
            Consensus::bootstrap_on(life.clone(), options).await
        }
    }

    /// Founds, joins, or comes back; then runs the data plane.
    async fn start(
        &self,
        consensus: &Consensus,
        peers: &LatePeers,
        fleet: &status::Fleet,
        dial: Arc<SimDial>,
        listener: PeerListen,
    ) -> Result<(Transport, Engine), SubmitError> {
        let (node, address) = (consensus.node_id(), peering::address(self.name));
        let description = NodeDescription {
            name: self.name.into(),
            address: Some(address.clone()),
            level: fleet::LEVEL,
            version: "simulated".into(),
        };
        let peer_dial = Arc::new(PeerDial(self.chance.clone()));
        let is_founded = consensus.watch().borrow().catalog.fleet.id.is_some();
        let let_in = lock(&self.let_in).clone();
        let is_member = is_founded || let_in.is_some();
        let (mut members, mut recorded) = (let_in.unwrap_or_default(), false);
        if !is_member && consensus.status().voters.is_empty() {
            let others: Vec<_> = self.hosts.iter().copied().filter(|host| *host != self.name).collect();
            let admitted = peering::join(&peer_dial, &others, node, description.clone()).await;
            members = admitted.members.into_iter().collect();
            tracing::info!("node: was let in");
        } else if !is_member {
            engine::record_start(consensus, &description).await?;
            found_fleet(consensus).await?;
            recorded = true;
        }
        lock(&self.let_in).replace(members.clone());
        let kept = self.let_in.clone();
        let transport = Transport::new(peers::transport::Options {
            node,
            fleet: peering::fleet_id(),
            address: address.clone(),
            level: description.level,
            version: description.version.clone(),
            security: Security::UnprotectedForSimulation,
            dial: peer_dial,
            book: consensus::book(consensus, members, move |addresses| {
                lock(&kept).replace(addresses.clone());
            }),
        });
        peers.set(transport.clone());
        let cell = Arc::new(OnceLock::new());
        let services = Services { consensus: consensus.clone(), engine: cell.clone(), fleet: fleet.clone() };
        let door = Door { consensus: consensus.clone(), node, address };
        transport.listen(Box::new(listener), Arc::new(services), Some(Arc::new(door)));
        if !recorded {
            tokio::select! {
                biased;
                recorded = engine::record_start(consensus, &description) => recorded?,
                () = ends::removed(consensus, &transport) => return Err(SubmitError::Stopped),
            }
        }
        let peers: Arc<dyn Call> = Arc::new(peers.clone());
        let started = Engine::start(consensus.clone(), self.clocks(), dial, peers, self.credit).await;
        let engine = started.map_err(|_| SubmitError::Stopped)?;
        // Set once, here.
        let _ = fleet.observatory.set(engine.observatory().clone());
        let _ = cell.set(engine.clone());
        Ok((transport, engine))
    }

    fn clocks(&self) -> Clocks {
        let (wall, uptime) = (self.clock.clone(), self.clock.clone());
        Clocks { wall: WallClock::new(move || wall.wall_ms()), uptime: Uptime::new(move || uptime.uptime()) }
    }

    fn options(&self, peers: &LatePeers) -> consensus::Options {
        let (clock, chance, disk) = (self.clock.clone(), self.chance.clone(), self.disk.clone());
        consensus::Options {
            clock: Arc::new(move || clock.wall_ms()),
            entropy: Arc::new(move || chance.draw(|chance| chance.next())),
            pace: Pace::new(move || disk.clone().pace()),
            peers: Arc::new(peers.clone()),
            snapshot_after_entries: self.log.0,
            log_kept_entries: self.log.1,
            ..consensus::Options::new(PathBuf::from(self.name), self.name)
        }
    }

    pub fn view(&self) -> Option<View> {
        lock(&self.view).clone()
    }

    /// Which one was the last to begin.
    pub fn last_process(&self) -> Option<u64> {
        self.processes.load(Ordering::Relaxed).checked_sub(1)
    }

    /// As which it was a member last.
    pub fn id(&self) -> Option<NodeId> {
        *lock(&self.id)
    }

    pub fn is_founded(&self) -> bool {
        self.founded.load(Ordering::Relaxed)
    }

    /// Whether it has ended by itself since the last call.
    pub fn take_left(&self) -> bool {
        self.left.swap(false, Ordering::Relaxed)
    }

    /// As a signal does.
    pub fn tell_to_stop(&self) {
        self.stop.send_replace(true);
    }

    pub fn end(&self) {
        self.set_view(None);
        self.stop.send_replace(false);
        self.left.store(false, Ordering::Relaxed);
    }

    /// It begins again with nothing, as another node.
    pub fn replace(&self, joins: bool) {
        self.disk.replace();
        self.founded.store(false, Ordering::Relaxed);
        lock(&self.let_in).take();
        self.joins.store(joins, Ordering::Relaxed);
    }

    pub fn joins(&self) -> bool {
        self.joins.load(Ordering::Relaxed)
    }

    fn set_view(&self, view: Option<View>) {
        *lock(&self.view) = view;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn found_fleet(consensus: &Consensus) -> Result<(), SubmitError> {
    let found = Action::FoundFleet { fleet: peering::fleet_id(), authority: peering::authority() };
    match consensus.submit(found).await {
        Ok(_) | Err(SubmitError::Refused(Refusal::Exists { .. })) => Ok(()),
        Err(error) => Err(error),
    }
}
