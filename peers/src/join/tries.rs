//! How often secrets may be tried: a few at once from one place, then a pause for that place.
//!
//! A place is an IPv4 address, or the 64 bits of an IPv6 address that one network has. So many places are
//! counted each by itself; all further ones share a count. Who has that many addresses can guess as often,
//! which a secret of 32 random bytes needn't fear, and can delay joins from places that weren't counted yet.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A person who mistypes doesn't get there; a guesser gets no further.
const TRIES_MAX: u32 = 10;

/// Tries are forgotten after it, and a pause lasts as long.
const PAUSE: Duration = Duration::from_secs(10);

/// Places that are counted each by itself; some 100 bytes each.
const PLACES_MAX: usize = 256;

/// Where all further ones are counted.
const ELSEWHERE: &str = "";

#[derive(Default)]
pub(crate) struct Tries(Mutex<BTreeMap<String, Window>>);

struct Window {
    begun: Instant,
    wrong: u32,
}

impl Window {
    fn is_over(&self) -> bool {
        self.begun.elapsed() >= PAUSE
    }
}

impl Tries {
    fn windows(&self) -> MutexGuard<'_, BTreeMap<String, Window>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long a caller from there is to wait before the next try; none: try now.
    pub fn pause(&self, from: &str) -> Option<Duration> {
        let windows = self.windows();
        let window = windows.get(counted_as(&windows, &place(from)))?;
        let left = PAUSE.checked_sub(window.begun.elapsed()).filter(|left| !left.is_zero());
        left.filter(|_| window.wrong >= TRIES_MAX)
    }

    pub fn wrong(&self, from: &str) {
        let mut windows = self.windows();
        windows.retain(|_, window| !window.is_over());
        let place = place(from);
        let counted_as = counted_as(&windows, &place).to_owned();
        let now = Instant::now();
        let window = windows.entry(counted_as).or_insert(Window { begun: now, wrong: 0 });
        window.wrong += 1;
        if window.wrong == TRIES_MAX {
            window.begun = now;
        }
    }
}

fn counted_as<'a>(windows: &BTreeMap<String, Window>, place: &'a str) -> &'a str {
    let counted = windows.values().filter(|window| !window.is_over()).count();
    if windows.contains_key(place) || counted < PLACES_MAX { place } else { ELSEWHERE }
}

/// Of `address:port`; networks that have other addresses are taken by their host's.
fn place(from: &str) -> String {
    match from.parse::<SocketAddr>().map(|address| address.ip().to_canonical()) {
        Ok(IpAddr::V4(address)) => address.to_string(),
        Ok(IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}")
        }
        Err(_) => from.rsplit_once(':').map_or(from, |(host, _)| host).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUESSER: &str = "192.0.2.1:4000";
    const ANOTHER: &str = "192.0.2.2:4000";

    fn guess(tries: &Tries, from: &str) {
        (0..TRIES_MAX).for_each(|_| tries.wrong(from));
    }

    #[tokio::test(start_paused = true)]
    async fn after_some_wrong_tries_a_caller_waits_and_then_may_try_again() {
        let tries = Tries::default();
        for _ in 0..TRIES_MAX {
            assert_eq!(tries.pause(GUESSER), None);
            tries.wrong(GUESSER);
            tokio::time::advance(PAUSE / 20).await;
        }
        assert_eq!(tries.pause("192.0.2.1:5000"), Some(PAUSE - PAUSE / 20), "whatever port it calls from");
        assert_eq!(tries.pause(ANOTHER), None, "nobody else waits");
        tokio::time::advance(PAUSE).await;
        assert_eq!(tries.pause(GUESSER), None);
        tries.wrong(GUESSER);
        assert_eq!(tries.pause(GUESSER), None, "the count begins anew");
    }

    #[tokio::test(start_paused = true)]
    async fn one_network_of_ipv6_is_one_place() {
        let tries = Tries::default();
        for host in 0..u64::from(TRIES_MAX) {
            tries.wrong(&format!("[2001:db8:0:1::{host:x}]:4000"));
        }
        assert!(tries.pause("[2001:db8:0:1:ffff::1]:4000").is_some());
        assert_eq!(tries.pause("[2001:db8:0:2::1]:4000"), None);
        guess(&tries, GUESSER);
        assert!(tries.pause("[::ffff:192.0.2.1]:4000").is_some(), "the same address on an IPv6 socket");
    }

    #[tokio::test(start_paused = true)]
    async fn places_beyond_those_that_are_counted_share_a_count_until_there_is_room() {
        let tries = Tries::default();
        for n in 0..PLACES_MAX + usize::try_from(TRIES_MAX).expect("small") {
            assert_eq!(tries.pause(&format!("n{n}:1")), None);
            tries.wrong(&format!("n{n}:1"));
        }
        assert_eq!(tries.windows().len(), PLACES_MAX + 1);
        assert!(tries.pause("new:1").is_some());
        assert_eq!(tries.pause("n0:1"), None);
        tokio::time::advance(PAUSE).await;
        assert_eq!(tries.pause("new:1"), None);
        tries.wrong("new:1");
        assert_eq!(tries.windows().len(), 1, "forgotten");
    }
}
