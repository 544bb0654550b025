//! Parsers of what comes from outside: valid input goes through and back unchanged, and damaged
//! input is an error or less. What it costs is measured in `parser_memory.rs`.

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka::filler::filler_batch;
use kafka::{ClientConfig, batch, shape};
use proptest::collection::vec;
use proptest::prelude::*;

mod support;
use support::{PARSERS, any_response, damage, damaged, parse};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// So a shape is what the codec believes it is, field for field.
    #[test]
    fn a_valid_response_goes_through_and_back_unchanged((index, body) in any_response()) {
        let parser = &PARSERS[index];
        prop_assert_eq!(shape::check(&body, parser.shape), Ok(()), "{}", parser.name);
        let recoded = parse(parser, &body).expect("checked");
        prop_assert_eq!(recoded.as_ref(), Ok(&body), "{}", parser.name);
    }
}

/// Batches without a hole from `base` on, as a broker would send them.
fn log(base: i64, counts: &[i32]) -> (Vec<u8>, Vec<(i64, Bytes)>) {
    let (mut bytes, mut batches, mut next) = (Vec::new(), Vec::new(), base);
    for count in counts {
        let out = filler_batch(next, *count).readdress(7, 1, 0);
        let mut whole = [out.head, out.payload.clone()].concat();
        whole[0..8].copy_from_slice(&next.to_be_bytes());
        bytes.extend(whole);
        batches.push((next, out.payload));
        next += i64::from(*count);
    }
    (bytes, batches)
}

fn cut_at(bytes: Vec<u8>, position: i64) -> Vec<(i64, Bytes)> {
    let cut = batch::cut(&bytes.into(), position);
    cut.batches.iter().map(|b| (b.header.base_offset, b.payload())).collect()
}

proptest! {
    #[test]
    fn what_is_cut_is_every_whole_batch_from_the_position_on(
        base in 0i64..1 << 40,
        counts in vec(1i32..50, 1..6),
        first in any::<prop::sample::Index>(),
        kept in 0.0..=1.0,
    ) {
        let (mut bytes, batches) = log(base, &counts);
        let ends: Vec<usize> = batches.iter().scan(0, |at, (_, payload)| {
            *at += batch::HEADER_BYTES + payload.len();
            Some(*at)
        }).collect();
        bytes.truncate((kept * bytes.len() as f64) as usize);
        let whole = ends.iter().filter(|end| **end <= bytes.len()).count();
        let first = first.index(batches.len());
        let wanted = if first < whole { batches[first..whole].to_vec() } else { Vec::new() };
        prop_assert_eq!(cut_at(bytes, batches[first].0), wanted);
    }

    /// Whatever a bit is in: no batch with other records than it was written with is handed on.
    #[test]
    fn no_damaged_batch_is_handed_on(
        base in 0i64..1 << 40,
        counts in vec(1i32..50, 1..6),
        damages in vec(damage(), 1..3),
    ) {
        let (bytes, batches) = log(base, &counts);
        for found in cut_at(damaged(bytes, &damages), base) {
            prop_assert!(batches.contains(&found), "a batch at {}", found.0);
        }
    }

    #[test]
    fn rubbish_is_no_batch(bytes in vec(any::<u8>(), 0..400), position in any::<i64>()) {
        let _ = batch::cut(&bytes.clone().into(), position);
        let _ = batch::containing(&bytes.into(), position);
    }
}

const KEYS: [&str; 14] = [
    "bootstrap.servers",
    "client.id",
    "request.timeout.ms",
    "security.protocol",
    "sasl.mechanism",
    "sasl.jaas.config",
    "sasl.username",
    "sasl.password",
    "ssl.truststore.location",
    "ssl.truststore.certificates",
    "ssl.keystore.certificate.chain",
    "ssl.keystore.key",
    "ssl.key.password",
    "ssl.endpoint.identification.algorithm",
];
/// In every value that is a secret; in no message.
const SECRET: &str = "hunter2";

fn value_of(key: &'static str) -> BoxedStrategy<String> {
    let plain = prop_oneof![
        Just("SASL_SSL".to_owned()),
        Just("SASL_PLAINTEXT".to_owned()),
        Just("SSL".to_owned()),
        Just("PLAIN".to_owned()),
        Just("SCRAM-SHA-256".to_owned()),
        Just("PEM".to_owned()),
        Just("a:9092,[::1]:1".to_owned()),
        "\\PC{0,40}",
    ];
    let secret = prop_oneof![
        "\\PC{0,30}".prop_map(|text| format!("{text}{SECRET}")),
        "\\PC{0,30}".prop_map(|text| format!("{SECRET}{text}")),
        "[-BEGIN PRVATEKYC\\n=;\"']{0,60}".prop_map(|text| format!("{text}{SECRET}{text}")),
        Just(format!("a.PlainLoginModule required username=\"u\" password=\"{SECRET}\";")),
        Just(format!("-----BEGIN PRIVATE KEY-----{SECRET}-----END PRIVATE KEY-----")),
    ];
    match key.contains("jaas") || key.contains("password") || key.contains("keystore.key") {
        true => secret.boxed(),
        false => plain.boxed(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn client_keys_of_any_kind_are_taken_or_refused_by_name_without_a_secret(
        configs in vec((0..KEYS.len()).prop_flat_map(|at| (Just(KEYS[at]), value_of(KEYS[at]))), 0..8),
    ) {
        let configs: BTreeMap<String, String> = configs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        match ClientConfig::from_configs(&configs) {
            Ok(config) => prop_assert!(!format!("{config:?}").contains(SECRET), "{config:?}"),
            Err(error) => {
                prop_assert!(KEYS.contains(&&*error.key), "{error}");
                prop_assert!(!error.to_string().contains(SECRET), "{error}");
            }
        }
    }
}
