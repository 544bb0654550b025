//! Group offsets follow the source: moved, reset, never beyond the mirror, never against the destination's own
//! consumers; a group that is taken out of the filters is the destination's from then on; a promotion syncs
//! once more and nothing after it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tests::client::{Batching, delete_topic, write_records};
use tests::cluster::{KafkaCluster, KafkaConfig};
use tests::groups::{Member, Positions, positions, put};
use tests::load::create_topic;
use tests::mirror::{create_link, wait_caught_up};
use tests::node::Node;
use tests::poll_until;
use tests::scenario::Scenario;
use tests::wire::RawReader;

const TOPIC: &str = "orders";
const PARTITIONS: i32 = 2;
const RECORDS: u32 = 100;
const UNMIRRORED: &str = "unmirrored";
const RECREATED: &str = "clicks";
const LINK: &str = "east-west";
const WEST: &str = "west";
const ALL_BUT_TEMPORARY: &str = r#"{"groupFilters":[{"name":"*","patternType":"LITERAL","filterType":"INCLUDE"},{"name":"temp-","patternType":"PREFIXED","filterType":"EXCLUDE"},{"name":"absent","patternType":"LITERAL","filterType":"INCLUDE"}]}"#;
const ALL_BUT_APP: &str = r#"{"groupFilters":[{"name":"*","patternType":"LITERAL","filterType":"INCLUDE"},{"name":"app","patternType":"LITERAL","filterType":"EXCLUDE"}]}"#;
/// A group in use is tried again after five seconds; what moves, within about one.
const LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(100);
/// Some rounds.
const STAYS: Duration = Duration::from_secs(4);

#[test]
fn groups_stand_at_the_destination_where_they_stand_at_the_source() {
    Scenario::share("offset-sync", |scenario| {
        scenario.each_version(|version, parent| World::start(version, parent)?.run())
    });
}

struct World {
    version: String,
    east: KafkaCluster,
    west: KafkaCluster,
    node: Node,
}

impl World {
    fn start(version: &str, parent: &Path) -> Result<Self> {
        let start = |name: &str| KafkaCluster::start(KafkaConfig::single(name, parent).version(version));
        let (east, west) = (start("east")?, start(WEST)?);
        for topic in [TOPIC, UNMIRRORED, RECREATED] {
            create_topic(&east.bootstrap(), topic, PARTITIONS, &[])?;
        }
        create_topic(&west.bootstrap(), UNMIRRORED, PARTITIONS, &[])?;
        write_records(&east.bootstrap(), RECREATED, 0, RECORDS, Batching::Large)?;
        for partition in 0..PARTITIONS {
            write_records(&east.bootstrap(), TOPIC, partition, RECORDS, Batching::Large)?;
        }
        let node = Node::bootstrap("node-1", parent)?;
        create_link(&node, &east, &west, LINK)?;
        Ok(Self { version: version.to_owned(), east, west, node })
    }

    fn run(mut self) -> Result<()> {
        self.node.cli(&["mirror", "create", TOPIC, "--link", LINK])?;
        wait_caught_up(&mut self.node, &self.east, &self.west, (LINK, TOPIC), LIMIT)?;
        self.at_source("app", &[(0, 40), (1, 50)])?;
        self.at_source("temp-1", &[(0, 40)])?;
        put(&self.east.bootstrap(), "elsewhere", UNMIRRORED, &[(0, 0)])?;
        std::thread::sleep(STAYS);
        self.stands("app", &[]).context("not enabled yet")?;

        self.set(&[("consumer.offset.sync.enable", "true")])?;
        let told =
            poll_until(LIMIT, POLL, || self.tasks().ok().filter(|told| told.contains("no group is named")));
        ensure!(told.is_some(), "{}", self.tasks()?);
        self.set(&[("consumer.offset.group.filters", ALL_BUT_TEMPORARY)])?;
        self.stands("app", &[(0, 40), (1, 50)])?;
        let told = poll_until(LIMIT, POLL, || {
            self.tasks().ok().filter(|told| told.contains("'absent': isn't told of"))
        });
        ensure!(told.is_some(), "{}", self.tasks()?);
        self.follows_what_moves()?;
        self.keeps_what_is_the_destinations_own()?;
        self.leaves_members_alone(&[])?;
        if self.version.starts_with('4') {
            self.leaves_members_alone(&[("group.protocol", "consumer")])?;
        }
        self.stands("temp-1", &[])?;
        let elsewhere = positions(&self.west.bootstrap(), "elsewhere", UNMIRRORED, PARTITIONS)?;
        ensure!(elsewhere.is_empty(), "of a topic that isn't mirrored: {elsewhere:?}");
        self.another_topic_of_the_name_moves_nobody()?;

        // The migration: taken out of the filters, it goes on at the destination from where it was.
        let begun = self.starts()?;
        self.set(&[("consumer.offset.group.filters", ALL_BUT_APP)])?;
        std::thread::sleep(STAYS);
        self.at_source("app", &[(0, 99)])?;
        let member = Member::join(&self.west.bootstrap(), "app", TOPIC, &[])?;
        std::thread::sleep(STAYS);
        let first = member.leave()?;
        ensure!(first == Positions::from([(0, 10), (1, 50)]), "it went on at {first:?}");
        self.stands("app", &[(0, 10), (1, 50)])?;
        ensure!(self.starts()? == begun, "the mirror was disturbed");
        self.a_paused_link_stands_still()?;
        self.promotion_syncs_once_more_and_is_the_last()?;
        self.node.sigterm()
    }

    fn follows_what_moves(&self) -> Result<()> {
        self.at_source("app", &[(0, 60)])?;
        self.stands("app", &[(0, 60), (1, 50)])?;
        self.at_source("app", &[(0, 10)])?;
        self.stands("app", &[(0, 10), (1, 50)]).context("a reset at the source")?;
        self.at_source("far", &[(0, 1_000_000)])?;
        self.stands("far", &[(0, i64::from(RECORDS))]).context("no further than the mirror")?;
        ensure!(self.node.metric("lockstep_consumer_offset_commits_total")? >= 4.0);
        Ok(())
    }

    fn keeps_what_is_the_destinations_own(&self) -> Result<()> {
        put(&self.west.bootstrap(), "own", TOPIC, &[(0, 90)])?;
        self.at_source("own", &[(0, 20)])?;
        let told = poll_until(LIMIT, POLL, || self.tasks().ok().filter(|told| told.contains("AHEAD")));
        let told = told.with_context(|| format!("not AHEAD: {:?}", self.tasks()))?;
        ensure!(told.contains("'own'") && told.contains("orders[0] at 90"), "{told}");
        self.stands("own", &[(0, 90)])?;
        self.at_source("own", &[(0, 95)])?;
        self.stands("own", &[(0, 95)]).context("the source has passed it")?;
        put(&self.west.bootstrap(), "own", TOPIC, &[(0, 97)])?;
        self.at_source("own", &[(0, 30)])?;
        std::thread::sleep(STAYS);
        self.stands("own", &[(0, 97)])?;
        self.set(&[("consumer.offset.sync.policy", "source")])?;
        self.stands("own", &[(0, 30)]).context("the source always wins")?;
        self.set(&[("consumer.offset.sync.policy", "no-rewind")])
    }

    /// Positions in a source that was made anew say nothing of what was mirrored.
    fn another_topic_of_the_name_moves_nobody(&mut self) -> Result<()> {
        self.node.cli(&["mirror", "create", RECREATED, "--link", LINK])?;
        wait_caught_up(&mut self.node, &self.east, &self.west, (LINK, RECREATED), LIMIT)?;
        put(&self.east.bootstrap(), "moved", RECREATED, &[(0, 70)])?;
        let at_west = || positions(&self.west.bootstrap(), "moved", RECREATED, PARTITIONS);
        let wanted = Positions::from([(0, 70)]);
        let found = poll_until(LIMIT, POLL, || at_west().ok().filter(|found| *found == wanted));
        ensure!(found.is_some(), "{:?}", at_west());
        delete_topic(&self.east.bootstrap(), RECREATED)?;
        create_topic(&self.east.bootstrap(), RECREATED, PARTITIONS, &[])?;
        put(&self.east.bootstrap(), "moved", RECREATED, &[(0, 1)])?;
        let told = poll_until(LIMIT, POLL, || {
            self.tasks().ok().filter(|told| told.contains("its positions are left alone"))
        });
        ensure!(told.is_some(), "{}", self.tasks()?);
        std::thread::sleep(STAYS);
        ensure!(at_west()? == wanted, "{:?}", at_west());
        Ok(())
    }

    fn leaves_members_alone(&self, configs: &[(&str, &str)]) -> Result<()> {
        let group = format!("live-{}", configs.len());
        let member = Member::join(&self.west.bootstrap(), &group, TOPIC, configs)?;
        self.at_source(&group, &[(0, 30)])?;
        let in_use = || self.tasks().ok().filter(|told| told.contains("CONSUMER_GROUP_IN_USE_ERROR"));
        let told =
            poll_until(LIMIT, POLL, in_use).with_context(|| format!("not told: {:?}", self.tasks()))?;
        ensure!(told.contains(&format!("'{group}'")) && told.contains("IN_ERROR"), "{told}");
        self.stands(&group, &[])?;
        member.leave()?;
        self.stands(&group, &[(0, 30)]).context("its members have left")
    }

    fn a_paused_link_stands_still(&mut self) -> Result<()> {
        self.node.cli(&["link", "pause", LINK])?;
        let list = || self.node.cli(&["mirror", "list", "--link", LINK]).ok();
        let shown = poll_until(LIMIT, POLL, || list().filter(|list| list.contains("LINK_PAUSED")));
        ensure!(shown.is_some() && self.tasks()?.contains("LINK_PAUSED"), "{:?}", list());
        std::thread::sleep(STAYS);
        let before = RawReader::new(&self.west.bootstrap())?.log_end(TOPIC, 0)?;
        write_records(&self.east.bootstrap(), TOPIC, 0, RECORDS, Batching::Large)?;
        self.at_source("paused", &[(0, 5)])?;
        std::thread::sleep(STAYS);
        let after = RawReader::new(&self.west.bootstrap())?.log_end(TOPIC, 0)?;
        ensure!(after == before, "records came through a paused link: {before} to {after}");
        let row =
            || self.node.mirror_json(WEST, LINK, TOPIC).ok().map(|mirror| mirror["mirror_lags"][0].clone());
        let is_behind = |row: &serde_json::Value| {
            row["lag"] == RECORDS && row["state"] == "PAUSED" && row["lag_ms"].is_number()
        };
        let shown = poll_until(LIMIT, POLL, || row().filter(is_behind));
        ensure!(shown.is_some(), "how far behind it is isn't told: {:#?}", row());
        self.stands("paused", &[])?;
        self.node.cli(&["link", "resume", LINK])?;
        wait_caught_up(&mut self.node, &self.east, &self.west, (LINK, TOPIC), LIMIT)?;
        self.stands("paused", &[(0, 5)])
    }

    fn promotion_syncs_once_more_and_is_the_last(&self) -> Result<()> {
        self.set(&[("consumer.offset.sync.ms", "86400000")])?;
        std::thread::sleep(STAYS);
        self.at_source("late", &[(0, 77)])?;
        self.node.cli(&["mirror", "promote", TOPIC, "--link", LINK, "--yes", "--wait"])?;
        let found = positions(&self.west.bootstrap(), "late", TOPIC, PARTITIONS)?;
        ensure!(found == Positions::from([(0, 77)]), "STOPPED, and the group stands at {found:?}");
        self.set(&[("consumer.offset.sync.ms", "1000")])?;
        self.at_source("late", &[(0, 80)])?;
        std::thread::sleep(STAYS);
        self.stands("late", &[(0, 77)]).context("an ordinary topic")
    }

    fn set(&self, configs: &[(&str, &str)]) -> Result<()> {
        for (key, value) in configs {
            self.node.cli(&["link", "update", LINK, "--config", &format!("{key}={value}")])?;
        }
        Ok(())
    }

    fn tasks(&self) -> Result<String> {
        self.node.cli(&["link", "task", "list", LINK])
    }

    /// Partitions that were started so far.
    fn starts(&self) -> Result<usize> {
        Ok(self.node.log_text()?.matches("plan: start").count())
    }

    fn at_source(&self, group: &str, positions: &[(i32, i64)]) -> Result<()> {
        put(&self.east.bootstrap(), group, TOPIC, positions)
    }

    /// Now or soon.
    fn stands(&self, group: &str, wanted: &[(i32, i64)]) -> Result<()> {
        let wanted: Positions = wanted.iter().copied().collect();
        let begun = Instant::now();
        let mut last = None;
        let found = poll_until(LIMIT, POLL, || {
            last = Some(positions(&self.west.bootstrap(), group, TOPIC, PARTITIONS));
            last.as_ref().is_some_and(|last| last.as_ref().is_ok_and(|last| *last == wanted)).then_some(())
        });
        if found.is_none() {
            bail!("{group} isn't at {wanted:?} after {LIMIT:?}: {last:?}\n{}", self.tasks()?);
        }
        eprintln!("{group} at {wanted:?} after {:?}", begun.elapsed());
        Ok(())
    }
}
