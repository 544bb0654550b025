//! The check that every count in a response fits its frame, made before the frame is decoded.
//!
//! The codec reserves memory for as many elements as a response claims to have; a broken or
//! hostile peer that claims two thousand million would end the process. So each response that
//! is used has its shape here, and a frame is walked by it first: a count that the remaining
//! bytes can't hold is an error. Versions are pinned to those listed; shapes are those of the
//! published message definitions (protocol guide).

use Field::{
    Array, Bool, Bytes, CompactArray, CompactBytes, CompactStr, I8, I16, I32, I64, KnownTags, Str, Tags, Uuid,
};

/// One field of a response.
#[derive(Debug)]
pub enum Field {
    Bool,
    I8,
    I16,
    I32,
    I64,
    Uuid,
    /// 16-bit length, -1 is null.
    Str,
    /// Variable-length length plus one, 0 is null.
    CompactStr,
    Bytes,
    CompactBytes,
    /// 32-bit count, -1 is null.
    Array(&'static [Field]),
    CompactArray(&'static [Field]),
    /// Tagged fields (KIP-482), none of which the codec knows: it passes over their lengths.
    Tags,
    /// Tagged fields of which it knows some, by tag. Those it decodes without a look at their
    /// lengths, so a false one would have it read on where nothing was checked.
    KnownTags(&'static [(u32, &'static [Field])]),
}

/// What is wrong with a frame, and where.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at} of {length}")]
pub struct Misshapen {
    what: &'static str,
    at: usize,
    length: usize,
}

pub const API_VERSIONS_V0: &[Field] = &[I16, Array(&[I16, I16, I16])];
pub const SASL_HANDSHAKE_V1: &[Field] = &[I16, Array(&[Str])];
pub const SASL_AUTHENTICATE_V0: &[Field] = &[I16, Str, Bytes];
pub const SASL_AUTHENTICATE_V1: &[Field] = &[I16, Str, Bytes, I64];
const METADATA_PARTITION: &[Field] =
    &[I16, I32, I32, I32, CompactArray(&[I32]), CompactArray(&[I32]), CompactArray(&[I32]), Tags];
const METADATA_BROKER: &[Field] = &[I32, CompactStr, I32, CompactStr, Tags];
pub const METADATA_V9: &[Field] = &[
    I32,
    CompactArray(METADATA_BROKER),
    CompactStr,
    I32,
    CompactArray(&[I16, CompactStr, Bool, CompactArray(METADATA_PARTITION), I32, Tags]),
    I32,
    Tags,
];
pub const METADATA_V12: &[Field] = &[
    I32,
    CompactArray(METADATA_BROKER),
    CompactStr,
    I32,
    CompactArray(&[I16, CompactStr, Uuid, Bool, CompactArray(METADATA_PARTITION), I32, Tags]),
    Tags,
];
pub const FETCH_V11: &[Field] =
    &[I32, I16, I32, Array(&[Str, Array(&[I32, I16, I64, I64, I64, Array(&[I64, I64]), I32, Bytes])])];
pub const FETCH_V13: &[Field] = &[
    I32,
    I16,
    I32,
    CompactArray(&[
        Uuid,
        CompactArray(&[
            I32,
            I16,
            I64,
            I64,
            I64,
            CompactArray(&[I64, I64, Tags]),
            I32,
            CompactBytes,
            // Diverging epoch, current leader, snapshot id.
            KnownTags(&[(0, &[I32, I64, Tags]), (1, &[I32, I32, Tags]), (2, &[I64, I32, Tags])]),
        ]),
        Tags,
    ]),
    Tags,
];
pub const PRODUCE_V8: &[Field] =
    &[Array(&[Str, Array(&[I32, I16, I64, I64, I64, Array(&[I32, Str]), Str])]), I32];
pub const LIST_OFFSETS_V5: &[Field] = &[I32, Array(&[Str, Array(&[I32, I16, I64, I64, I32])])];
pub const DESCRIBE_LOG_DIRS_V1: &[Field] =
    &[I32, Array(&[I16, Str, Array(&[Str, Array(&[I32, I64, I64, Bool])])])];
pub const DESCRIBE_LOG_DIRS_V3: &[Field] = &[
    I32,
    I16,
    CompactArray(&[
        I16,
        CompactStr,
        CompactArray(&[CompactStr, CompactArray(&[I32, I64, I64, Bool, Tags]), Tags]),
        Tags,
    ]),
    Tags,
];
pub const CREATE_TOPICS_V7: &[Field] = &[
    I32,
    CompactArray(&[
        CompactStr,
        Uuid,
        I16,
        CompactStr,
        I32,
        I16,
        CompactArray(&[CompactStr, CompactStr, Bool, I8, Bool, Tags]),
        // Why the configs are left out.
        KnownTags(&[(0, &[I16])]),
    ]),
    Tags,
];
pub const INIT_PRODUCER_ID_V1: &[Field] = &[I32, I16, I64, I16];
pub const FIND_COORDINATOR_V2: &[Field] = &[I32, I16, Str, I32, Str, I32];
pub const FIND_COORDINATOR_V4: &[Field] =
    &[I32, CompactArray(&[CompactStr, I32, CompactStr, I32, I16, CompactStr, Tags]), Tags];
pub const DESCRIBE_PRODUCERS_V0: &[Field] = &[
    I32,
    CompactArray(&[
        CompactStr,
        CompactArray(&[I32, I16, CompactStr, CompactArray(&[I64, I32, I32, I64, I32, I64, Tags]), Tags]),
        Tags,
    ]),
    Tags,
];
pub const LIST_GROUPS_V3: &[Field] = &[I32, I16, CompactArray(&[CompactStr, CompactStr, Tags]), Tags];
pub const LIST_GROUPS_V4: &[Field] =
    &[I32, I16, CompactArray(&[CompactStr, CompactStr, CompactStr, Tags]), Tags];
const OFFSET_FETCH_TOPIC: &[Field] =
    &[CompactStr, CompactArray(&[I32, I64, I32, CompactStr, I16, Tags]), Tags];
pub const OFFSET_FETCH_V7: &[Field] = &[I32, CompactArray(OFFSET_FETCH_TOPIC), I16, Tags];
pub const OFFSET_FETCH_V8: &[Field] =
    &[I32, CompactArray(&[CompactStr, CompactArray(OFFSET_FETCH_TOPIC), I16, Tags]), Tags];
pub const OFFSET_COMMIT_V7: &[Field] = &[I32, Array(&[Str, Array(&[I32, I16])])];
pub const ADD_PARTITIONS_TO_TXN_V1: &[Field] = &[I32, Array(&[Str, Array(&[I32, I16])])];
pub const END_TXN_V1: &[Field] = &[I32, I16];
pub const WRITE_TXN_MARKERS_V1: &[Field] =
    &[CompactArray(&[I64, CompactArray(&[CompactStr, CompactArray(&[I32, I16, Tags]), Tags]), Tags]), Tags];
/// Version 3 is the same, with one more type of resource; likewise the two below.
pub const DESCRIBE_ACLS_V2: &[Field] = &[
    I32,
    I16,
    CompactStr,
    CompactArray(&[I8, CompactStr, I8, CompactArray(&[CompactStr, CompactStr, I8, I8, Tags]), Tags]),
    Tags,
];
pub const CREATE_ACLS_V2: &[Field] = &[I32, CompactArray(&[I16, CompactStr, Tags]), Tags];
const DELETE_ACLS_MATCHING: &[Field] =
    &[I16, CompactStr, I8, CompactStr, I8, CompactStr, CompactStr, I8, I8, Tags];
pub const DELETE_ACLS_V2: &[Field] =
    &[I32, CompactArray(&[I16, CompactStr, CompactArray(DELETE_ACLS_MATCHING), Tags]), Tags];
pub const INCREMENTAL_ALTER_CONFIGS_V0: &[Field] = &[I32, Array(&[I16, Str, I8, Str])];
pub const DELETE_RECORDS_V1: &[Field] = &[I32, Array(&[Str, Array(&[I32, I64, I16])])];
pub const CREATE_PARTITIONS_V1: &[Field] = &[I32, Array(&[Str, I16, Str])];
pub const DELETE_TOPICS_V6: &[Field] = &[I32, CompactArray(&[CompactStr, Uuid, I16, CompactStr, Tags]), Tags];
pub const DESCRIBE_CONFIGS_V2: &[Field] =
    &[I32, Array(&[I16, Str, I8, Str, Array(&[Str, Str, Bool, I8, Bool, Array(&[Str, Str, I8])])])];

/// Walks `body` by its shape; every count must fit into what is left.
///
/// # Errors
/// [`Misshapen`] for a count or length that the frame can't hold, and for bytes left over.
pub fn check(body: &[u8], shape: &[Field]) -> Result<(), Misshapen> {
    let mut walk = Walk { body, at: 0 };
    walk.fields(shape)?;
    if walk.at == body.len() { Ok(()) } else { Err(walk.wrong("bytes behind the response's end")) }
}

/// Bytes that the tagged fields at the start of `body` take.
///
/// # Errors
/// [`Misshapen`] when they don't fit.
pub fn tags_bytes(body: &[u8]) -> Result<usize, Misshapen> {
    let mut walk = Walk { body, at: 0 };
    walk.field(&Tags)?;
    Ok(walk.at)
}

struct Walk<'a> {
    body: &'a [u8],
    at: usize,
}

impl Walk<'_> {
    fn wrong(&self, what: &'static str) -> Misshapen {
        Misshapen { what, at: self.at, length: self.body.len() }
    }

    fn fields(&mut self, fields: &[Field]) -> Result<(), Misshapen> {
        fields.iter().try_for_each(|field| self.field(field))
    }

    fn field(&mut self, field: &Field) -> Result<(), Misshapen> {
        match field {
            Bool | I8 => self.skip(1),
            I16 => self.skip(2),
            I32 => self.skip(4),
            I64 => self.skip(8),
            Uuid => self.skip(16),
            Str => {
                let length = i16::from_be_bytes(self.take()?);
                self.skip_nullable(i64::from(length))
            }
            Bytes => {
                let length = i32::from_be_bytes(self.take()?);
                self.skip_nullable(i64::from(length))
            }
            CompactStr | CompactBytes => {
                let length = self.varint()?;
                self.skip_nullable(i64::from(length) - 1)
            }
            Array(fields) => {
                let count = i32::from_be_bytes(self.take()?);
                self.elements(i64::from(count), fields)
            }
            CompactArray(fields) => {
                let count = self.varint()?;
                self.elements(i64::from(count) - 1, fields)
            }
            Tags => self.tags(&[]),
            KnownTags(known) => self.tags(known),
        }
    }

    fn tags(&mut self, known: &[(u32, &[Field])]) -> Result<(), Misshapen> {
        for _ in 0..self.varint()? {
            let tag = self.varint()?;
            let length = self.varint()? as usize;
            let start = self.at;
            match known.iter().find(|(known, _)| *known == tag) {
                None => self.skip(length)?,
                Some((_, fields)) => self.fields(fields)?,
            }
            if self.at - start != length {
                return Err(self.wrong("a tagged field of another length than it says"));
            }
        }
        Ok(())
    }

    fn elements(&mut self, count: i64, fields: &[Field]) -> Result<(), Misshapen> {
        let bytes_min: usize = fields.iter().map(Field::bytes_min).sum();
        match usize::try_from(count) {
            Ok(count) if count.saturating_mul(bytes_min) <= self.body.len() - self.at => {
                (0..count).try_for_each(|_| self.fields(fields))
            }
            Ok(_) => Err(self.wrong("a count larger than the frame")),
            Err(_) if count == -1 => Ok(()),
            Err(_) => Err(self.wrong("a negative count")),
        }
    }

    fn skip_nullable(&mut self, length: i64) -> Result<(), Misshapen> {
        match usize::try_from(length) {
            Ok(length) => self.skip(length),
            Err(_) if length == -1 => Ok(()),
            Err(_) => Err(self.wrong("a negative length")),
        }
    }

    fn skip(&mut self, bytes: usize) -> Result<(), Misshapen> {
        if bytes > self.body.len() - self.at {
            return Err(self.wrong("a field that ends behind the frame"));
        }
        self.at += bytes;
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Misshapen> {
        let start = self.at;
        self.skip(N)?;
        Ok(self.body[start..start + N].try_into().expect("N bytes"))
    }

    fn varint(&mut self) -> Result<u32, Misshapen> {
        let mut value = 0u32;
        for shift in (0..35).step_by(7) {
            let [byte] = self.take()?;
            value |= u32::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.wrong("a variable-length number of more than 32 bits"))
    }
}

impl Field {
    /// Fewest bytes the field can take on the wire.
    fn bytes_min(&self) -> usize {
        match self {
            Bool | I8 | CompactStr | CompactBytes | CompactArray(_) | Tags | KnownTags(_) => 1,
            I16 | Str => 2,
            I32 | Bytes | Array(_) => 4,
            I64 => 8,
            Uuid => 16,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_the_frame_cannot_hold_is_refused() {
        let mut body = vec![0, 0];
        body.extend_from_slice(&i32::MAX.to_be_bytes());
        body.extend_from_slice(&[0; 12]);
        let error = check(&body, API_VERSIONS_V0).expect_err("hostile");
        assert_eq!(error.to_string(), "a count larger than the frame at byte 6 of 18");
    }

    #[test]
    fn a_well_formed_response_passes() {
        let body = [0, 0, 0, 0, 0, 1, 0, 18, 0, 0, 0, 4];
        assert_eq!(check(&body, API_VERSIONS_V0), Ok(()));
        assert!(check(&body[..11], API_VERSIONS_V0).is_err());
    }

    /// The codec would take the snapshot's 13 bytes, whatever their length says, and what follows
    /// for counts.
    #[test]
    fn a_known_tagged_field_must_have_the_length_it_says() {
        let tagged = |length: u8| {
            let mut body = vec![0; 10];
            // One topic, its id, one partition up to its records.
            body.push(2);
            body.extend_from_slice(&[0; 16]);
            body.push(2);
            body.extend_from_slice(&[0; 4 + 2 + 8 + 8 + 8]);
            body.push(1);
            body.extend_from_slice(&[0; 4]);
            body.push(1);
            // One tagged field: the snapshot id.
            body.extend_from_slice(&[1, 2, length]);
            body.extend_from_slice(&[0; 8 + 4 + 1]);
            // No tags of topic and response.
            body.extend_from_slice(&[0, 0]);
            body
        };
        assert_eq!(check(&tagged(13), FETCH_V13), Ok(()));
        for length in [0, 1, 12, 14, 15] {
            let error = check(&tagged(length), FETCH_V13).expect_err("a false length").to_string();
            assert!(error.starts_with("a tagged field of another length than it says"), "{length}: {error}");
        }
    }
}
