//! A node that is told to stop does so without a word of trouble.

mod support;

use std::fmt::Write;
use std::sync::{Arc, Mutex};

use support::fleet::{Fleet, MS};
use support::{SECOND, action};
use tokio::time::sleep;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

/// Keeps what is logged as an error, but for what nodes say that still run: that another can't be reached.
#[derive(Clone, Default)]
struct Errors(Arc<Mutex<Vec<String>>>);

impl Subscriber for Errors {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR && !metadata.target().starts_with("openraft::replication")
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().target().to_owned());
        event.record(&mut line);
        if !line.0.contains("error=Unreachable node") {
            self.0.lock().expect("no panic while held").push(line.0);
        }
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0, " {field}={value:?}").expect("memory");
    }
}

/// Also the last ones, which have no majority any more, and with commands under way.
#[tokio::test(start_paused = true)]
async fn a_stop_logs_no_error() {
    let errors = Errors::default();
    let _log = tracing::subscriber::set_default(errors.clone());
    for seed in 0..10 {
        let fleet = Fleet::of(3, seed).await;
        for node in fleet.running() {
            let node = node.clone();
            tokio::spawn(async move {
                for n in 0.. {
                    let _ = node.submit(action(n)).await;
                    if node.read().await.is_err() && node.status().stopped.is_some() {
                        return;
                    }
                    sleep(MS).await;
                }
            });
        }
        sleep(SECOND).await;
        for number in 0..3 {
            fleet.nodes[number].get().shutdown().await;
            sleep(if seed % 2 == 0 { 50 * MS } else { 2 * SECOND }).await;
        }
        assert_eq!(*errors.0.lock().expect("no panic while held"), Vec::<String>::new(), "seed {seed}");
    }
}
