//! The compose file: read by docker-compose, then held against what a fleet needs.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::findings::{Findings, Outcome, is_loopback, list, port, text};
use super::known::Known;
use super::{folder, scratch, tools};
use crate::exec;

const FILE: &str = "compose.yaml";
const CLUSTERS: usize = 2;
const NODES: usize = 3;
/// A stop hands mirrors over within 10 s.
const STOP_SECONDS_MIN: u32 = 15;

/// A place in the file, what is put there, and what that is.
fn planted() -> [(&'static str, &'static str, Value); 12] {
    [
        ("a second founder", "/services/lockstep-2/environment/LOCKSTEP_BOOTSTRAP", json!("true")),
        ("no founder", "/services/lockstep-1/environment/LOCKSTEP_BOOTSTRAP", json!("false")),
        (
            "a node to join that isn't there",
            "/services/lockstep-2/environment/LOCKSTEP_JOIN",
            json!("west:7781"),
        ),
        ("another's name", "/services/lockstep-3/environment/LOCKSTEP_ADVERTISE", json!("lockstep-2:7781")),
        (
            "a port nobody listens on",
            "/services/lockstep-3/environment/LOCKSTEP_ADVERTISE",
            json!("lockstep-3:7780"),
        ),
        ("an open API", "/services/lockstep-1/environment/LOCKSTEP_LISTEN", json!("0.0.0.0:7780")),
        ("a port open to the world", "/services/lockstep-1/ports", json!(["17782:7782"])),
        ("data in the container", "/services/lockstep-1/volumes", json!([])),
        ("two nodes on one volume", "/services/lockstep-2/volumes", json!(["lockstep-1:/var/lib/lockstep"])),
        ("a stop that is cut short", "/services/lockstep-1/stop_grace_period", json!("5s")),
        ("one cluster id twice", "/services/west/environment/CLUSTER_ID", json!("yKnYp4LZWd2v7b2-0TbMWA")),
        (
            "a variable of nobody's",
            "/services/lockstep-1/environment/LOCKSTEP_JOINS",
            json!("lockstep-2:7781"),
        ),
    ]
}

pub fn check(known: &Known) -> Result<Outcome> {
    let compose = match tools::on_path("docker-compose") {
        Ok(compose) => compose,
        Err(why) => return Ok(Outcome::Skipped(why)),
    };
    let content = fs::read_to_string(folder().join("compose").join(FILE)).context("read the compose file")?;
    let mut findings = Findings::default();
    let (is_fine, said) = parse(&compose, &content)?;
    findings.expect(is_fine, format!("docker-compose config: {said}"));
    let document: Value = serde_saphyr::from_str(&content).context("read the compose file as YAML")?;
    findings.take(FILE, rules(&document, known));
    let misspelt = content.replacen("restart:", "restrat:", 1);
    findings
        .expect(!parse(&compose, &misspelt)?.0, "planted and not caught: a key that compose doesn't know");
    for (what, pointer, value) in planted() {
        let mut copy = document.clone();
        put(&mut copy, pointer, value);
        let is_caught = copy != document && !rules(&copy, known).wrong.is_empty();
        findings.expect(is_caught, format!("planted and not caught: {what}"));
    }
    findings.tell(format!("docker-compose parses it; {CLUSTERS} clusters, {NODES} nodes"));
    Ok(Outcome::Judged(findings))
}

fn parse(compose: &Path, content: &str) -> Result<(bool, String)> {
    let file = scratch("compose")?.join(FILE);
    fs::write(&file, content)?;
    exec::capture(Command::new(compose).arg("-f").arg(&file).args(["config", "--quiet"]))
}

/// Sets a value whether or not there is one.
fn put(document: &mut Value, pointer: &str, value: Value) {
    let Some((parent, key)) = pointer.rsplit_once('/') else { return };
    if let Some(parent) = document.pointer_mut(parent) {
        parent[key] = value;
    }
}

fn rules(document: &Value, known: &Known) -> Findings {
    let mut findings = Findings::default();
    let services = document.get("services").and_then(Value::as_object).cloned().unwrap_or_default();
    let of = |image: &str| -> Vec<(&String, &Value)> {
        services.iter().filter(|(_, service)| text(service, "/image").starts_with(image)).collect()
    };
    let (clusters, nodes) = (of("apache/kafka:"), of(concat!("lockstep:", env!("CARGO_PKG_VERSION"))));
    findings.expect(clusters.len() == CLUSTERS, format!("{} clusters", clusters.len()));
    findings.expect(nodes.len() == NODES, format!("{} nodes of this version", nodes.len()));
    let ids: BTreeSet<&str> = clusters.iter().map(|(_, c)| text(c, "/environment/CLUSTER_ID")).collect();
    findings.expect(ids.len() == CLUSTERS, "clusters with the same id");
    for (name, cluster) in &clusters {
        let log_dir = text(cluster, "/environment/KAFKA_LOG_DIRS");
        findings.expect(volume(cluster, log_dir).is_some(), format!("{name}: its logs are on no volume"));
    }

    let names: BTreeSet<&str> = nodes.iter().map(|(name, _)| name.as_str()).collect();
    let founders: Vec<&str> = nodes
        .iter()
        .filter(|(_, node)| text(node, "/environment/LOCKSTEP_BOOTSTRAP") == "true")
        .map(|(name, _)| name.as_str())
        .collect();
    findings.expect(founders.len() == 1, format!("{} nodes found a fleet", founders.len()));
    let volumes: BTreeSet<_> =
        nodes.iter().filter_map(|(_, n)| volume(n, text(n, "/environment/LOCKSTEP_DATA_DIR"))).collect();
    findings.expect(volumes.len() == NODES, "not each node has a volume of its own under its data directory");
    for (name, node) in nodes {
        let founder = founders.first().copied().unwrap_or_default();
        findings.take(name, node_rules(name, node, document, &names, founder, known));
    }
    let all_ports: Vec<&str> =
        services.values().flat_map(|service| list(service, "/ports")).filter_map(Value::as_str).collect();
    let is_local = |port: &&str| port.starts_with("127.0.0.1:");
    findings.expect(all_ports.iter().all(is_local), "a port is open beyond this machine");
    let distinct: BTreeSet<_> =
        all_ports.iter().filter_map(|port| port.rsplit_once(':')).map(|p| p.0).collect();
    findings.expect(distinct.len() == all_ports.len(), "a port of this machine twice");
    findings
}

fn node_rules(
    name: &str,
    node: &Value,
    document: &Value,
    names: &BTreeSet<&str>,
    founder: &str,
    known: &Known,
) -> Findings {
    let mut findings = Findings::default();
    let set = |key: &str| text(node, &format!("/environment/LOCKSTEP_{key}"));
    let environment = node.get("environment").and_then(Value::as_object).cloned().unwrap_or_default();
    environment.keys().for_each(|key| known.variable(key, &mut findings));

    let peers = port(set("PEER_LISTEN")).unwrap_or_default();
    let reached_as = |host: &str| format!("{host}:{peers}");
    findings.expect(set("ADVERTISE") == reached_as(name), "isn't advertised under its own name and port");
    if name != founder {
        let joined: Vec<&str> = set("JOIN").split(',').collect();
        let others: Vec<String> = names.iter().map(|name| reached_as(name)).collect();
        let are_there = joined.iter().all(|node| others.iter().any(|other| other == node));
        findings.expect(are_there, format!("joins {joined:?}, which aren't all there"));
        findings.expect(joined.contains(&reached_as(founder).as_str()), "doesn't join the founder");
        findings.expect(!joined.contains(&reached_as(name).as_str()), "joins itself");
    }
    findings.expect(is_loopback(set("LISTEN")), "its API is open to others");
    let secret = set("JOIN_TOKEN_FILE").strip_prefix("/run/secrets/").unwrap_or_default();
    let has_secret = list(node, "/secrets").iter().any(|given| given == secret)
        && document.pointer(&format!("/secrets/{secret}")).is_some();
    findings.expect(has_secret, "isn't given the secret that it is told to read");

    let hardened =
        node.get("read_only") == Some(&Value::Bool(true)) && list(node, "/cap_drop") == [json!("ALL")];
    findings.expect(hardened, "has rights that it doesn't need");
    let stop = text(node, "/stop_grace_period").trim_end_matches('s').parse::<u32>().unwrap_or_default();
    findings.expect(stop >= STOP_SECONDS_MIN, "is stopped before it has handed its mirrors over");
    findings.expect(node.get("depends_on").is_none(), "waits for others, which may wait for it");
    findings
}

/// What is mounted at a path.
fn volume<'a>(service: &'a Value, path: &str) -> Option<&'a str> {
    let mounts = list(service, "/volumes").iter().filter_map(|mount| mount.as_str()?.split_once(':'));
    mounts.filter(|(_, at)| *at == path).map(|(name, _)| name).next()
}
