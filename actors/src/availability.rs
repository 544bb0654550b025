//! Whether a link's two clusters answer, as a value: what was heard goes in, the link's state as
//! users see it comes out (SPEC section 4).
//!
//! The regular checks are counted; what other requests hear in between makes a cluster available
//! again at once, and tells what no waiting cures.

use kafka::Error;

use crate::observe::LinkView;

#[derive(Debug)]
pub struct Availability {
    failures_max: u32,
    source: Side,
    destination: Side,
}

/// What one cluster has answered so far.
#[derive(Debug, Default)]
struct Side {
    has_answered: bool,
    /// Checks in a row that failed.
    failures: u32,
    /// Of the last request, if that failed.
    error: Option<Error>,
}

impl Availability {
    /// `failures_max`: checks in a row that must fail before a cluster that has answered counts as
    /// unavailable.
    pub fn new(failures_max: u32) -> Self {
        Self { failures_max, source: Side::default(), destination: Side::default() }
    }

    /// One of the regular checks of both clusters.
    pub fn checked(&mut self, source: Option<Error>, destination: Option<Error>) {
        self.source.hear(source, true);
        self.destination.hear(destination, true);
    }

    /// What other requests heard.
    pub fn heard(&mut self, source: Option<Error>, destination: Option<Error>) {
        self.source.hear(source, false);
        self.destination.hear(destination, false);
    }

    pub fn view(&self) -> LinkView {
        let source = self.source.trouble(self.failures_max).map(|error| ("source", error));
        let destination = self.destination.trouble(self.failures_max).map(|error| ("destination", error));
        let source_available = source.is_none();
        let impostor = source.into_iter().chain(destination).find(|(_, error)| is_another_cluster(error));
        let Some((side, error)) = impostor.or(source).or(destination) else {
            return LinkView { state: "ACTIVE", error: "NO_ERROR", error_message: None, source_available };
        };
        LinkView {
            state: if impostor.is_some() { "FAILED" } else { "UNAVAILABLE" },
            error: name(error),
            error_message: Some(format!("{side}: {error}")),
            source_available,
        }
    }
}

impl Side {
    fn hear(&mut self, error: Option<Error>, counts: bool) {
        if error.is_none() {
            *self = Self { has_answered: true, ..Self::default() };
        } else {
            self.failures = self.failures.saturating_add(u32::from(counts));
            self.error = error;
        }
    }

    /// Why the cluster is unavailable, if it is.
    fn trouble(&self, failures_max: u32) -> Option<&Error> {
        let is_certain =
            |error: &&Error| !self.has_answered || self.failures >= failures_max || is_for_a_person(error);
        self.error.as_ref().filter(is_certain)
    }
}

fn is_another_cluster(error: &Error) -> bool {
    matches!(error, Error::WrongCluster { .. })
}

/// Credentials, settings, another cluster: asking again changes nothing.
fn is_for_a_person(error: &Error) -> bool {
    matches!(
        error,
        Error::WrongCluster { .. }
            | Error::Authentication { .. }
            | Error::Config(_)
            | Error::Tls { .. }
            | Error::Unsupported { .. }
    )
}

/// The link error of SPEC section 4 for a client error.
fn name(error: &Error) -> &'static str {
    match error {
        Error::Resolve { .. } => "UNRESOLVABLE_BOOTSTRAP_ERROR",
        Error::Connect { .. } | Error::Closed { .. } => "BOOTSTRAP_TCP_CONNECTION_FAILED_ERROR",
        Error::Deadline { .. } => "TIMEOUT_ERROR",
        Error::Authentication { .. } => "AUTHENTICATION_ERROR",
        _ => "UNKNOWN",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> Option<Error> {
        Some(Error::Connect { address: "a:1".into(), reason: "refused".into() })
    }

    fn shown(availability: &Availability) -> (&'static str, &'static str, bool) {
        let view = availability.view();
        (view.state, view.error, view.source_available)
    }

    const ACTIVE: (&str, &str, bool) = ("ACTIVE", "NO_ERROR", true);
    const REFUSED: &str = "BOOTSTRAP_TCP_CONNECTION_FAILED_ERROR";

    #[test]
    fn a_source_that_answered_is_unavailable_after_three_failed_checks_and_back_by_itself() {
        let mut availability = Availability::new(3);
        availability.checked(None, None);
        for _ in 0..2 {
            availability.checked(refused(), None);
            // However often others fail in between.
            (0..9).for_each(|_| availability.heard(refused(), None));
            assert_eq!(shown(&availability), ACTIVE);
        }
        availability.checked(refused(), None);
        assert_eq!(shown(&availability), ("UNAVAILABLE", REFUSED, false));
        assert_eq!(
            availability.view().error_message.as_deref(),
            Some("source: can't connect to a:1: refused")
        );
        availability.heard(None, None);
        assert_eq!(shown(&availability), ACTIVE);
        availability.checked(refused(), None);
        assert_eq!(shown(&availability), ACTIVE);
    }

    #[test]
    fn what_never_answered_is_unavailable_at_once() {
        let mut availability = Availability::new(3);
        availability.heard(refused(), None);
        assert_eq!(shown(&availability), ("UNAVAILABLE", REFUSED, false));
        availability.heard(None, refused());
        assert_eq!(shown(&availability), ACTIVE, "both have answered by now");
        let mut availability = Availability::new(3);
        availability.heard(None, refused());
        assert_eq!(shown(&availability), ("UNAVAILABLE", REFUSED, true));
    }

    #[test]
    fn what_a_person_must_mend_is_shown_at_once_and_another_cluster_first() {
        let mut availability = Availability::new(3);
        availability.checked(None, None);
        let denied = Error::Authentication { address: "a:1".into(), reason: "denied".into() };
        availability.heard(Some(denied.clone()), None);
        assert_eq!(shown(&availability), ("UNAVAILABLE", "AUTHENTICATION_ERROR", false));
        let other = Error::WrongCluster { expected: "a".into(), found: "b".into() };
        availability.heard(Some(denied), Some(other));
        assert_eq!(shown(&availability), ("FAILED", "UNKNOWN", false));
        assert_eq!(
            availability.view().error_message.as_deref(),
            Some("destination: expected cluster id a, the brokers answer b")
        );
    }
}
