//! A node's life: open consensus, record the start, run the data plane, serve the API, and stop
//! all of it in order.
//!
//! Consensus and API have a runtime of their own, so that a saturated data plane never costs an
//! election. Nothing here decides what runs; that is the catalog's.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actors::clock::{Clocks, WallClock};
use actors::credit::CreditLimits;
use actors::engine::{self, Engine};
use anyhow::Context as _;
use catalog::command::NodeDescription;
use consensus::{Consensus, Options};
use kafka::client::TcpDial;
use metrics_exporter_prometheus::PrometheusHandle;
use peers::{Call, Security, Tls, Transport};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::api::entropy::Entropy;
use crate::api::preflight::LivePreflight;
use crate::api::{self, Api};
use crate::config::{Settings, host_name};
use crate::peering::door::Door;
use crate::peering::membership::Membership;
use crate::peering::services::Services;
use crate::peering::{Setup, trust};
use crate::status::Fleet;
use crate::telemetry;
use peers::LatePeers;

/// Consensus waits for the disk, the API for consensus: neither needs more.
const CONTROL_THREADS: usize = 2;

/// Together below the 10 s within which a stopping node exits.
const ENGINE_STOP_MAX: Duration = Duration::from_secs(5);
const YIELD_MAX: Duration = Duration::from_secs(1);
const CONSENSUS_STOP_MAX: Duration = Duration::from_secs(2);
const HTTP_STOP_MAX: Duration = Duration::from_millis(500);
const RUNTIME_STOP_MAX: Duration = Duration::from_millis(200);

/// Histograms are folded at this pace; they hold every sample until then.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// Well below the time in which others count this node as lost.
const STOPPED_LOOK_EVERY: Duration = Duration::from_millis(500);

/// Runs a node until it is told to stop.
///
/// # Errors
/// When it can't start.
pub fn run(settings: &Settings) -> anyhow::Result<()> {
    telemetry::start_log(settings.log_format, &settings.log)?;
    let metrics = telemetry::install_metrics()?;
    let runtime = |name: &str| Builder::new_multi_thread().enable_all().thread_name(name).build();
    let control = Builder::new_multi_thread()
        .enable_all()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .build()
        .context("start the control runtime")?;
    let data: Runtime = runtime("data").context("start the data plane's runtime")?;
    let result = control.block_on(node(settings, metrics, data.handle().clone()));
    data.shutdown_timeout(RUNTIME_STOP_MAX);
    control.shutdown_timeout(RUNTIME_STOP_MAX);
    result
}

async fn node(settings: &Settings, metrics: PrometheusHandle, data: Handle) -> anyhow::Result<()> {
    // Before anything is written: a taken port or a signal must not leave half a start behind.
    let listener = bind("--listen", settings.listen).await?;
    let peer_listener = bind("--peer-listen", settings.peer_listen).await?;
    let probes = match settings.metrics_listen {
        Some(address) => Some(bind("--metrics-listen", address).await?),
        None => None,
    };
    let mut signals = Signals::listen(settings.until_stdin_ends).context("listen for signals")?;
    let setup = settings.peering(peer_listener.local_addr()?)?;

    let name = settings.node_name.clone().unwrap_or_else(host_name);
    let peers = LatePeers::default();
    let consensus = open(settings, name, &peers).await?;
    let node_id = consensus.node_id();
    let name = consensus.status().node_name;
    tracing::info!(%node_id, name, data_dir = %settings.data_dir.display(), "node is open");

    let (stop, stopping) = watch::channel(false);
    let fleet = Fleet {
        me: node_id,
        peers: Arc::new(peers.clone()),
        observatory: Arc::default(),
        tls: Arc::default(),
    };
    let api = Api {
        consensus: consensus.clone(),
        preflight: Arc::new(LivePreflight(Arc::new(TcpDial))),
        metrics: metrics.clone(),
        fleet: fleet.clone(),
        clock: WallClock::system(),
        entropy: Entropy::system(),
    };
    let mut servers = vec![tokio::spawn(api::serve(listener, api::router(api.clone()), stopping.clone()))];
    servers.extend(
        probes.map(|listener| tokio::spawn(api::serve(listener, api::probes(api), stopping.clone()))),
    );
    tracing::info!(address = %settings.listen, "API listens");
    if settings.insecure {
        tracing::warn!("insecure: whoever reaches this address can change everything");
    }

    let upkeep = tokio::spawn(upkeep(metrics));
    let start = Start { setup, consensus: consensus.clone(), peers, fleet, data };
    let running = tokio::select! {
        started = tokio::spawn(start.run(peer_listener)) => started.context("start the data plane")?,
        () = signals.next() => {
            tracing::info!("told to stop before the data plane started");
            finish(None, &consensus, stop, servers).await;
            return Ok(());
        }
    };
    let running = match running {
        Ok(running) => running,
        Err(error) => {
            finish(None, &consensus, stop, servers).await;
            return Err(error);
        }
    };
    let member = tokio::spawn(running.engine.member().clone().run());
    tracing::info!("data plane runs");

    let ended = tokio::select! {
        () = signals.next() => None,
        why = trust::removed(&consensus, &running.transport) => Some(why),
        why = stopped(&consensus) => Some(why),
    };
    match &ended {
        None => tracing::info!("told to stop"),
        Some(why) => tracing::error!("{why}"),
    }
    upkeep.abort();
    tokio::select! {
        () = finish(Some(running), &consensus, stop, servers) => tracing::info!("stopped"),
        () = signals.next() => tracing::warn!("told to stop again: not waiting any longer"),
    }
    member.abort();
    ended.map_or(Ok(()), |why| Err(anyhow::anyhow!(why)))
}

/// Returns when consensus has stopped by itself, as its store failed: then nobody can tell this node
/// anything any more, and others take over what it would go on to append.
async fn stopped(consensus: &Consensus) -> String {
    loop {
        if let Some(why) = consensus.status().stopped {
            return format!("this node stops: {why}");
        }
        tokio::time::sleep(STOPPED_LOOK_EVERY).await;
    }
}

/// Opens the node that the data directory holds; in an empty one founds what was asked for.
async fn open(settings: &Settings, name: String, peers: &LatePeers) -> anyhow::Result<Consensus> {
    let options = Options {
        renames: settings.node_name.is_some(),
        peers: Arc::new(peers.clone()),
        ..Options::new(&settings.data_dir, name)
    };
    Ok(match (settings.bootstrap, settings.join.is_empty()) {
        (true, _) => Consensus::bootstrap(options).await?,
        (false, false) => Consensus::enter(options).await?,
        (false, true) => Consensus::open(options).await?,
    })
}

/// A node between its opened store and its running data plane.
struct Start {
    setup: Setup,
    consensus: Consensus,
    peers: LatePeers,
    fleet: Fleet,
    data: Handle,
}

struct Running {
    engine: Engine,
    transport: Transport,
    keeper: JoinHandle<()>,
}

impl Start {
    async fn run(self, listener: TcpListener) -> anyhow::Result<Running> {
        let Self { setup, consensus, .. } = &self;
        let description = setup.description(&consensus.status().node_name);
        let (membership, recorded) = match Membership::held(setup, consensus)? {
            Some(held) => (held, false),
            // It may know of a group that it was added to, and not of its fleet yet.
            None if consensus.status().voters != [consensus.node_id()] => {
                if setup.join.is_empty() {
                    anyhow::bail!(
                        "this node hasn't joined a fleet yet: start it with --join and --join-token"
                    );
                }
                (Membership::join(setup, consensus).await?, false)
            }
            // The first of its fleet; or it is from before fleets had several nodes.
            None => {
                record_start(consensus, &description).await?;
                (Membership::found(setup, consensus).await?, true)
            }
        };
        let engine = Arc::new(OnceLock::new());
        let (transport, tls) = self.connect(membership, &description, listener, &engine)?;
        let fleet = self.fleet.clone();
        let kept = trust::keep(tls, consensus.clone(), fleet, setup.data_dir.clone(), setup.own.clone());
        let keeper = tokio::spawn(kept);
        if !recorded {
            tokio::select! {
                recorded = record_start(consensus, &description) => recorded?,
                why = trust::removed(consensus, &transport) => anyhow::bail!(why),
            }
        }
        let peers: Arc<dyn Call> = Arc::new(self.peers.clone());
        let started = Engine::start(
            consensus.clone(),
            Clocks::system(),
            Arc::new(TcpDial),
            peers,
            CreditLimits::default(),
        );
        let started =
            self.data.spawn(started).await.context("start the actors")?.context("start the actors")?;
        // Set once, here.
        let _ = self.fleet.observatory.set(started.observatory().clone());
        let _ = engine.set(started.clone());
        Ok(Running { engine: started, transport, keeper })
    }

    /// From now on members reach this node, and it reaches them.
    fn connect(
        &self,
        membership: Membership,
        description: &NodeDescription,
        listener: TcpListener,
        engine: &Arc<OnceLock<Engine>>,
    ) -> anyhow::Result<(Transport, Tls)> {
        let tls = Tls::new(membership.material)?;
        // Set once, here.
        let _ = self.fleet.tls.set(tls.clone());
        let transport = Transport::new(peers::transport::Options {
            node: self.consensus.node_id(),
            fleet: membership.fleet,
            address: self.setup.address.clone(),
            level: description.level,
            version: description.version.clone(),
            security: Security::Tls(tls.clone()),
            dial: Arc::new(peers::dial::TcpDial),
            book: trust::book(&self.consensus, membership.members, self.setup.data_dir.clone()),
        });
        self.peers.set(transport.clone());
        let (consensus, engine, fleet) = (self.consensus.clone(), engine.clone(), self.fleet.clone());
        let services = Services { consensus, engine, fleet };
        let door = Door {
            consensus: self.consensus.clone(),
            node: self.consensus.node_id(),
            address: self.setup.address.clone(),
            shared: self.setup.shared.clone(),
            own_certificates: self.setup.own.is_some(),
        };
        let listener = Box::new(peers::dial::TcpListen(listener));
        transport.listen(listener, Arc::new(services), Some(Arc::new(door)));
        tracing::info!(address = %self.setup.address, "peers reach this node");
        Ok((transport, tls))
    }
}

async fn bind(flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("can't listen on {address} ({flag})"))
}

async fn record_start(consensus: &Consensus, description: &NodeDescription) -> anyhow::Result<()> {
    engine::record_start(consensus, description).await.map_err(|error| {
        let reason = consensus.status().stopped.unwrap_or_else(|| error.to_string());
        anyhow::anyhow!("this start can't be recorded: {reason}")
    })
}

/// Hands everything over and stops, data plane first; each within its limit, because whatever is left
/// undone is what a crash would leave undone.
async fn finish(
    running: Option<Running>,
    consensus: &Consensus,
    stop: watch::Sender<bool>,
    servers: Vec<JoinHandle<()>>,
) {
    if let Some(Running { engine, .. }) = &running
        && !engine.leave(ENGINE_STOP_MAX).await
    {
        tracing::info!(
            "not everything was handed over or stopped within {ENGINE_STOP_MAX:?}; going on without it"
        );
    }
    if let Ok(Some(to)) = tokio::time::timeout(YIELD_MAX, consensus.yield_leadership()).await {
        tracing::info!(%to, "the Raft leadership was handed over");
    }
    stop.send_replace(true);
    for server in servers {
        // An open connection doesn't keep the node.
        let _ = tokio::time::timeout(HTTP_STOP_MAX, server).await;
    }
    if tokio::time::timeout(CONSENSUS_STOP_MAX, consensus.shutdown()).await.is_err() {
        tracing::warn!("consensus did not stop within {CONSENSUS_STOP_MAX:?}; going on without it");
    }
    if let Some(Running { transport, keeper, .. }) = running {
        keeper.abort();
        transport.stop();
    }
}

async fn upkeep(metrics: PrometheusHandle) {
    loop {
        tokio::time::sleep(METRICS_UPKEEP).await;
        metrics.run_upkeep();
    }
}

/// What tells a node to stop.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    /// Told once.
    stdin_end: Option<oneshot::Receiver<()>>,
}

impl Signals {
    fn listen(until_stdin_ends: bool) -> std::io::Result<Self> {
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt, stdin_end: until_stdin_ends.then(stdin_end).transpose()? })
    }

    async fn next(&mut self) {
        let stdin_end = async {
            match &mut self.stdin_end {
                Some(end) => drop(end.await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            () = stdin_end => self.stdin_end = None,
        }
    }
}

/// A thread of its own: a read of standard input can't be given up, and a runtime would wait for it.
fn stdin_end() -> std::io::Result<oneshot::Receiver<()>> {
    let (ended, end) = oneshot::channel();
    std::thread::Builder::new().name("stdin".into()).spawn(move || {
        let read = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        // An input that can't be read has ended as well.
        drop(read);
        let _ = ended.send(());
    })?;
    Ok(end)
}
