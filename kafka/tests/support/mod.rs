//! Responses that a broker could send, made from their shapes, and ways to damage them.

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka::shape::{self, Field};
use kafka_protocol::messages as m;
use kafka_protocol::protocol::{Decodable, Encodable};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

/// A response that is used, with how it is checked and decoded.
pub struct Parser {
    pub name: &'static str,
    pub shape: &'static [Field],
    /// Decodes, and encodes what came of it.
    recode: fn(Bytes) -> Result<Vec<u8>, String>,
}

fn recode<R: Decodable + Encodable>(mut body: Bytes, version: i16) -> Result<Vec<u8>, String> {
    let response = R::decode(&mut body, version).map_err(|e| e.to_string())?;
    let mut out = Vec::new();
    response.encode(&mut out, version).map_err(|e| e.to_string())?;
    Ok(out)
}

macro_rules! parser {
    ($shape:ident, $response:ty, $version:literal) => {
        Parser {
            name: stringify!($shape),
            shape: shape::$shape,
            recode: |body| recode::<$response>(body, $version),
        }
    };
}

pub static PARSERS: [Parser; 31] = [
    parser!(API_VERSIONS_V0, m::ApiVersionsResponse, 0),
    parser!(SASL_HANDSHAKE_V1, m::SaslHandshakeResponse, 1),
    parser!(SASL_AUTHENTICATE_V0, m::SaslAuthenticateResponse, 0),
    parser!(SASL_AUTHENTICATE_V1, m::SaslAuthenticateResponse, 1),
    parser!(METADATA_V9, m::MetadataResponse, 9),
    parser!(METADATA_V12, m::MetadataResponse, 12),
    parser!(FETCH_V11, m::FetchResponse, 11),
    parser!(FETCH_V13, m::FetchResponse, 13),
    parser!(PRODUCE_V8, m::ProduceResponse, 8),
    parser!(LIST_OFFSETS_V5, m::ListOffsetsResponse, 5),
    parser!(CREATE_TOPICS_V7, m::CreateTopicsResponse, 7),
    parser!(INIT_PRODUCER_ID_V1, m::InitProducerIdResponse, 1),
    parser!(FIND_COORDINATOR_V2, m::FindCoordinatorResponse, 2),
    parser!(DESCRIBE_PRODUCERS_V0, m::DescribeProducersResponse, 0),
    parser!(DELETE_RECORDS_V1, m::DeleteRecordsResponse, 1),
    parser!(CREATE_PARTITIONS_V1, m::CreatePartitionsResponse, 1),
    parser!(DESCRIBE_CONFIGS_V2, m::DescribeConfigsResponse, 2),
    parser!(DELETE_TOPICS_V6, m::DeleteTopicsResponse, 6),
    parser!(INCREMENTAL_ALTER_CONFIGS_V0, m::IncrementalAlterConfigsResponse, 0),
    parser!(ADD_PARTITIONS_TO_TXN_V1, m::AddPartitionsToTxnResponse, 1),
    parser!(FIND_COORDINATOR_V4, m::FindCoordinatorResponse, 4),
    parser!(LIST_GROUPS_V3, m::ListGroupsResponse, 3),
    parser!(LIST_GROUPS_V4, m::ListGroupsResponse, 4),
    parser!(OFFSET_FETCH_V7, m::OffsetFetchResponse, 7),
    parser!(OFFSET_FETCH_V8, m::OffsetFetchResponse, 8),
    parser!(OFFSET_COMMIT_V7, m::OffsetCommitResponse, 7),
    parser!(DESCRIBE_ACLS_V2, m::DescribeAclsResponse, 2),
    parser!(CREATE_ACLS_V2, m::CreateAclsResponse, 2),
    parser!(DELETE_ACLS_V2, m::DeleteAclsResponse, 2),
    parser!(END_TXN_V1, m::EndTxnResponse, 1),
    parser!(WRITE_TXN_MARKERS_V1, m::WriteTxnMarkersResponse, 1),
];

fn varint(mut value: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// Bytes of this shape: what a broker could send.
fn of_shape(shape: &'static [Field]) -> BoxedStrategy<Vec<u8>> {
    let fields: Vec<_> = shape.iter().map(of_field).collect();
    fields.prop_map(|parts| parts.concat()).boxed()
}

fn of_field(field: &'static Field) -> BoxedStrategy<Vec<u8>> {
    fn counted<T: std::fmt::Debug + 'static>(
        items: BoxedStrategy<Vec<T>>,
        count: fn(usize) -> Vec<u8>,
        bytes: fn(Vec<T>) -> Vec<u8>,
    ) -> BoxedStrategy<Vec<u8>> {
        items.prop_map(move |items| [count(items.len()), bytes(items)].concat()).boxed()
    }
    let text = || "[a-z]{0,12}".prop_map(String::into_bytes).boxed();
    let bytes = || vec(any::<u8>(), 0..40).boxed();
    let elements = |fields: &'static [Field]| vec(of_shape(fields), 0..4).boxed();
    match field {
        Field::Bool => (0u8..2).prop_map(|b| vec![b]).boxed(),
        Field::I8 => vec(any::<u8>(), 1).boxed(),
        Field::I16 => vec(any::<u8>(), 2).boxed(),
        Field::I32 => vec(any::<u8>(), 4).boxed(),
        Field::I64 => vec(any::<u8>(), 8).boxed(),
        Field::Uuid => vec(any::<u8>(), 16).boxed(),
        Field::Str => counted(text(), |n| (n as i16).to_be_bytes().to_vec(), |b| b),
        Field::CompactStr => counted(text(), |n| varint(n + 1), |b| b),
        Field::Bytes => counted(bytes(), |n| (n as i32).to_be_bytes().to_vec(), |b| b),
        Field::CompactBytes => counted(bytes(), |n| varint(n + 1), |b| b),
        Field::Array(fields) => {
            counted(elements(fields), |n| (n as i32).to_be_bytes().to_vec(), |e| e.concat())
        }
        Field::CompactArray(fields) => counted(elements(fields), |n| varint(n + 1), |e| e.concat()),
        Field::Tags => tags(&[]),
        Field::KnownTags(known) => tags(known),
    }
}

/// Tags that the codec knows, as they should be, and such as it doesn't know.
fn tags(known: &'static [(u32, &'static [Field])]) -> BoxedStrategy<Vec<u8>> {
    const UNKNOWN_FROM: u32 = 20;
    let known: Vec<_> = known
        .iter()
        .map(|(tag, fields)| proptest::option::of(of_shape(fields).prop_map(|v| (*tag, v))))
        .collect();
    let unknown = btree_map(UNKNOWN_FROM..UNKNOWN_FROM + 200, vec(any::<u8>(), 0..6), 0..3);
    (known, unknown)
        .prop_map(|(known, unknown)| {
            let all: BTreeMap<u32, Vec<u8>> = known.into_iter().flatten().chain(unknown).collect();
            let mut out = varint(all.len());
            for (tag, value) in all {
                out.extend(varint(tag as usize));
                out.extend(varint(value.len()));
                out.extend(value);
            }
            out
        })
        .boxed()
}

/// One way to damage a frame: bytes overwritten, put in, or cut off, at a place that is a fraction
/// of its length.
#[derive(Clone, Debug)]
pub enum Damage {
    Overwrite(f64, Vec<u8>),
    Insert(f64, Vec<u8>),
    CutOff(f64),
}

pub fn damage() -> impl Strategy<Value = Damage> {
    // What lengths and counts are made of, above all.
    let evil = prop_oneof![Just(0xff), Just(0x7f), Just(0x80), Just(0), Just(1), any::<u8>()];
    let evil = vec(evil, 1..6);
    prop_oneof![
        4 => (0.0..1.0, evil.clone()).prop_map(|(at, bytes)| Damage::Overwrite(at, bytes)),
        2 => (0.0..1.0, evil).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        1 => (0.0..1.0).prop_map(Damage::CutOff),
    ]
}

pub fn damaged(mut frame: Vec<u8>, damages: &[Damage]) -> Vec<u8> {
    for damage in damages {
        let place = |at: &f64| (at * frame.len() as f64) as usize;
        match damage {
            Damage::Overwrite(at, bytes) => {
                let at = place(at);
                let end = (at + bytes.len()).min(frame.len());
                let count = end - at;
                frame[at..end].copy_from_slice(&bytes[..count]);
            }
            Damage::Insert(at, bytes) => {
                let at = place(at);
                frame.splice(at..at, bytes.iter().copied());
            }
            Damage::CutOff(at) => frame.truncate(place(at)),
        }
    }
    frame
}

pub fn any_response() -> impl Strategy<Value = (usize, Vec<u8>)> {
    (0..PARSERS.len()).prop_flat_map(|index| (Just(index), of_shape(PARSERS[index].shape)))
}

/// What the data plane does with a body.
pub fn parse(parser: &Parser, body: &[u8]) -> Option<Result<Vec<u8>, String>> {
    shape::check(body, parser.shape).ok()?;
    Some((parser.recode)(Bytes::copy_from_slice(body)))
}
