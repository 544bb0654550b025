//! `/openapi.json`: everything that is routed is described, everything described is there, and it
//! is valid.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::Request;
use serde_json::Value;

use super::Node;

/// Method and path of every route, by hand: this list, the routes and the description must agree.
const ROUTES: [&str; 36] = [
    "DELETE /kafka/v3/clusters/{cluster}/links/{link}",
    "DELETE /kafka/v3/clusters/{cluster}/links/{link}/configs/{name}",
    "DELETE /kafka/v3/clusters/{cluster}/links/{link}/mirrors/{topic}",
    "DELETE /lockstep/v1/authorities/{authority}",
    "DELETE /lockstep/v1/clusters/{cluster}",
    "GET /healthz",
    "GET /kafka/v3/clusters/{cluster}/links",
    "GET /kafka/v3/clusters/{cluster}/links/{link}",
    "GET /kafka/v3/clusters/{cluster}/links/{link}/configs",
    "GET /kafka/v3/clusters/{cluster}/links/{link}/configs/{name}",
    "GET /kafka/v3/clusters/{cluster}/links/{link}/mirrors",
    "GET /kafka/v3/clusters/{cluster}/links/{link}/mirrors/{topic}",
    "GET /lockstep/v1/authorities",
    "GET /lockstep/v1/clusters",
    "GET /lockstep/v1/clusters/{cluster}",
    "GET /lockstep/v1/events",
    "GET /lockstep/v1/fleet",
    "GET /lockstep/v1/nodes",
    "GET /lockstep/v1/nodes/{node}",
    "GET /metrics",
    "GET /openapi.json",
    "GET /readyz",
    "PATCH /lockstep/v1/clusters/{cluster}",
    "POST /kafka/v3/clusters/{cluster}/links",
    "POST /kafka/v3/clusters/{cluster}/links/{link}/mirrors",
    "POST /kafka/v3/clusters/{cluster}/links/{link}/mirrors:failover",
    "POST /kafka/v3/clusters/{cluster}/links/{link}/mirrors:pause",
    "POST /kafka/v3/clusters/{cluster}/links/{link}/mirrors:promote",
    "POST /kafka/v3/clusters/{cluster}/links/{link}/mirrors:resume",
    "POST /lockstep/v1/authorities",
    "POST /lockstep/v1/clusters",
    "POST /lockstep/v1/join-tokens",
    "POST /lockstep/v1/nodes/{node}",
    "DELETE /lockstep/v1/nodes/{node}",
    "PUT /kafka/v3/clusters/{cluster}/links/{link}/configs/{name}",
    "PUT /kafka/v3/clusters/{cluster}/links/{link}/configs:alter",
];

/// The path says it all.
const WITHOUT_BODY: [&str; 2] = ["changeNode", "rotateAuthority"];

const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

/// Method, path and description of each operation.
fn operations(description: &Value) -> Vec<(String, &str, &Value)> {
    let paths = description["paths"].as_object().expect("paths").iter();
    let all = paths
        .flat_map(|(path, item)| METHODS.map(|method| (method.to_uppercase(), path.as_str(), &item[method])));
    all.filter(|(_, _, operation)| !operation.is_null()).collect()
}

/// Everything at `key` below `value`.
fn all_at<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get(key));
            fields.values().for_each(|field| all_at(field, key, found));
        }
        Value::Array(elements) => elements.iter().for_each(|element| all_at(element, key, found)),
        _ => {}
    }
}

async fn description() -> Value {
    let reply = Node::start().await.get("/openapi.json").await;
    assert_eq!(
        (reply.status, &reply.headers["content-type"]),
        (200, &"application/json".parse().expect("value"))
    );
    reply.body
}

#[tokio::test]
async fn what_is_described_is_what_is_routed() {
    let description = description().await;
    let described: Vec<String> =
        operations(&description).iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    let described: BTreeSet<&str> = described.iter().map(String::as_str).collect();
    assert_eq!(described, BTreeSet::from(ROUTES));

    let node = Node::start().await;
    for route in ROUTES {
        let (method, path) = route.split_once(' ').expect("method and path");
        let path = path.replace(['{', '}'], "");
        let reply = node.send(Request::builder().method(method).uri(&path).body(Body::empty())).await;
        let message = reply.body["message"].as_str().unwrap_or_default();
        assert!(!message.starts_with("nothing is at") && reply.status != 405, "{route}: {message}");
        // A method that isn't described isn't there.
        for other in METHODS.map(str::to_uppercase) {
            let template = route.split_once(' ').expect("path").1;
            if !described.contains(format!("{other} {template}").as_str()) {
                let reply =
                    node.send(Request::builder().method(other.as_str()).uri(&path).body(Body::empty())).await;
                assert_eq!(reply.status, 405, "{other} {path}");
            }
        }
    }
}

#[tokio::test]
async fn the_description_is_valid() {
    let description = description().await;
    oas3::from_json(description.to_string()).expect("OpenAPI 3.1");
    let mut references = Vec::new();
    all_at(&description, "$ref", &mut references);
    assert!(!references.is_empty());
    for reference in references {
        let pointer = reference.as_str().and_then(|r| r.strip_prefix('#')).expect("a local reference");
        assert!(description.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    let mut ids = BTreeSet::new();
    for (method, path, operation) in operations(&description) {
        let id = operation["operationId"].as_str().expect("an id");
        assert!(ids.insert(id), "{id} twice");
        assert!(operation["summary"].is_string(), "{id} says what it does");
        let parameters = operation["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
        let in_path = parameters.iter().filter(|p| p["in"] == "path");
        let named: BTreeSet<&str> = in_path.filter_map(|p| p["name"].as_str()).collect();
        let wanted: BTreeSet<&str> = path.split(['{', '}']).skip(1).step_by(2).collect();
        assert_eq!(named, wanted, "{id}");
        assert_eq!(
            operation["requestBody"].is_object(),
            ["PUT", "POST", "PATCH"].contains(&method.as_str()) && !WITHOUT_BODY.contains(&id),
            "{id}"
        );
        let responses = operation["responses"].as_object().expect("responses");
        assert!(responses.keys().any(|status| status.starts_with('2')), "{id}");
        let error = &responses["default"]["content"]["application/json"]["schema"]["$ref"];
        assert_eq!(error, "#/components/schemas/ErrorBody", "{id}");
    }
}

#[tokio::test]
async fn parameters_and_bodies_are_those_of_the_handlers() {
    let description = description().await;
    let create = &description["paths"]["/kafka/v3/clusters/{cluster}/links"]["post"];
    let in_query = create["parameters"].as_array().expect("parameters").iter().filter(|p| p["in"] == "query");
    let names: Vec<&Value> = in_query.map(|p| &p["name"]).collect();
    assert_eq!(names, ["link_name", "validate_only", "validate_link"]);
    let body = &create["requestBody"]["content"]["application/json"]["schema"]["$ref"];
    assert_eq!(body, "#/components/schemas/CreateLink");
    let lag = &description["components"]["schemas"]["LagRow"]["properties"]["lag"]["type"];
    assert_eq!(lag, &serde_json::json!(["integer", "null"]), "a lag may be unknown");
}
