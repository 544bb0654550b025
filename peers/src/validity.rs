//! From when until when a certificate is valid. Nothing else that this project builds with tells.
//!
//! Reads just as much of X.509 as leads there (RFC 5280 section 4.1), and never panics.

use rustls::pki_types::CertificateDer;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const EXPLICIT_0: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub not_before_ms: i64,
    pub not_after_ms: i64,
}

impl Validity {
    /// None for what isn't an X.509 certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (certificate, _) = take(certificate, SEQUENCE)?;
        let (fields, _) = take(certificate, SEQUENCE)?;
        let (_version, rest) = take(fields, EXPLICIT_0)?;
        let (_serial, rest) = take(rest, INTEGER)?;
        let (_algorithm, rest) = take(rest, SEQUENCE)?;
        let (_issuer, rest) = take(rest, SEQUENCE)?;
        let (validity, _) = take(rest, SEQUENCE)?;
        let (not_before_ms, rest) = time(validity)?;
        let (not_after_ms, _) = time(rest)?;
        Some(Self { not_before_ms, not_after_ms })
    }
}

/// One element with that tag: its contents, and what follows it.
fn take(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let (length, rest) = length(rest)?;
    if *first != tag || length > rest.len() {
        return None;
    }
    Some(rest.split_at(length))
}

fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    match *first {
        short @ 0..=0x7f => Some((usize::from(short), rest)),
        long @ 0x81..=0x83 => {
            let (length, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            Some((length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest))
        }
        _ => None,
    }
}

/// `YYMMDDhhmmssZ` (1950 to 2049) or `YYYYMMDDhhmmssZ`.
fn time(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let (text, rest, century) = match take(bytes, UTC_TIME) {
        Some((text, rest)) => (text, rest, None),
        None => {
            let (text, rest) = take(bytes, GENERALIZED_TIME)?;
            let (century, text) = text.split_at_checked(2)?;
            (text, rest, Some(two(century)?))
        }
    };
    let [y1, y2, m1, m2, d1, d2, h1, h2, i1, i2, s1, s2, b'Z'] = *text else { return None };
    let year = two(&[y1, y2])?;
    let century = century.unwrap_or(if year < 50 { 20 } else { 19 });
    let (month, day) = (two(&[m1, m2])?, two(&[d1, d2])?);
    let days = days_since_1970(century * 100 + year, month, day)?;
    let (hours, minutes, seconds) = (two(&[h1, h2])?, two(&[i1, i2])?, two(&[s1, s2])?);
    Some((((days * 24 + hours) * 60 + minutes) * 60_000 + seconds * 1_000, rest))
}

fn two(digits: &[u8]) -> Option<i64> {
    match digits {
        [tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => {
            Some(i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
        }
        _ => None,
    }
}

/// Years begin in March here, so that the leap day is the last of a year.
fn days_since_1970(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(
        365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn certificate(not_before: (i32, u8, u8), not_after: (i32, u8, u8)) -> CertificateDer<'static> {
        let mut params = rcgen::CertificateParams::new(vec!["a".into()]).expect("a name");
        params.not_before = rcgen::date_time_ymd(not_before.0, not_before.1, not_before.2);
        params.not_after = rcgen::date_time_ymd(not_after.0, not_after.1, not_after.2);
        let key = rcgen::KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").der().clone()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn dates_are_those_that_were_written(
            first in (1950..2200i32, 1..=12u8, 1..=28u8),
            last in (1950..2200i32, 1..=12u8, 1..=28u8),
        ) {
            let ms = |(year, month, day)| rcgen::date_time_ymd(year, month, day).unix_timestamp() * 1_000;
            let read = Validity::of(&certificate(first, last)).expect("a certificate");
            prop_assert_eq!(read, Validity { not_before_ms: ms(first), not_after_ms: ms(last) });
        }

        #[test]
        fn bytes_that_are_none_never_panic(bytes: Vec<u8>) {
            let _ = Validity::of(&CertificateDer::from(bytes));
        }
    }

    #[test]
    fn a_certificate_that_is_cut_off_or_changed_never_panics() {
        let whole = certificate((2024, 2, 28), (2051, 3, 1)).to_vec();
        for length in 0..whole.len() {
            let _ = Validity::of(&CertificateDer::from(&whole[..length]));
            let mut changed = whole.clone();
            changed[length] ^= 0xff;
            let _ = Validity::of(&CertificateDer::from(changed));
        }
    }
}
