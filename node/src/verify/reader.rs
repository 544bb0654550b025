//! One end of a mirror, read by librdkafka: what a partition holds, and its records one by one.
//!
//! Never joins a group, commits nothing. Every wait ends: [`Trouble`] says what that means.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::Side;
use super::extent::Log;
use super::record::Record;
use super::settings::Properties;

/// How a record is read, and what is kept ready of those to come.
const CONSUMER: [(&str, &str); 14] = [
    // Needed by librdkafka, used for nothing.
    ("group.id", "lockstep-verify"),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("enable.partition.eof", "true"),
    // Deleted offsets must be noticed, not passed.
    ("auto.offset.reset", "error"),
    ("check.crcs", "true"),
    ("isolation.level", "read_committed"),
    // The next partition waits for the last one's fetch.
    ("fetch.wait.max.ms", "50"),
    // Together a few MiB an end: more makes nothing faster. A single larger batch is read all the same.
    ("queued.max.messages.kbytes", "8192"),
    ("queued.min.messages", "20000"),
    ("fetch.max.bytes", "4194304"),
    // A full queue is looked at again soon, not after a second.
    ("fetch.queue.backoff.ms", "10"),
    // A broker that restarts is found again soon.
    ("reconnect.backoff.max.ms", "1000"),
    ("allow.auto.create.topics", "false"),
];

/// Between two looks at a deadline.
const POLL: Duration = Duration::from_millis(100);
/// One of several tries within a deadline.
const TRY: Duration = Duration::from_secs(5);
const TRY_PAUSE: Duration = Duration::from_millis(100);
/// While connecting, between two looks at whether we were refused.
const REFUSAL_POLL: Duration = Duration::from_millis(500);
/// Closing is a courtesy.
const CLOSE_LIMIT: Duration = Duration::from_secs(3);

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// None came in time: nothing else at this end can be expected to answer.
    Silent(String),
    /// This topic or partition can't be read; others may be.
    Unreadable(String),
    /// The log no longer holds the offset that was to be read.
    Deleted,
}

/// One end.
pub struct Reader {
    side: Side,
    consumer: BaseConsumer<Heard>,
    timeout: Duration,
    /// That the assigned partition ended was asked for again and is certain.
    end_confirmed: Cell<bool>,
}

/// What librdkafka last complained of, for whoever waited in vain. Nothing is printed.
#[derive(Default)]
struct Heard(Mutex<Option<(RDKafkaErrorCode, String)>>);

impl ClientContext for Heard {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, error: KafkaError, reason: &str) {
        use RDKafkaErrorCode::{AllBrokersDown, AutoOffsetReset, GroupAuthorizationFailed, PartitionEOF};
        match error.rdkafka_error_code() {
            // No trouble, or it says less than the one before.
            None | Some(PartitionEOF | AutoOffsetReset | AllBrokersDown | GroupAuthorizationFailed) => {}
            Some(code) => *self.lock() = Some((code, reason.to_owned())),
        }
    }
}

impl ConsumerContext for Heard {}

impl Heard {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(RDKafkaErrorCode, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    /// Begins to connect.
    ///
    /// # Errors
    /// What librdkafka doesn't take.
    pub fn open(side: Side, properties: &Properties, timeout: Duration) -> Result<Self, Trouble> {
        let mut config = ClientConfig::new();
        let all = properties.iter().map(|(key, value)| (*key, value.as_str())).chain(CONSUMER);
        for (key, value) in all {
            config.set(key, value);
        }
        let consumer = config.create_with_context(Heard::default()).map_err(|error| {
            Trouble::Silent(match error {
                // Its own words would repeat the value, which may be a secret.
                KafkaError::ClientConfig(_, description, key, _) => format!("{key}: {description}"),
                other => other.to_string(),
            })
        })?;
        Ok(Self { side, consumer, timeout, end_confirmed: Cell::new(false) })
    }

    /// The Kafka cluster id, the first thing to ask for.
    ///
    /// # Errors
    /// What kept the cluster from answering; at once when it refuses who we are.
    pub fn cluster_id(&self) -> Result<String, Trouble> {
        let answer = self.ask("its Kafka cluster id", |limit| {
            match self.consumer.client().fetch_cluster_id(limit.min(REFUSAL_POLL)) {
                Some(id) => Ok(Ok(id)),
                None => self.refused().map_or(Err(None), |reason| Ok(Err(reason))),
            }
        })?;
        answer.map_err(Trouble::Silent)
    }

    /// Trouble that passes by nobody's waiting.
    fn refused(&self) -> Option<String> {
        use RDKafkaErrorCode::{Authentication, SSL, SaslAuthenticationFailed};
        while self.consumer.poll(POLL).is_some() {}
        match &*self.consumer.context().lock() {
            Some((Authentication | SaslAuthenticationFailed | SSL, reason)) => Some(reason.clone()),
            _ => None,
        }
    }

    /// Ends librdkafka's threads, if they end soon: it doesn't promise to.
    pub fn close(self) {
        let (told, closed) = mpsc::channel();
        std::thread::spawn(move || {
            drop(self);
            // Nobody may be waiting any more.
            let _ = told.send(());
        });
        // Either way the process ends next.
        let _ = closed.recv_timeout(CLOSE_LIMIT);
    }

    /// The topic's partitions; none when there is no such topic.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn partitions(&self, topic: &str) -> Result<Option<BTreeSet<i32>>, Trouble> {
        let found = self.ask(&format!("topic {topic}"), |limit| {
            self.consumer.fetch_metadata(Some(topic), limit).map_err(Some)
        })?;
        let Some(found) = found.topics().first() else { return Ok(None) };
        match found.error().map(RDKafkaErrorCode::from) {
            None | Some(RDKafkaErrorCode::LeaderNotAvailable) => {}
            Some(RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition) => {
                return Ok(None);
            }
            Some(code) => return Err(Trouble::Unreadable(format!("topic {topic}: {code}"))),
        }
        Ok(Some(found.partitions().iter().map(|partition| partition.id()).collect()))
    }

    /// What the partition holds now.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn log(&self, topic: &str, partition: i32) -> Result<Log, Trouble> {
        let (start_offset, end_offset) = self
            .ask(&format!("the offsets of {topic}-{partition}"), |limit| {
                self.consumer.fetch_watermarks(topic, partition, limit).map_err(Some)
            })?;
        Ok(Log { start_offset, end_offset })
    }

    /// Begins to read a partition, and ends the one before.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn start(&self, topic: &str, partition: i32, offset: i64) -> Result<(), Trouble> {
        self.end_confirmed.set(false);
        self.assign(topic, partition, offset)
    }

    fn assign(&self, topic: &str, partition: i32, offset: i64) -> Result<(), Trouble> {
        let failed = |error: KafkaError| Trouble::Unreadable(format!("{topic}-{partition}: {error}"));
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(offset)).map_err(failed)?;
        self.consumer.assign(&list).map_err(failed)
    }

    /// Ends reading.
    pub fn stop(&self) {
        // What it would fail on is gone as well.
        let _ = self.consumer.unassign();
    }

    /// The next record of the started partition; none when offsets from `position` to `to` hold no
    /// more. The log must have reached `to` when reading began.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn next(
        &self,
        (topic, partition): (&str, i32),
        position: i64,
        to: i64,
    ) -> Result<Option<BorrowedMessage<'_>>, Trouble> {
        let deadline = Instant::now() + self.timeout;
        loop {
            match self.consumer.poll(POLL) {
                Some(Ok(message)) => {
                    let place = (message.topic(), message.partition(), message.offset() >= position);
                    if place != (topic, partition, true) {
                        let found = format!("{}-{} offset {}", place.0, place.1, message.offset());
                        let wanted = format!("{topic}-{partition} from {position} on");
                        return Err(Trouble::Unreadable(format!("asked for {wanted}, got {found}")));
                    }
                    return Ok(Some(message).filter(|message| message.offset() < to));
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    if self.end_confirmed.get() {
                        return Ok(None);
                    }
                    self.confirm_end((topic, partition), position, to)?;
                }
                Some(Err(error)) => check(&error)
                    .map_err(|trouble| trouble.at(format!("{topic}-{partition} offset {position}")))?,
                None => {}
            }
            if Instant::now() >= deadline {
                let what = format!("{topic}-{partition} offset {position}");
                return Err(self.silent(&what));
            }
        }
    }

    /// A broker that has just become partition leader may take its log for shorter than it is. One
    /// that tells offsets again knows better; what it then shows as the end is the end.
    fn confirm_end(&self, (topic, partition): (&str, i32), position: i64, to: i64) -> Result<(), Trouble> {
        let log = self.log(topic, partition)?;
        if log.end_offset < to {
            let message = format!(
                "{topic}-{partition}: its log ended at {to} or above and ends at {} now",
                log.end_offset
            );
            return Err(Trouble::Unreadable(message));
        }
        self.end_confirmed.set(true);
        self.assign(topic, partition, position)
    }

    /// Tries until there is an answer or the time is up. A try fails with what librdkafka says, if
    /// anything.
    fn ask<T>(
        &self,
        what: &str,
        mut attempt: impl FnMut(Duration) -> Result<T, Option<KafkaError>>,
    ) -> Result<T, Trouble> {
        let deadline = Instant::now() + self.timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match attempt(left.min(TRY).max(TRY_PAUSE)) {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    let done = error.as_ref().map_or(Ok(()), check);
                    done.map_err(|trouble| trouble.at(what.to_owned()))?;
                }
            }
            if Instant::now() >= deadline {
                return Err(self.silent(what));
            }
            std::thread::sleep(TRY_PAUSE);
        }
    }

    fn silent(&self, what: &str) -> Trouble {
        let heard = self.consumer.context().lock();
        let reason = heard.as_ref().map_or(String::new(), |(_, reason)| format!("; last heard: {reason}"));
        Trouble::Silent(format!(
            "the {} cluster said nothing about {what} within {} s{reason}",
            self.side.cluster(),
            self.timeout.as_secs_f64()
        ))
    }
}

impl Trouble {
    fn at(self, what: String) -> Self {
        match self {
            Self::Unreadable(message) => Self::Unreadable(format!("{what}: {message}")),
            other => other,
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Silent(message) | Self::Unreadable(message) => message,
            Self::Deleted => "the log no longer holds the offset that was asked for",
        })
    }
}

/// What waiting doesn't mend. librdkafka mends the rest by itself, or the deadline passes.
fn check(error: &KafkaError) -> Result<(), Trouble> {
    use RDKafkaErrorCode as Code;
    match error.rdkafka_error_code() {
        Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => Err(Trouble::Deleted),
        Some(
            code @ (Code::TopicAuthorizationFailed
            | Code::BadMessage
            | Code::BadCompression
            | Code::InvalidMessage
            | Code::NotImplemented
            | Code::UnsupportedFeature
            | Code::MessageSizeTooLarge
            | Code::LogTruncation
            | Code::Fatal),
        ) => Err(Trouble::Unreadable(code.to_string())),
        _ => Ok(()),
    }
}

/// A message's parts, borrowed.
///
/// # Errors
/// [`Trouble::Unreadable`] for a header whose name isn't UTF-8.
pub fn record<'a>(message: &'a BorrowedMessage<'_>) -> Result<Record<'a>, Trouble> {
    let headers = match message.headers() {
        None => Vec::new(),
        Some(headers) => {
            let all = || headers.iter().map(|header| (header.key, header.value)).collect();
            // The binding insists on UTF-8 and knows no other way to say so.
            std::panic::catch_unwind(AssertUnwindSafe(all)).map_err(|_| {
                let offset = message.offset();
                Trouble::Unreadable(format!("offset {offset}: a header's name isn't UTF-8 text"))
            })?
        }
    };
    Ok(Record {
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis(),
        key: message.key(),
        value: message.payload(),
        headers,
    })
}
