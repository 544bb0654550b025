//! The cluster that callers hold: the state behind a lock, its clock, and who waits for it to change.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::connection;
use crate::fault::Interceptors;
use crate::partition::Stop;
use crate::state::{Settings, State};

#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    /// Follows [`State::changes`].
    changes: watch::Sender<u64>,
    /// Rises with each stop of a broker: connections older than that end.
    stops: watch::Sender<u64>,
    clock: Clock,
    interceptors: Interceptors,
}

impl Cluster {
    pub fn new(settings: Settings, clock: Clock) -> Self {
        let state = Mutex::new(State::new(settings, clock()));
        let inner = Inner {
            state,
            changes: watch::Sender::new(0),
            stops: watch::Sender::new(0),
            clock,
            interceptors: Interceptors::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Speaks broker `broker`'s part on `stream` until it ends, the broker stops or the client breaks the
    /// protocol.
    pub async fn serve(&self, broker: i32, stream: impl AsyncRead + AsyncWrite + Unpin + Send) {
        let mut stops = self.inner.stops.subscribe();
        let up = || self.with(|state| state.is_up(broker));
        if !up() {
            return;
        }
        let stopped = async {
            while stops.changed().await.is_ok() {
                if !up() {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            () = stopped => {}
            () = connection::serve(self, broker, stream) => {}
        }
    }

    /// Looks at or changes the state at the present time.
    pub fn with<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        let (result, changes) = {
            let mut state = self.lock();
            state.advance((self.inner.clock)());
            (act(&mut state), state.changes())
        };
        self.inner.changes.send_if_modified(|known| std::mem::replace(known, changes) != changes);
        result
    }

    pub fn stop_broker(&self, broker: i32, stop: Stop) {
        self.with(|state| state.stop_broker(broker, stop));
        self.inner.stops.send_modify(|stops| *stops += 1);
    }

    pub fn start_broker(&self, broker: i32) {
        self.with(|state| state.start_broker(broker));
    }

    /// Where faults are put in the way of requests.
    pub fn interceptors(&self) -> &Interceptors {
        &self.inner.interceptors
    }

    /// How often a broker has stopped.
    pub(crate) fn stops(&self) -> u64 {
        *self.inner.stops.borrow()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
