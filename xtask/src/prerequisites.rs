//! What the tests need beside the Rust toolchain. Installs Debian packages where it may, and says
//! what is missing where it may not.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use harness::artifacts::{Artifacts, KAFKA_VERSIONS};

use crate::exec;

/// For librdkafka, which the tests and `lockstep verify` build from source: its CMake build wants curl's headers even
/// where nothing of them is used.
const DEBIAN_PACKAGES: [&str; 6] =
    ["cmake", "g++", "libcurl4-openssl-dev", "libssl-dev", "pkg-config", "zlib1g-dev"];
/// The oldest Java that runs every Kafka version of the tests.
const JAVA_VERSION_MIN: u32 = 17;

pub fn ensure_all() -> Result<()> {
    ensure_java()?;
    ensure_debian_packages()?;
    for version in KAFKA_VERSIONS {
        Artifacts::ensure(version)?;
    }
    Ok(())
}

fn ensure_java() -> Result<()> {
    let hint = || format!("a JDK of {JAVA_VERSION_MIN} or later is needed (Debian: openjdk-17-jdk-headless)");
    let (_, text) = exec::capture(Command::new("java").arg("-version")).with_context(hint)?;
    let major = java_major(&text).with_context(|| format!("`java -version` says {text:?}"))?;
    ensure!(major >= JAVA_VERSION_MIN, "Java {major} found; {}", hint());
    exec::capture(Command::new("mvn").arg("-v")).context("Maven 3.8 or later is needed (Debian: maven)")?;
    Ok(())
}

/// From a line like `openjdk version "17.0.15" 2025-04-15`.
fn java_major(text: &str) -> Option<u32> {
    let (_, quoted) = text.split_once("version \"")?;
    let digits = quoted.split(|letter: char| !letter.is_ascii_digit()).next()?;
    digits.parse().ok()
}

fn ensure_debian_packages() -> Result<()> {
    let all = DEBIAN_PACKAGES.join(" ");
    let Some(missing) = missing(&DEBIAN_PACKAGES)? else {
        eprintln!("not a Debian system; librdkafka's build needs what Debian calls {all}");
        return Ok(());
    };
    if !missing.is_empty() && !is_root()? {
        bail!("missing Debian packages; run as root: apt-get install {}", missing.join(" "));
    }
    install(&missing)
}

/// Installs what of these is missing where it may. Where it may not, whoever needs them finds out.
pub fn install_where_possible(packages: &[&str]) -> Result<()> {
    match missing(packages)? {
        Some(missing) if is_root()? => install(&missing),
        _ => Ok(()),
    }
}

/// `None` where packages aren't Debian's.
fn missing<'a>(packages: &[&'a str]) -> Result<Option<Vec<&'a str>>> {
    let query = |package: &str| {
        let mut command = Command::new("dpkg-query");
        exec::capture(command.args(["-W", "-f", "${db:Status-Status}", package]))
    };
    let Ok((true, _)) = query("dpkg") else { return Ok(None) };
    let mut missing = Vec::new();
    for package in packages {
        if query(package)? != (true, "installed".to_owned()) {
            missing.push(*package);
        }
    }
    Ok(Some(missing))
}

fn is_root() -> Result<bool> {
    let (_, user) = exec::capture(Command::new("id").arg("-u"))?;
    Ok(user.trim() == "0")
}

fn install(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let apt_get = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    exec::run(apt_get().args(["update", "-q"]))?;
    exec::run(apt_get().args(["install", "-y", "-q", "--no-install-recommends"]).args(packages))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_of_java_is_read() {
        assert_eq!(java_major("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK"), Some(17));
        assert_eq!(java_major("openjdk version \"21\" 2023-09-19"), Some(21));
        assert_eq!(java_major("java version \"1.8.0_392\""), Some(1));
        assert_eq!(java_major("no java here"), None);
    }
}
