//! Metrics of the connections between nodes.

use metrics::{Gauge, counter, gauge};

use crate::call::Service;

pub(crate) fn call(service: Service, outcome: &'static str) {
    counter!("lockstep_peer_calls_total", "service" => service.name(), "outcome" => outcome).increment(1);
}

/// Of requests and answers, with their headers.
pub(crate) fn bytes(service: Service, direction: Direction, bytes: usize) {
    let labels = [("service", service.name()), ("direction", direction.name())];
    counter!("lockstep_peer_bytes_total", &labels).increment(bytes as u64);
}

pub(crate) fn refused(direction: Direction, reason: &'static str) {
    counter!("lockstep_peer_refusals_total", "direction" => direction.name(), "reason" => reason)
        .increment(1);
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Direction {
    In,
    Out,
}

impl Direction {
    fn name(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }
}

/// A connection that is open, for as long as it lives.
pub(crate) struct Open(Gauge);

impl Open {
    pub fn new(direction: Direction) -> Self {
        let gauge = gauge!("lockstep_peer_connections", "direction" => direction.name());
        gauge.increment(1);
        Self(gauge)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}
