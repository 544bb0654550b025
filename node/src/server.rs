//! A node's life: open consensus, record the start, run the data plane, serve the API, and stop
//! all of it in order.
//!
//! Consensus and API have a runtime of their own, so that a saturated data plane never costs an
//! election. Nothing here decides what runs; that is the catalog's.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actors::clock::WallClock;
use actors::coordinator;
use actors::credit::CreditLimits;
use actors::engine::{self, Engine};
use anyhow::Context as _;
use axum::Router;
use consensus::{Consensus, Options};
use kafka::client::TcpDial;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::api::preflight::LivePreflight;
use crate::api::{self, Api};
use crate::config::{Settings, host_name};
use crate::telemetry;

/// Consensus waits for the disk, the API for consensus: neither needs more.
const CONTROL_THREADS: usize = 2;

/// Together below the 10 s within which a stopping node exits.
const ENGINE_STOP_MAX: Duration = Duration::from_secs(5);
const CONSENSUS_STOP_MAX: Duration = Duration::from_secs(3);
const HTTP_STOP_MAX: Duration = Duration::from_millis(500);
const RUNTIME_STOP_MAX: Duration = Duration::from_millis(200);

/// Histograms are folded at this pace; they hold every sample until then.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

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
    let probes = match settings.metrics_listen {
        Some(address) => Some(bind("--metrics-listen", address).await?),
        None => None,
    };
    let mut signals = Signals::listen(settings.until_stdin_ends).context("listen for signals")?;

    let name = settings.node_name.clone().unwrap_or_else(host_name);
    let options = Options { renames: settings.node_name.is_some(), ..Options::new(&settings.data_dir, name) };
    let consensus = if settings.bootstrap {
        Consensus::bootstrap(options).await?
    } else {
        Consensus::open(options).await?
    };
    let node_id = consensus.node_id();
    let name = consensus.status().node_name;
    tracing::info!(%node_id, name, data_dir = %settings.data_dir.display(), "node is open");

    let (stop, stopping) = watch::channel(false);
    let observatory = Arc::new(OnceLock::new());
    let api = Api {
        consensus: consensus.clone(),
        preflight: Arc::new(LivePreflight),
        metrics: metrics.clone(),
        observatory: observatory.clone(),
    };
    let mut servers = vec![serve(listener, api::router(api.clone()), stopping.clone())];
    servers.extend(probes.map(|listener| serve(listener, api::probes(api), stopping.clone())));
    tracing::info!(address = %settings.listen, "API listens");
    if settings.insecure {
        tracing::warn!("insecure: whoever reaches this address can change everything");
    }

    let upkeep = tokio::spawn(upkeep(metrics));
    let coordinator = tokio::spawn(coordinator::run(consensus.clone()));
    let starting = tokio::spawn(start_engine(consensus.clone(), name, data));
    let engine = tokio::select! {
        started = starting => started.context("start the data plane")??,
        () = signals.next() => {
            tracing::info!("told to stop before the data plane started");
            finish(None, &consensus, stop, servers).await;
            return Ok(());
        }
    };
    // Set once, here.
    let _ = observatory.set(engine.observatory().clone());
    tracing::info!("data plane runs");

    signals.next().await;
    tracing::info!("told to stop");
    coordinator.abort();
    upkeep.abort();
    tokio::select! {
        () = finish(Some(engine), &consensus, stop, servers) => tracing::info!("stopped"),
        () = signals.next() => tracing::warn!("told to stop again: not waiting any longer"),
    }
    Ok(())
}

async fn bind(flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("can't listen on {address} ({flag})"))
}

fn serve(listener: TcpListener, router: Router, mut stopping: watch::Receiver<bool>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let stopped = async move {
            let _ = stopping.wait_for(|stopping| *stopping).await;
        };
        if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stopped).await {
            tracing::error!(%error, "the API stopped");
        }
    })
}

/// Records this start, then runs the data plane.
async fn start_engine(consensus: Consensus, name: String, data: Handle) -> anyhow::Result<Engine> {
    if let Err(error) = engine::record_start(&consensus, &name).await {
        let reason = consensus.status().stopped.unwrap_or_else(|| error.to_string());
        anyhow::bail!("consensus stopped: {reason}");
    }
    let engine = Engine::start(consensus, WallClock::system(), Arc::new(TcpDial), CreditLimits::default());
    let engine = data.spawn(engine).await.context("start the actors")?;
    engine.context("start the actors")
}

/// Stops the data plane, then consensus; each within its limit, because whatever is left undone
/// is what a crash would leave undone.
async fn finish(
    engine: Option<Engine>,
    consensus: &Consensus,
    stop: watch::Sender<bool>,
    servers: Vec<JoinHandle<()>>,
) {
    if let Some(engine) = engine
        && !engine.stop(ENGINE_STOP_MAX).await
    {
        tracing::warn!("the data plane did not stop within {ENGINE_STOP_MAX:?}; going on without it");
    }
    stop.send_replace(true);
    for server in servers {
        // An open connection doesn't keep the node.
        let _ = tokio::time::timeout(HTTP_STOP_MAX, server).await;
    }
    if tokio::time::timeout(CONSENSUS_STOP_MAX, consensus.shutdown()).await.is_err() {
        tracing::warn!("consensus did not stop within {CONSENSUS_STOP_MAX:?}; going on without it");
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
