//! Fetch: by name up to version 12, by topic id from 13 on, with sessions, long polling and both
//! isolation levels. Any replica answers a consumer of version 11 or later (KIP-392).

use bytes::Bytes;
use kafka_protocol::error::ResponseError as Code;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::{
    AbortedTransaction, EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, PartitionData,
};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, ProducerId, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::{Handler, Step, Wait};
use crate::fault::Caller;
use crate::fetch_session::{Asked, Key, Wanted};
use crate::partition::Partition;
use crate::state::State;

/// Requests name the last epoch fetched, and answers where the log parts from it, from here on.
const LAST_EPOCH_FROM_VERSION: i16 = 12;
const BY_ID_FROM_VERSION: i16 = 13;
const FROM_FOLLOWERS_FROM_VERSION: i16 = 11;
/// `fetch.max.bytes` of the broker.
const RESPONSE_BYTES_MAX: i32 = 55 << 20;
const READ_COMMITTED: i8 = 1;

pub(crate) struct Fetch;

/// One request, as it is read again and again until there is enough to answer.
struct Reading {
    caller: Caller,
    read_committed: bool,
    bytes_min: usize,
    bytes_max: usize,
    /// What the request itself names, apart from its session.
    named: Vec<FetchTopic>,
    asked: Asked,
}

impl Handler for Fetch {
    type Request = FetchRequest;

    const VERSIONS: std::ops::RangeInclusive<i16> = 4..=18;

    fn handle(state: &mut State, caller: &Caller, request: FetchRequest) -> Step<FetchResponse> {
        let by_id = caller.version >= BY_ID_FROM_VERSION;
        let asked = match state.sessions.entry(caller.broker).or_default().ask(&request, by_id) {
            Ok(asked) => asked,
            Err(code) => return Step::Done(FetchResponse::default().with_error_code(code.code())),
        };
        let reading = Reading {
            caller: caller.clone(),
            read_committed: request.isolation_level == READ_COMMITTED,
            bytes_min: usize::try_from(request.min_bytes).unwrap_or(0),
            bytes_max: usize::try_from(request.max_bytes.min(RESPONSE_BYTES_MAX)).unwrap_or(0),
            named: request.topics,
            asked,
        };
        let until_ms = state.now_ms + i64::from(request.max_wait_ms.max(0));
        let expired = request.max_wait_ms <= 0;
        match reading.poll(state, expired) {
            Some(response) => Step::Done(response),
            None => {
                let poll = move |state: &mut State, expired: bool| reading.poll(state, expired);
                Step::Wait(Wait { until_ms, poll: Box::new(poll) })
            }
        }
    }
}

impl Reading {
    fn poll(&self, state: &mut State, expired: bool) -> Option<FetchResponse> {
        let mut room = self.bytes_max;
        let (mut bytes, mut urgent) = (0, false);
        let (mut answers, mut missing) = (Vec::new(), Vec::new());
        for wanted in &self.asked.partitions {
            let data = match self.read(state, wanted, room, bytes == 0) {
                Ok(data) => data,
                Err(code @ (Code::UnknownTopicId | Code::UnknownTopicOrPartition)) => {
                    missing.push((wanted.key.clone(), self.refused(state, wanted, code)));
                    continue;
                }
                Err(code) => self.refused(state, wanted, code).with_aborted_transactions(None),
            };
            let got = data.records.as_ref().map_or(0, Bytes::len);
            room = room.saturating_sub(got);
            bytes += got;
            urgent |= data.error_code != 0 || data.diverging_epoch.epoch >= 0;
            answers.push((wanted.key.clone(), data));
        }
        let enough = expired || urgent || answers.is_empty() || bytes >= self.bytes_min;
        // What isn't there comes last, unknown ids before unknown names, and makes nobody hurry.
        missing
            .sort_by_key(|(_, data): &(Key, PartitionData)| data.error_code != Code::UnknownTopicId.code());
        answers.append(&mut missing);
        enough.then(|| self.answer(state, answers))
    }

    fn read(&self, state: &State, wanted: &Wanted, room: usize, first: bool) -> Result<PartitionData, Code> {
        let partition = self.find(state, wanted)?;
        if let Some(diverging) = self.diverging(partition, wanted)? {
            let data = self.empty(partition, wanted).with_aborted_transactions(None);
            return Ok(data.with_diverging_epoch(diverging));
        }
        let (start, end) = (partition.log.start(), partition.log.end());
        if wanted.offset < start || wanted.offset > end {
            return Err(Code::OffsetOutOfRange);
        }
        let limit =
            if self.read_committed { partition.last_stable_offset() } else { partition.high_watermark() };
        let bytes_max = room.min(usize::try_from(wanted.bytes_max).unwrap_or(0));
        let chunk = partition.log.read(wanted.offset, limit, bytes_max, first);
        if chunk.is_cut {
            let client = &self.caller.client_id;
            tracing::debug!(client, bytes = chunk.records.len(), "an answer is cut inside a batch");
        }
        let aborted = chunk.aborted.iter().map(|aborted| {
            AbortedTransaction::default()
                .with_producer_id(ProducerId(aborted.producer_id))
                .with_first_offset(aborted.first_offset)
        });
        let aborted = (self.read_committed && !chunk.too_small).then(|| aborted.collect());
        Ok(self.empty(partition, wanted).with_aborted_transactions(aborted).with_records(Some(chunk.records)))
    }

    fn find<'s>(&self, state: &'s State, wanted: &Wanted) -> Result<&'s Partition, Code> {
        let Key { topic, topic_id, partition } = &wanted.key;
        let name = match self.by_id() {
            // A session keeps the name of a topic that was deleted since.
            true if wanted.known => state.name_of(*topic_id).ok_or(Code::UnknownTopicOrPartition)?,
            true => state.name_of(*topic_id).ok_or(Code::UnknownTopicId)?,
            false => topic,
        };
        if self.caller.version >= FROM_FOLLOWERS_FROM_VERSION {
            let found = state.replica(self.caller.broker, name, *partition, wanted.leader_epoch)?;
            let served = found.leader.is_some() && found.in_sync.contains(&self.caller.broker);
            return if served { Ok(found) } else { Err(Code::NotLeaderOrFollower) };
        }
        state.led(self.caller.broker, name, *partition, wanted.leader_epoch)
    }

    /// Where the fetcher's log and this one part, when they do (KIP-595).
    fn diverging(&self, partition: &Partition, wanted: &Wanted) -> Result<Option<EpochEndOffset>, Code> {
        if wanted.last_fetched_epoch < 0 {
            return Ok(None);
        }
        let ended = partition.log.end_of_epoch(wanted.last_fetched_epoch);
        let (epoch, end) = ended.ok_or(Code::OffsetOutOfRange)?;
        let diverges = epoch < wanted.last_fetched_epoch || end < wanted.offset;
        Ok(diverges.then(|| EpochEndOffset::default().with_epoch(epoch).with_end_offset(end)))
    }

    fn empty(&self, partition: &Partition, wanted: &Wanted) -> PartitionData {
        PartitionData::default()
            .with_partition_index(wanted.key.partition)
            .with_high_watermark(partition.high_watermark())
            .with_last_stable_offset(partition.last_stable_offset())
            .with_log_start_offset(partition.log.start())
            .with_aborted_transactions(self.read_committed.then(Vec::new))
            .with_records(Some(Bytes::new()))
    }

    fn refused(&self, state: &State, wanted: &Wanted, code: Code) -> PartitionData {
        let data = refused(wanted.key.partition, code);
        // Answers name the leader from version 16 on (KIP-951).
        let stale =
            matches!(code, Code::NotLeaderOrFollower | Code::FencedLeaderEpoch) && self.caller.version >= 16;
        let name =
            if self.by_id() { state.name_of(wanted.key.topic_id) } else { Some(wanted.key.topic.as_str()) };
        match name.and_then(|name| state.partition(name, wanted.key.partition)).filter(|_| stale) {
            None => data,
            Some(partition) => data.with_current_leader(
                LeaderIdAndEpoch::default()
                    .with_leader_id(BrokerId(partition.leader.unwrap_or(-1)))
                    .with_leader_epoch(partition.leader_epoch),
            ),
        }
    }

    fn by_id(&self) -> bool {
        self.caller.version >= BY_ID_FROM_VERSION
    }

    fn answer(&self, state: &mut State, answers: Vec<(Key, PartitionData)>) -> FetchResponse {
        let diverges = answers.iter().any(|(_, data)| data.diverging_epoch.epoch >= 0);
        // Positive, never zero: zero is no session.
        let new_id = ((state.random() & 0x7fff_fffe) + 1) as i32;
        let sessions = state.sessions.entry(self.caller.broker).or_default();
        let (session_id, answers) = sessions.answer(&self.asked, self.by_id(), new_id, answers);
        if diverges && self.caller.version < LAST_EPOCH_FROM_VERSION {
            return self.unwritable(session_id);
        }
        let mut topics: Vec<FetchableTopicResponse> = Vec::new();
        for (key, data) in answers {
            let same = |topic: &FetchableTopicResponse| {
                topic.topic.as_str() == key.topic && topic.topic_id == key.topic_id
            };
            match topics.last_mut().filter(|topic| same(topic)) {
                Some(topic) => topic.partitions.push(data),
                None => topics.push(
                    FetchableTopicResponse::default()
                        .with_topic(TopicName(StrBytes::from_string(key.topic)))
                        .with_topic_id(key.topic_id)
                        .with_partitions(vec![data]),
                ),
            }
        }
        FetchResponse::default().with_session_id(session_id).with_responses(topics)
    }

    /// In a session that a newer version opened, logs part: Kafka notes what it would tell, finds that it
    /// can't write it, and refuses what the request itself names.
    fn unwritable(&self, session_id: i32) -> FetchResponse {
        let code = Code::UnsupportedVersion;
        let topics = self.named.iter().map(|topic| {
            let row = |row: &FetchPartition| refused(row.partition, code);
            FetchableTopicResponse::default()
                .with_topic(topic.topic.clone())
                .with_partitions(topic.partitions.iter().map(row).collect())
        });
        FetchResponse::default()
            .with_error_code(code.code())
            .with_session_id(session_id)
            .with_responses(topics.collect())
    }
}

fn refused(partition: i32, code: Code) -> PartitionData {
    PartitionData::default()
        .with_partition_index(partition)
        .with_error_code(code.code())
        .with_high_watermark(-1)
        .with_last_stable_offset(-1)
        .with_log_start_offset(-1)
        .with_records(Some(Bytes::new()))
}
