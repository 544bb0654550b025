use super::*;
use crate::lane::LaneStop;
use kafka::ErrorCode;
use proptest::prelude::*;

const MISSING_MAX: Duration = Duration::from_secs(60);

fn end(stop: LaneStop, in_doubt: bool) -> LaneEnd {
    LaneEnd { stop, in_doubt, others_until: None }
}

fn lost(in_doubt: bool) -> LaneEnd {
    end(LaneStop::Lost { reason: "gone".into() }, in_doubt)
}

fn footed(run: u64) -> Event {
    Event::Footed { run, quiet_from: None }
}

fn not_footed(run: u64, why: NotFooted) -> Event {
    Event::NotFooted { run, why, quiet_from: None }
}

fn running(now: Instant) -> Machine {
    let (mut machine, effects) = Machine::start(now, false, (AMBIGUITY_WAIT, MISSING_MAX), 0);
    assert_eq!(effects, [Effect::Look { run: 1, quiet: Quiet::From(now) }]);
    assert_eq!(machine.on(footed(1), now, false), [Effect::Begin { run: 1 }]);
    assert_eq!(machine.shown(), Shown::Running);
    machine
}

#[test]
fn after_an_unclean_takeover_an_unguarded_partition_waits_until_it_is_quiet() {
    let now = Instant::now();
    let (mut machine, effects) = Machine::start(now, true, (AMBIGUITY_WAIT, MISSING_MAX), 0);
    assert_eq!(effects, [Effect::Look { run: 1, quiet: Quiet::OnceAnswered { wait: AMBIGUITY_WAIT } }]);
    let until = now + AMBIGUITY_WAIT;
    let why = NotFooted::NotQuiet { until };
    let effects = machine.on(Event::NotFooted { run: 1, why, quiet_from: Some(until) }, now, false);
    assert_eq!(effects, [Effect::Wake { at: until, token: 1 }]);
    assert_eq!(machine.shown(), Shown::Quieting { until });
    let effects = machine.on(Event::Woken { token: 1 }, until, false);
    assert_eq!(effects, [Effect::Look { run: 2, quiet: Quiet::From(until) }]);
}

/// Found by reading: the wait was counted from our side, so that a broker frozen for longer than it
/// could take a request of ours after the log end was read.
#[test]
fn the_ambiguity_wait_begins_when_the_broker_answers_again() {
    let now = Instant::now();
    let mut machine = running(now);
    machine.on(Event::LaneEnded { run: 1, end: lost(true) }, now, false);
    machine.on(Event::Woken { token: 1 }, now, false);
    let frozen = Verdict::Retry { message: "no answer".into() };
    let later = now + AMBIGUITY_WAIT * 3;
    machine.on(not_footed(2, NotFooted::Verdict(frozen)), later, false);
    assert!(machine.is_in_doubt(later), "never answered: still in doubt");
    let effects = machine.on(Event::Woken { token: 2 }, later, false);
    assert_eq!(effects, [Effect::Look { run: 3, quiet: Quiet::OnceAnswered { wait: AMBIGUITY_WAIT } }]);
    assert_eq!(Quiet::OnceAnswered { wait: AMBIGUITY_WAIT }.answered(later), later + AMBIGUITY_WAIT);
    assert_eq!(Quiet::From(now).answered(later), now);
}

#[test]
fn an_owner_that_was_met_is_waited_for_also_in_the_next_run() {
    let now = Instant::now();
    let mut machine = running(now);
    let until = now + TAKEOVER_WAIT;
    let end = LaneEnd { others_until: Some(until), ..lost(false) };
    machine.on(Event::LaneEnded { run: 1, end }, now, true);
    let effects = machine.on(Event::Woken { token: 1 }, now, false);
    assert_eq!(effects, [Effect::Look { run: 2, quiet: Quiet::From(until) }]);
    assert!(machine.is_in_doubt(until - Duration::from_millis(1)), "whoever it is handed to is told");
    assert!(!machine.is_in_doubt(until));
}

#[test]
fn a_run_that_ends_in_doubt_sets_the_ambiguity_wait_and_one_that_does_not_keeps_the_old() {
    let now = Instant::now();
    for (in_doubt, quiet) in [(false, Quiet::From(now)), (true, Quiet::OnceAnswered { wait: AMBIGUITY_WAIT })]
    {
        let mut machine = running(now);
        let effects = machine.on(Event::LaneEnded { run: 1, end: lost(in_doubt) }, now, false);
        assert_eq!(effects, [Effect::StopFetch, Effect::Wake { at: now + BACK_OFF_FIRST, token: 1 }]);
        let effects = machine.on(Event::Woken { token: 1 }, now, false);
        assert_eq!(effects, [Effect::Look { run: 2, quiet }]);
    }
}

#[test]
fn when_fetching_stops_what_was_fetched_is_appended_first() {
    let now = Instant::now();
    let mut machine = running(now);
    let verdict = Verdict::Fail { error: MirrorError::GapFillRefused, offset: 9, message: "hole".into() };
    let effects = machine.on(Event::FetchStopped { run: 1, verdict }, now, false);
    assert_eq!(effects, [Effect::FinishLane]);
    let effects = machine.on(Event::LaneEnded { run: 1, end: end(LaneStop::Closed, false) }, now, true);
    let fail = Effect::Fail { error: MirrorError::GapFillRefused, offset: 9, message: "hole".into() };
    assert_eq!(effects, [Effect::StopFetch, fail]);
    assert_eq!(machine.shown(), Shown::Failed);
}

#[test]
fn when_a_fill_is_done_the_next_look_follows_at_once() {
    let now = Instant::now();
    let mut machine = running(now);
    assert_eq!(
        machine.on(Event::FetchStopped { run: 1, verdict: Verdict::Proceed }, now, true),
        [Effect::FinishLane]
    );
    let effects = machine.on(Event::LaneEnded { run: 1, end: end(LaneStop::Closed, false) }, now, true);
    assert_eq!(effects, [Effect::StopFetch, Effect::Look { run: 2, quiet: Quiet::From(now) }]);
}

#[test]
fn what_the_destination_says_outweighs_why_the_source_side_stopped() {
    let now = Instant::now();
    let mut machine = running(now);
    let verdict = Verdict::Fail { error: MirrorError::GapFillRefused, offset: 9, message: "hole".into() };
    machine.on(Event::FetchStopped { run: 1, verdict }, now, false);
    let refused =
        LaneStop::Refused { offset: 3, code: ErrorCode::NOT_LEADER_OR_FOLLOWER, message: String::new() };
    let effects = machine.on(Event::LaneEnded { run: 1, end: end(refused, true) }, now, false);
    assert!(matches!(effects[..], [Effect::StopFetch, Effect::Wake { .. }]), "{effects:?}");
}

#[test]
fn retries_back_off_and_park_until_there_is_progress() {
    let now = Instant::now();
    let (mut machine, _) = Machine::start(now, false, (AMBIGUITY_WAIT, MISSING_MAX), 0);
    let refuse = |run| not_footed(run, NotFooted::Verdict(Verdict::Retry { message: "source: down".into() }));
    let mut waits = Vec::new();
    for attempt in 1..12 {
        let effects = machine.on(refuse(attempt), now, false);
        let [Effect::Wake { at, token }] = effects[..] else { panic!("{effects:?}") };
        waits.push((at - now).as_millis());
        assert_eq!(matches!(machine.shown(), Shown::Parked { .. }), attempt > u64::from(QUIET_RETRIES));
        machine.on(Event::Woken { token }, now, false);
    }
    assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000]);
    let effects = machine.on(refuse(12), now, true);
    assert!(matches!(effects[..], [Effect::Wake { at, .. }] if at - now == BACK_OFF_FIRST), "{effects:?}");
}

/// Found by reading: brokers close idle connections every ten minutes, and after an hour of that an
/// idle mirror was parked for half a minute each time.
#[test]
fn an_idle_mirror_whose_connection_is_closed_now_and_then_goes_on_at_once() {
    let mut now = Instant::now();
    let mut machine = running(now);
    for run in 1..30 {
        now += Duration::from_secs(600);
        let effects = machine.on(Event::LaneEnded { run, end: lost(false) }, now, false);
        let [Effect::StopFetch, Effect::Wake { at, token }] = effects[..] else { panic!("{effects:?}") };
        assert_eq!((at - now, machine.shown()), (BACK_OFF_FIRST, Shown::Checking));
        machine.on(Event::Woken { token }, now, false);
        machine.on(footed(run + 1), now, false);
    }
}

#[test]
fn a_stop_waits_for_what_is_under_way() {
    let now = Instant::now();
    let mut machine = running(now);
    assert_eq!(machine.on(Event::Stop, now, false), [Effect::StopFetch, Effect::CloseLane]);
    let effects = machine.on(Event::LaneEnded { run: 1, end: end(LaneStop::Closed, false) }, now, false);
    assert_eq!(effects, [Effect::StopFetch, Effect::Stopped]);
}

#[test]
fn a_stop_during_a_look_waits_for_nothing_and_begins_nothing() {
    let now = Instant::now();
    let (mut machine, _) = Machine::start(now, false, (AMBIGUITY_WAIT, MISSING_MAX), 0);
    assert_eq!(machine.on(Event::Stop, now, false), [Effect::StopLook, Effect::Stopped]);
    assert_eq!(machine.on(footed(1), now, false), []);
    assert_eq!(machine.shown(), Shown::Stopped);
}

#[derive(Clone, Debug)]
enum Step {
    Footed(bool),
    FetchStopped,
    LaneEnded { in_doubt: bool, run_back: u64 },
    LeaderMoved,
    LogEndMoved,
    Woken(bool),
    Stop,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(
        prop_oneof![
            4 => any::<bool>().prop_map(Step::Footed),
            2 => Just(Step::FetchStopped),
            3 => (any::<bool>(), 0u64..2).prop_map(|(in_doubt, run_back)| Step::LaneEnded { in_doubt, run_back }),
            1 => Just(Step::LeaderMoved),
            1 => Just(Step::LogEndMoved),
            4 => any::<bool>().prop_map(Step::Woken),
            1 => Just(Step::Stop),
        ],
        0..60,
    )
}

proptest! {
    /// At most one run has a lane, no run begins after Stop, and Stopped comes only when no lane
    /// is open.
    #[test]
    fn whatever_comes_two_runs_never_overlap(steps in steps()) {
        let mut now = Instant::now();
        let (mut machine, _) = Machine::start(now, true, (AMBIGUITY_WAIT, MISSING_MAX), 0);
        let (mut lane, mut token, mut stopped) = (None::<u64>, 0, false);
        for step in steps {
            now += Duration::from_millis(50);
            let run = machine.run();
            let event = match step {
                Step::Footed(true) => footed(run),
                Step::Footed(false) => not_footed(run, NotFooted::NotQuiet { until: now }),
                // Lanes and fetches speak only while there is a lane.
                Step::FetchStopped if lane.is_some() => {
                    Event::FetchStopped { run, verdict: retry("fetch") }
                }
                Step::LaneEnded { in_doubt, run_back } => {
                    let run = run.saturating_sub(run_back);
                    if lane != Some(run) && run_back == 0 { continue }
                    if lane == Some(run) { lane = None }
                    Event::LaneEnded { run, end: lost(in_doubt) }
                }
                Step::LeaderMoved => Event::LeaderMoved,
                Step::LogEndMoved => Event::LogEndMoved,
                Step::Woken(current) => Event::Woken { token: if current { token } else { token + 7 } },
                Step::Stop => { stopped = true; Event::Stop }
                Step::FetchStopped => continue,
            };
            for effect in machine.on(event, now, false) {
                match effect {
                    Effect::Begin { run } => {
                        prop_assert!(lane.is_none() && !stopped);
                        lane = Some(run);
                    }
                    Effect::Wake { token: t, .. } => token = t,
                    Effect::Look { .. } | Effect::Stopped => prop_assert!(lane.is_none()),
                    _ => {}
                }
            }
        }
    }
}

#[test]
fn an_unguarded_partition_waits_for_a_lease_and_looks_again_with_it() {
    let now = Instant::now();
    let mut machine = running(now);
    machine.on(Event::LaneEnded { run: 1, end: end(LaneStop::NoLease, false) }, now, false);
    assert_eq!(machine.shown(), Shown::WaitingForLease);
    assert_eq!(machine.on(Event::Woken { token: 0 }, now, false), [], "of another wait");
    let effects = machine.on(Event::Woken { token: 1 }, now, false);
    assert_eq!(effects, [Effect::Look { run: 2, quiet: Quiet::From(now) }]);
    assert_eq!(machine.on(not_footed(2, NotFooted::NoLease), now, false), [Effect::AwaitLease { token: 2 }]);
    assert_eq!(machine.on(Event::Stop, now, false), [Effect::Stopped]);
}

#[test]
fn what_was_held_back_is_looked_at_again_at_once() {
    let now = Instant::now();
    let mut machine = running(now);
    let effects = machine.on(Event::LaneEnded { run: 1, end: end(LaneStop::HeldBack, false) }, now, false);
    assert_eq!(effects, [Effect::StopFetch, Effect::Look { run: 2, quiet: Quiet::From(now) }]);
}

/// A doubt of its own must not end before that of the owner before it does.
#[test]
fn after_a_takeover_from_another_node_every_doubt_lasts_as_long_as_its_lease_may() {
    let now = Instant::now();
    let wait = TAKEOVER_WAIT;
    let (mut machine, effects) = Machine::start(now, true, (wait, MISSING_MAX), 0);
    assert_eq!(effects, [Effect::Look { run: 1, quiet: Quiet::OnceAnswered { wait } }]);
    let quiet_from = Some(now + wait);
    machine.on(Event::Footed { run: 1, quiet_from }, now, false);
    machine.on(Event::LaneEnded { run: 1, end: lost(true) }, now, false);
    let effects = machine.on(Event::Woken { token: 1 }, now, false);
    assert_eq!(effects, [Effect::Look { run: 2, quiet: Quiet::OnceAnswered { wait } }]);
    assert_eq!(wait, Duration::from_millis(23_200));
}

fn missing() -> NotFooted {
    let (error, message) = (MirrorError::SourceTopicMayBeDeleted, "no topic".to_owned());
    NotFooted::Verdict(Verdict::Missing { error, message })
}

/// Looks again and again, and finds each time that the topic is missing, until it is over.
fn without_a_topic(machine: &mut Machine, from: Instant) -> (Vec<Effect>, Instant) {
    let mut now = from;
    loop {
        let effects = machine.on(not_footed(machine.run(), missing()), now, false);
        let [Effect::Wake { at, token }] = effects[..] else { return (effects, now) };
        assert!(matches!(machine.shown(), Shown::Parked { error: MirrorError::SourceTopicMayBeDeleted, .. }));
        now = at;
        machine.on(Event::Woken { token }, now, false);
    }
}

#[test]
fn a_topic_that_stays_away_fails_its_partition_when_the_time_is_over_and_not_before() {
    let now = Instant::now();
    let (mut machine, _) = Machine::start(now, false, (AMBIGUITY_WAIT, MISSING_MAX), 0);
    let (effects, at) = without_a_topic(&mut machine, now);
    assert_eq!(at, now + MISSING_MAX);
    let [Effect::Fail { error: MirrorError::SourceTopicMayBeDeleted, offset: 0, message }] = &effects[..]
    else {
        panic!("{effects:?}")
    };
    assert_eq!(message, "no topic, 60s ago or more");
}

#[test]
fn a_topic_that_was_seen_meanwhile_has_its_whole_time_again() {
    let now = Instant::now();
    let (mut machine, _) = Machine::start(now, false, (AMBIGUITY_WAIT, MISSING_MAX), 0);
    machine.on(not_footed(1, missing()), now, false);
    let later = now + MISSING_MAX / 2;
    machine.on(Event::Woken { token: 1 }, later, false);
    let unreachable = NotFooted::Verdict(Verdict::Retry { message: "no answer".into() });
    machine.on(not_footed(2, unreachable), later, false);
    machine.on(Event::Woken { token: 2 }, later, false);
    let (_, at) = without_a_topic(&mut machine, later);
    assert_eq!(at, later + MISSING_MAX);
}
