//! Step responses, drawn as text: what a destination of 400 MB/s does to our requests, which take longer the fuller
//! it is.

use std::fmt::Write;

use super::*;

const MB: f64 = 1_000_000.0;

/// Of one request.
const REQUEST_BYTES: f64 = 128.0 * 1024.0;

/// A broker as a queue: what is asked of it takes 1 / (1 - load) times as long as in quiet times.
struct World {
    control: Control,
    now: Duration,
    capacity: f64,
    drawing: String,
    /// Of the last step, bytes a second.
    sent: f64,
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl World {
    fn new() -> Self {
        let control = Control::new(Duration::ZERO);
        Self { control, now: Duration::ZERO, capacity: 400.0 * MB, drawing: String::new(), sent: 0.0 }
    }

    /// What one of our requests takes.
    fn takes(&self, load: f64) -> f64 {
        REQUEST_BYTES / self.capacity / (1.0 - (load / self.capacity).min(0.98))
    }

    /// Goes on until `until` with clients that write so much, and a backlog to send.
    fn run(&mut self, until: Duration, clients: f64) {
        while self.now < until {
            self.now += STEP;
            let wanted = match self.control.budget() {
                Budget::Free => f64::MAX,
                Budget::Limited { bytes_per_second } => bytes_per_second as f64,
            };
            self.sent = wanted.min(self.capacity - clients);
            let takes = self.takes(clients + self.sent);
            let queued = self.sent / REQUEST_BYTES * (takes - REQUEST_BYTES / 400.0 / MB);
            let has_looked = self.now.as_millis().is_multiple_of(500);
            let seen = if clients > 0.0 { Clients::Write(Some(clients)) } else { Clients::Quiet };
            self.control.step(
                self.now,
                &Signs {
                    clients: has_looked.then_some(seen),
                    queued: Some(queued),
                    throttled: false,
                    sent_bytes: (self.sent * STEP.as_secs_f64()) as u64,
                },
            );
            if self.now.as_millis().is_multiple_of(1_000) {
                self.draw(clients, takes);
            }
        }
    }

    /// A mark is 10 MB/s.
    fn draw(&mut self, clients: f64, takes: f64) {
        let bar = |rate: f64, mark: &str| mark.repeat((rate / MB / 10.0).round() as usize);
        let (at, ms) = (self.now.as_secs(), takes * 1_000.0);
        let bars = bar(clients, "c") + &bar(self.sent, "m");
        let line = format!("{at:>2} s {ms:>5.1} ms {bars}");
        writeln!(self.drawing, "{}", line.trim_end()).expect("a string");
    }
}

#[track_caller]
fn assert_drawn(world: &World, expected: &str) {
    assert!(world.drawing.trim() == expected.trim(), "now it is:\n{}", world.drawing);
}

#[test]
fn clients_arrive_and_leave() {
    let mut world = World::new();
    world.run(seconds(5), 0.0);
    world.run(seconds(15), 120.0 * MB);
    world.run(seconds(21), 0.0);
    let expected = "
 1 s   0.4 ms mmm
 2 s   0.4 ms mmmm
 3 s  16.4 ms mmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmm
 4 s  16.4 ms mmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmm
 5 s  16.4 ms mmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmm
 6 s   0.7 ms ccccccccccccmmmmmmmmmm
 7 s   0.7 ms ccccccccccccmmmmmmmm
 8 s   0.7 ms ccccccccccccmmmmmmmm
 9 s   0.7 ms ccccccccccccmmmmmmmm
10 s   0.7 ms ccccccccccccmmmmmmmm
11 s   0.7 ms ccccccccccccmmmmmmmm
12 s   0.7 ms ccccccccccccmmmmmmmm
13 s   0.7 ms ccccccccccccmmmmmmmm
14 s   0.7 ms ccccccccccccmmmmmmmm
15 s   0.7 ms ccccccccccccmmmmmmmm
16 s   0.5 ms mmmmmmmmmmmm
17 s   0.5 ms mmmmmmmmmmmmmmmm
18 s  16.4 ms mmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmm
19 s  16.4 ms mmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmm
20 s  16.4 ms mmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmm
21 s  16.4 ms mmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmm
";
    assert_drawn(&world, expected);
}

#[test]
fn a_destination_slows_down_and_recovers() {
    let mut world = World::new();
    world.run(seconds(8), 60.0 * MB);
    world.capacity = 100.0 * MB;
    world.run(seconds(18), 60.0 * MB);
    world.capacity = 400.0 * MB;
    world.run(seconds(30), 60.0 * MB);
    let expected = "
 1 s   0.4 ms ccccccmmm
 2 s   0.4 ms ccccccmmmm
 3 s   0.5 ms ccccccmmmmmmmm
 4 s   0.6 ms ccccccmmmmmmmmmm
 5 s   0.6 ms ccccccmmmmmmmmmm
 6 s   0.6 ms ccccccmmmmmmmmmm
 7 s   0.6 ms ccccccmmmmmmmmmm
 8 s   0.6 ms ccccccmmmmmmmmmm
 9 s  65.5 ms ccccccmmmm
10 s   4.3 ms ccccccm
11 s   4.0 ms ccccccm
12 s   4.0 ms ccccccm
13 s   4.0 ms ccccccm
14 s   4.0 ms ccccccm
15 s   4.0 ms ccccccm
16 s   4.0 ms ccccccm
17 s   4.0 ms ccccccm
18 s   4.0 ms ccccccm
19 s   0.4 ms ccccccm
20 s   0.4 ms ccccccmm
21 s   0.4 ms ccccccmmm
22 s   0.5 ms ccccccmmmmmm
23 s   0.6 ms ccccccmmmmmmmmmm
24 s   0.6 ms ccccccmmmmmmmmmm
25 s   0.6 ms ccccccmmmmmmmmmm
26 s   0.6 ms ccccccmmmmmmmmmm
27 s   0.6 ms ccccccmmmmmmmmmm
28 s   0.6 ms ccccccmmmmmmmmmm
29 s   0.6 ms ccccccmmmmmmmmmm
30 s   0.6 ms ccccccmmmmmmmmmm
";
    assert_drawn(&world, expected);
}

fn signs(clients: Clients) -> Signs {
    Signs { clients: Some(clients), queued: Some(0.0), throttled: false, sent_bytes: u64::MAX >> 20 }
}

fn limit(budget: Budget) -> u64 {
    match budget {
        Budget::Free => u64::MAX,
        Budget::Limited { bytes_per_second } => bytes_per_second,
    }
}

/// Steps until `until`, each with these signs.
fn steps(control: &mut Control, from: Duration, until: Duration, signs: &Signs) -> u64 {
    let mut now = from;
    while now < until {
        now += STEP;
        control.step(now, signs);
    }
    limit(control.budget())
}

#[test]
fn a_cluster_without_clients_is_free_within_four_seconds() {
    let mut control = Control::new(Duration::ZERO);
    assert_eq!(limit(control.budget()), BEGIN_BYTES_PER_SECOND);
    assert_eq!(steps(&mut control, seconds(0), seconds(5), &signs(Clients::Quiet)), u64::MAX);
}

#[test]
fn while_nobody_can_tell_of_clients_they_may_be_there() {
    let mut control = Control::new(Duration::ZERO);
    let harm = Signs { throttled: true, ..signs(Clients::Unknown) };
    assert_eq!(steps(&mut control, seconds(0), seconds(60), &harm), FLOOR_BYTES_PER_SECOND);
}

/// LV-3: mirroring isn't starved for ever, whatever is seen.
#[test]
fn every_sign_of_harm_cuts_down_to_the_floor_and_no_further() {
    let quiet = signs(Clients::Write(None));
    for harm in [Signs { throttled: true, ..quiet }, Signs { queued: Some(0.5), ..quiet }] {
        let mut control = Control::new(Duration::ZERO);
        assert_eq!(steps(&mut control, seconds(0), seconds(60), &harm), FLOOR_BYTES_PER_SECOND);
        assert!(steps(&mut control, seconds(60), seconds(62), &quiet) > FLOOR_BYTES_PER_SECOND);
    }
    let mut control = Control::new(Duration::ZERO);
    let harmless = Signs { queued: Some(0.15), ..quiet };
    assert!(steps(&mut control, seconds(0), seconds(5), &harmless) > BEGIN_BYTES_PER_SECOND);
}

#[test]
fn a_limit_that_holds_nothing_back_does_not_grow() {
    let mut control = Control::new(Duration::ZERO);
    let little = Signs { sent_bytes: 1_000_000, ..signs(Clients::Write(None)) };
    assert_eq!(steps(&mut control, seconds(0), seconds(60), &little), BEGIN_BYTES_PER_SECOND);
}

#[test]
fn nor_does_one_while_nothing_is_known_of_its_harm() {
    let mut control = Control::new(Duration::ZERO);
    let blind = Signs { queued: None, ..signs(Clients::Write(None)) };
    assert_eq!(steps(&mut control, seconds(0), seconds(60), &blind), BEGIN_BYTES_PER_SECOND);
}

/// Each of their requests would meet mirroring at full speed otherwise.
#[test]
fn clients_that_write_now_and_then_are_waited_for() {
    let mut control = Control::new(Duration::ZERO);
    let mut now = Duration::ZERO;
    let mut was_free = 0;
    for _ in 0..10 {
        now += STEP;
        was_free = usize::from(control.budget() == Budget::Free);
        control.step(now, &signs(Clients::Write(None)));
        steps(&mut control, now, now + seconds(6), &signs(Clients::Quiet));
        now += seconds(6);
    }
    assert_eq!(was_free, 0);
    assert_eq!(steps(&mut control, now, now + seconds(60), &signs(Clients::Quiet)), u64::MAX);
}
