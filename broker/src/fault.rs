//! Faults put in the way of requests, by kind: answered otherwise, delayed, dropped before or after they
//! took effect.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::Request;

/// Who sends a request, to which broker.
#[derive(Debug, Clone)]
pub struct Caller {
    pub broker: i32,
    pub client_id: String,
    pub api: ApiKey,
    pub version: i16,
}

/// What becomes of a request.
pub enum Fault<R> {
    /// Nothing: the next interceptor is asked, then the broker.
    Pass,
    /// It has no effect and gets this answer.
    Answer(R),
    /// The broker hears of it so much later.
    Delay(Duration),
    /// It has no effect, and the connection ends.
    Drop,
    /// It takes effect, and the connection ends without an answer.
    ApplyThenDrop,
    /// The connection ends at once, and the broker hears of it so much later: it lay in a queue of the
    /// network's or the broker's own.
    DropThenApply(Duration),
    /// It takes effect, and its answer is made into another.
    ApplyThenAnswer(Change<R>),
    /// It takes effect, and its answer is made into another, one that tells the time. For so long the broker
    /// then reads nothing from the connection: what it does with a client that is over its quota (KIP-219).
    Throttle(Duration, Change<R>),
}

pub type Change<R> = Box<dyn FnOnce(R) -> R + Send>;

type Interceptor<Q> = Box<dyn FnMut(&Caller, &Q) -> Fault<<Q as Request>::Response> + Send>;

/// Removes an interceptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct InterceptorId(i16, u64);

#[derive(Default)]
pub struct Interceptors {
    by_key: Mutex<BTreeMap<InterceptorId, Box<dyn Any + Send>>>,
}

impl Interceptors {
    /// From now on each request of kind `Q` is shown to `intercept`, after those that were added before.
    pub fn add<Q: Request + 'static>(
        &self,
        intercept: impl FnMut(&Caller, &Q) -> Fault<Q::Response> + Send + 'static,
    ) -> InterceptorId {
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        let last = by_key.keys().map(|InterceptorId(_, number)| *number).max();
        let id = InterceptorId(Q::KEY, last.map_or(0, |last| last + 1));
        let interceptor: Interceptor<Q> = Box::new(intercept);
        by_key.insert(id, Box::new(interceptor));
        id
    }

    pub fn remove(&self, id: InterceptorId) {
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    pub(crate) fn fault_for<Q: Request + 'static>(&self, caller: &Caller, request: &Q) -> Fault<Q::Response> {
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        let own = by_key.range_mut(InterceptorId(Q::KEY, 0)..=InterceptorId(Q::KEY, u64::MAX));
        for (_, interceptor) in own {
            let Some(intercept) = interceptor.downcast_mut::<Interceptor<Q>>() else { continue };
            match intercept(caller, request) {
                Fault::Pass => {}
                fault => return fault,
            }
        }
        Fault::Pass
    }
}
