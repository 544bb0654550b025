//! Each walk-through of `docs/walkthroughs` does what it says, typed as it stands there.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use rand::Rng;
use tests::artifacts::{Artifacts, KAFKA_DEFAULT};
use tests::cluster::{KafkaCluster, KafkaConfig};
use tests::node::{Node, find_binary};
use tests::scenario::Scenario;

const VERSIONS: [&str; 2] = ["3.9.1", "4.4.0"];
/// As Kafka's scripts are called, and the class behind each.
const TOOLS: [(&str, &str); 4] = [
    ("kafka-console-consumer.sh", "org.apache.kafka.tools.consumer.ConsoleConsumer"),
    ("kafka-console-producer.sh", "org.apache.kafka.tools.ConsoleProducer"),
    ("kafka-consumer-groups.sh", "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"),
    ("kafka-topics.sh", "org.apache.kafka.tools.TopicCommand"),
];

#[test]
fn disaster_recovery() {
    walk("disaster-recovery");
}

#[test]
fn migrate_consumers_first() {
    walk("migrate-consumers-first");
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Type(String),
    /// Each line is in what was printed.
    Printed(Vec<String>),
    EastEnds,
}

fn walk(name: &str) {
    Scenario::share(&format!("walk-{name}"), |scenario| {
        let version = VERSIONS[scenario.rng().random_range(0..VERSIONS.len())];
        eprintln!("Kafka {version}");
        let document =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/walkthroughs").join(format!("{name}.md"));
        let text = fs::read_to_string(&document).with_context(|| document.display().to_string())?;
        let start = |name: &str| {
            let config = KafkaConfig {
                version: version.to_owned(),
                ..KafkaConfig::single(name, scenario.directory())
            };
            KafkaCluster::start(config)
        };
        let (mut east, west) = (Some(start("east")?), start("west")?);
        let node = Node::bootstrap("node-1", scenario.directory())?;
        let environment: BTreeMap<&str, String> = BTreeMap::from([
            ("EAST", east.as_ref().map(KafkaCluster::bootstrap).unwrap_or_default()),
            ("WEST", west.bootstrap()),
            ("LOCKSTEP_URL", node.url()),
            ("PATH", path(&tools(scenario.directory())?)?),
        ]);
        let work = scenario.directory().join("work");
        fs::create_dir(&work).context("make a directory")?;
        let mut printed = String::new();
        let steps = steps(&text)?;
        ensure!(steps.iter().any(|step| matches!(step, Step::Printed(_))), "nothing is checked");
        for step in steps {
            match step {
                Step::Type(lines) => printed = typed(&lines, &work, &environment)?,
                Step::Printed(lines) => {
                    let mut rest = printed.as_str();
                    for line in lines {
                        let at =
                            rest.find(&line).with_context(|| format!("'{line}' isn't in:\n{printed}"))?;
                        rest = &rest[at + line.len()..];
                    }
                }
                Step::EastEnds => east.take().context("east has ended already")?.stop()?,
            }
        }
        drop(node);
        Ok(())
    });
}

fn steps(text: &str) -> Result<Vec<Step>> {
    let (mut steps, mut lines) = (Vec::new(), text.lines());
    while let Some(line) = lines.next() {
        let block: &mut dyn FnMut() -> String = &mut || {
            lines
                .by_ref()
                .take_while(|line| *line != "```")
                .fold(String::new(), |all, line| all + line + "\n")
        };
        match line.trim() {
            "```sh" => steps.push(Step::Type(block())),
            "```text" => steps.push(Step::Printed(block().lines().map(str::to_owned).collect())),
            "<!-- east ends -->" => steps.push(Step::EastEnds),
            other => {
                ensure!(!other.starts_with("```") && !other.starts_with("<!--"), "{other}: not known here")
            }
        }
    }
    Ok(steps)
}

fn typed(lines: &str, work: &Path, environment: &BTreeMap<&str, String>) -> Result<String> {
    let output = Command::new("sh")
        .args(["-eu", "-c", lines])
        .current_dir(work)
        .envs(environment)
        .output()
        .context("run a shell")?;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        bail!("{}\n{lines}\n{stdout}\n{stderr}", output.status);
    }
    eprintln!("{lines}{stdout}");
    Ok(stdout.into_owned())
}

/// A directory with the product and Kafka's scripts.
fn tools(directory: &Path) -> Result<PathBuf> {
    let bin = directory.join("bin");
    fs::create_dir(&bin).context("make a directory")?;
    symlink(fs::canonicalize(find_binary()?).context("the binary")?, bin.join("lockstep")).context("link")?;
    let jars = Artifacts::ensure_tools(KAFKA_DEFAULT)?;
    for (script, class) in TOOLS {
        let text = format!(
            "#!/bin/sh\nexec java -cp '{}' -Dorg.slf4j.simpleLogger.defaultLogLevel=error {class} \"$@\"\n",
            jars.class_path()
        );
        let file = bin.join(script);
        fs::write(&file, text).context("write a script")?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).context("let it run")?;
    }
    Ok(bin)
}

fn path(first: &Path) -> Result<String> {
    Ok(format!("{}:{}", first.display(), std::env::var("PATH").context("PATH")?))
}

#[test]
fn blocks_are_steps() {
    let text = "# A\n\n```sh\na\nb\n```\n\n```text\nc\n```\n<!-- east ends -->\n";
    let found = steps(text).expect("steps");
    assert_eq!(found, [Step::Type("a\nb\n".into()), Step::Printed(vec!["c".into()]), Step::EastEnds]);
    assert!(steps("```rust\n```\n").is_err());
}
