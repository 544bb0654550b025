//! The trace: what a seed is judged and compared by. One line an event: virtual time, host, what.
//!
//! Whatever the product logs of itself is in it, beside what the simulation sees. A line never holds an
//! actor's id, an address in memory or a moment of the machine's clock.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::time::Time;

/// Crates whose logs belong to the trace. Libraries' do not: openraft logs the machine's time.
const TOLD: [&str; 8] = ["actors", "broker", "catalog", "consensus", "kafka", "lockstep", "peers", "sim"];

/// turmoil runs each host inside a span of this name.
const HOST_SPAN: &str = "node";

#[derive(Clone)]
pub struct Trace(Arc<Inner>);

struct Inner {
    time: Time,
    /// Lines that weren't taken yet.
    text: Mutex<String>,
    hosts: Mutex<Vec<String>>,
    /// Place in `hosts` and one; 0 outside of hosts.
    host: AtomicU64,
}

impl Trace {
    /// Everything that is logged in this process from now on goes to the trace.
    ///
    /// # Errors
    /// When something else takes the logs of this process.
    pub fn install(time: Time) -> anyhow::Result<Self> {
        let trace = Self(Arc::new(Inner {
            time,
            text: Mutex::default(),
            hosts: Mutex::default(),
            host: AtomicU64::new(0),
        }));
        tracing::subscriber::set_global_default(trace.clone())?;
        Ok(trace)
    }

    /// The lines since the last call.
    pub fn take(&self) -> String {
        std::mem::take(&mut lock(&self.0.text))
    }

    fn host(&self) -> String {
        let host = self.0.host.load(Ordering::Relaxed) as usize;
        let name = host.checked_sub(1).and_then(|place| lock(&self.0.hosts).get(place).cloned());
        name.unwrap_or_else(|| "-".to_owned())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Subscriber for Trace {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        if metadata.is_span() {
            return metadata.name() == HOST_SPAN && metadata.target().starts_with("turmoil");
        }
        let origin = metadata.target().split("::").next().unwrap_or_default();
        TOLD.contains(&origin) && *metadata.level() <= Level::DEBUG
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut name = Fields::default();
        attributes.record(&mut name);
        let mut hosts = lock(&self.0.hosts);
        let place = hosts.iter().position(|host| *host == name.message).unwrap_or_else(|| {
            hosts.push(name.message);
            hosts.len() - 1
        });
        Id::from_u64(place as u64 + 1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let (metadata, at) = (event.metadata(), self.0.time.elapsed());
        let level =
            if *metadata.level() <= Level::WARN { format!("{} ", metadata.level()) } else { String::new() };
        let target = metadata.target().split("::").next().unwrap_or_default();
        let host = self.host();
        let Fields { message, others } = fields;
        let line = format!("{:>12.6} {host:<8} {target}: {level}{message}{others}\n", at.as_secs_f64());
        lock(&self.0.text).push_str(&line);
    }

    fn enter(&self, span: &Id) {
        self.0.host.store(span.into_u64(), Ordering::Relaxed);
    }

    fn exit(&self, _: &Id) {
        self.0.host.store(0, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Fields {
    /// Of an event its message, of a host's span its name.
    message: String,
    others: String,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String never fails.
        let _ = match field.name() {
            "message" | "name" => write!(self.message, "{value:?}"),
            name => write!(self.others, " {name}={value:?}"),
        };
    }
}
