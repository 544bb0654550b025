//! Each walk-through of `docs/walkthroughs` does what it says, typed as it stands there.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use rand::Rng;
use rand::seq::IndexedRandom;
use tests::artifacts::{Artifacts, KAFKA_DEFAULT};
use tests::cluster::{KafkaCluster, KafkaConfig};
use tests::node::{Node, find_binary};
use tests::scenario::{self, OLDEST_AND_NEWEST, Scenario};

/// As Kafka's scripts are called, and the class behind each.
const TOOLS: [(&str, &str); 5] = [
    ("kafka-console-consumer.sh", "org.apache.kafka.tools.consumer.ConsoleConsumer"),
    ("kafka-console-producer.sh", "org.apache.kafka.tools.ConsoleProducer"),
    ("kafka-consumer-groups.sh", "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"),
    ("kafka-get-offsets.sh", "org.apache.kafka.tools.GetOffsetShell"),
    ("kafka-topics.sh", "org.apache.kafka.tools.TopicCommand"),
];

/// In a normal run so many of them, drawn from the seed.
const DRAWN: usize = 3;
/// That `SITES` names.
const SITES: usize = 10;

#[test]
fn each_walk_through_does_what_it_says() {
    Scenario::share("walk-throughs", |scenario| {
        let mut rng = scenario.rng();
        let all = documents()?;
        let drawn = if scenario::all_cells() { all.len() } else { DRAWN };
        let version = OLDEST_AND_NEWEST[rng.random_range(0..OLDEST_AND_NEWEST.len())];
        for name in all.choose_multiple(&mut rng, drawn) {
            walk(scenario, name, version).with_context(|| name.clone())?;
            scenario.note(name);
        }
        Ok(())
    });
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/walkthroughs")
}

/// Names of all but the list of them.
fn documents() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for file in fs::read_dir(directory()).context("list the walk-throughs")? {
        let path = file.context("list the walk-throughs")?.path();
        let name = path.file_stem().and_then(|name| name.to_str()).context("a name")?;
        if name != "README" {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Type(String),
    /// Each line is in what was printed.
    Printed(Vec<String>),
    EastEnds,
}

fn walk(scenario: &Scenario, name: &str, version: &str) -> Result<()> {
    eprintln!("{name}, Kafka {version}");
    let parent = scenario.directory().join(name);
    fs::create_dir(&parent).context("make a directory")?;
    let document = directory().join(format!("{name}.md"));
    let text = fs::read_to_string(&document).with_context(|| document.display().to_string())?;
    let start = |name: &str| KafkaCluster::start(KafkaConfig::single(name, &parent).version(version));
    let needs = |variable: &str| text.contains(&format!("${variable}"));
    let mut east = needs("EAST").then(|| start("east")).transpose()?;
    let west = start("west")?;
    let south = needs("SOUTH").then(|| start("south")).transpose()?;
    let sites = if needs("SITES") { SITES } else { 0 };
    let sites: Vec<KafkaCluster> =
        (1..=sites).map(|site| start(&format!("site-{site}"))).collect::<Result<_>>()?;
    let node = Node::bootstrap("node-1", &parent)?;
    let bootstrap =
        |cluster: &Option<KafkaCluster>| cluster.as_ref().map(KafkaCluster::bootstrap).unwrap_or_default();
    let environment: BTreeMap<&str, String> = BTreeMap::from([
        ("EAST", bootstrap(&east)),
        ("WEST", west.bootstrap()),
        ("SOUTH", bootstrap(&south)),
        ("SITES", sites.iter().map(KafkaCluster::bootstrap).collect::<Vec<_>>().join(" ")),
        ("LOCKSTEP_URL", node.url()),
        ("PATH", path(&tools(&parent)?)?),
    ]);
    let work = parent.join("work");
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
                    let at = rest.find(&line).with_context(|| format!("'{line}' isn't in:\n{printed}"))?;
                    rest = &rest[at + line.len()..];
                }
            }
            Step::EastEnds => east.take().context("east has ended already")?.stop()?,
        }
    }
    drop(node);
    Ok(())
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
