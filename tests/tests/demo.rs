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
use tests::process::{Process, Signal, signal_pid};
use tests::scenario::Scenario;

/// A start, the given time, the return of a killed node, and the comparison of what is left.
const ENDS_WITHIN: Duration = Duration::from_secs(120);
/// The start of a fleet, on a machine that is busy with others.
const SHOWN_WITHIN: Duration = Duration::from_secs(60);
/// From a kill to all partitions elsewhere; the product's own measure is 5 s.
const RECOVERS_WITHIN_S: f64 = 15.0;
/// A node exits within 10 s of being told; the rest is the machine's.
const STOPS_WITHIN: Duration = Duration::from_secs(12);
const POLL: Duration = Duration::from_millis(50);
/// The demo's own count.
const PARTITIONS: i32 = 6;
const NODES: usize = 3;
const PORTS: u16 = 12;

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

    /// Where the nodes' APIs are, once they have answered.
    fn apis(&self) -> Result<Vec<String>> {
        self.wait_shown("verified")?;
        let text = self.text();
        let lines = text.lines().map(|line| line.trim().trim_start_matches("API").trim());
        let apis: Vec<_> = lines.filter_map(|line| line.strip_prefix("http://")).map(str::to_owned).collect();
        ensure!(apis.len() == NODES, "{text}");
        for api in &apis {
            TcpStream::connect(api).with_context(|| format!("no node listens at {api}"))?;
        }
        Ok(apis)
    }

    /// The process of one of its nodes.
    fn node_pid(&self, name: &str) -> Result<u32> {
        let directory = self.directory.display().to_string();
        let mark = format!("/{name}\0");
        for entry in fs::read_dir("/proc")? {
            let entry = entry?;
            let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            if line.contains(&directory) && line.contains(&mark) {
                return Ok(pid);
            }
        }
        anyhow::bail!("no process of {name} under {directory}")
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
fn the_demo_loses_a_node_gets_it_back_and_proves_every_record_while_another_client_reads() {
    Scenario::run("demo-proof", |scenario| {
        let mut demo = Demo::start(scenario, "demo", &["--for", "9s", "--records-per-second", "1000"])?;
        let west = demo.value("west")?;
        demo.wait_shown("all partitions flow again")?;
        let read = read_from(&west, 1_000)?;
        ensure!(read == 1_000, "librdkafka reads {read} records of the mirror");
        let status = demo.process.wait(ENDS_WITHIN)?;
        let text = demo.text();
        ensure!(status.success(), "{status}: {text}");
        check_loss(&text)?;
        ensure!(text.contains("STOPPED: 'orders' in west is an ordinary topic"), "{text}");
        ensure!(text.contains("records verified:\nat the same offset"), "{text}");
        ensure!(!text.contains('\x1b'), "drawn where there is no terminal: {text}");
        check_rows(&text)?;
        demo.check_nothing_left()
    });
}

/// A node is killed, exactly its partitions move away, all flow again in time, and it gets some back.
fn check_loss(text: &str) -> Result<()> {
    let told = |words: &str| text.lines().find_map(|line| line.split_once(" s  ")?.1.split_once(words));
    let (lost, _) = told(", which leads the fleet, is killed (SIGKILL)").context("no kill")?;
    let (_, after) = told("all partitions flow again, ").context("no recovery")?;
    let seconds: f64 = after.trim_end_matches(" s after that").parse()?;
    ensure!(seconds > 0.0 && seconds < RECOVERS_WITHIN_S, "{text}");
    let (before, later) = text.split_once(&format!("{lost} is started again")).context("no restart")?;
    let moves = |text: &str| text.matches(" moved from ").count();
    let away = before.matches(&format!(" moved from {lost} to ")).count();
    ensure!(away == 2 && moves(before) == away, "{text}");
    let back = later.lines().filter(|line| line.ends_with(&format!(" to {lost}"))).count();
    ensure!(back > 0 && later.contains(&format!("{lost} has {back} partitions again")), "{text}");
    Ok(())
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
        ensure!((700..4_000).contains(&end) && row[2] == row[3] && row[2].len() == 8, "{row:?}");
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
fn ctrl_c_stops_nodes_and_clusters_and_leaves_nothing() {
    Scenario::run("demo-interrupt", |scenario| {
        let mut demo = Demo::start(scenario, "demo", &["--for", "60s"])?;
        let apis = demo.apis()?;
        demo.process.signal(Signal::INT)?;
        let status = demo.process.wait(STOPS_WITHIN)?;
        ensure!(status.code() == Some(130), "{status}: {}", demo.text());
        ensure!(demo.text().contains("interrupted"), "{}", demo.text());
        for api in apis {
            ensure!(TcpStream::connect(&api).is_err(), "a node still listens at {api}");
        }
        demo.check_nothing_left()
    });
}

#[test]
fn a_demo_that_is_killed_takes_its_nodes_along() {
    Scenario::run("demo-killed", |scenario| {
        let mut demo = Demo::start(scenario, "demo", &["--for", "60s"])?;
        let apis = demo.apis()?;
        demo.process.kill()?;
        for api in apis {
            poll_until(STOPS_WITHIN, POLL, || TcpStream::connect(&api).is_err().then_some(()))
                .with_context(|| format!("a node outlives its demo at {api}"))?;
        }
        Ok(())
    });
}

#[test]
fn a_node_that_somebody_else_kills_is_named_and_the_proof_holds() {
    Scenario::run("demo-other-hand", |scenario| {
        let mut demo = Demo::start(scenario, "demo", &["--for", "18s"])?;
        demo.apis()?;
        signal_pid(demo.node_pid("node-2")?, Signal::KILL)?;
        demo.wait_shown("node-2 ended, not by this demo: signal: 9 (SIGKILL)")?;
        let status = demo.process.wait(ENDS_WITHIN)?;
        let text = demo.text();
        ensure!(status.success() && text.contains("records verified:"), "{status}: {text}");
        ensure!(text.contains("node-2 is started again"), "{text}");
        demo.check_nothing_left()
    });
}

#[test]
fn wrong_flags_and_busy_ports_are_named() {
    Scenario::run("demo-flags", |scenario| {
        let wrong = [
            (["--for", "1s"], "5s at least"),
            (["--for", "soon"], "such as 30s"),
            (["--records-per-second", "0"], "--records-per-second"),
            (["--port", "65525"], "--port"),
        ];
        for (arguments, words) in wrong {
            let said = run(scenario, &arguments)?;
            let stderr = String::from_utf8_lossy(&said.stderr);
            ensure!(said.status.code() == Some(2) && stderr.contains(words), "{arguments:?}: {said:?}");
        }
        // An API's, a node's for its peers, a broker's of east, the last of west.
        let (first, leases) = consecutive_ports()?;
        drop(leases);
        for taken in [first + 1, first + 5, first + 7, first + PORTS - 1] {
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

/// The first of as many neighbours that are free.
fn consecutive_ports() -> Result<(u16, Vec<TcpListener>)> {
    for _ in 0..50 {
        let first = PortLease::take()?.port();
        let all: Option<Vec<_>> =
            (first..first + PORTS).map(|port| TcpListener::bind(("127.0.0.1", port)).ok()).collect();
        if let Some(all) = all {
            return Ok((first, all));
        }
    }
    anyhow::bail!("no {PORTS} free ports in a row")
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
