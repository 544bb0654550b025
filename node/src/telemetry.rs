//! Log lines and the registry of counters: set up once, at the start of the process.

use std::io::IsTerminal as _;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// openraft tells every heartbeat at `info`, late messages at `warn`, and each try to reach a member that
/// is away at `error`; what matters of these the fleet's own lines say once.
const ALWAYS: &str = "openraft=error,openraft::replication=off";

/// Lines go to stderr.
///
/// # Errors
/// When the filter can't be read.
pub fn start_log(format: LogFormat, filter: &str) -> anyhow::Result<()> {
    let wrong =
        |e| anyhow::anyhow!("LOCKSTEP_LOG: '{filter}' is not a filter such as 'info,actors=debug': {e}");
    // The last directive for a target wins, so the user's stands.
    let filter = EnvFilter::try_new(format!("{ALWAYS},{filter}")).map_err(wrong)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        // It would tell on stderr that stderr takes nothing, and panic.
        .log_internal_errors(false);
    let done = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    done.map_err(|e| anyhow::anyhow!("can't start the log: {e}"))
}

/// Bounds of the histograms of times: a record at rest takes about a millisecond, the longest request
/// some fifteen seconds.
const SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0];

/// Where counters of the whole process go.
///
/// # Errors
/// When another registry is installed.
pub fn install_metrics() -> anyhow::Result<PrometheusHandle> {
    let seconds = Matcher::Suffix("_seconds".to_owned());
    Ok(PrometheusBuilder::new().set_buckets_for_metric(seconds, &SECONDS)?.install_recorder()?)
}
