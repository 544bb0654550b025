//! Clusters that know of brokers and ACLs and of nothing else, and fail on request.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{Bytes, BytesMut};
use kafka::acls::{Acl, Operation, PatternType, Permission, ResourceType};
use kafka::client::{Client, Dial, DialFuture};
use kafka::connection::BoxedStream;
use kafka_protocol::messages::{self as m, ApiKey, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

const PORT: i32 = 9_090;
const STREAM_BYTES: usize = 1 << 20;

#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// Of everything that was asked for.
    Refuses(i16),
    /// Each of what is to be created, in its order.
    Answers(&'static [i16]),
    /// Closes the connection and does nothing.
    Closes,
    /// Does it, and closes the connection without an answer.
    ActsAndCloses,
}

struct Failing {
    broker: i32,
    api: ApiKey,
    fault: Fault,
    times: usize,
}

#[derive(Default)]
struct State {
    acls: BTreeSet<Acl>,
    /// What a broker doesn't know of.
    unknown: BTreeMap<i32, BTreeSet<Acl>>,
    failing: Vec<Failing>,
    asked: Vec<(i32, ApiKey)>,
}

#[derive(Clone)]
pub struct FakeKafka {
    name: &'static str,
    brokers: i32,
    state: Arc<Mutex<State>>,
}

impl FakeKafka {
    pub fn new(name: &'static str, brokers: i32) -> Self {
        Self { name, brokers, state: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panicked")
    }

    pub fn set(&self, acls: &[&str]) {
        self.state().acls = super::fixture::acls(acls);
    }

    pub fn acls(&self) -> BTreeSet<Acl> {
        self.state().acls.clone()
    }

    pub fn doesnt_tell(&self, broker: i32, acls: &[&str]) {
        self.state().unknown.insert(broker, super::fixture::acls(acls));
    }

    pub fn fails(&self, broker: i32, api: ApiKey, fault: Fault, times: usize) {
        self.state().failing.push(Failing { broker, api, fault, times });
    }

    /// How often.
    pub fn was_asked(&self, broker: i32, api: ApiKey) -> usize {
        self.state().asked.iter().filter(|asked| **asked == (broker, api)).count()
    }

    pub fn client(&self, dial: &Arc<dyn Dial>) -> Client {
        let server = format!("{}:{}", self.name, PORT + 1);
        let configs = BTreeMap::from([("bootstrap.servers".to_owned(), server)]);
        let config = kafka::ClientConfig::from_configs(&configs).expect("a client");
        Client::of_cluster(config, dial.clone(), self.name.into())
    }

    async fn serve(self, broker: i32, mut stream: DuplexStream) {
        while let Ok(length) = stream.read_i32().await {
            let mut request = vec![0; length as usize];
            stream.read_exact(&mut request).await.expect("the whole request");
            let Some(answer) = self.answer(broker, request.into()) else { return };
            stream.write_i32(answer.len() as i32).await.expect("the client reads");
            stream.write_all(&answer).await.expect("the client reads");
        }
    }

    /// None: the connection ends.
    fn answer(&self, broker: i32, request: Bytes) -> Option<BytesMut> {
        let (key, version) =
            (i16::from_be_bytes([request[0], request[1]]), i16::from_be_bytes([request[2], request[3]]));
        let api = ApiKey::try_from(key).expect("a known request");
        let mut request = request;
        let header =
            RequestHeader::decode(&mut request, api.request_header_version(version)).expect("a header");
        let mut state = self.state();
        state.asked.push((broker, api));
        let failing = state.failing.iter_mut();
        let mut failing = failing.filter(|f| (f.broker, f.api) == (broker, api) && f.times > 0);
        let fault = failing.next().map(|failing| {
            failing.times -= 1;
            failing.fault
        });
        let code = match fault {
            Some(Fault::Closes) => return None,
            Some(Fault::Refuses(code)) => code,
            Some(Fault::ActsAndCloses | Fault::Answers(_)) | None => 0,
        };
        let mut out = BytesMut::new();
        let response = ResponseHeader::default().with_correlation_id(header.correlation_id);
        response.encode(&mut out, api.response_header_version(version)).expect("a header");
        let mut put = |response: &dyn Fn(&mut BytesMut)| response(&mut out);
        match api {
            ApiKey::ApiVersions => put(&|out| api_versions().encode(out, version).expect("encoded")),
            ApiKey::Metadata => put(&|out| self.metadata().encode(out, version).expect("encoded")),
            ApiKey::DescribeAcls => {
                let unknown = state.unknown.get(&broker).cloned().unwrap_or_default();
                let told: Vec<Acl> = state.acls.difference(&unknown).cloned().collect();
                put(&|out| described(&told, code).encode(out, version).expect("encoded"));
            }
            ApiKey::CreateAcls => {
                let request = m::CreateAclsRequest::decode(&mut request, version).expect("a request");
                let codes = match fault {
                    Some(Fault::Answers(codes)) => codes.to_vec(),
                    _ => vec![code; request.creations.len()],
                };
                let response = create(&mut state.acls, &request, &codes);
                put(&|out| response.encode(out, version).expect("encoded"));
            }
            ApiKey::DeleteAcls => {
                let request = m::DeleteAclsRequest::decode(&mut request, version).expect("a request");
                let response = delete(&mut state.acls, &request, code);
                put(&|out| response.encode(out, version).expect("encoded"));
            }
            other => panic!("nobody asks for {other:?}"),
        }
        (!matches!(fault, Some(Fault::ActsAndCloses))).then_some(out)
    }

    fn metadata(&self) -> m::MetadataResponse {
        use m::metadata_response::MetadataResponseBroker;
        let broker = |id: i32| {
            let broker = MetadataResponseBroker::default().with_node_id(m::BrokerId(id));
            broker.with_host(text(self.name)).with_port(PORT + id)
        };
        let brokers = (1..=self.brokers).map(broker).collect();
        m::MetadataResponse::default().with_brokers(brokers).with_cluster_id(Some(text(self.name)))
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn api_versions() -> m::ApiVersionsResponse {
    use m::api_versions_response::ApiVersion;
    let apis =
        [(ApiKey::Metadata, 12), (ApiKey::DescribeAcls, 3), (ApiKey::CreateAcls, 3), (ApiKey::DeleteAcls, 3)];
    let api = |(key, version): (ApiKey, i16)| {
        ApiVersion::default().with_api_key(key as i16).with_min_version(version).with_max_version(version)
    };
    m::ApiVersionsResponse::default().with_api_keys(apis.into_iter().map(api).collect())
}

fn described(acls: &[Acl], code: i16) -> m::DescribeAclsResponse {
    use m::describe_acls_response::{AclDescription, DescribeAclsResource};
    let resource = |acl: &Acl| {
        let access = AclDescription::default()
            .with_principal(text(&acl.principal))
            .with_host(text(&acl.host))
            .with_operation(acl.operation.code())
            .with_permission_type(acl.permission.code());
        DescribeAclsResource::default()
            .with_resource_type(acl.resource_type.code())
            .with_resource_name(text(&acl.resource_name))
            .with_pattern_type(acl.pattern_type.code())
            .with_acls(vec![access])
    };
    let resources = if code == 0 { acls.iter().map(resource).collect() } else { Vec::new() };
    m::DescribeAclsResponse::default().with_error_code(code).with_resources(resources)
}

fn create(acls: &mut BTreeSet<Acl>, request: &m::CreateAclsRequest, codes: &[i16]) -> m::CreateAclsResponse {
    use m::create_acls_response::AclCreationResult;
    assert_eq!(request.creations.len(), codes.len());
    let results = request.creations.iter().zip(codes).map(|(asked, code)| {
        if *code == 0 {
            acls.insert(Acl {
                resource_type: ResourceType::of_code(asked.resource_type).expect("known"),
                pattern_type: PatternType::of_code(asked.resource_pattern_type).expect("known"),
                resource_name: asked.resource_name.as_str().into(),
                principal: asked.principal.as_str().into(),
                host: asked.host.as_str().into(),
                operation: Operation::of_code(asked.operation).expect("known"),
                permission: Permission::of_code(asked.permission_type).expect("known"),
            });
        }
        AclCreationResult::default().with_error_code(*code)
    });
    let results = results.collect();
    m::CreateAclsResponse::default().with_results(results)
}

fn delete(acls: &mut BTreeSet<Acl>, request: &m::DeleteAclsRequest, code: i16) -> m::DeleteAclsResponse {
    use m::delete_acls_response::DeleteAclsFilterResult;
    let results = request.filters.iter().map(|filter| {
        let named = |wanted: &Option<StrBytes>, found: &str| wanted.as_deref() == Some(found);
        if code == 0 {
            acls.retain(|acl| {
                !(filter.resource_type_filter == acl.resource_type.code()
                    && filter.pattern_type_filter == acl.pattern_type.code()
                    && named(&filter.resource_name_filter, &acl.resource_name)
                    && named(&filter.principal_filter, &acl.principal)
                    && named(&filter.host_filter, &acl.host)
                    && filter.operation == acl.operation.code()
                    && filter.permission_type == acl.permission.code())
            });
        }
        DeleteAclsFilterResult::default().with_error_code(code)
    });
    let results = results.collect();
    m::DeleteAclsResponse::default().with_filter_results(results)
}

/// Both ends.
pub struct FakeDial(pub [FakeKafka; 2]);

impl Dial for FakeDial {
    fn dial(&self, address: Arc<str>) -> DialFuture {
        let found = address.split_once(':').and_then(|(host, port)| {
            let cluster = self.0.iter().find(|cluster| cluster.name == host)?;
            Some((cluster.clone(), port.parse::<i32>().ok()? - PORT))
        });
        Box::pin(async move {
            let (cluster, broker) = found.ok_or(ErrorKind::ConnectionRefused)?;
            let (near, far) = tokio::io::duplex(STREAM_BYTES);
            tokio::spawn(cluster.serve(broker, far));
            Ok(Box::new(near) as BoxedStream)
        })
    }
}
