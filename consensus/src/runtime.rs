//! The runtime under openraft: tokio, with chance from the node's own source.
//!
//! openraft draws election timeouts by a function without arguments. So the source follows its tasks:
//! whatever starts inside [`drawing_from`], and what that starts, draws from the given [`Entropy`]. It
//! never changes how tasks run or how time passes.

use std::future::Future;
use std::time::Duration;

use openraft::{AsyncRuntime, OptionalSend, TokioRuntime};
use rand_core::RngCore;
use tokio::task_local;

use crate::options::Entropy;

task_local! {
    static SOURCE: Entropy;
}

/// Runs `future` so that openraft's part in it draws from `source`.
pub(crate) async fn drawing_from<F: Future>(source: Entropy, future: F) -> F::Output {
    SOURCE.scope(source, future).await
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Runtime;

/// Random numbers from the source of the task that asks.
pub(crate) struct Chance(Entropy);

impl RngCore for Chance {
    fn next_u32(&mut self) -> u32 {
        // The upper half: some sources mix their lower bits badly.
        (self.next_u64() >> 32) as u32
    }

    fn next_u64(&mut self) -> u64 {
        (self.0)()
    }

    fn fill_bytes(&mut self, dest: &mut [u8]) {
        rand_core::impls::fill_bytes_via_next(self, dest);
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(dest);
        Ok(())
    }
}

impl AsyncRuntime for Runtime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = Chance;
    type OneshotSender<T: OptionalSend> = <TokioRuntime as AsyncRuntime>::OneshotSender<T>;
    type OneshotReceiverError = <TokioRuntime as AsyncRuntime>::OneshotReceiverError;
    type OneshotReceiver<T: OptionalSend> = <TokioRuntime as AsyncRuntime>::OneshotReceiver<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        match SOURCE.try_with(Entropy::clone) {
            Ok(source) => TokioRuntime::spawn(SOURCE.scope(source, future)),
            Err(_) => TokioRuntime::spawn(future),
        }
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(join_error)
    }

    fn thread_rng() -> Chance {
        Chance(SOURCE.try_with(Entropy::clone).unwrap_or_else(|_| crate::options::system_entropy()))
    }

    fn oneshot<T>() -> (Self::OneshotSender<T>, Self::OneshotReceiver<T>)
    where
        T: OptionalSend,
    {
        TokioRuntime::oneshot()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn whatever_openraft_starts_draws_from_the_given_source() {
        let drawn = || Runtime::thread_rng().next_u64();
        let nested =
            async move { Runtime::spawn(async move { Runtime::spawn(async move { drawn() }).await }).await };
        let source: Entropy = Arc::new(|| 7);
        let found = drawing_from(source, nested).await.expect("not cancelled").expect("not cancelled");
        assert_eq!(found, 7);
        assert_ne!(drawn(), drawn(), "outside of it chance is the system's");
    }
}
