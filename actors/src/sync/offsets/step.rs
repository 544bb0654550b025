//! Some groups of one coordinator: looked at, decided on and committed in one go, so that what was seen is
//! fresh when it is acted on.

use std::sync::Arc;

use kafka::connection::Gate;
use kafka::fetch::TopicPartition;
use kafka::groups::{self, GroupOffsets, Question};
use kafka::{Connection, Error, ErrorCode};

use super::plan::{self, Targets};
use super::read::{GROUP_ID_NOT_FOUND, Side, of_group, told};
use super::settings::OffsetSettings;
use crate::observe::TaskError;
use crate::plane::LinkPlane;
use crate::sync::{Producers, Writer};

/// A commit by whoever is no member is refused with one of these while there are members: illegal generation,
/// unknown member, rebalance in progress, stale member epoch (KIP-848). And a look where a transaction is about
/// to move the group with unstable offset commit.
const IN_USE: [ErrorCode; 5] = [ErrorCode(22), ErrorCode(25), ErrorCode(27), ErrorCode(88), ErrorCode(113)];

pub struct Step {
    pub plane: Arc<LinkPlane>,
    pub settings: OffsetSettings,
    pub writer: Writer,
    /// All mirrors that the groups may stand in.
    pub producers: Arc<Producers>,
    pub coordinator: i32,
    pub groups: Vec<Wanted>,
}

pub struct Wanted {
    pub group: String,
    pub targets: Targets,
    /// All of ours is to be committed again.
    pub is_due: bool,
}

/// What came of one group.
pub struct Stands {
    pub group: String,
    pub ahead: Vec<(TopicPartition, i64)>,
    pub outcome: Result<(), Trouble>,
}

pub enum Trouble {
    InUse,
    /// It isn't ours to write any more, or not for the moment.
    NotSent,
    Failed(TaskError),
}

impl Step {
    pub async fn take(self) -> Vec<Stands> {
        let connection = self.plane.group_destination().control(self.coordinator).await;
        let found = match &connection {
            Ok(connection) => {
                let question = |wanted| {
                    let Wanted { group, targets, .. }: &Wanted = wanted;
                    Question { group, partitions: Some(targets.keys().collect()) }
                };
                let questions: Vec<Question<'_>> = self.groups.iter().map(question).collect();
                groups::offsets(connection, &questions, true).await
            }
            Err(error) => Err(error.clone()),
        };
        let mut stands = Vec::with_capacity(self.groups.len());
        for wanted in &self.groups {
            let there = match &found {
                Ok(told) => told.get(&wanted.group).cloned().unwrap_or(Err(GROUP_ID_NOT_FOUND)),
                Err(error) => {
                    let trouble = Trouble::Failed(told_of(error));
                    stands.push(wanted.stands(Err(trouble)));
                    continue;
                }
            };
            let there = match there {
                Ok(offsets) => offsets,
                Err(GROUP_ID_NOT_FOUND) => GroupOffsets::new(),
                Err(code) if IN_USE.contains(&code) => {
                    stands.push(wanted.stands(Err(Trouble::InUse)));
                    continue;
                }
                Err(code) => {
                    let trouble = Trouble::Failed(of_group(Side::Destination, code));
                    stands.push(wanted.stands(Err(trouble)));
                    continue;
                }
            };
            let plan = plan::plan(&wanted.targets, &there, self.settings.policy, wanted.is_due);
            let outcome = match &connection {
                Ok(connection) if !plan.commits.is_empty() => {
                    self.commit(connection, &wanted.group, &plan.commits).await
                }
                _ => Ok(()),
            };
            stands.push(Stands { ahead: plan.ahead, ..wanted.stands(outcome) });
        }
        stands
    }

    async fn commit(
        &self,
        connection: &Connection,
        group: &str,
        offsets: &GroupOffsets,
    ) -> Result<(), Trouble> {
        let _turn = self.writer.turn(&self.plane).await;
        let committed = groups::commit(connection, group, offsets, Some(self.gate(offsets))).await;
        let meters = self.plane.meters();
        match &committed {
            Ok(()) => meters.group_commits.increment(1),
            Err(_) => meters.group_commits_failed.increment(1),
        }
        committed.map_err(|error| match error {
            Error::NotSent { .. } => Trouble::NotSent,
            error if error.code().is_some_and(|code| IN_USE.contains(&code)) => Trouble::InUse,
            error => Trouble::Failed(refused(&error)),
        })
    }

    /// Shut also when what is wanted has changed: a group that was just excluded is its consumers'.
    fn gate(&self, offsets: &GroupOffsets) -> Gate {
        let producer = |topic| self.producers.get(topic).copied().flatten();
        let mirrors = offsets.keys().map(|at| (at.topic.clone(), producer(&at.topic))).collect();
        let settings = self.settings.clone();
        let is_wanted =
            move |link: &catalog::Link| OffsetSettings::of(&link.configs).as_ref() == Some(&settings);
        self.writer.gate(&self.plane, mirrors, is_wanted)
    }
}

impl Wanted {
    fn stands(&self, outcome: Result<(), Trouble>) -> Stands {
        Stands { group: self.group.clone(), ahead: Vec::new(), outcome }
    }
}

fn told_of(error: &Error) -> TaskError {
    told(Side::Destination, error)
}

fn refused(error: &Error) -> TaskError {
    match error.code() {
        Some(ErrorCode::GROUP_AUTHORIZATION_FAILED) => {
            TaskError::authorization(format!("{error}; grant READ on the group at the destination"))
        }
        Some(ErrorCode::TOPIC_AUTHORIZATION_FAILED) => {
            TaskError::authorization(format!("{error}; grant READ on the mirror topic at the destination"))
        }
        _ => TaskError::internal(error.to_string()),
    }
}
