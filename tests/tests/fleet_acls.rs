//! In a fleet ACLs are synced by several nodes: what one of them wrote another deletes when the source revokes
//! it, and nothing else; one that hung writes nothing about a mirror that has stopped meanwhile.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tests::acls::{Acls, acls, create, delete};
use tests::cluster::{KafkaCluster, KafkaConfig};
use tests::fleet::Fleet;
use tests::load::create_topic;
use tests::poll_until;
use tests::scenario::Scenario;

const LINK: &str = "east-west";
const WEST: &str = "west";
const NODES: usize = 3;
const TOPICS: [&str; 3] = ["a", "b", "c"];
const CONFIGS: [&str; 3] = [
    "acl.sync.ms=1000",
    r#"acl.filters={"aclFilters":[{"resourceFilter":{"resourceType":"any"},"accessFilter":{"operation":"any"}}]}"#,
    "acl.sync.enable=true",
];
/// A takeover and two rounds, on busy cores.
const LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(200);
/// Some rounds, and whatever a node does that wakes up.
const STAYS: Duration = Duration::from_secs(10);

const COPIED: [&str; 5] = [
    "ALLOW User:bob READ TOPIC LITERAL a *",
    "ALLOW User:bob READ TOPIC LITERAL b *",
    "ALLOW User:bob READ TOPIC LITERAL c *",
    "ALLOW User:bob READ TOPIC PREFIXED log- *",
    "ALLOW User:bob READ GROUP LITERAL * *",
];
const WRITES_B: &str = "ALLOW User:bob WRITE TOPIC LITERAL b *";
const BY_HAND: [&str; 2] =
    ["ALLOW User:eve READ TOPIC LITERAL a *", "ALLOW User:eve READ GROUP LITERAL app *"];

#[test]
fn acls_follow_the_source_whoever_syncs_them() {
    Scenario::run("fleet-acls", |scenario| {
        let start = |name: &str| {
            let config = KafkaConfig::single(name, scenario.directory())
                .property("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer")
                .property("super.users", "User:ANONYMOUS");
            KafkaCluster::start(config)
        };
        let (east, west) = (start("east")?, start(WEST)?);
        let fleet = Fleet::found(scenario.directory(), NODES, false)?;
        let mut world = World { east: east.bootstrap(), west: west.bootstrap(), fleet, wanted: Acls::new() };
        world.begin()?;
        world.another_deletes_what_a_lost_one_wrote()?;
        world.one_that_hung_writes_nothing_after_stopped()?;
        world.fleet.end()
    });
}

struct World {
    east: String,
    west: String,
    fleet: Fleet,
    /// What is to be at the destination.
    wanted: Acls,
}

impl World {
    fn begin(&mut self) -> Result<()> {
        let any = self.fleet.any()?;
        for (name, bootstrap) in [("east", &self.east), (WEST, &self.west)] {
            any.cli(&["cluster", "create", name, "--bootstrap-server", bootstrap])?;
        }
        any.cli(&["link", "create", LINK, "--source", "east", "--destination", WEST])?;
        for topic in TOPICS {
            create_topic(&self.east, topic, 1, &[])?;
            any.cli(&["mirror", "create", topic, "--link", LINK])?;
        }
        self.fleet.wait_settled(NODES)?;
        create(&self.east, &COPIED)?;
        create(&self.east, &[WRITES_B])?;
        create(&self.west, &BY_HAND)?;
        for config in CONFIGS {
            self.fleet.any()?.cli(&["link", "update", LINK, "--config", config])?;
        }
        self.wanted = COPIED.iter().chain(&BY_HAND).map(ToString::to_string).collect();
        self.stands()
    }

    fn another_deletes_what_a_lost_one_wrote(&mut self) -> Result<()> {
        let lost = self.owner("a")?;
        self.fleet.kill(&lost)?;
        for gone in ["ALLOW User:bob READ TOPIC LITERAL a *", "ALLOW User:bob READ GROUP LITERAL * *"] {
            delete(&self.east, &[gone])?;
            self.wanted.remove(gone);
        }
        self.stands().with_context(|| format!("{lost} is lost"))?;
        self.fleet.restart(&lost)?;
        self.fleet.wait_settled(NODES)?;
        std::thread::sleep(STAYS);
        self.stands().with_context(|| format!("{lost} is back"))
    }

    fn one_that_hung_writes_nothing_after_stopped(&mut self) -> Result<()> {
        let zombie = self.owner("b")?;
        let other = self.fleet.other_than(&zombie)?;
        self.fleet.pause(&zombie)?;
        let fail_over = ["mirror", "failover", "b", "--link", LINK, "--yes", "--wait=60s"];
        self.fleet.node(&other)?.cli(&fail_over)?;
        ensure!(acls(&self.west)?.contains(WRITES_B), "STOPPED, and nobody may write");
        self.wanted.insert(WRITES_B.to_owned());
        delete(&self.east, &["ALLOW User:bob READ TOPIC LITERAL b *", WRITES_B])?;
        create(&self.east, &["ALLOW User:late READ TOPIC LITERAL b *"])?;
        self.fleet.resume(&zombie)?;
        std::thread::sleep(STAYS);
        self.stands().with_context(|| format!("{zombie} goes on"))?;
        // Of the others all the same.
        let more = "ALLOW User:late READ TOPIC LITERAL c *";
        create(&self.east, &[more])?;
        self.wanted.insert(more.to_owned());
        self.stands()
    }

    fn owner(&self, topic: &str) -> Result<String> {
        let owner = poll_until(LIMIT, POLL, || {
            let mirror = self.fleet.any().ok()?.mirror_json(WEST, LINK, topic).ok()?;
            mirror["mirror_lags"][0]["node"].as_str().map(str::to_owned)
        });
        owner.with_context(|| format!("nobody owns {topic}"))
    }

    /// The destination has what is wanted and nothing else, now or soon.
    fn stands(&self) -> Result<()> {
        let mut last = Acls::new();
        let found = poll_until(LIMIT, POLL, || {
            last = acls(&self.west).unwrap_or_default();
            (last == self.wanted).then_some(())
        });
        if found.is_none() {
            let missing: Vec<_> = self.wanted.difference(&last).collect();
            let more: Vec<_> = last.difference(&self.wanted).collect();
            let tasks = self.fleet.any()?.cli(&["link", "task", "list", LINK]);
            bail!("after {LIMIT:?} missing {missing:#?}, more {more:#?}\n{tasks:?}");
        }
        Ok(())
    }
}
