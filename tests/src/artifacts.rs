//! Real Apache Kafka, brought by Maven into `.kafka/<version>/` once and used from there.
//! Safe to call from several processes at once; a half-finished download is done again.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace_root;

/// The versions the tests know; any other published one can be started as well.
pub const KAFKA_VERSIONS: [&str; 3] = ["3.9.1", "4.1.1", "4.4.0"];
/// What tests use when the version doesn't matter.
pub const KAFKA_DEFAULT: &str = "4.4.0";

/// Pinned, as Maven's own default is a version from 2014.
const DEPENDENCY_PLUGIN: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1";
/// MirrorMaker 2 that the bench compares with; 4.4.0's artifacts lack a part.
pub const MIRROR_MAKER_DEFAULT: &str = "4.1.1";
/// What a broker needs.
const BROKER: [&str; 1] = ["kafka_2.13"];
const MIRROR_MAKER: [&str; 2] = ["connect-mirror", "connect-runtime"];
const TOOLS: [&str; 1] = ["kafka-tools"];
/// Kafka names the API only; one binding, the version that fits its slf4j-api, makes the broker log.
const SLF4J_BINDING: &str = "1.7.36";
/// Written last: without it the directory doesn't count.
const MARKER: &str = "complete";

/// The jars of one Kafka version's brokers, of its MirrorMaker 2, or of its command-line tools.
#[derive(Clone, Debug)]
pub struct Artifacts {
    pub version: String,
    jars: PathBuf,
}

impl Artifacts {
    /// Returns the jars of `version`, downloading them when they are not there.
    pub fn ensure(version: &str) -> Result<Artifacts> {
        check_version(version)?;
        Self::ensure_modules(version, version, &BROKER)
    }

    /// Like [`ensure`](Self::ensure), of MirrorMaker 2.
    pub fn ensure_mirror_maker(version: &str) -> Result<Artifacts> {
        check_version(version)?;
        Self::ensure_modules(version, &format!("mirror-maker-{version}"), &MIRROR_MAKER)
    }

    /// Like [`ensure`](Self::ensure), of Kafka's command-line tools.
    pub fn ensure_tools(version: &str) -> Result<Artifacts> {
        check_version(version)?;
        Self::ensure_modules(version, &format!("tools-{version}"), &TOOLS)
    }

    fn ensure_modules(version: &str, folder: &str, modules: &[&str]) -> Result<Artifacts> {
        let home = kafka_home();
        let directory = home.join(folder);
        let artifacts = Artifacts { version: version.to_owned(), jars: directory.join("jars") };
        if directory.join(MARKER).exists() {
            return Ok(artifacts);
        }
        fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
        // One lock for all versions: Maven 3 doesn't share its local repository between processes.
        let lock_path = home.join("download.lock");
        let lock = File::create(&lock_path).with_context(|| format!("create {}", lock_path.display()))?;
        lock.lock().with_context(|| format!("lock {}", lock_path.display()))?;
        if !directory.join(MARKER).exists() {
            download(version, modules, &directory, &artifacts.jars)?;
        }
        Ok(artifacts)
    }

    /// The argument of `java -cp`.
    pub fn class_path(&self) -> String {
        format!("{}/*", self.jars.display())
    }
}

/// Everything of Kafka's in this checkout: jars, and clusters started by hand. Git ignores it.
pub fn kafka_home() -> PathBuf {
    workspace_root().join(".kafka")
}

/// A version becomes a path and a line of XML: digits and dots only.
fn check_version(version: &str) -> Result<()> {
    let parts: Vec<&str> = version.split('.').collect();
    let numeric = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if parts.len() != 3 || !parts.iter().all(numeric) {
        bail!("{version:?} is not a Kafka version; expected three numbers such as {KAFKA_DEFAULT}");
    }
    Ok(())
}

fn download(version: &str, modules: &[&str], directory: &Path, jars: &Path) -> Result<()> {
    eprintln!("fetching {} {version} of Apache Kafka with Maven", modules.join(" and "));
    if jars.exists() {
        fs::remove_dir_all(jars).with_context(|| format!("remove half-finished {}", jars.display()))?;
    }
    let pom = directory.join("pom.xml");
    fs::write(&pom, pom_text(version, modules)).with_context(|| format!("write {}", pom.display()))?;
    let output = Command::new("mvn")
        .args(["-q", "-B", "-f"])
        .arg(&pom)
        .arg(format!("{DEPENDENCY_PLUGIN}:copy-dependencies"))
        .arg("-DincludeScope=runtime")
        .arg(format!("-DoutputDirectory={}", jars.display()))
        .output()
        .context("run mvn; install Maven 3.8 or later (Debian package maven)")?;
    if !output.status.success() {
        bail!(
            "Maven could not fetch Kafka {version} ({}):\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    for module in modules {
        let jar = jars.join(format!("{module}-{version}.jar"));
        if !jar.exists() {
            bail!("Maven succeeded without {}", jar.display());
        }
    }
    let marker = directory.join(MARKER);
    fs::write(&marker, "").with_context(|| format!("write {}", marker.display()))
}

fn pom_text(version: &str, modules: &[&str]) -> String {
    let dependency = |module: &&str| {
        format!(
            r#"
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>{module}</artifactId>
      <version>{version}</version>
    </dependency>"#
        )
    };
    let dependencies: String = modules.iter().map(dependency).collect();
    format!(
        r#"<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>lockstep</groupId>
  <artifactId>kafka-for-tests</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>{dependencies}
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>{SLF4J_BINDING}</version>
    </dependency>
  </dependencies>
</project>
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_versions_are_taken() {
        for good in KAFKA_VERSIONS {
            check_version(good).unwrap();
        }
        for bad in ["", "4", "4.4", "4.4.0.1", "4.4.x", "../4.4.0", "4..0"] {
            assert!(check_version(bad).is_err(), "{bad:?} was taken");
        }
    }
}
