//! What brokers answer that are busy or broken: any error code there is, to any kind of request; and
//! clients that are over their quota. Drawn from a stream of its own, so that the other faults of a seed are
//! what they were.

use std::time::Duration;

use kafka::ErrorCode;
use kafka_protocol::messages::ApiKey;

use crate::chance::Chance;
use crate::clusters::Side;
use crate::faults::{Fault, Kind};
use crate::mischief::{APIS, Trick};

/// In so many seeds of a hundred.
const PERCENT: u64 = 50;
const FAULTS_MAX: u64 = 6;
const LASTS_MS: std::ops::RangeInclusive<u64> = 50..=12_000;
/// So many of a hundred refusals say what only a person can mend, of a few codes that would be too seldom
/// otherwise (`refusal.rs` has their names).
const LASTING_PERCENT: u64 = 15;
const LASTING: [i16; 10] = [17, 37, 40, 42, 43, 44, 47, 76, 87, 90];
/// A broker throttles for up to `quota.window.num` seconds (11). Five requests may wait in a connection, each
/// for the one before: the last of them is to arrive within the time that the product counts on.
const THROTTLED_MS: std::ops::RangeInclusive<u64> = 20..=2_200;

pub fn draw(chance: &mut Chance, busy: Duration) -> Vec<Fault> {
    if !chance.percent(PERCENT) {
        return Vec::new();
    }
    let last_ms = u64::try_from(busy.as_millis()).unwrap_or(u64::MAX);
    let codes: Vec<i16> = ErrorCode::every().map(|code| code.0).collect();
    let fault = |chance: &mut Chance| {
        let at = Duration::from_millis(chance.between(1..=last_ms));
        let trick = if chance.percent(30) {
            Trick::Throttle(Duration::from_millis(chance.between(THROTTLED_MS)))
        } else {
            let lasts = chance.percent(LASTING_PERCENT);
            Trick::Refuse(*chance.pick(if lasts { &LASTING } else { &codes }))
        };
        let kind = Kind::Requests {
            side: if chance.percent(60) { Side::Destination } else { Side::Source },
            api: if chance.percent(30) { ApiKey::Produce } else { *chance.pick(&APIS) },
            trick,
            percent: *chance.pick(&[5, 20, 50, 100]),
            lasts: Duration::from_millis(chance.between(LASTS_MS)),
        };
        Fault { at, kind }
    };
    (0..chance.between(1..=FAULTS_MAX)).map(|_| fault(chance)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_code_comes_and_so_does_every_kind_of_request() {
        let mut chance = Chance::of(1, "test");
        let faults = (0..2_000).flat_map(|_| draw(&mut chance, Duration::from_secs(30)));
        let (mut codes, mut apis, mut throttled) = ([0; 138], [0; APIS.len()], 0);
        for fault in faults {
            let Kind::Requests { api, trick, .. } = fault.kind else { panic!("{fault}") };
            apis[APIS.iter().position(|of| *of == api).expect("one of them")] += 1;
            match trick {
                Trick::Refuse(code) => codes[usize::try_from(code + 1).expect("-1 or more")] += 1,
                _ => throttled += 1,
            }
        }
        assert!(apis.iter().all(|count| *count > 0) && throttled > 0, "{apis:?}, {throttled}");
        let missing: Vec<usize> = (0..138).filter(|at| codes[*at] == 0).collect();
        assert_eq!(missing, [1], "every one but 0, which isn't an error");
    }
}
