//! The life of a mirror topic, from its set-up to its end: every change of its status. The whole table
//! is `docs/mirror-states.md`, which a test reads.

use std::sync::Arc;

use super::Applied;
use crate::command::{Outcome, Refusal};
use crate::model::{Catalog, Failure, MirrorKey, MirrorStatus, MirrorTopic, ProducerIdentity, TopicId};
use crate::stop::{Stop, StopKind, StoppedPartition};

impl Catalog {
    pub(super) fn mirror_ready(
        &mut self,
        key: &MirrorKey,
        topic_id: TopicId,
        producer: ProducerIdentity,
        at_ms: i64,
    ) -> Applied {
        let mirror = self.mirror_mut(key)?;
        // The identity is for the mirror's whole life: a late second answer must not replace it.
        if mirror.producer.is_some() {
            return Err(Refusal::Stale(format!("mirror topic '{}'", mirror.name)));
        }
        mirror.destination_topic_id = topic_id;
        mirror.producer = Some(producer);
        if mirror.status == MirrorStatus::PendingMirror {
            mirror.set_status(MirrorStatus::Active, at_ms);
        }
        Ok(Outcome::Done)
    }

    pub(super) fn fail_partition(
        &mut self,
        key: &MirrorKey,
        index: u32,
        epoch: u64,
        failure: Failure,
        at_ms: i64,
    ) -> Applied {
        let mirror = self.mirror_mut(key)?;
        let is_fenced = mirror.is_fenced();
        let stale = Refusal::Stale(format!("mirror topic '{}' partition {index}", key.topic));
        let Some(partition) = mirror.partitions.get_mut(index as usize) else { return Err(stale) };
        if partition.assignment.as_ref().is_none_or(|a| a.epoch != epoch) {
            return Err(stale);
        }
        // Behind a fence every append fails: that is what it is for.
        if partition.failure.is_some() || is_fenced {
            return Ok(Outcome::Unchanged);
        }
        partition.failure = Some(failure);
        mirror.set_failed(at_ms);
        Ok(Outcome::Done)
    }

    /// What keeps a mirror from being set up. One that is set up fails by partition: then this comes from
    /// a node that was held up in the middle of a setup, which another has finished since.
    pub(super) fn fail_mirror(&mut self, key: &MirrorKey, failure: Failure, at_ms: i64) -> Applied {
        let mirror = self.mirror_mut(key)?;
        if mirror.producer.is_some() {
            return Err(Refusal::Stale(format!("mirror topic '{}'", key.topic)));
        }
        for partition in &mut mirror.partitions {
            partition.failure.get_or_insert_with(|| failure.clone());
        }
        mirror.set_failed(at_ms);
        Ok(Outcome::Done)
    }

    pub(super) fn pause_mirror(&mut self, key: &MirrorKey, at_ms: i64) -> Applied {
        let mirror = self.mirror_mut(key)?;
        match mirror.status {
            MirrorStatus::Paused => Ok(Outcome::Unchanged),
            MirrorStatus::Active | MirrorStatus::PendingMirror => {
                mirror.set_status(MirrorStatus::Paused, at_ms);
                Ok(Outcome::Done)
            }
            MirrorStatus::Failed => {
                Err(mirror.illegal("is FAILED: resume it after mending the cause, or delete it"))
            }
            MirrorStatus::PendingStopped | MirrorStatus::Stopped => Err(mirror.illegal(mirror.way_on())),
        }
    }

    pub(super) fn resume_mirror(&mut self, key: &MirrorKey, at_ms: i64) -> Applied {
        let mirror = self.mirror_mut(key)?;
        match mirror.status {
            MirrorStatus::Paused | MirrorStatus::Failed => {}
            MirrorStatus::PendingMirror | MirrorStatus::Active => return Ok(Outcome::Unchanged),
            MirrorStatus::PendingStopped | MirrorStatus::Stopped => {
                return Err(mirror.illegal(mirror.way_on()));
            }
        }
        for partition in &mut mirror.partitions {
            // A failed partition starts afresh under a higher epoch, so that a late failure of
            // the former run is refused.
            if partition.failure.take().is_some()
                && let Some(assignment) = &mut partition.assignment
            {
                assignment.epoch += 1;
                assignment.unclean = true;
            }
        }
        let ready = mirror.producer.is_some();
        mirror.set_status(if ready { MirrorStatus::Active } else { MirrorStatus::PendingMirror }, at_ms);
        Ok(Outcome::Done)
    }

    pub(super) fn delete_mirror(&mut self, key: &MirrorKey) -> Applied {
        let mirror = self.mirror_mut(key)?;
        if mirror.status == MirrorStatus::PendingStopped {
            return Err(mirror.illegal(mirror.way_on()));
        }
        let stopped = mirror.stop.as_ref().filter(|_| mirror.status == MirrorStatus::Stopped);
        let stopped = stopped.map(|stop| stop.kind);
        let source_topic = mirror.source_topic.clone();
        self.forget(&key.link, source_topic)?;
        self.take_away(key)?;
        self.link_mut(&key.link)?.mirrors.remove(&key.topic);
        if let Some(kind) = stopped {
            self.remember_stopped(key, kind);
        }
        Ok(Outcome::Done)
    }

    /// Nobody owns its partitions any more. Whoever does next has a higher assignment epoch.
    fn take_away(&mut self, key: &MirrorKey) -> Result<(), Refusal> {
        let mirror = self.mirror_mut(key)?;
        let taken = mirror.partitions.iter_mut().filter_map(|partition| partition.assignment.take());
        let highest = taken.map(|assignment| assignment.epoch).max().unwrap_or_default();
        self.fleet.deleted_epoch_max = self.fleet.deleted_epoch_max.max(highest);
        self.fleet.hand_overs.retain(|hand_over, _| hand_over.mirror != *key);
        Ok(())
    }

    pub(super) fn promote(&mut self, key: &MirrorKey, at_ms: i64) -> Applied {
        let mirror = self.mirror_mut(key)?;
        match (mirror.status, &mirror.stop) {
            (MirrorStatus::Stopped, _)
            | (MirrorStatus::PendingStopped, Some(Stop { kind: StopKind::Promote, .. })) => {
                Ok(Outcome::Unchanged)
            }
            (MirrorStatus::PendingStopped, _) => Err(mirror.illegal("is being failed over already")),
            (MirrorStatus::Failed, _) => Err(mirror.illegal(FAILED_PARTITION)),
            _ if mirror.producer.is_none() => Err(mirror.illegal(NOT_SET_UP)),
            // A paused one may have it, too.
            _ if mirror.first_failure().is_some() => Err(mirror.illegal(FAILED_PARTITION)),
            _ => {
                mirror.begin_stop(StopKind::Promote, at_ms);
                Ok(Outcome::Done)
            }
        }
    }

    pub(super) fn cancel_promotion(&mut self, key: &MirrorKey, at_ms: i64) -> Applied {
        let mirror = self.mirror_mut(key)?;
        match &mirror.stop {
            Some(Stop { fenced_at_ms: None, before, .. }) => {
                let before = *before;
                mirror.stop = None;
                mirror.set_status(before, at_ms);
                Ok(Outcome::Done)
            }
            Some(_) if mirror.status == MirrorStatus::Stopped => {
                Err(mirror.illegal("has STOPPED: that is final"))
            }
            Some(_) => Err(mirror.illegal("is being fenced already: that is final")),
            None => Err(mirror.illegal("isn't being promoted")),
        }
    }

    pub(super) fn fail_over(&mut self, key: &MirrorKey, at_ms: i64) -> Applied {
        let mirror = self.mirror_mut(key)?;
        match (mirror.status, &mut mirror.stop) {
            (MirrorStatus::Stopped, _) => Ok(Outcome::Unchanged),
            (_, Some(Stop { fenced_at_ms: Some(_), .. })) => Ok(Outcome::Unchanged),
            (_, Some(stop)) => {
                (stop.kind, stop.asked_at_ms, stop.fenced_at_ms) = (StopKind::FailOver, at_ms, Some(at_ms));
                Ok(Outcome::Done)
            }
            _ if mirror.producer.is_none() => Err(mirror.illegal(NOT_SET_UP)),
            _ => {
                mirror.begin_stop(StopKind::FailOver, at_ms);
                Ok(Outcome::Done)
            }
        }
    }

    /// The promotion has caught up: nothing more is appended.
    pub(super) fn fence(
        &mut self,
        key: &MirrorKey,
        producer: ProducerIdentity,
        asked_at_ms: i64,
        at_ms: i64,
    ) -> Applied {
        let mirror = self.same_mirror(key, producer)?;
        match &mut mirror.stop {
            // Of another promotion: nobody has seen this one catch up.
            Some(stop) if stop.asked_at_ms != asked_at_ms => {
                Err(Refusal::Stale(format!("mirror topic '{}'", key.topic)))
            }
            Some(Stop { fenced_at_ms: Some(_), .. }) => Ok(Outcome::Unchanged),
            Some(stop) => {
                stop.fenced_at_ms = Some(at_ms);
                Ok(Outcome::Done)
            }
            // Cancelled meanwhile, or a partition has failed.
            None => Err(Refusal::Stale(format!("mirror topic '{}'", key.topic))),
        }
    }

    pub(super) fn stopped(
        &mut self,
        key: &MirrorKey,
        (producer, epoch): (ProducerIdentity, u64),
        (ends, remarks): (Vec<StoppedPartition>, Vec<Arc<str>>),
        at_ms: i64,
    ) -> Applied {
        let stale = || Refusal::Stale(format!("mirror topic '{}'", key.topic));
        let mirror = self.same_mirror(key, producer)?;
        if mirror.status == MirrorStatus::Stopped {
            return Ok(Outcome::Unchanged);
        }
        let first = mirror.first_assignment();
        if first.is_none_or(|assignment| assignment.epoch != epoch) {
            return Err(stale());
        }
        let partitions = mirror.partitions.len();
        let stop = mirror.stop.as_mut().filter(|stop| stop.fenced_at_ms.is_some()).ok_or_else(stale)?;
        if ends.len() != partitions {
            return Err(stale());
        }
        stop.ends = ends;
        stop.remarks = remarks;
        mirror.set_status(MirrorStatus::Stopped, at_ms);
        self.take_away(key)?;
        Ok(Outcome::Done)
    }

    /// The mirror of that name, if it still is the one whose producer identity this is.
    fn same_mirror(
        &mut self,
        key: &MirrorKey,
        producer: ProducerIdentity,
    ) -> Result<&mut MirrorTopic, Refusal> {
        let mirror = self.mirror_mut(key)?;
        match mirror.producer == Some(producer) {
            true => Ok(mirror),
            false => Err(Refusal::Stale(format!("mirror topic '{}'", key.topic))),
        }
    }
}

const FAILED_PARTITION: &str = "has a failed partition and can't catch up: resume it after mending the cause, or fail it over with what it has";

const NOT_SET_UP: &str = "isn't set up yet, so there is nothing to stop: delete it";

impl MirrorTopic {
    fn illegal(&self, why: &str) -> Refusal {
        Refusal::Illegal(format!("mirror topic '{}' {why}", self.name))
    }

    /// Of a mirror that is to stop, or has: what can be done with it.
    fn way_on(&self) -> &'static str {
        match &self.stop {
            Some(_) if self.status == MirrorStatus::Stopped => "has STOPPED: its topic is an ordinary topic",
            Some(Stop { fenced_at_ms: None, .. }) => "is being promoted: cancel that first, or fail it over",
            _ => "is about to stop: that is final",
        }
    }

    fn begin_stop(&mut self, kind: StopKind, at_ms: i64) {
        let fenced_at_ms = (kind == StopKind::FailOver).then_some(at_ms);
        let before = self.status;
        self.stop = Some(Stop {
            kind,
            asked_at_ms: at_ms,
            before,
            fenced_at_ms,
            ends: Vec::new(),
            remarks: Vec::new(),
        });
        self.set_status(MirrorStatus::PendingStopped, at_ms);
    }

    /// A failure that is reported late doesn't set a paused mirror's other partitions running. A
    /// promotion that still catches up can't any more and is off.
    fn set_failed(&mut self, at_ms: i64) {
        if self.status != MirrorStatus::Paused {
            self.stop = None;
            self.set_status(MirrorStatus::Failed, at_ms);
        }
    }

    fn set_status(&mut self, status: MirrorStatus, at_ms: i64) {
        if self.status != status {
            self.status = status;
            self.status_since_ms = at_ms;
        }
    }
}
