//! How faults of the clusters and of the network begin and end. Whatever lasts is over when the busy time
//! is.

use std::time::Duration;

use broker::{State, Stop};
use turmoil::Sim;

use crate::clusters::{Embedded, Side};
use crate::faults::Kind;
use crate::fleet_faults::{From, Way};
use crate::history::{History, Key};
use crate::mirrors::{Mirror, Mirrors};
use crate::operator;
use crate::oracle::Oracle;
use crate::stops::Stopped;
use crate::struck::Struck;

/// How long a broker is down whose crash undoes what it deleted.
const UNDONE_AFTER: Duration = Duration::from_millis(500);

/// The clusters with data, and what has happened to them.
pub struct Field {
    pub source: Embedded,
    pub destination: Embedded,
    pub mirrors: Mirrors,
    pub history: History,
    pub struck: Struck,
    pub oracle: Oracle,
    pub stopped: Stopped,
    /// Of the fleet.
    pub nodes: &'static [&'static str],
    /// Of what lasts.
    endings: Vec<(Duration, Ending)>,
}

#[derive(Debug)]
enum Ending {
    BrokerBack { side: Side, broker: i32 },
    FollowersGo { side: Side, key: Key },
    Requests { side: Side, number: u64 },
    Network { node: &'static str, side: Side, broker: i32, arrives_later: bool },
    Cut { node: &'static str, other: &'static str, way: Way },
}

impl Field {
    pub fn new(
        source: Embedded,
        destination: Embedded,
        oracle: Oracle,
        nodes: &'static [&'static str],
    ) -> Self {
        Self {
            source,
            destination,
            mirrors: Mirrors::default(),
            history: History::default(),
            struck: Struck::default(),
            oracle,
            stopped: Stopped::default(),
            nodes,
            endings: Vec::new(),
        }
    }

    pub fn side(&self, side: Side) -> &Embedded {
        match side {
            Side::Source => &self.source,
            Side::Destination => &self.destination,
        }
    }

    /// Begins a fault; `last` is when whatever lasts is over.
    pub fn strike(&mut self, sim: &mut Sim<'_>, kind: &Kind, now: Duration, last: Duration) {
        let until = |lasts: Duration| (now + lasts).min(last);
        match *kind {
            Kind::Node { .. } | Kind::Fleet(_) | Kind::Machine(_) => {}
            Kind::Broker { side, broker, stop, down_for } => {
                if self.side(side).cluster.with(|state| state.is_up(broker)) {
                    self.side(side).cluster.stop_broker(broker, stop);
                    if stop == Stop::Crash {
                        sim.crash(side.host(broker));
                    }
                    self.endings.push((until(down_for), Ending::BrokerBack { side, broker }));
                }
            }
            Kind::Lead { side, which } => self.lead(side, which),
            Kind::LeadUnclean { side, which, lost } => self.lead_unclean(side, which, lost),
            Kind::Followers { side, which, held_for } => {
                let Some(key) = self.pick(side, which) else { return };
                self.on(side, &key, |partition| partition.hold_followers());
                tracing::info!("cluster {side}: followers of {}[{}] stand still", key.0, key.1);
                self.endings.push((until(held_for), Ending::FollowersGo { side, key }));
            }
            Kind::Requests { side, api, trick, percent, lasts } => {
                let number = self.side(side).mischief.begin(api, trick, percent);
                self.endings.push((until(lasts), Ending::Requests { side, number }));
            }
            Kind::Network { which, side, broker, arrives_later, lasts } => {
                let (node, host) = (self.node(which), side.host(broker));
                if arrives_later {
                    sim.hold(node, host)
                } else {
                    sim.partition(node, host)
                }
                self.endings.push((until(lasts), Ending::Network { node, side, broker, arrives_later }));
            }
            Kind::DeleteRecords { which, percent, may_overtake, is_undone } => {
                self.delete_records(which, percent, may_overtake);
                if let Some(broker) = self.sole_replica(which).filter(|_| is_undone) {
                    let (side, stop, down_for) = (Side::Source, Stop::Crash, UNDONE_AFTER);
                    self.strike(sim, &Kind::Broker { side, broker, stop, down_for }, now, last);
                }
            }
            Kind::Grow { which } => self.grow(which),
        }
    }

    pub fn node(&self, which: u64) -> &'static str {
        self.nodes[which as usize % self.nodes.len()]
    }

    /// Nothing passes between the node and these hosts, that way, until then.
    pub fn cut(&mut self, sim: &Sim<'_>, node: &'static str, from: From, way: Way, until: Duration) {
        let brokers = |side: Side| side.registered().hosts.iter().copied();
        let peers = self.nodes.iter().copied().filter(|peer| *peer != node);
        let others: Vec<&'static str> = match from {
            From::Node(which) => {
                let peers: Vec<_> = peers.collect();
                vec![peers[which as usize % peers.len()]]
            }
            From::Peers => peers.collect(),
            From::Cluster(side) => brokers(side).collect(),
            From::Everyone => {
                peers.chain(Side::BOTH.into_iter().flat_map(brokers)).chain([operator::HOST]).collect()
            }
        };
        tracing::info!("cut: {node} from {others:?}");
        for other in others {
            match way {
                Way::Both => sim.partition(node, other),
                Way::Out => sim.partition_oneway(node, other),
                Way::In => sim.partition_oneway(other, node),
                Way::Held => sim.hold(node, other),
            }
            self.endings.push((until, Ending::Cut { node, other, way }));
        }
    }

    /// Ends what is over.
    pub fn end(&mut self, sim: &mut Sim<'_>, now: Duration) {
        let (over, lasting) = std::mem::take(&mut self.endings).into_iter().partition(|(at, _)| *at <= now);
        self.endings = lasting;
        let over: Vec<(Duration, Ending)> = over;
        for (_, ending) in over {
            tracing::info!("over: {ending:?}");
            match ending {
                Ending::BrokerBack { side, broker } => {
                    let host = side.host(broker);
                    if !sim.is_host_running(host) {
                        sim.bounce(host);
                    }
                    self.side(side).cluster.start_broker(broker);
                }
                Ending::FollowersGo { side, key } => {
                    self.on(side, &key, |partition| partition.release_followers());
                }
                Ending::Requests { side, number } => self.side(side).mischief.end(number),
                Ending::Network { node, side, broker, arrives_later } => {
                    let host = side.host(broker);
                    if arrives_later { sim.release(node, host) } else { sim.repair(node, host) }
                }
                Ending::Cut { node, other, way } => match way {
                    Way::Both => sim.repair(node, other),
                    Way::Out => sim.repair_oneway(node, other),
                    Way::In => sim.repair_oneway(other, node),
                    Way::Held => sim.release(node, other),
                },
            }
        }
    }

    /// Something is in the way of clusters or of the network.
    pub fn is_disturbed(&self) -> bool {
        !self.endings.is_empty()
    }

    fn on(&self, side: Side, key: &Key, act: impl FnOnce(&mut broker::Partition)) {
        self.side(side).cluster.with(|state| state.partition_mut(&key.0, key.1).map(act));
    }

    /// One of the partitions that there are; at the destination of mirrors only.
    fn pick(&self, side: Side, which: u64) -> Option<Key> {
        let keys: Vec<Key> = self.side(side).cluster.with(|state| keys(state).collect());
        let place = which % u64::try_from(keys.len()).ok().filter(|count| *count > 0)?;
        keys.into_iter().nth(usize::try_from(place).ok()?)
    }

    fn lead(&self, side: Side, which: u64) {
        let Some((topic, index)) = self.pick(side, which) else { return };
        self.side(side).cluster.with(|state| {
            let live = state.live();
            let Some(partition) = state.partition_mut(&topic, index) else { return };
            let others = partition.in_sync.iter().filter(|id| live.contains(id));
            let Some(heir) = others.copied().find(|id| Some(*id) != partition.leader) else { return };
            partition.lead(heir);
            tracing::info!("cluster {side}: {topic}[{index}] is led by broker {heir}");
        });
    }

    fn lead_unclean(&mut self, side: Side, which: u64, lost: u64) {
        let Some(key) = self.pick(side, which) else { return };
        let (topic, index) = &key;
        let end = self.side(side).cluster.with(|state| {
            let live = state.live();
            let partition = state.partition_mut(topic, *index)?;
            let heir = partition
                .replicas
                .iter()
                .copied()
                .find(|id| live.contains(id) && Some(*id) != partition.leader)?;
            let (start, end) = (partition.log.start(), partition.log.end());
            // No replica ends inside a batch.
            let wanted = end.saturating_sub_unsigned(lost).max(start);
            let mut kept = partition.log.batches().map(|batch| batch.header.last_offset() + 1);
            let end = kept.rfind(|end| *end <= wanted).unwrap_or(start).max(start);
            drop(kept);
            partition.lead_unclean(heir, end);
            tracing::info!("cluster {side}: {topic}[{index}] is led by broker {heir} and ends at {end}");
            Some(end)
        });
        let Some(end) = end else { return };
        match side {
            Side::Source => {
                self.history.cut(&key, end);
                self.oracle.cut(&key, end);
                self.struck.unclean_source(key);
            }
            Side::Destination => self.struck.unclean_mirror(key),
        }
    }

    fn delete_records(&mut self, which: u64, percent: u64, may_overtake: bool) {
        let Some(key) = self.pick(Side::Source, which) else { return };
        let mirrored = self.mirrored(&key);
        let start = self.source.cluster.with(|state| {
            let partition = state.partition_mut(&key.0, key.1)?;
            let (start, end) = (partition.log.start(), partition.high_watermark());
            let wanted = start + (end - start) * percent as i64 / 100;
            let wanted = if may_overtake { wanted } else { wanted.min(mirrored.unwrap_or(wanted)) };
            partition.log.raise_start(wanted);
            Some(partition.log.start())
        });
        let Some(start) = start else { return };
        tracing::info!("cluster north: {}[{}] starts at {start}", key.0, key.1);
        if mirrored.is_some_and(|mirrored| start > mirrored) {
            self.struck.overtaken(key);
        }
    }

    fn sole_replica(&self, which: u64) -> Option<i32> {
        let (topic, index) = self.pick(Side::Source, which)?;
        self.source.cluster.with(|state| match state.partition(&topic, index)?.replicas[..] {
            [broker] => Some(broker),
            _ => None,
        })
    }

    /// Where the furthest behind of a source partition's mirrors ends; None where there are none, and where
    /// a mirror could still be filled up.
    fn mirrored(&self, key: &Key) -> Option<i64> {
        let follows = |mirror: &Mirror| *mirror.source_topic == *key.0 && !mirror.is_fenced();
        let of_it = self.mirrors.iter().filter(|(_, mirror)| follows(mirror));
        let names: Vec<_> = of_it.map(|(name, _)| name.clone()).collect();
        self.destination.cluster.with(|state| {
            let end = |name: &std::sync::Arc<str>| Some(state.partition(name, key.1)?.log.end());
            names.iter().filter_map(end).min()
        })
    }

    fn grow(&self, which: u64) {
        let Some((topic, _)) = self.pick(Side::Source, which) else { return };
        self.source.cluster.with(|state| state.grow_topic(&topic, 1));
        tracing::info!("cluster north: {topic} has another partition");
    }
}

fn keys(state: &State) -> impl Iterator<Item = Key> {
    state
        .topics()
        .flat_map(|(name, topic)| (0..topic.partitions.len() as i32).map(|index| (name.to_owned(), index)))
}
