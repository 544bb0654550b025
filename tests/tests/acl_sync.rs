//! ACLs follow the source, of every kind and whole; never Lockstep's own, never a deletion after a read that
//! was refused, never one that somebody else wrote; what lets others write to a mirror is there when it has
//! stopped, and not before.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tests::acls::{Acls, acls, create, delete};
use tests::client::{Batching, write_records};
use tests::cluster::KafkaConfig;
use tests::load::create_topic;
use tests::mirror::wait_caught_up;
use tests::node::Node;
use tests::poll_until;
use tests::scenario::Scenario;
use tests::secured::{PLAIN_USER, SecuredKafka};

const LINK: &str = "east-west";
const EVERYTHING: &str = r#"{"aclFilters":[{"resourceFilter":{"resourceType":"any","patternType":"any"},"accessFilter":{"operation":"any","permissionType":"any"}}]}"#;
/// Two rounds of a second each, on busy cores.
const LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(200);
/// Some rounds.
const STAYS: Duration = Duration::from_secs(6);

/// What Lockstep itself needs.
const AT_SOURCE: [&str; 3] = [
    "ALLOW User:alice READ TOPIC LITERAL * *",
    "ALLOW User:alice DESCRIBE_CONFIGS TOPIC LITERAL * *",
    LISTS_ACLS,
];
const LISTS_ACLS: &str = "ALLOW User:alice DESCRIBE CLUSTER LITERAL kafka-cluster *";
const AT_DESTINATION: [&str; 3] = [
    "ALLOW User:alice ALL TOPIC LITERAL * *",
    "ALLOW User:alice ALL TRANSACTIONAL_ID PREFIXED lockstep. *",
    "ALLOW User:alice ALL CLUSTER LITERAL kafka-cluster *",
];

/// Of every kind; none lets anybody write to a mirror.
const COPIED: [&str; 9] = [
    "ALLOW User:bob READ TOPIC LITERAL orders *",
    "ALLOW User:bob WRITE TOPIC LITERAL other *",
    "DENY User:carl WRITE TOPIC PREFIXED ord 10.0.0.1",
    "ALLOW User:bob READ GROUP PREFIXED app- *",
    "ALLOW User:* DESCRIBE GROUP LITERAL * *",
    "ALLOW User:bob ALL TRANSACTIONAL_ID LITERAL tx *",
    "ALLOW User:bob IDEMPOTENT_WRITE CLUSTER LITERAL kafka-cluster *",
    "ALLOW User:bob DESCRIBE DELEGATION_TOKEN LITERAL token *",
    "ALLOW User:bob CREATE_TOKENS USER LITERAL User:carl *",
];
const WRITES_ORDERS: &str = "ALLOW User:bob WRITE TOPIC LITERAL orders *";
const WRITES_PAYMENTS: &str = "ALLOW User:bob WRITE TOPIC LITERAL payments *";
const WRITES_ALL: &str = "ALLOW User:dora ALL TOPIC LITERAL * *";
const JUST_NOW: &str = "ALLOW User:fresh WRITE TOPIC LITERAL orders *";
const BY_HAND: &str = "ALLOW User:eve READ TOPIC LITERAL orders *";
const BY_HAND_ELSEWHERE: &str = "ALLOW User:eve READ TOPIC LITERAL elsewhere *";

#[test]
fn acls_are_at_the_destination_what_they_are_at_the_source() {
    Scenario::share("acl-sync", |scenario| {
        scenario.each_version(|version, parent| World::start(version, parent)?.run())
    });
}

struct World {
    east: SecuredKafka,
    west: SecuredKafka,
    node: Node,
    /// What is to be at the destination.
    wanted: Acls,
}

impl World {
    fn start(version: &str, parent: &Path) -> Result<Self> {
        let start = |name: &str| {
            let config = KafkaConfig::single(name, parent)
                .version(version)
                .property("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer")
                .property("super.users", "User:ANONYMOUS");
            SecuredKafka::start_as(config)
        };
        let (east, west) = (start("east")?, start("west")?);
        for topic in ["orders", "payments"] {
            create_topic(&east.cluster.bootstrap(), topic, 1, &[])?;
            write_records(&east.cluster.bootstrap(), topic, 0, 100, Batching::Large)?;
        }
        create(&east.cluster.bootstrap(), &AT_SOURCE)?;
        create(&west.cluster.bootstrap(), &AT_DESTINATION)?;
        create(&west.cluster.bootstrap(), &[BY_HAND, BY_HAND_ELSEWHERE])?;
        let node = Node::bootstrap("node-1", parent)?;
        let password: PathBuf = parent.join("password");
        fs::write(&password, PLAIN_USER.1)?;
        for (name, kafka) in [("east", &east), ("west", &west)] {
            let properties = kafka.plain_properties(&password, parent)?;
            node.cli(&[
                "cluster",
                "create",
                name,
                "--config",
                properties.to_str().context("a path of UTF-8")?,
            ])?;
        }
        node.cli(&["link", "create", LINK, "--source", "east", "--destination", "west"])?;
        let wanted = AT_DESTINATION.iter().chain(&[BY_HAND, BY_HAND_ELSEWHERE]);
        let wanted = wanted.map(ToString::to_string).collect();
        Ok(Self { east, west, node, wanted })
    }

    fn run(mut self) -> Result<()> {
        for topic in ["orders", "payments"] {
            self.node.cli(&["mirror", "create", topic, "--link", LINK])?;
            wait_caught_up(&mut self.node, &self.east.cluster, &self.west.cluster, (LINK, topic), LIMIT)?;
        }
        self.at_source(&[WRITES_ORDERS, WRITES_PAYMENTS, WRITES_ALL])?;
        self.at_source(&COPIED)?;
        self.set(&[("acl.sync.ms", "1000"), ("acl.sync.enable", "true")])?;
        self.told(&["no ACL is meant"])?;
        self.stands().context("no filters yet")?;

        self.set(&[("acl.filters", EVERYTHING)])?;
        self.wanted.extend(COPIED.map(str::to_owned));
        self.stands()?;
        let withheld = ["waits for its promotion or failover", "User:bob WRITE", "User:dora ALL"];
        self.told(&[&["AclSync", "ACTIVE"][..], &withheld].concat())?;
        self.follows_what_changes()?;
        self.deletes_nothing_that_it_couldnt_read()?;
        self.remembers_what_it_wrote()?;
        self.leaves_what_others_wrote()?;
        self.asks_before_most_of_it_goes()?;
        self.lets_clients_write_when_a_mirror_has_stopped()?;
        self.deletes_what_others_wrote_where_it_is_told_to()?;
        self.deletes_nothing_when_a_mirror_was_failed_over()?;
        self.node.sigterm()
    }

    fn follows_what_changes(&mut self) -> Result<()> {
        let (before, after) =
            ("DENY User:carl WRITE TOPIC PREFIXED ord 10.0.0.1", "DENY User:carl WRITE TOPIC PREFIXED ord *");
        self.gone_at_source(before)?;
        self.at_source(&[after])?;
        self.wanted.remove(before);
        self.wanted.insert(after.to_owned());
        self.stands().context("changed at the source")?;
        // Taken away by hand at the destination.
        delete(&self.west.cluster.bootstrap(), &[after])?;
        std::thread::sleep(STAYS);
        self.stands().context("it comes again")?;
        let more = "ALLOW User:bob ALTER_CONFIGS TOPIC LITERAL other *";
        self.node.cli(&["link", "pause", LINK])?;
        self.at_source(&[more])?;
        std::thread::sleep(STAYS);
        self.stands().context("paused")?;
        self.node.cli(&["link", "resume", LINK])?;
        self.wanted.insert(more.to_owned());
        self.stands().context("goes on")
    }

    fn deletes_nothing_that_it_couldnt_read(&mut self) -> Result<()> {
        let gone = "ALLOW User:bob READ GROUP PREFIXED app- *";
        self.gone_at_source(LISTS_ACLS)?;
        self.told(&["AUTHORIZATION_ERROR", "the source", "grant DESCRIBE on the cluster"])?;
        self.gone_at_source(gone)?;
        std::thread::sleep(STAYS);
        self.stands().context("a refused read")?;
        self.at_source(&[LISTS_ACLS])?;
        self.wanted.remove(gone);
        self.stands().context("read again")
    }

    fn remembers_what_it_wrote(&mut self) -> Result<()> {
        let gone = "ALLOW User:bob ALL TRANSACTIONAL_ID LITERAL tx *";
        self.node.kill9()?;
        self.gone_at_source(gone)?;
        self.stands().context("nobody is there")?;
        self.node.restart()?;
        self.wanted.remove(gone);
        self.stands().context("started again")
    }

    /// Neither what the source never had, nor what it had, too, and has no more.
    fn leaves_what_others_wrote(&mut self) -> Result<()> {
        self.at_source(&[BY_HAND])?;
        std::thread::sleep(STAYS);
        self.gone_at_source(BY_HAND)?;
        std::thread::sleep(STAYS);
        self.stands().context("by hand")
    }

    /// Also what came to the source just before.
    fn lets_clients_write_when_a_mirror_has_stopped(&mut self) -> Result<()> {
        self.at_source(&[JUST_NOW])?;
        self.node.cli(&["mirror", "promote", "orders", "--link", LINK, "--yes", "--wait"])?;
        let found = acls(&self.west.cluster.bootstrap())?;
        // Writing to all topics is for this one only, while another is still a mirror.
        for text in [WRITES_ORDERS, JUST_NOW, "ALLOW User:dora ALL TOPIC LITERAL orders *"] {
            ensure!(found.contains(text), "STOPPED, and {text} isn't there: {found:#?}");
            self.wanted.insert(text.to_owned());
        }
        let gone = "ALLOW User:bob READ TOPIC LITERAL orders *";
        self.gone_at_source(gone)?;
        self.at_source(&["ALLOW User:late READ TOPIC LITERAL orders *"])?;
        std::thread::sleep(STAYS);
        self.stands().context("an ordinary topic")?;
        self.told(&["User:late", "'orders', which has stopped"])?;
        self.node.cli(&["mirror", "delete", "orders", "--link", LINK, "--yes"])?;
        self.gone_at_source(JUST_NOW)?;
        std::thread::sleep(STAYS);
        self.stands().context("its mirror is deleted, and it stays an ordinary topic")
    }

    /// It looks like a list that is wrong.
    fn asks_before_most_of_it_goes(&mut self) -> Result<()> {
        let many: Vec<String> =
            (0..40).map(|i| format!("ALLOW User:bob READ GROUP LITERAL many-{i} *")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        self.at_source(&many)?;
        self.wanted.extend(many.iter().map(ToString::to_string));
        self.stands()?;
        delete(&self.east.cluster.bootstrap(), &many)?;
        self.told(&["no longer", "raise acl.sync.delete.max.percent"])?;
        std::thread::sleep(STAYS);
        self.set(&[("acl.sync.delete.max.percent", "100")])?;
        self.wanted.retain(|acl| !acl.contains("many-"));
        self.stands().context("it is meant")
    }

    fn deletes_what_others_wrote_where_it_is_told_to(&mut self) -> Result<()> {
        let update = ["link", "update", LINK, "--config", "acl.sync.mode=mirror"];
        let unasked = self.node.cli_said(&update)?;
        ensure!(!unasked.status.success() && unasked.stderr.contains("--yes"), "{}", unasked.stderr);
        let would = "AclSync would delete ALLOW User:eve READ on TOPIC LITERAL 'elsewhere' from *";
        let lines: Vec<&str> = unasked.stderr.lines().filter(|line| line.contains("would delete")).collect();
        ensure!(lines.len() == 1 && lines[0].ends_with(would), "{}", unasked.stderr);
        std::thread::sleep(STAYS);
        self.stands().context("nothing was confirmed")?;
        self.node.cli(&[&update[..], &["--yes"]].concat())?;
        self.wanted.remove(BY_HAND_ELSEWHERE);
        self.stands().context("Lockstep's own stay, and what is about a stopped mirror")?;
        self.set(&[("acl.sync.mode", "owned")])
    }

    fn deletes_nothing_when_a_mirror_was_failed_over(&mut self) -> Result<()> {
        self.east.cluster.kill(1)?;
        self.node.cli(&["mirror", "failover", "payments", "--link", LINK, "--yes", "--wait"])?;
        let found = acls(&self.west.cluster.bootstrap())?;
        for text in [WRITES_PAYMENTS, "ALLOW User:dora ALL TOPIC LITERAL payments *"] {
            ensure!(found.contains(text), "STOPPED, and {text} isn't there: {found:#?}");
            self.wanted.insert(text.to_owned());
        }
        self.stands().context("the source is down")?;
        self.east.cluster.restart(1)?;
        self.gone_at_source("ALLOW User:bob WRITE TOPIC LITERAL other *")?;
        self.told(&["a mirror of the link was failed over"])?;
        std::thread::sleep(STAYS);
        self.stands().context("nothing is deleted")
    }

    fn at_source(&self, acls: &[&str]) -> Result<()> {
        create(&self.east.cluster.bootstrap(), acls)
    }

    fn gone_at_source(&self, acl: &str) -> Result<()> {
        delete(&self.east.cluster.bootstrap(), &[acl])
    }

    fn set(&self, configs: &[(&str, &str)]) -> Result<()> {
        for (key, value) in configs {
            self.node.cli(&["link", "update", LINK, "--config", &format!("{key}={value}")])?;
        }
        Ok(())
    }

    /// The tasks say all of it, now or soon.
    fn told(&self, parts: &[&str]) -> Result<()> {
        let tasks = || self.node.cli(&["link", "task", "list", LINK]);
        let says = |told: &String| parts.iter().all(|part| told.contains(part));
        let found = poll_until(LIMIT, POLL, || tasks().ok().filter(says));
        found.with_context(|| format!("not told: {parts:?} in {:?}", tasks())).map(drop)
    }

    /// The destination has what is wanted and nothing else, now or soon.
    fn stands(&self) -> Result<()> {
        let begun = Instant::now();
        let mut last = Acls::new();
        let found = poll_until(LIMIT, POLL, || {
            last = acls(&self.west.cluster.bootstrap()).unwrap_or_default();
            (last == self.wanted).then_some(())
        });
        if found.is_none() {
            let missing: Vec<_> = self.wanted.difference(&last).collect();
            let more: Vec<_> = last.difference(&self.wanted).collect();
            let tasks = self.node.cli(&["link", "task", "list", LINK]);
            bail!("after {LIMIT:?} missing {missing:#?}, more {more:#?}\n{tasks:?}");
        }
        eprintln!("as wanted after {:?}", begun.elapsed());
        Ok(())
    }
}
