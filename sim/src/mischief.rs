//! What is in the way of the requests to one cluster: for a while, requests of a kind come late, have no
//! effect, lose their answers after it, or are answered with an error though they had it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker::{Caller, Cluster, Fault};
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, ApiKey, CreateTopicsRequest, DeleteRecordsRequest, DescribeConfigsRequest,
    DescribeProducersRequest, EndTxnRequest, FetchRequest, FindCoordinatorRequest,
    IncrementalAlterConfigsRequest, InitProducerIdRequest, ListOffsetsRequest, MetadataRequest,
    ProduceRequest, ProduceResponse,
};

use crate::chance::SharedChance;
use crate::refusal::{GivenUp, Refuse};

/// Kinds of requests that something is put in the way of.
pub const APIS: [ApiKey; 10] = [
    ApiKey::Produce,
    ApiKey::Fetch,
    ApiKey::ListOffsets,
    ApiKey::Metadata,
    ApiKey::DescribeProducers,
    ApiKey::InitProducerId,
    ApiKey::CreateTopics,
    ApiKey::DeleteRecords,
    ApiKey::DescribeConfigs,
    ApiKey::FindCoordinator,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trick {
    /// The broker hears of it up to so much later.
    Delay(Duration),
    /// The connection ends, and the broker hears of it up to so much later all the same.
    Overdue(Duration),
    /// No effect, and the connection ends.
    Drop,
    /// Effect, and the connection ends without an answer.
    LoseAnswer,
    /// Effect, and an answer that says otherwise. Of produce requests only; others lose their answers.
    Lie(i16),
    /// No effect, and an error.
    Refuse(i16),
    /// Effect, an answer that tells of it, and for up to so long the connection isn't heard.
    Throttle(Duration),
}

/// Errors that a broker answers with though it appended: not leader, timed out, not enough replicas after
/// the append, its disk failed.
pub const LIES: [i16; 4] = [6, 7, 20, 56];
/// Errors that it answers with most often when it didn't: not leader, not enough replicas.
pub const REFUSALS: [i16; 2] = [6, 19];

impl Trick {
    pub fn name(self) -> &'static str {
        match self {
            Self::Refuse(_) => "requests refused",
            Self::Throttle(_) => "requests throttled",
            _ => "requests disturbed",
        }
    }
}

impl fmt::Display for Trick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delay(up_to) => write!(f, "come up to {up_to:?} late"),
            Self::Overdue(up_to) => {
                write!(f, "lose their connection and come up to {up_to:?} after it")
            }
            Self::Drop => f.write_str("are dropped"),
            Self::LoseAnswer => f.write_str("take effect without an answer"),
            Self::Lie(code) => write!(f, "take effect and are answered with error {code}"),
            Self::Refuse(code) => write!(f, "are answered with error {code}"),
            Self::Throttle(up_to) => write!(f, "are throttled for up to {up_to:?}"),
        }
    }
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Mischief(Arc<Mutex<State>>);

struct State {
    chance: SharedChance,
    /// With how many requests of a hundred are hit.
    active: Vec<(u64, ApiKey, Trick, u64)>,
    begun: u64,
    given_up: Vec<GivenUp>,
}

impl Mischief {
    pub fn put_in_the_way_of(cluster: &Cluster, chance: SharedChance) -> Self {
        let state = State { chance, active: Vec::new(), begun: 0, given_up: Vec::new() };
        let mischief = Self(Arc::new(Mutex::new(state)));
        let produce = mischief.clone();
        cluster.interceptors().add(move |_: &Caller, request: &ProduceRequest| {
            match produce.draw(ApiKey::Produce) {
                Some(Trick::Lie(code)) => Fault::ApplyThenAnswer(Box::new(move |answer| lie(answer, code))),
                trick => produce.play(trick, request),
            }
        });
        mischief.watch::<FetchRequest>(cluster);
        mischief.watch::<ListOffsetsRequest>(cluster);
        mischief.watch::<MetadataRequest>(cluster);
        mischief.watch::<DescribeProducersRequest>(cluster);
        mischief.watch::<InitProducerIdRequest>(cluster);
        mischief.watch::<CreateTopicsRequest>(cluster);
        mischief.watch::<DeleteRecordsRequest>(cluster);
        mischief.watch::<DescribeConfigsRequest>(cluster);
        mischief.watch::<FindCoordinatorRequest>(cluster);
        mischief.watch::<AddPartitionsToTxnRequest>(cluster);
        mischief.watch::<EndTxnRequest>(cluster);
        mischief.watch::<IncrementalAlterConfigsRequest>(cluster);
        mischief
    }

    fn watch<Q: Refuse>(&self, cluster: &Cluster) {
        let (own, api) = (self.clone(), ApiKey::try_from(Q::KEY).expect("a key of Kafka's"));
        cluster.interceptors().add(move |_: &Caller, request: &Q| own.play(own.draw(api), request));
    }

    fn play<Q: Refuse>(&self, trick: Option<Trick>, request: &Q) -> Fault<Q::Response> {
        match trick {
            None => Fault::Pass,
            Some(Trick::Delay(by)) => Fault::Delay(by),
            Some(Trick::Overdue(by)) => Fault::DropThenApply(by),
            Some(Trick::Drop) => Fault::Drop,
            Some(Trick::LoseAnswer | Trick::Lie(_)) => Fault::ApplyThenDrop,
            Some(Trick::Refuse(code)) => {
                self.state().given_up.extend(request.given_up(code));
                request.refuse(code)
            }
            Some(Trick::Throttle(by)) => {
                let by_ms = i32::try_from(by.as_millis()).unwrap_or(i32::MAX);
                Fault::Throttle(by, Box::new(move |answer| Q::throttled(answer, by_ms)))
            }
        }
    }

    /// What was said since the last call that only a person can mend.
    pub fn take_given_up(&self) -> Vec<GivenUp> {
        std::mem::take(&mut self.state().given_up)
    }

    /// Begins; the number ends it.
    pub fn begin(&self, api: ApiKey, trick: Trick, percent: u64) -> u64 {
        let mut state = self.state();
        state.begun += 1;
        let number = state.begun;
        state.active.push((number, api, trick, percent));
        number
    }

    pub fn end(&self, number: u64) {
        self.state().active.retain(|(active, ..)| *active != number);
    }

    fn draw(&self, api: ApiKey) -> Option<Trick> {
        let state = self.state();
        let mut own = state.active.iter().filter(|(_, of, ..)| *of == api);
        let trick = own.find_map(|(_, _, trick, percent)| {
            state.chance.draw(|chance| chance.percent(*percent)).then_some(*trick)
        })?;
        tracing::info!("mischief: {api:?} requests {trick}");
        let within = |up_to: Duration| {
            let up_to_ms = u64::try_from(up_to.as_millis()).unwrap_or(u64::MAX);
            Duration::from_millis(state.chance.draw(|chance| chance.between(1..=up_to_ms)))
        };
        Some(match trick {
            Trick::Delay(up_to) => Trick::Delay(within(up_to)),
            Trick::Overdue(up_to) => Trick::Overdue(within(up_to)),
            Trick::Throttle(up_to) => Trick::Throttle(within(up_to)),
            other => other,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lie(mut answer: ProduceResponse, code: i16) -> ProduceResponse {
    let rows = answer.responses.iter_mut().flat_map(|topic| &mut topic.partition_responses);
    for row in rows.filter(|row| row.error_code == 0) {
        (row.error_code, row.base_offset) = (code, -1);
    }
    answer
}
