//! Incremental fetch sessions (KIP-227): which partitions a fetcher wants, and what it was told of each,
//! so that a response holds only what is new.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError as Code;
use kafka_protocol::messages::fetch_request::FetchRequest;
use kafka_protocol::messages::fetch_response::PartitionData;
use uuid::Uuid;

/// `max.incremental.fetch.session.cache.slots`; a fetcher beyond it gets no session.
const SESSIONS_MAX: usize = 1_000;

const NO_SESSION: i32 = 0;
const FIRST_EPOCH: i32 = 0;
const FINAL_EPOCH: i32 = -1;

/// A partition, by name up to Fetch 12, by topic id from 13 on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    pub topic: String,
    pub topic_id: Uuid,
    pub partition: i32,
}

/// What is asked of one partition.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub key: Key,
    pub leader_epoch: i32,
    pub offset: i64,
    pub last_fetched_epoch: i32,
    pub bytes_max: i32,
    /// The topic of this id was there when the session's fetcher was last answered.
    pub known: bool,
}

#[derive(Debug)]
struct Cached {
    wanted: Wanted,
    told_high_watermark: i64,
    told_log_start: i64,
}

#[derive(Debug)]
struct Session {
    next_epoch: i32,
    by_id: bool,
    partitions: Vec<Cached>,
}

/// The sessions of one broker.
#[derive(Debug, Default)]
pub struct Sessions {
    open: BTreeMap<i32, Session>,
}

/// What one request asks for, and how it is to be answered.
#[derive(Debug)]
pub struct Asked {
    pub partitions: Vec<Wanted>,
    answer: Answer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Sessionless,
    /// In full, and a session is opened.
    Opens,
    Incremental(i32),
}

impl Sessions {
    /// What a request asks for, its session included.
    ///
    /// # Errors
    /// `FETCH_SESSION_ID_NOT_FOUND`, `INVALID_FETCH_SESSION_EPOCH`, `FETCH_SESSION_TOPIC_ID_ERROR`.
    pub fn ask(&mut self, request: &FetchRequest, by_id: bool) -> Result<Asked, Code> {
        let (id, epoch) = (request.session_id, request.session_epoch);
        if epoch == FIRST_EPOCH || epoch == FINAL_EPOCH {
            self.open.remove(&id);
            let answer = if epoch == FIRST_EPOCH { Answer::Opens } else { Answer::Sessionless };
            return Ok(Asked { partitions: wanted(request), answer });
        }
        let session = self.open.get_mut(&id).ok_or(Code::FetchSessionIdNotFound)?;
        if session.next_epoch != epoch {
            return Err(Code::InvalidFetchSessionEpoch);
        }
        if session.by_id != by_id {
            return Err(Code::FetchSessionTopicIdError);
        }
        session.next_epoch = following(epoch);
        session.update(request);
        if session.partitions.is_empty() {
            self.open.remove(&id);
            return Ok(Asked { partitions: wanted(request), answer: Answer::Sessionless });
        }
        let partitions = session.partitions.iter().map(|cached| cached.wanted.clone()).collect();
        Ok(Asked { partitions, answer: Answer::Incremental(id) })
    }

    /// Keeps of the answers those that the session's fetcher wasn't told yet; the session's id.
    pub fn answer(
        &mut self,
        asked: &Asked,
        by_id: bool,
        new_id: i32,
        mut answers: Vec<(Key, PartitionData)>,
    ) -> (i32, Vec<(Key, PartitionData)>) {
        match asked.answer {
            Answer::Sessionless => (NO_SESSION, answers),
            Answer::Opens if self.open.len() >= SESSIONS_MAX || self.open.contains_key(&new_id) => {
                (NO_SESSION, answers)
            }
            Answer::Opens => {
                // In the order of the answers.
                let asked = |key: &Key| asked.partitions.iter().find(|wanted| wanted.key == *key);
                let told = answers.iter().filter_map(|(key, data)| Some(Cached::told(asked(key)?, data)));
                let partitions = told.collect();
                self.open.insert(new_id, Session { next_epoch: following(FIRST_EPOCH), by_id, partitions });
                (new_id, answers)
            }
            Answer::Incremental(id) => {
                if let Some(session) = self.open.get_mut(&id) {
                    answers.retain(|(key, data)| session.is_news(key, data));
                }
                (id, answers)
            }
        }
    }
}

impl Session {
    fn update(&mut self, request: &FetchRequest) {
        for wanted in wanted(request) {
            match self.partitions.iter_mut().find(|cached| cached.wanted.key == wanted.key) {
                Some(cached) => cached.wanted = Wanted { known: cached.wanted.known, ..wanted },
                None => self.partitions.push(Cached { wanted, told_high_watermark: -1, told_log_start: -1 }),
            }
        }
        for topic in &request.forgotten_topics_data {
            self.partitions.retain(|cached| {
                let key = &cached.wanted.key;
                let same = key.topic == topic.topic.as_str() && key.topic_id == topic.topic_id;
                !(same && topic.partitions.contains(&key.partition))
            });
        }
    }

    /// Whether an answer says anything new. A partition with records goes to the end, so that each gets its
    /// turn at a full response.
    fn is_news(&mut self, key: &Key, data: &PartitionData) -> bool {
        let Some(at) = self.partitions.iter().position(|cached| cached.wanted.key == *key) else {
            return true;
        };
        let cached = &mut self.partitions[at];
        let with_records = data.records.as_ref().is_some_and(|records| !records.is_empty());
        let failed = data.error_code != 0;
        let diverged = data.diverging_epoch.epoch >= 0;
        let moved = cached.told_high_watermark != data.high_watermark
            || cached.told_log_start != data.log_start_offset;
        cached.told_high_watermark = if failed { -1 } else { data.high_watermark };
        cached.told_log_start = data.log_start_offset;
        cached.wanted.known |= is_known(data);
        if with_records {
            let cached = self.partitions.remove(at);
            self.partitions.push(cached);
        }
        with_records || failed || diverged || moved
    }
}

impl Cached {
    fn told(wanted: &Wanted, data: &PartitionData) -> Self {
        let told_high_watermark = if data.error_code == 0 { data.high_watermark } else { -1 };
        let wanted = Wanted { known: is_known(data), ..wanted.clone() };
        Self { wanted, told_high_watermark, told_log_start: data.log_start_offset }
    }
}

fn is_known(data: &PartitionData) -> bool {
    data.error_code != Code::UnknownTopicId.code()
}

fn following(epoch: i32) -> i32 {
    if epoch == i32::MAX { 1 } else { epoch + 1 }
}

fn wanted(request: &FetchRequest) -> Vec<Wanted> {
    let mut all = Vec::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            all.push(Wanted {
                key: Key {
                    topic: topic.topic.to_string(),
                    topic_id: topic.topic_id,
                    partition: partition.partition,
                },
                leader_epoch: partition.current_leader_epoch,
                offset: partition.fetch_offset,
                last_fetched_epoch: partition.last_fetched_epoch,
                bytes_max: partition.partition_max_bytes,
                known: false,
            });
        }
    }
    all
}
