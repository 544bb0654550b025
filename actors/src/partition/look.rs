//! A partition's look at both logs as a task: what it finds comes back as a message.

use std::sync::atomic::Ordering;
use std::time::Duration;

use catalog::{Action, Prefix};
use ractor::ActorRef;
use tokio::task::AbortHandle;

use crate::appender::Appender;
use crate::catalog_port::CatalogPort;
use crate::fetcher::{self, Fetcher};
use crate::fleet::lease::Pass;
use crate::partition::actor::{PartitionArguments, PartitionMessage};
use crate::partition::footing::{self, Feed, Footing, Heard, Question};
use crate::partition::machine::{Event, NotFooted, Quiet};
use crate::plane::{FetchLane, LinkPlane};
use crate::verdict::Verdict;

/// A look is half a dozen requests; beyond this it is begun anew with fresher metadata. Whatever it
/// was doing can be repeated.
const LOOK_LIMIT: Duration = Duration::from_secs(60);

pub struct Footed {
    pub footing: Footing,
    pub(super) source: Source,
    pub appender: Appender,
    /// The lease that was held when the look began.
    pub pass: Option<Pass>,
}

/// What feeds the current run's lane.
pub(super) enum Source {
    Fetcher(Fetcher),
    /// Started when the run begins.
    Filler(Option<AbortHandle>),
}

impl std::fmt::Debug for Footed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.footing.fmt(f)
    }
}

/// The look under way and its run.
#[derive(Default)]
pub(super) struct Looking(Option<(u64, AbortHandle)>);

impl Looking {
    pub fn begin(&mut self, run: u64, look: AbortHandle) {
        self.0 = Some((run, look));
    }

    /// Let go with its answer: the handle would keep all that the task needed, which is more than everything
    /// else of a partition at rest.
    pub fn answered(&mut self, run: u64) {
        self.0.take_if(|(of, _)| *of == run);
    }

    pub fn stop(&self) {
        self.0.iter().for_each(|(_, look)| look.abort());
    }
}

/// Looks at both logs in a task of its own: the mailbox stays open meanwhile.
pub(super) fn start(
    arguments: &PartitionArguments,
    myself: &ActorRef<PartitionMessage>,
    run: u64,
    quiet: Quiet,
) -> AbortHandle {
    // Before the catalog is looked at: who holds a lease knows what was taken from it before.
    let lease = arguments.plane.lease();
    let (looked_at, pass) = (lease.now(), lease.pass());
    let has_lease = pass.is_some();
    let question = Question { quiet, has_lease, looked_at, ..arguments.question.clone() };
    let PartitionArguments { plane, catalog, stats, mirror, partition, assignment_epoch, .. } = arguments;
    let (plane, catalog, stats, myself) = (plane.clone(), catalog.clone(), stats.clone(), myself.clone());
    let assignment = (mirror.clone(), *partition, *assignment_epoch);
    let set_prefix = {
        let (mirror, partition, assignment_epoch) = (mirror.clone(), *partition, *assignment_epoch);
        move |log_start| Action::SetPrefix { mirror, partition, assignment_epoch, log_start }
    };
    let look = tokio::spawn(async move {
        let mut heard = Heard::default();
        let footing = async {
            let (mirror, partition, assignment_epoch) = &assignment;
            if !catalog.owns(mirror, *partition, *assignment_epoch) {
                let message = "the partition isn't this node's under this assignment any more".into();
                return Err(NotFooted::Verdict(Verdict::Retry { message }));
            }
            plane.first_metadata().await;
            find_footing(&plane, &*catalog, &question, &mut heard, pass, set_prefix).await
        };
        let found = tokio::time::timeout(LOOK_LIMIT, footing).await.unwrap_or_else(|_| {
            let message = format!("neither log could be looked at within {LOOK_LIMIT:?}");
            Err(NotFooted::Verdict(Verdict::Retry { message }))
        });
        let Heard { quiet_from, ends, guarded } = heard;
        // A partition that must wait shows where it stands meanwhile.
        if let Some((mirror_end, source_high_watermark)) = ends {
            stats.looked(mirror_end, source_high_watermark, plane.now_ms());
            stats.guarded.store(guarded, Ordering::Relaxed);
        }
        let message = match found {
            Ok(footed) => PartitionMessage::Footed { run, footed: Box::new(footed), quiet_from },
            Err(why) => {
                plane.request_refresh();
                PartitionMessage::Event(Event::NotFooted { run, why, quiet_from })
            }
        };
        let _ = myself.cast(message);
    });
    look.abort_handle()
}

async fn find_footing(
    plane: &LinkPlane,
    catalog: &dyn CatalogPort,
    question: &Question,
    heard: &mut Heard,
    pass: Option<Pass>,
    set_prefix: impl FnOnce(i64) -> Action,
) -> Result<Footed, NotFooted> {
    let footing = footing::look(plane, question, heard, async |prefix: Prefix| {
        catalog.submit_until_taken(set_prefix(prefix.log_start)).await.map_err(|e| e.to_string())
    })
    .await?;
    let retry = |e: kafka::Error| NotFooted::Verdict(Verdict::Retry { message: e.to_string() });
    let appender = plane.appender(footing.destination_leader).await.map_err(retry)?;
    let source = match footing.feed {
        Feed::Source => {
            let (source, destination) = (footing.source_leader, footing.destination_leader);
            let round_trip = plane.source().control(source).await.map_err(retry)?.round_trip();
            let lanes = fetcher::lanes(round_trip, plane.metadata().destination.brokers.len());
            let lane = FetchLane::new(source, destination, &question.mirror, lanes);
            Source::Fetcher(plane.fetcher(lane).await.map_err(retry)?)
        }
        Feed::Filler { .. } => Source::Filler(None),
    };
    Ok(Footed { footing, source, appender, pass })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_look_is_let_go_with_its_own_answer_and_can_be_stopped_until_then() {
        let mut looking = Looking::default();
        let look = tokio::spawn(std::future::pending::<()>());
        looking.begin(2, look.abort_handle());
        looking.answered(1);
        assert!(looking.0.is_some(), "an answer of the run before");
        looking.stop();
        assert!(look.await.expect_err("stopped").is_cancelled());
        looking.answered(2);
        assert!(looking.0.is_none(), "its memory is free");
        looking.stop();
    }
}
