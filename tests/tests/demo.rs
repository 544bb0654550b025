//! `lockstep demo` as a newcomer meets it: it proves itself, other clients can look, and whatever ends it
//! leaves nothing behind.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Message, Offset, TopicPartitionList};
use tests::node::find_binary;
use tests::poll_until;
use tests::ports::PortLease;
use tests::process::{Process, Signal};
use tests::scenario::Scenario;

/// A start, the given time, and the comparison of what is left.
const ENDS_WITHIN: Duration = Duration::from_secs(60);
const SHOWN_WITHIN: Duration = Duration::from_secs(20);
/// A node exits within 10 s of being told; the rest is the machine's.
const STOPS_WITHIN: Duration = Duration::from_secs(12);
const POLL: Duration = Duration::from_millis(50);
/// The demo's own count.
const PARTITIONS: i32 = 4;

/// A demo that is under way, with a directory of its own for what it leaves.
struct Demo {
    process: Process,
    directory: PathBuf,
}

impl Demo {
    fn start(scenario: &Scenario, name: &str, arguments: &[&str]) -> Result<Demo> {
        let directory = scenario.directory().join(name);
        fs::create_dir_all(&directory)?;
        let log = scenario.directory().join(format!("{name}.log"));
        Ok(Demo { process: Process::spawn(name, command(&directory, arguments)?, &log)?, directory })
    }

    fn text(&self) -> String {
        fs::read_to_string(self.process.log()).unwrap_or_default()
    }

    /// What stands behind `label` at the beginning of a line.
    fn value(&self, label: &str) -> Result<String> {
        let found = poll_until(SHOWN_WITHIN, POLL, || {
            let text = self.text();
            let line = text.lines().find_map(|line| line.trim_start().strip_prefix(label))?;
            Some(line.trim().to_owned())
        });
        found.with_context(|| format!("no {label:?} in {}", self.text()))
    }

    fn wait_shown(&self, words: &str) -> Result<()> {
        poll_until(SHOWN_WITHIN, POLL, || self.text().contains(words).then_some(()))
            .with_context(|| format!("{words:?} is never shown: {}", self.text()))
    }

    fn check_nothing_left(&self) -> Result<()> {
        let left: Vec<_> =
            fs::read_dir(&self.directory)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
        ensure!(left.is_empty(), "left behind: {left:?}");
        Ok(())
    }
}

fn command(directory: &Path, arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(find_binary()?);
    // What a shell may have set for another node must not reach this one.
    command.arg("demo").args(arguments).env("TMPDIR", directory).env("LOCKSTEP_LISTEN", "127.0.0.1:1");
    command.stdin(Stdio::null());
    Ok(command)
}

fn run(scenario: &Scenario, arguments: &[&str]) -> Result<Output> {
    command(scenario.directory(), arguments)?.output().context("run the demo")
}

#[test]
fn the_demo_survives_its_kill_and_proves_every_record_while_another_client_reads() {
    Scenario::run("demo-proof", |scenario| {
        let mut demo = Demo::start(scenario, "demo", &["--for", "9s", "--records-per-second", "1000"])?;
        let west = demo.value("west")?;
        demo.wait_shown("all partitions run again")?;
        let read = read_from(&west, 1_000)?;
        ensure!(read == 1_000, "librdkafka reads {read} records of the mirror");
        let status = demo.process.wait(ENDS_WITHIN)?;
        let text = demo.text();
        ensure!(status.success(), "{status}: {text}");
        ensure!(text.contains("the node is killed (SIGKILL)"), "{text}");
        ensure!(text.contains("records verified:\nat the same offset"), "{text}");
        ensure!(!text.contains('\x1b'), "drawn where there is no terminal: {text}");
        check_rows(&text)?;
        demo.check_nothing_left()
    });
}

/// A row of the proof says the same of both ends, and of about as many records as were asked for.
fn check_rows(text: &str) -> Result<()> {
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with("orders-"))
        .map(|line| line.split_whitespace().collect())
        .collect();
    ensure!(rows.len() == PARTITIONS as usize, "{text}");
    for row in rows {
        let end: i64 = row[1].trim_start_matches("0..").parse()?;
        ensure!((1_000..4_000).contains(&end) && row[2] == row[3] && row[2].len() == 8, "{row:?}");
    }
    Ok(())
}

fn read_from(bootstrap: &str, wanted: usize) -> Result<usize> {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", bootstrap).set("group.id", "unused").create()?;
    let mut assignment = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        assignment.add_partition_offset("orders", partition, Offset::Beginning)?;
    }
    consumer.assign(&assignment)?;
    let mut next = [0; PARTITIONS as usize];
    let mut read = 0;
    poll_until(SHOWN_WITHIN, Duration::ZERO, || {
        if let Some(Ok(message)) = consumer.poll(POLL) {
            let expected = &mut next[message.partition() as usize];
            if message.offset() == *expected && message.payload().is_some() {
                *expected += 1;
                read += 1;
            }
        }
        (read >= wanted).then_some(())
    });
    Ok(read)
}

#[test]
fn ctrl_c_stops_node_and_clusters_and_leaves_nothing() {
    Scenario::run("demo-interrupt", |scenario| {
        let mut demo = Demo::start(scenario, "demo", &["--for", "60s"])?;
        let api = demo.value("API")?;
        demo.wait_shown("verified")?;
        demo.process.signal(Signal::INT)?;
        let status = demo.process.wait(STOPS_WITHIN)?;
        ensure!(status.code() == Some(130), "{status}: {}", demo.text());
        ensure!(demo.text().contains("interrupted"), "{}", demo.text());
        ensure!(TcpStream::connect(address(&api)).is_err(), "the node still listens at {api}");
        demo.check_nothing_left()
    });
}

#[test]
fn a_demo_that_is_killed_takes_its_node_along() {
    Scenario::run("demo-killed", |scenario| {
        let mut demo = Demo::start(scenario, "demo", &["--for", "60s"])?;
        let api = demo.value("API")?;
        demo.wait_shown("verified")?;
        demo.process.kill()?;
        poll_until(STOPS_WITHIN, POLL, || TcpStream::connect(address(&api)).is_err().then_some(()))
            .with_context(|| format!("the node outlives its demo at {api}"))
    });
}

fn address(url: &str) -> &str {
    url.trim_start_matches("http://")
}

#[test]
fn wrong_flags_and_busy_ports_are_named() {
    Scenario::run("demo-flags", |scenario| {
        let wrong = [
            (["--for", "1s"], "5s at least"),
            (["--for", "soon"], "such as 30s"),
            (["--records-per-second", "0"], "--records-per-second"),
            (["--port", "65535"], "--port"),
        ];
        for (arguments, words) in wrong {
            let said = run(scenario, &arguments)?;
            let stderr = String::from_utf8_lossy(&said.stderr);
            ensure!(said.status.code() == Some(2) && stderr.contains(words), "{arguments:?}: {said:?}");
        }
        // The API's, a broker's of east, one of west.
        let (first, leases) = consecutive_ports()?;
        drop(leases);
        for taken in [first, first + 2, first + 6] {
            let listener = TcpListener::bind(("127.0.0.1", taken))?;
            let said = run(scenario, &["--port", &first.to_string()])?;
            drop(listener);
            let stderr = String::from_utf8_lossy(&said.stderr);
            ensure!(said.status.code() == Some(1), "{said:?}");
            ensure!(stderr.contains(&format!("127.0.0.1:{taken}")), "{stderr}");
            ensure!(stderr.contains("hint: choose other ports with --port"), "{stderr}");
        }
        Ok(())
    });
}

/// The first of seven neighbours that are free.
fn consecutive_ports() -> Result<(u16, Vec<TcpListener>)> {
    for _ in 0..50 {
        let first = PortLease::take()?.port();
        let all: Option<Vec<_>> =
            (first..first + 7).map(|port| TcpListener::bind(("127.0.0.1", port)).ok()).collect();
        if let Some(all) = all {
            return Ok((first, all));
        }
    }
    anyhow::bail!("no seven free ports in a row")
}

#[test]
fn on_a_terminal_of_sixty_columns_the_table_fits_and_is_drawn_over_itself() {
    Scenario::run("demo-terminal", |scenario| {
        let text = on_terminal(scenario, "stty cols 60 rows 24; ")?;
        ensure!(text.contains("\x1b[0J"), "nothing is drawn over: {text}");
        let without_path = text.lines().filter(|line| !line.trim_start().starts_with("log "));
        for line in without_path {
            let plain = line.rsplit("\x1b[0J").next().unwrap_or_default().trim_end();
            ensure!(plain.chars().count() <= 60, "{} columns: {plain:?}", plain.chars().count());
        }
        Ok(())
    });
}

#[test]
fn on_a_terminal_that_becomes_too_small_nothing_is_drawn_over_any_more() {
    Scenario::run("demo-resized", |scenario| {
        let narrowed = "stty cols 60 rows 24; (sleep 3; stty cols 40 < /dev/tty) & ";
        let text = on_terminal(scenario, narrowed)?;
        let (drawn, after) = text.rsplit_once("\x1b[0J").context("nothing is drawn over")?;
        ensure!(drawn.contains("RUNNING") && after.contains(" verified, lag "), "{text}");
        Ok(())
    });
}

#[test]
fn a_proof_that_could_not_be_shown_is_no_success() {
    Scenario::run("demo-full", |scenario| {
        let full = fs::File::options().write(true).open("/dev/full")?;
        let said = command(scenario.directory(), &["--for", "5s"])?.stdout(full).output()?;
        let stderr = String::from_utf8_lossy(&said.stderr);
        ensure!(said.status.code() == Some(1) && stderr.contains("can't write to stdout"), "{said:?}");
        Ok(())
    });
}

/// What a demo shows on a terminal that a shell has prepared.
fn on_terminal(scenario: &Scenario, prepared: &str) -> Result<String> {
    let line = format!("{prepared}{} demo --for 6s", find_binary()?.display());
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").env("TMPDIR", scenario.directory());
    let said = script.stdin(Stdio::null()).output().context("run script")?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    ensure!(said.status.success(), "{text}");
    Ok(text)
}
