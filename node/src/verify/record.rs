//! Two records, and what differs between them: sizes, hashes and positions, never contents.

use std::fmt;

use serde::Serialize;

/// Of a SHA-256, enough to tell two values apart by eye: `printf … | sha256sum` begins the same.
const HASH_HEX_DIGITS: usize = 12;

/// A record as librdkafka hands it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub offset: i64,
    /// Milliseconds since 1970. Whether its producer or its broker set it is the topic's config.
    pub timestamp_ms: Option<i64>,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    /// In their order; names may repeat.
    pub headers: Vec<(&'a str, Option<&'a [u8]>)>,
}

impl Record<'_> {
    /// Bytes of key, value and headers.
    pub fn bytes(&self) -> u64 {
        let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
        let headers = self.headers.iter().map(|(name, value)| name.len() + length(*value));
        (length(self.key) + length(self.value) + headers.sum::<usize>()) as u64
    }
}

/// One part of two records that isn't the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldDifference {
    /// `key`, `value`, `timestamp`, `headers` for their number, or `headers[0].name`, `.value`.
    pub field: String,
    pub source: Shown,
    pub mirror: Shown,
    /// Counted from 0. Null where one of the two has no bytes at all.
    pub first_differing_byte: Option<u64>,
}

/// What may be shown of a part of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Shown {
    Bytes {
        bytes: u64,
        /// Its first digits.
        sha256: String,
    },
    Milliseconds {
        ms: i64,
    },
    Count {
        count: u64,
    },
    /// Null in JSON as it is in the record.
    Null,
}

/// What differs between two records; empty when they are equal. Offsets are the caller's.
pub fn differences(source: &Record<'_>, mirror: &Record<'_>) -> Vec<FieldDifference> {
    let mut found = Vec::new();
    if source.timestamp_ms != mirror.timestamp_ms {
        let shown = |ms: Option<i64>| ms.map_or(Shown::Null, |ms| Shown::Milliseconds { ms });
        found.push(FieldDifference {
            field: "timestamp".to_owned(),
            source: shown(source.timestamp_ms),
            mirror: shown(mirror.timestamp_ms),
            first_differing_byte: None,
        });
    }
    found.extend(bytes_differ("key", source.key, mirror.key));
    found.extend(bytes_differ("value", source.value, mirror.value));
    found.extend(headers_differ(source, mirror));
    found
}

/// The first header that differs, or else their number.
fn headers_differ(source: &Record<'_>, mirror: &Record<'_>) -> Option<FieldDifference> {
    for (index, ((name, value), (other_name, other_value))) in
        source.headers.iter().zip(&mirror.headers).enumerate()
    {
        let (name, other_name) = (Some(name.as_bytes()), Some(other_name.as_bytes()));
        let found = bytes_differ(&format!("headers[{index}].name"), name, other_name)
            .or_else(|| bytes_differ(&format!("headers[{index}].value"), *value, *other_value));
        if found.is_some() {
            return found;
        }
    }
    let count = |record: &Record<'_>| Shown::Count { count: record.headers.len() as u64 };
    (source.headers.len() != mirror.headers.len()).then(|| FieldDifference {
        field: "headers".to_owned(),
        source: count(source),
        mirror: count(mirror),
        first_differing_byte: None,
    })
}

fn bytes_differ(field: &str, source: Option<&[u8]>, mirror: Option<&[u8]>) -> Option<FieldDifference> {
    if source == mirror {
        return None;
    }
    let first = |one: &[u8], two: &[u8]| {
        let common = one.len().min(two.len());
        one.iter().zip(two).position(|(one, two)| one != two).unwrap_or(common) as u64
    };
    Some(FieldDifference {
        field: field.to_owned(),
        source: Shown::of(source),
        mirror: Shown::of(mirror),
        first_differing_byte: source.zip(mirror).map(|(one, two)| first(one, two)),
    })
}

impl Shown {
    fn of(bytes: Option<&[u8]>) -> Self {
        let Some(bytes) = bytes else { return Self::Null };
        let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
        let mut sha256: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        sha256.truncate(HASH_HEX_DIGITS);
        Self::Bytes { bytes: bytes.len() as u64, sha256 }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes { bytes, sha256 } => write!(f, "{bytes} bytes, sha256 {sha256}…"),
            Self::Milliseconds { ms } => write!(f, "{ms} ms"),
            Self::Count { count } => write!(f, "{count} of them"),
            Self::Null => f.write_str("null"),
        }
    }
}

impl fmt::Display for FieldDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, source, mirror, .. } = self;
        write!(f, "{field}: {source} at the source, {mirror} at the mirror")?;
        match self.first_differing_byte {
            Some(at) => write!(f, ", first differing byte {at}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record<'static> {
        Record {
            offset: 7,
            timestamp_ms: Some(1_000),
            key: Some(b"key"),
            value: Some(b"value"),
            headers: vec![("trace", Some(b"1")), ("trace", None)],
        }
    }

    fn found(mirror: Record<'_>) -> Vec<String> {
        differences(&record(), &mirror).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn equal_records_have_no_differences() {
        assert_eq!(found(record()), Vec::<String>::new());
        assert_eq!(record().bytes(), 3 + 5 + 5 + 1 + 5);
    }

    #[test]
    fn each_part_that_differs_is_named_without_its_content() {
        let hash = "cd42404d52ad";
        for (mirror, expected) in [
            (
                Record { value: Some(b"valve"), ..record() },
                format!(
                    "value: 5 bytes, sha256 {hash}… at the source, 5 bytes, sha256 c9af477d19b1… at the mirror, first differing byte 3"
                ),
            ),
            (
                Record { value: Some(b""), ..record() },
                format!(
                    "value: 5 bytes, sha256 {hash}… at the source, 0 bytes, sha256 e3b0c44298fc… at the mirror, first differing byte 0"
                ),
            ),
            (
                Record { value: None, ..record() },
                format!("value: 5 bytes, sha256 {hash}… at the source, null at the mirror"),
            ),
            (
                Record { timestamp_ms: Some(1_001), ..record() },
                "timestamp: 1000 ms at the source, 1001 ms at the mirror".to_owned(),
            ),
            (
                Record { timestamp_ms: None, ..record() },
                "timestamp: 1000 ms at the source, null at the mirror".to_owned(),
            ),
            (
                Record { headers: vec![("trace", Some(b"1"))], ..record() },
                "headers: 2 of them at the source, 1 of them at the mirror".to_owned(),
            ),
        ] {
            assert_eq!(found(mirror), [expected]);
        }
    }

    #[test]
    fn the_first_header_that_differs_is_named_by_its_place() {
        let swapped = Record { headers: vec![("trace", None), ("trace", Some(b"1"))], ..record() };
        assert_eq!(differences(&record(), &swapped)[0].field, "headers[0].value");
        let renamed = Record { headers: vec![("trace", Some(b"1")), ("trade", None)], ..record() };
        let difference = &differences(&record(), &renamed)[0];
        assert_eq!((&*difference.field, difference.first_differing_byte), ("headers[1].name", Some(3)));
    }

    #[test]
    fn a_value_that_was_cut_short_differs_where_it_ends() {
        let difference = &differences(&record(), &Record { key: Some(b"keys"), ..record() })[0];
        assert_eq!((&*difference.field, difference.first_differing_byte), ("key", Some(3)));
    }

    #[test]
    fn all_parts_that_differ_are_told() {
        let other = Record { offset: 7, timestamp_ms: None, key: None, value: None, headers: vec![] };
        let fields: Vec<String> = differences(&record(), &other).into_iter().map(|d| d.field).collect();
        assert_eq!(fields, ["timestamp", "key", "value", "headers"]);
    }
}
