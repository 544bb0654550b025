//! The in-memory cluster (`broker`) to clients that aren't ours: consumer groups with librdkafka, and
//! Kafka's own command-line tools.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use broker::{Caller, Fault, GroupSettings, Settings, Stop, TcpCluster, TopicConfigs, system_clock};
use kafka_protocol::messages::{HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest};
use kafka_protocol::protocol::Request;
use rdkafka::ClientConfig;
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{FutureProducer, FutureRecord};
use tests::artifacts::{Artifacts, KAFKA_DEFAULT};

const TOPIC: &str = "shared";
const PARTITIONS: i32 = 4;
const GROUP: &str = "readers";
/// The least that a broker allows.
const SESSION: Duration = Duration::from_secs(6);
/// Each step takes a second or two; this is for a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

async fn cluster() -> TcpCluster {
    let settings = |endpoints| Settings {
        groups: GroupSettings { initial_rebalance_delay_ms: 500, ..GroupSettings::default() },
        ..Settings::new("embedded", endpoints, 1)
    };
    let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let cluster = TcpCluster::listen(ip, &[0, 0, 0], settings, system_clock()).await.expect("free ports");
    cluster.cluster.with(|state| state.create_topic(TOPIC, PARTITIONS, 3, TopicConfigs::default()));
    cluster
}

async fn produce(bootstrap: &str, values: std::ops::Range<usize>) {
    let producer: FutureProducer =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create().expect("a producer");
    for value in values {
        let (partition, payload) = (value as i32 % PARTITIONS, value.to_string());
        let record = FutureRecord::<(), _>::to(TOPIC).partition(partition).payload(&payload);
        producer.send(record, PATIENCE).await.expect("acknowledged");
    }
}

fn member(bootstrap: &str, client: &str) -> BaseConsumer {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("client.id", client)
        .set("group.id", GROUP)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("session.timeout.ms", SESSION.as_millis().to_string())
        .set("heartbeat.interval.ms", "500")
        .create()
        .expect("a consumer");
    consumer.subscribe(&[TOPIC]).expect("subscribed");
    consumer
}

/// Polls the members, committing what they read, until `done`; what each read.
fn read(members: &[&BaseConsumer], mut done: impl FnMut(&[Vec<usize>]) -> bool) -> Vec<Vec<usize>> {
    let mut values = vec![Vec::new(); members.len()];
    let deadline = Instant::now() + PATIENCE;
    while !done(&values) {
        assert!(Instant::now() < deadline, "still waiting; read so far: {values:?}");
        for (member, values) in members.iter().zip(&mut values) {
            let Some(Ok(message)) = member.poll(POLL) else { continue };
            let payload = std::str::from_utf8(message.payload().expect("a payload")).expect("text");
            values.push(payload.parse().expect("a number"));
            member.commit_message(&message, CommitMode::Sync).expect("committed");
        }
    }
    values
}

fn assigned(member: &BaseConsumer) -> usize {
    member.assignment().expect("an assignment").count()
}

fn total(values: &[Vec<usize>]) -> usize {
    values.iter().map(Vec::len).sum()
}

fn each_once(values: Vec<Vec<usize>>, expected: std::ops::Range<usize>) {
    let mut all: Vec<usize> = values.into_iter().flatten().collect();
    all.sort_unstable();
    assert_eq!(all, expected.collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_members_share_the_partitions_and_the_one_that_stays_takes_over() {
    let cluster = cluster().await;
    produce(&cluster.bootstrap, 0..40).await;
    let (first, second) = (member(&cluster.bootstrap, "first"), member(&cluster.bootstrap, "second"));
    let values = read(&[&first, &second], |values| {
        total(values) >= 40 && assigned(&first) == 2 && assigned(&second) == 2
    });
    each_once(values, 0..40);
    drop(second);
    produce(&cluster.bootstrap, 40..80).await;
    let values = read(&[&first], |values| total(values) >= 40 && assigned(&first) == 4);
    each_once(values, 40..80);
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_outlive_the_members_and_the_coordinator() {
    let cluster = cluster().await;
    produce(&cluster.bootstrap, 0..40).await;
    let only = member(&cluster.bootstrap, "first");
    each_once(read(&[&only], |values| total(values) >= 40), 0..40);
    drop(only);
    let coordinator = cluster.cluster.with(|state| state.coordinator(GROUP)).unwrap();
    cluster.cluster.stop_broker(coordinator, Stop::Crash);
    produce(&cluster.bootstrap, 40..80).await;
    let later = member(&cluster.bootstrap, "later");
    each_once(read(&[&later], |values| total(values) >= 40), 40..80);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_falls_silent_is_expelled_when_its_session_is_over() {
    let cluster = cluster().await;
    let (first, second) = (member(&cluster.bootstrap, "first"), member(&cluster.bootstrap, "second"));
    read(&[&first, &second], |_| assigned(&first) == 2 && assigned(&second) == 2);
    silence(&cluster, "second");
    let since = Instant::now();
    read(&[&first], |_| assigned(&first) == 4);
    let taken = since.elapsed();
    assert!(taken > SESSION - Duration::from_secs(1), "expelled after {taken:?}");
    let members: Vec<String> = cluster.cluster.with(|state| {
        let group = state.groups.get(GROUP).unwrap();
        group.members().map(|member| member.client_id.to_string()).collect()
    });
    assert_eq!(members, ["first"]);
}

/// From now on nothing that this client sends to its coordinator arrives: it is as good as dead.
fn silence(cluster: &TcpCluster, client: &'static str) {
    fn drop_all<Q: Request + 'static>(cluster: &TcpCluster, client: &'static str) {
        cluster.cluster.interceptors().add(move |caller: &Caller, _: &Q| {
            if caller.client_id == client { Fault::Drop } else { Fault::Pass }
        });
    }
    drop_all::<HeartbeatRequest>(cluster, client);
    drop_all::<JoinGroupRequest>(cluster, client);
    drop_all::<LeaveGroupRequest>(cluster, client);
}

/// Java's producer, consumer and admin client: what the console producer writes, the console consumer reads
/// in a group, and the group's tool shows where it stands.
#[tokio::test(flavor = "multi_thread")]
async fn kafkas_own_tools_write_read_and_describe() {
    let cluster = cluster().await;
    let bootstrap = ["--bootstrap-server", &cluster.bootstrap];
    let lines: String = (0..40).map(|number| format!("{number}\n")).collect();
    tool("ConsoleProducer", &[&bootstrap[..], &["--topic", TOPIC]].concat(), &lines);

    let group = ["--topic", TOPIC, "--group", GROUP, "--from-beginning", "--max-messages", "40"];
    let limit = ["--timeout-ms", "60000"];
    let read = tool("consumer.ConsoleConsumer", &[&bootstrap[..], &group, &limit].concat(), "");
    each_once(vec![read.lines().map(|line| line.parse().expect("a number")).collect()], 0..40);

    let describe = ["--describe", "--group", GROUP];
    let told = tool("consumer.group.ConsumerGroupCommand", &[&bootstrap[..], &describe].concat(), "");
    let rows: Vec<Vec<&str>> = told
        .lines()
        .map(|line| line.split_whitespace().collect())
        .filter(|row: &Vec<_>| row.contains(&TOPIC))
        .collect();
    let committed: usize = rows.iter().map(|row| row[3].parse::<usize>().expect("an offset")).sum();
    // The console producer fills one partition after the other; those without records have no row.
    assert_eq!(committed, 40, "{told}");
    assert!(rows.iter().all(|row| row[3] == row[4] && row[5] == "0"), "offset, end, lag: {told}");
}

/// What a tool of Kafka's prints.
fn tool(class: &str, arguments: &[&str], input: &str) -> String {
    let jars = Artifacts::ensure_tools(KAFKA_DEFAULT).expect("Kafka's tools");
    let mut command = Command::new("java");
    command.args(["-Xmx256m", "-cp", &jars.class_path(), "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]);
    command.arg(format!("org.apache.kafka.tools.{class}")).args(arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("java");
    // Dropped at once: the tool reads to the end of its input.
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("written");
    let output = child.wait_with_output().expect("its output");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{class}: {}: {text}", output.status);
    text
}
