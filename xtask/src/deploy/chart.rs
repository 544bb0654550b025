//! The Helm chart: linted, rendered with several sets of values, and each rendering read by
//! kubernetes-validate with Kubernetes' own definitions and by `chart_rules`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::chart_rules::{Rendering, rules};
use super::findings::{Findings, Outcome};
use super::known::Known;
use super::{folder, scratch, tools};
use crate::exec;

const RELEASE: &str = "demo";
/// The oldest that `Chart.yaml` allows, and the newest whose definitions are known.
const KUBERNETES: [&str; 2] = ["1.27", "1.37"];

/// Values, and what must follow from them.
struct Case {
    name: &'static str,
    values: Value,
    founds: bool,
    exposes: bool,
    makes_secret: bool,
}

fn cases() -> [Case; 4] {
    let default =
        || Case { name: "as it is", values: json!({}), founds: true, exposes: false, makes_secret: true };
    let open = json!({
        "api": {"expose": true, "allowFrom": [{"podSelector": {"matchLabels": {"app": "operator"}}}]},
        "metrics": {"allowFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]},
    });
    let everything = json!({
        "replicas": 5,
        "image": {"repository": "registry.example/lockstep", "tag": "1", "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "pull"}],
        "fleet": {"joinToken": {"existingSecret": "join-me", "key": "token"}},
        "listenAddress": "[::]",
        "networkPolicy": {"enabled": false},
        "credentials": ["east", "west.tls"],
        "persistence": {"storageClass": "fast"},
        "antiAffinity": "preferred",
        "zoneSpread": false,
        "priorityClassName": "important",
        "nodeSelector": {"disk": "local"},
        "tolerations": [{"key": "a", "operator": "Exists"}],
        "podAnnotations": {"a": "b"},
        "podLabels": {"team": "data"},
    });
    [
        default(),
        Case {
            name: "after the installation",
            values: json!({"fleet": {"bootstrap": false}}),
            founds: false,
            ..default()
        },
        Case { name: "with an open API", values: open, exposes: true, ..default() },
        Case { name: "with everything set", values: everything, makes_secret: false, ..default() },
    ]
}

/// What a user may get wrong, and must be told of.
fn refused() -> [(&'static str, Value); 5] {
    [
        ("an open API for everybody", json!({"api": {"expose": true}})),
        (
            "an open API without a policy",
            json!({"api": {"expose": true, "allowFrom": [{}]}, "networkPolicy": {"enabled": false}}),
        ),
        ("a value that isn't there", json!({"replica": 3})),
        ("a stop that is cut short", json!({"terminationGracePeriodSeconds": 5})),
        ("no nodes", json!({"replicas": 0})),
    ]
}

pub fn check(known: &Known) -> Result<Outcome> {
    let (helm, validator) = match (tools::helm()?, tools::kubernetes_validate()?) {
        (Ok(helm), validator) => (helm, validator),
        (Err(why), _) => return Ok(Outcome::Skipped(why)),
    };
    let helm = Helm { program: helm, chart: folder().join("helm").join("lockstep") };
    let mut findings = Findings::default();
    let (is_fine, said) = helm.run(&["lint", "--strict"], &json!({}))?;
    findings.expect(is_fine, format!("helm lint: {said}"));
    let verdict = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    findings.tell(format!("helm lint --strict: {verdict}"));

    let scratch = scratch("chart")?;
    let mut renderings = 0;
    for case in cases() {
        let (is_fine, rendered) = helm.run(&["template", RELEASE], &case.values)?;
        if !is_fine {
            findings.expect(false, format!("{}: helm template: {rendered}", case.name));
            continue;
        }
        let file = scratch.join(format!("{}.yaml", case.name.replace(' ', "-")));
        fs::write(&file, &rendered)?;
        if let Ok(validator) = &validator {
            findings.take(case.name, validate(validator, &file)?);
        }
        let rendering = read(&rendered, &case)?;
        findings.take(case.name, rules(&rendering, known));
        findings.take(case.name, planted(&rendering, known));
        renderings += 1;
    }
    for (what, values) in refused() {
        let (is_fine, _) = helm.run(&["template", RELEASE], &values)?;
        findings.expect(!is_fine, format!("not refused: {what}"));
    }
    match validator {
        Ok(validator) => {
            let wrong = scratch.join("planted.yaml");
            let (_, rendered) = helm.run(&["template", RELEASE], &json!({}))?;
            fs::write(&wrong, rendered.replacen("serviceName:", "servceName:", 1))?;
            let is_caught = !validate(&validator, &wrong)?.wrong.is_empty();
            findings.expect(is_caught, "planted and not caught: a field that Kubernetes doesn't know");
            findings
                .tell(format!("{renderings} renderings valid for Kubernetes {}", KUBERNETES.join(" and ")));
        }
        Err(why) => findings.tell(format!("renderings NOT CHECKED against Kubernetes' definitions: {why}")),
    }
    Ok(Outcome::Judged(findings))
}

struct Helm {
    program: PathBuf,
    chart: PathBuf,
}

impl Helm {
    fn run(&self, what: &[&str], values: &Value) -> Result<(bool, String)> {
        let mut command = Command::new(&self.program);
        exec::capture(command.args(what).arg(&self.chart).arg("--set-json").arg(values.to_string()))
    }
}

fn validate(validator: &Path, file: &Path) -> Result<Findings> {
    let mut findings = Findings::default();
    for version in KUBERNETES {
        let mut command = Command::new(validator);
        command.args(["--strict", "--quiet", "--no-warn", "-k", version]).arg(file);
        let (is_fine, said) = exec::capture(&mut command)?;
        findings.expect(is_fine, format!("kubernetes-validate for {version}: {}", said.trim()));
    }
    Ok(findings)
}

fn read(rendered: &str, case: &Case) -> Result<Rendering> {
    let documents = serde_saphyr::from_multiple(rendered).context("read what helm rendered as YAML")?;
    let documents = documents.into_iter().filter(|document: &Value| !document.is_null()).collect();
    let Case { founds, exposes, makes_secret, .. } = *case;
    Ok(Rendering { documents, founds, exposes, makes_secret })
}

/// Each mistake must be seen in each rendering.
fn planted(rendering: &Rendering, known: &Known) -> Findings {
    const CONTAINER: &str = "/spec/template/spec/containers/0";
    let of_container = |rest: &str| format!("{CONTAINER}{rest}");
    let set = "StatefulSet";
    let mistakes: [(&str, &str, String, Value); 14] = [
        ("nodes that wait for each other", set, "/spec/podManagementPolicy".into(), json!("OrderedReady")),
        ("a service that isn't there", set, "/spec/serviceName".into(), json!("other")),
        ("pods of nobody", set, "/spec/template/metadata/labels".into(), json!({"a": "b"})),
        ("a probe of the wrong listener", set, of_container("/readinessProbe/httpGet/port"), json!("peers")),
        ("a probe of the wrong path", set, of_container("/livenessProbe/httpGet/path"), json!("/readyz")),
        (
            "a stop that is cut short",
            set,
            "/spec/template/spec/terminationGracePeriodSeconds".into(),
            json!(5),
        ),
        ("data in the container", set, of_container("/volumeMounts/0/mountPath"), json!("/data")),
        ("nodes on one machine", set, "/spec/template/spec/affinity".into(), json!({})),
        ("rights that it doesn't need", set, of_container("/securityContext/capabilities"), json!({})),
        ("root", set, "/spec/template/spec/securityContext/runAsUser".into(), json!(0)),
        ("a volume from nowhere", set, "/spec/template/spec/volumes".into(), json!([])),
        ("a majority may go", "PodDisruptionBudget", "/spec/maxUnavailable".into(), json!(2)),
        ("names of ready pods only", "Service", "/spec/publishNotReadyAddresses".into(), json!(false)),
        (
            "nobody's first start",
            "ConfigMap",
            "/data".into(),
            json!({"demo-lockstep-0.toml": "bootstrap = true"}),
        ),
    ];
    let mut findings = Findings::default();
    for (what, kind, pointer, value) in mistakes {
        let mut copy = rendering.clone();
        let place = copy.documents.iter_mut().filter(|document| document["kind"] == kind);
        let place = place.filter_map(|document| document.pointer_mut(&pointer)).next();
        let is_changed = place.is_some_and(|place| std::mem::replace(place, value.clone()) != value);
        let is_caught = is_changed && !rules(&copy, known).wrong.is_empty();
        findings.expect(is_caught, format!("planted and not caught: {what}"));
    }
    findings
}
