//! The image, built by buildah in chroot isolation, without a container engine, from a base that is made
//! of Debian's packages and the Rust toolchain at hand. What is in it is run as its user.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::{poll_until, workspace_root};

use super::findings::{Findings, Outcome};
use super::tools;
use crate::{exec, prerequisites};

const DEBIAN_PACKAGES: [&str; 2] = ["buildah", "mmdebstrap"];
const BASE: &str = "localhost/lockstep-build-base";
const IMAGE: &str = "localhost/lockstep:check";
/// The release of Debian that the container file's own default base stands on.
const DEBIAN: &str = "bookworm";
/// What CONTRIBUTING.md lists for the build, and the certificate authorities.
const BASE_PACKAGES: &str =
    "ca-certificates,cmake,g++,libcurl4-openssl-dev,libssl-dev,make,pkg-config,zlib1g-dev";
/// Of the machine: where packages come through a mirror, its authority is among them.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";
const BASE_PATH: &str =
    "PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// From the start of the container to the first answer.
const READY_LIMIT: Duration = Duration::from_secs(30);
const READY_POLL: Duration = Duration::from_millis(200);
/// A node exits within 10 s of being told to.
const STOP_LIMIT: Duration = Duration::from_secs(10);
const HTTP_LIMIT: Duration = Duration::from_secs(2);

pub fn check(profile: &str) -> Result<Outcome> {
    prerequisites::install_where_possible(&DEBIAN_PACKAGES)?;
    for program in DEBIAN_PACKAGES {
        if let Err(why) = tools::on_path(program) {
            return Ok(Outcome::Skipped(why));
        }
    }
    let folder = workspace_root().join("target").join("image");
    fs::create_dir_all(&folder)?;
    let buildah = Buildah { root: folder.join("storage"), run: folder.join("run") };
    if !exec::capture(&mut buildah.command(&["inspect", "--type", "image", BASE]))?.0 {
        make_base(&buildah, &folder)?;
    }
    build(&buildah, profile)?;
    let container = buildah.said(&["from", "--pull-never", IMAGE])?;
    let judged = judge(&buildah, &container);
    buildah.said(&["rm", &container])?;
    judged.map(Outcome::Judged)
}

struct Buildah {
    root: PathBuf,
    run: PathBuf,
}

impl Buildah {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("buildah");
        command.arg("--root").arg(&self.root).arg("--runroot").arg(&self.run).args(arguments);
        command
    }

    /// What it printed on success.
    fn said(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command(arguments).output().context("start buildah")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "buildah {}: {said}", arguments.join(" "));
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn inside(&self, container: &str, arguments: &[&str]) -> Command {
        let mut command =
            self.command(&["run", "--isolation", "chroot", "--network", "host", container, "--"]);
        command.arg("/usr/bin/lockstep").args(arguments);
        command
    }
}

fn make_base(buildah: &Buildah, folder: &Path) -> Result<()> {
    let packages = folder.join("base.tar");
    let mut debian = Command::new("mmdebstrap");
    debian.args(["--quiet", "--variant=minbase", &format!("--include={BASE_PACKAGES}"), DEBIAN]);
    exec::run(debian.arg(&packages))?;
    let (_, toolchain) = exec::capture(Command::new("rustc").args(["--print", "sysroot"]))?;
    let toolchain = toolchain.trim();
    let container = buildah.said(&["from", "scratch"])?;
    buildah.said(&["add", &container, &packages.to_string_lossy(), "/"])?;
    for part in ["bin", "lib"] {
        buildah.said(&[
            "add",
            &container,
            &format!("{toolchain}/{part}"),
            &format!("/usr/local/rust/{part}"),
        ])?;
    }
    buildah.said(&["copy", &container, AUTHORITIES, AUTHORITIES])?;
    let home = "CARGO_HOME=/usr/local/cargo";
    buildah.said(&["config", "--env", BASE_PATH, "--env", home, &container])?;
    buildah.said(&["commit", "--rm", &container, BASE])?;
    fs::remove_file(&packages).context("remove the packages")
}

fn build(buildah: &Buildah, profile: &str) -> Result<()> {
    let profile = format!("PROFILE={profile}");
    let base = format!("BUILD_BASE={BASE}");
    let file = "deploy/container/Containerfile";
    let ignored = "deploy/container/Containerfile.dockerignore";
    let mut build =
        buildah.command(&["build", "--isolation", "chroot", "--pull-never", "--build-arg", &base]);
    build.args(["--build-arg", &profile]);
    exec::run(
        build.args(["--ignorefile", ignored, "-f", file, "-t", IMAGE, "."]).current_dir(workspace_root()),
    )
}

fn judge(buildah: &Buildah, container: &str) -> Result<Findings> {
    let mut findings = Findings::default();
    let (is_fine, version) = exec::capture(&mut buildah.inside(container, &["--version"]))?;
    findings.expect(is_fine && version.contains(env!("CARGO_PKG_VERSION")), format!("--version: {version}"));
    let (has_audit, said) = exec::capture(&mut buildah.inside(container, &["verify", "--help"]))?;
    findings.expect(has_audit, format!("verify --help: {said}"));

    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let address = format!("127.0.0.1:{port}");
    let arguments = ["server", "--bootstrap", "--listen", &address, "--until-stdin-ends"];
    let mut node = buildah.inside(container, &arguments).stdin(Stdio::piped()).spawn()?;
    let ready = poll_until(READY_LIMIT, READY_POLL, || answer(&address).ok().filter(|a| a.contains(" 200 ")));
    findings.expect(ready.is_some(), "a node in the image isn't ready after its first start");
    drop(node.stdin.take());
    let ended = poll_until(STOP_LIMIT, READY_POLL, || node.try_wait().ok().flatten());
    findings.expect(
        ended.is_some_and(|status| status.success()),
        format!("a node in the image ends with {ended:?}"),
    );
    if ended.is_none() {
        node.kill().context("end the node")?;
        node.wait()?;
    }
    let size = buildah.said(&["images", "--format", "{{.Size}}", IMAGE])?;
    findings.tell(format!("{}, {size}, founds a fleet, is ready and stops", version.trim()));
    Ok(findings)
}

fn answer(address: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(HTTP_LIMIT))?;
    write!(stream, "GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}
