//! The two kinds of cluster that a sequence can be played to, one broker each.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use broker::{Settings, TcpCluster};
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_transactions_response::TransactionState;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, BrokerId, CreateTopicsRequest, DeleteTopicsRequest, DescribeConfigsRequest,
    DescribeTransactionsRequest, FindCoordinatorRequest, GroupId, IncrementalAlterConfigsRequest,
    InitProducerIdRequest, ListOffsetsRequest, MetadataRequest, OffsetFetchRequest, RequestKind,
    ResponseKind, TopicName, TransactionalId,
};
use kafka_protocol::protocol::StrBytes;
use tokio::runtime::Runtime;

use super::connection::{Answer, Call, Connection};
use super::draw::Versions;
use super::world::World;
use crate::poll_until;

/// What a broker is told by its controller reaches it in milliseconds; a busy machine takes the rest.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);
const SETTLE_POLL: Duration = Duration::from_millis(2);
/// A request is as far as it gets when the next one is sent on another connection.
const PARKED: Duration = Duration::from_millis(50);
/// What timers of no length do to a group, and a transaction's end to its offsets in Kafka 3.9.
const GROUPS_APPLY: Duration = Duration::from_millis(20);
/// All partitions of the transaction coordinator are there when as many ids have found theirs.
const WARMING_IDS: usize = 24;
/// As `WARMING_IDS`, for the 50 partitions of the group coordinator.
const WARMING_GROUPS: usize = 200;
/// No sequence's topic: a config of it is changed to see how far the broker is.
const TICKING_TOPIC: &str = "ticking";
const TICKING_CONFIG: &str = "retention.ms";
/// Long enough to matter to nobody.
const TICKS_FROM_MS: u32 = 1_000_000_000;
const TOPIC: i8 = 2;
const SET: i8 = 0;
/// Kinds of coordinator.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

/// A cluster that answers.
pub trait End {
    fn name(&self) -> &str;
    fn versions(&mut self) -> Result<Versions>;
    /// Several calls go out in this order on connections of their own, all before the first answer.
    fn ask(&mut self, calls: &[Call]) -> Result<Vec<Answer>>;
    /// By the cluster's own clock.
    fn now_ms(&self) -> i64;
    /// Waits until what `call` began has come about: brokers answer before that.
    fn settle(&mut self, call: &Call, world: &World) -> Result<()>;
    /// Removes what the sequence made.
    fn leave(&mut self, world: &World) -> Result<()>;
}

/// A real broker, used by one sequence after another.
pub struct Real {
    name: String,
    connection: Connection,
    /// For what waits for something on the first.
    beside: Connection,
    ticks: u32,
}

impl Real {
    /// Waits until the broker hands out producer ids with and without transactions.
    pub fn ready(version: &str, address: SocketAddr) -> Result<Real> {
        let mut real = Real {
            name: format!("Kafka {version}"),
            connection: Connection::new(address),
            beside: Connection::new(address),
            ticks: 0,
        };
        for kind in [GROUP, TRANSACTION] {
            let request = FindCoordinatorRequest::default().with_key_type(kind);
            let request = RequestKind::FindCoordinator(request.with_key(StrBytes::from_static_str("warm")));
            real.connection.until("coordinator", ApiKey::FindCoordinator, 2, &request, |response| {
                matches!(response, ResponseKind::FindCoordinator(response) if response.error_code == 0)
            })?;
        }
        // Numbers behind one another, so that the hashes of the names reach all partitions.
        let group = |number| GroupId(StrBytes::from_string(format!("warm-{number}")));
        let groups = (0..WARMING_GROUPS).map(group);
        let groups = groups.map(|id| OffsetFetchRequestGroup::default().with_group_id(id).with_topics(None));
        let request = OffsetFetchRequest::default().with_groups(groups.collect());
        let request = RequestKind::OffsetFetch(request);
        real.connection.until("groups", ApiKey::OffsetFetch, 8, &request, |response| {
            let ResponseKind::OffsetFetch(response) = response else { return false };
            response.groups.iter().all(|group| group.error_code == 0)
        })?;
        for number in 0..WARMING_IDS {
            let id = (number > 0).then(|| TransactionalId(StrBytes::from_string(format!("warm-{number}"))));
            let request = InitProducerIdRequest::default().with_transactional_id(id);
            let request = RequestKind::InitProducerId(request.with_transaction_timeout_ms(60_000));
            real.connection.until("producer id", ApiKey::InitProducerId, 1, &request, |response| {
                matches!(response, ResponseKind::InitProducerId(response) if response.error_code == 0)
            })?;
        }
        let topic = CreatableTopic::default().with_name(topic_name(TICKING_TOPIC));
        let topic = topic.with_num_partitions(1).with_replication_factor(1);
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
        let request = RequestKind::CreateTopics(request);
        real.connection.ask(&Call { api: ApiKey::CreateTopics, version: 5, request })?;
        real.settle_publishing()?;
        Ok(real)
    }
}

impl End for Real {
    fn name(&self) -> &str {
        &self.name
    }

    fn versions(&mut self) -> Result<Versions> {
        self.connection.versions()
    }

    fn ask(&mut self, calls: &[Call]) -> Result<Vec<Answer>> {
        self.connection.ask_together(&mut self.beside, calls)
    }

    fn now_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        since.as_millis() as i64
    }

    fn settle(&mut self, call: &Call, world: &World) -> Result<()> {
        match &call.request {
            RequestKind::CreateTopics(_) | RequestKind::CreatePartitions(_) => {
                self.connection.settle_topics(world)
            }
            RequestKind::DeleteTopics(_) => {
                self.connection.settle_topics(world)?;
                self.connection.settle_offsets(world)?;
                self.settle_forgotten_groups()
            }
            RequestKind::IncrementalAlterConfigs(_) => self.settle_publishing(),
            _ => self.connection.settle_any(call),
        }
    }

    fn leave(&mut self, world: &World) -> Result<()> {
        let there = world.topics.iter().filter(|topic| topic.partitions.is_some());
        let names = there.map(|topic| topic_name(&topic.name)).collect();
        let request = DeleteTopicsRequest::default().with_topic_names(names).with_timeout_ms(30_000);
        let request = RequestKind::DeleteTopics(request);
        self.connection.ask(&Call { api: ApiKey::DeleteTopics, version: 1, request })?;
        self.settle_forgotten_groups()
    }
}

impl Real {
    /// Kafka 3.9 forgets all groups without members over deleted topics, some time after these are gone.
    fn settle_forgotten_groups(&mut self) -> Result<()> {
        if self.name.contains(" 3.") { self.settle_publishing() } else { Ok(()) }
    }

    /// Until the broker has done all that follows from what its controller has decided so far. It shows a
    /// change when it is done with those before; the first may come in one lot with them, the second can't.
    fn settle_publishing(&mut self) -> Result<()> {
        for _ in 0..2 {
            self.ticks += 1;
            self.tick()?;
        }
        Ok(())
    }

    fn tick(&mut self) -> Result<()> {
        let (topic, config) =
            (StrBytes::from_static_str(TICKING_TOPIC), StrBytes::from_static_str(TICKING_CONFIG));
        let value = StrBytes::from_string(format!("{}", TICKS_FROM_MS + self.ticks));
        let change = AlterableConfig::default().with_name(config.clone()).with_config_operation(SET);
        let resource = AlterConfigsResource::default().with_resource_type(TOPIC);
        let resource = resource.with_resource_name(topic.clone());
        let resource = resource.with_configs(vec![change.with_value(Some(value.clone()))]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let request = RequestKind::IncrementalAlterConfigs(request);
        self.connection.ask(&Call { api: ApiKey::IncrementalAlterConfigs, version: 0, request })?;
        let resource = DescribeConfigsResource::default().with_resource_type(TOPIC);
        let resource = resource.with_resource_name(topic).with_configuration_keys(Some(vec![config]));
        let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
        let request = RequestKind::DescribeConfigs(request);
        self.connection.until("tick", ApiKey::DescribeConfigs, 1, &request, |response| {
            let ResponseKind::DescribeConfigs(response) = response else { return false };
            let configs = response.results.iter().flat_map(|row| &row.configs);
            configs.into_iter().any(|config| config.value.as_ref() == Some(&value))
        })
    }
}

/// An embedded cluster, a new one for each sequence.
pub struct Embedded {
    connection: Connection,
    beside: Connection,
    started: Instant,
    started_ms: i64,
    _cluster: TcpCluster,
}

impl Embedded {
    /// Its clock says `now_ms` and goes on from there.
    pub fn start(runtime: &Runtime, now_ms: i64, seed: u64) -> Result<Embedded> {
        let started = Instant::now();
        let clock = move || now_ms + started.elapsed().as_millis() as i64;
        let settings = |endpoints| {
            let mut settings = Settings::new("embedded", endpoints, seed);
            settings.groups.initial_rebalance_delay_ms = 0;
            settings
        };
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let cluster = runtime.block_on(TcpCluster::listen(ip, &[0], settings, Arc::new(clock)));
        let cluster = cluster.context("start an embedded cluster")?;
        let address = cluster.bootstrap.parse().context("the embedded cluster's address")?;
        let (connection, beside) = (Connection::new(address), Connection::new(address));
        Ok(Embedded { connection, beside, started, started_ms: now_ms, _cluster: cluster })
    }
}

impl End for Embedded {
    fn name(&self) -> &str {
        "embedded"
    }

    fn versions(&mut self) -> Result<Versions> {
        self.connection.versions()
    }

    fn ask(&mut self, calls: &[Call]) -> Result<Vec<Answer>> {
        self.connection.ask_together(&mut self.beside, calls)
    }

    fn now_ms(&self) -> i64 {
        self.started_ms + self.started.elapsed().as_millis() as i64
    }

    fn settle(&mut self, call: &Call, _: &World) -> Result<()> {
        self.connection.settle_any(call)
    }

    fn leave(&mut self, _: &World) -> Result<()> {
        Ok(())
    }
}

impl Connection {
    fn ask_together(&mut self, beside: &mut Connection, calls: &[Call]) -> Result<Vec<Answer>> {
        match calls {
            [call] => Ok(vec![self.ask(call)?]),
            [waits, other] => {
                beside.post(waits)?;
                // An end that answers what was asked later isn't asleep.
                self.versions()?;
                std::thread::sleep(PARKED);
                let other = self.ask(other);
                Ok(vec![beside.take(waits)?, other?])
            }
            _ => bail!("{} calls at once", calls.len()),
        }
    }

    pub(super) fn versions(&mut self) -> Result<Versions> {
        let request = RequestKind::ApiVersions(ApiVersionsRequest::default());
        let answer = self.ask(&Call { api: ApiKey::ApiVersions, version: 0, request })?;
        let Answer::Response(response) = answer else { bail!("ApiVersions: {answer:?}") };
        let ResponseKind::ApiVersions(response) = *response else { bail!("ApiVersions: {response:?}") };
        ensure!(response.error_code == 0, "ApiVersions: error {}", response.error_code);
        let ranges = response.api_keys.iter();
        Ok(ranges.map(|range| (range.api_key, (range.min_version, range.max_version))).collect())
    }

    /// Asks until the answer is right.
    fn until(
        &mut self,
        what: &str,
        api: ApiKey,
        version: i16,
        request: &RequestKind,
        right: impl Fn(&ResponseKind) -> bool,
    ) -> Result<()> {
        let call = Call { api, version, request: request.clone() };
        let mut last = None;
        let done = poll_until(SETTLE_LIMIT, SETTLE_POLL, || match self.ask(&call) {
            Ok(Answer::Response(response)) if right(&response) => Some(Ok(())),
            Ok(other) => {
                last = Some(other);
                None
            }
            Err(error) => Some(Err(error)),
        });
        done.unwrap_or_else(|| bail!("no {what} after {SETTLE_LIMIT:?}: {last:?}"))
    }

    /// Until the broker leads all partitions that there are, and has forgotten all others.
    fn settle_topics(&mut self, world: &World) -> Result<()> {
        let asked = world.topics.iter();
        let asked =
            asked.map(|topic| MetadataRequestTopic::default().with_name(Some(topic_name(&topic.name))));
        let request = MetadataRequest::default()
            .with_topics(Some(asked.collect()))
            .with_allow_auto_topic_creation(false);
        self.until("topics", ApiKey::Metadata, 9, &RequestKind::Metadata(request), |response| {
            let ResponseKind::Metadata(response) = response else { return false };
            world.topics.iter().all(|topic| {
                let row = response
                    .topics
                    .iter()
                    .find(|row| row.name.as_ref().is_some_and(|name| name.as_str() == topic.name));
                let led =
                    row.map_or(0, |row| row.partitions.iter().filter(|row| row.error_code == 0).count());
                led == usize::try_from(topic.partitions.unwrap_or(0)).unwrap_or(0)
            })
        })?;
        let topics = world.topics.iter().filter_map(|topic| Some((topic, topic.partitions?)));
        let topics = topics.map(|(topic, count)| {
            let row = |index| ListOffsetsPartition::default().with_partition_index(index).with_timestamp(-1);
            ListOffsetsTopic::default()
                .with_name(topic_name(&topic.name))
                .with_partitions((0..count).map(row).collect())
        });
        let request =
            ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(topics.collect());
        self.until("leaders", ApiKey::ListOffsets, 1, &RequestKind::ListOffsets(request), |response| {
            let ResponseKind::ListOffsets(response) = response else { return false };
            response.topics.iter().flat_map(|topic| &topic.partitions).all(|row| row.error_code == 0)
        })
    }

    /// Until groups have forgotten what they committed of deleted topics.
    fn settle_offsets(&mut self, world: &World) -> Result<()> {
        let group = |group| OffsetFetchRequestGroup::default().with_group_id(group).with_topics(None);
        let groups = world.groups().into_iter().map(group).collect();
        let request = RequestKind::OffsetFetch(OffsetFetchRequest::default().with_groups(groups));
        let deleted = |name: &str| world.topic(name).is_some_and(|topic| topic.partitions.is_none());
        self.until("forgotten offsets", ApiKey::OffsetFetch, 8, &request, |response| {
            let ResponseKind::OffsetFetch(response) = response else { return false };
            !response.groups.iter().flat_map(|group| &group.topics).any(|topic| deleted(&topic.name))
        })
    }

    fn settle_any(&mut self, call: &Call) -> Result<()> {
        self.settle_transactions(call)?;
        if matches!(
            &call.request,
            RequestKind::EndTxn(_) | RequestKind::InitProducerId(_) | RequestKind::LeaveGroup(_)
        ) {
            std::thread::sleep(GROUPS_APPLY);
        }
        Ok(())
    }

    /// Until the markers of a transaction are written that `call` has ended.
    fn settle_transactions(&mut self, call: &Call) -> Result<()> {
        let id = match &call.request {
            RequestKind::EndTxn(request) => &request.transactional_id,
            RequestKind::InitProducerId(InitProducerIdRequest { transactional_id: Some(id), .. }) => id,
            _ => return Ok(()),
        };
        if id.is_empty() {
            return Ok(());
        }
        let request = DescribeTransactionsRequest::default().with_transactional_ids(vec![id.clone()]);
        let request = RequestKind::DescribeTransactions(request);
        self.until("end of the transaction", ApiKey::DescribeTransactions, 0, &request, |response| {
            let ResponseKind::DescribeTransactions(response) = response else { return false };
            let ending = |state: &TransactionState| state.transaction_state.starts_with("Prepare");
            !response.transaction_states.iter().any(ending)
        })
    }
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}
