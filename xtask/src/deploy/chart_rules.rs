//! What a rendering of the chart must have, whatever the values. Pure: documents in, findings out.

use serde_json::Value;

use super::findings::{Findings, contains, is_loopback, list, port, text};
use super::known::Known;

const POD: &str = "/spec/template/spec";
const CONTAINER: &str = "/spec/template/spec/containers/0";
/// A stop hands mirrors over within 10 s.
const STOP_SECONDS_MIN: u64 = 15;
/// The image's.
const USER: u64 = 10_001;
const API_PORT: u16 = 7780;

#[derive(Clone)]
pub struct Rendering {
    pub documents: Vec<Value>,
    /// The first pod founds a fleet.
    pub founds: bool,
    /// The API is on the pod network.
    pub exposes: bool,
    /// The chart brings the join token.
    pub makes_secret: bool,
}

impl Rendering {
    fn all(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.documents.iter().filter(move |document| document["kind"] == kind)
    }

    fn first(&self, kind: &str) -> &Value {
        self.all(kind).next().unwrap_or(&Value::Null)
    }
}

pub fn rules(rendering: &Rendering, known: &Known) -> Findings {
    let mut findings = Findings::default();
    findings.expect(rendering.all("StatefulSet").count() == 1, "not one StatefulSet");
    let set = rendering.first("StatefulSet");
    findings.take("StatefulSet", stateful_set(set));
    findings.take("container", container(set, known));
    findings.take("pod", pod(set, rendering));
    findings.take("first start", first_start(set, rendering, known));
    findings.take("network", network(set, rendering));
    findings
}

/// The order of starts, the pods, and what may be taken away.
fn stateful_set(set: &Value) -> Findings {
    let mut findings = Findings::default();
    let labels = &set["spec"]["template"]["metadata"]["labels"];
    findings.expect(contains(labels, &set["spec"]["selector"]["matchLabels"]), "doesn't select its own pods");
    findings
        .expect(text(set, "/spec/podManagementPolicy") == "Parallel", "nodes wait for each other to start");
    let keeps =
        |when: &str| text(set, &format!("/spec/persistentVolumeClaimRetentionPolicy/{when}")) == "Retain";
    findings.expect(keeps("whenDeleted") && keeps("whenScaled"), "volumes are deleted");
    let stop = set.pointer(&format!("{POD}/terminationGracePeriodSeconds")).and_then(Value::as_u64);
    findings.expect(stop.is_some_and(|seconds| seconds >= STOP_SECONDS_MIN), "a stop is cut short");
    let affinity = &set["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"];
    let required = list(affinity, "/requiredDuringSchedulingIgnoredDuringExecution").first();
    let preferred = list(affinity, "/preferredDuringSchedulingIgnoredDuringExecution").first();
    let term = required.or(preferred.map(|preferred| &preferred["podAffinityTerm"])).unwrap_or(&Value::Null);
    let keeps_apart = text(term, "/topologyKey") == "kubernetes.io/hostname"
        && contains(labels, &term["labelSelector"]["matchLabels"]);
    findings.expect(keeps_apart, "nothing keeps its pods on different machines");
    findings
}

/// Rights, probes and settings.
fn container(set: &Value, known: &Known) -> Findings {
    let mut findings = Findings::default();
    let container = set.pointer(CONTAINER).unwrap_or(&Value::Null);
    let security = &set["spec"]["template"]["spec"]["securityContext"];
    let is_user =
        security["runAsUser"] == USER && security["fsGroup"] == USER && security["runAsNonRoot"] == true;
    findings.expect(is_user, format!("runs not as user {USER}, or can't write its volume"));
    let own = &container["securityContext"];
    let is_narrow = own["readOnlyRootFilesystem"] == true
        && own["allowPrivilegeEscalation"] == false
        && own["capabilities"]["drop"][0] == "ALL"
        && security["seccompProfile"]["type"] == "RuntimeDefault";
    findings.expect(is_narrow, "has rights that it doesn't need");

    list(container, "/env").iter().for_each(|entry| known.variable(text(entry, "/name"), &mut findings));
    let ports = list(container, "/ports");
    let number =
        |name: &str| ports.iter().find(|port| port["name"] == name).map(|port| &port["containerPort"]);
    for (name, variable) in [("metrics", "METRICS_LISTEN"), ("peers", "PEER_LISTEN"), ("peers", "ADVERTISE")]
    {
        let is_same = port(setting(container, variable)).map(Value::from).as_ref() == number(name);
        findings.expect(is_same, format!("LOCKSTEP_{variable} isn't the port {name}"));
    }
    for (probe, path) in [("startup", "/healthz"), ("liveness", "/healthz"), ("readiness", "/readyz")] {
        let get = &container[format!("{probe}Probe")]["httpGet"];
        findings.expect(
            get["path"] == path && get["port"] == "metrics",
            format!("{probe} isn't {path} on metrics"),
        );
    }
    findings
}

fn setting<'a>(container: &'a Value, name: &str) -> &'a str {
    let name = format!("LOCKSTEP_{name}");
    let mut entries = list(container, "/env").iter();
    entries
        .find(|entry| entry["name"] == name.as_str())
        .map(|entry| text(entry, "/value"))
        .unwrap_or_default()
}

/// Volumes and secrets.
fn pod(set: &Value, rendering: &Rendering) -> Findings {
    let mut findings = Findings::default();
    let container = set.pointer(CONTAINER).unwrap_or(&Value::Null);
    let volumes = list(set, "/spec/template/spec/volumes");
    let claims = list(set, "/spec/volumeClaimTemplates");
    let claimed = |name: &str| claims.iter().any(|claim| text(claim, "/metadata/name") == name);
    let volume = |name: &str| volumes.iter().find(|volume| text(volume, "/name") == name);
    let mounts = list(container, "/volumeMounts");
    for mount in mounts {
        let name = text(mount, "/name");
        findings.expect(claimed(name) || volume(name).is_some(), format!("mounts {name}, which isn't there"));
    }
    let at = |path: &str| mounts.iter().find(|mount| text(mount, "/mountPath") == path);
    let data = at(setting(container, "DATA_DIR")).is_some_and(|mount| claimed(text(mount, "/name")));
    findings.expect(data, "the data directory is on no claimed volume");

    let token = setting(container, "JOIN_TOKEN_FILE");
    let (folder, file) = token.rsplit_once('/').unwrap_or_default();
    let secret = at(folder).and_then(|mount| volume(text(mount, "/name"))).unwrap_or(&Value::Null);
    let has_file = list(secret, "/secret/items").iter().any(|item| text(item, "/path") == file);
    findings.expect(has_file, format!("the join token isn't at {token}"));
    let made = rendering.first("Secret");
    findings.expect(made.is_null() != rendering.makes_secret, "a Secret too many, or none");
    if rendering.makes_secret {
        let key = text(secret, "/secret/items/0/key");
        let is_this = text(made, "/metadata/name") == text(secret, "/secret/secretName");
        findings.expect(
            is_this && !text(made, &format!("/data/{key}")).is_empty(),
            "the Secret isn't the one read",
        );
    }
    findings
}

/// A file for each pod, and in it who founds and who joins whom.
fn first_start(set: &Value, rendering: &Rendering, known: &Known) -> Findings {
    let mut findings = Findings::default();
    let container = set.pointer(CONTAINER).unwrap_or(&Value::Null);
    let mounts = list(container, "/volumeMounts");
    let mount =
        mounts.iter().find(|mount| mount["subPathExpr"] == "$(POD_NAME).toml").unwrap_or(&Value::Null);
    let is_read = list(container, "/args").iter().any(|argument| *argument == mount["mountPath"]);
    findings.expect(is_read, "the node isn't told to read its file");

    let name = text(set, "/metadata/name");
    let replicas = set["spec"]["replicas"].as_u64().unwrap_or_default();
    let advertised = setting(container, "ADVERTISE");
    let reached_as = |ordinal: u64| advertised.replace("$(POD_NAME)", &format!("{name}-{ordinal}"));
    let files = &rendering.first("ConfigMap")["data"];
    for own in 0..replicas {
        let mut found = Findings::default();
        let table = known.toml(text(files, &format!("/{name}-{own}.toml")), &mut found);
        let founds = table.get("bootstrap").and_then(toml::Value::as_bool).unwrap_or_default();
        found.expect(founds == (rendering.founds && own == 0), "founds a fleet, or should");
        let joined: Vec<String> =
            table.get("join").and_then(|join| join.clone().try_into().ok()).unwrap_or_default();
        let others: Vec<String> = (0..replicas).filter(|other| *other != own).map(reached_as).collect();
        found.expect(founds || joined == others, format!("joins {joined:?} instead of {others:?}"));
        findings.take(&format!("{name}-{own}"), found);
    }
    findings
}

/// Names, the disruption budget, and who reaches which port.
fn network(set: &Value, rendering: &Rendering) -> Findings {
    let mut findings = Findings::default();
    let labels = &set["spec"]["template"]["metadata"]["labels"];
    let container = set.pointer(CONTAINER).unwrap_or(&Value::Null);
    let headless = text(set, "/spec/serviceName");
    let peers = rendering.all("Service").find(|service| text(service, "/metadata/name") == headless);
    let peers = peers.unwrap_or(&Value::Null);
    let gives_names =
        text(peers, "/spec/clusterIP") == "None" && peers["spec"]["publishNotReadyAddresses"] == true;
    findings.expect(gives_names, "no headless Service names pods that start");
    let domain = format!(".{headless}.{}.svc.", text(peers, "/metadata/namespace"));
    findings
        .expect(setting(container, "ADVERTISE").contains(&domain), "nodes advertise names that nobody knows");
    for service in rendering.all("Service") {
        findings.expect(contains(labels, &service["spec"]["selector"]), "a Service of no pods");
    }
    let budget = &rendering.first("PodDisruptionBudget")["spec"];
    let is_ours = contains(labels, &budget["selector"]["matchLabels"]) && budget["maxUnavailable"] == 1;
    findings.expect(is_ours, "a majority may be taken away");

    let policy = rendering.first("NetworkPolicy");
    if !policy.is_null() {
        findings
            .expect(contains(labels, &policy["spec"]["podSelector"]["matchLabels"]), "a policy of no pods");
    }
    let is_open = |rule: &&Value| list(rule, "/ports").iter().any(|port| port["port"] == "api");
    let opened = list(policy, "/spec/ingress").iter().find(is_open);
    let served = rendering.all("Service").flat_map(|service| list(service, "/spec/ports"));
    let is_served = served.into_iter().any(|port| port["port"] == API_PORT);
    let listens_alone = is_loopback(setting(container, "LISTEN"));
    if rendering.exposes {
        let is_narrow = opened.is_some_and(|rule| !list(rule, "/from").is_empty());
        findings.expect(
            is_narrow && is_served && !listens_alone,
            "the API isn't open to those named, and to them only",
        );
    } else {
        findings.expect(opened.is_none() && !is_served && listens_alone, "the API is open");
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_rendered_is_nothing_right() {
        let known = Known::from_help("[env: LOCKSTEP_LISTEN]");
        let empty = Rendering { documents: Vec::new(), founds: true, exposes: false, makes_secret: true };
        let wrong = rules(&empty, &known).wrong;
        for place in ["StatefulSet", "container", "pod", "network"] {
            assert!(wrong.iter().any(|line| line.starts_with(place)), "{place} is missing in {wrong:#?}");
        }
    }
}
