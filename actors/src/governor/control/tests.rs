//! Step responses, drawn as text: what a destination of 400 MB/s, whose answers take longer the fuller it is, does
//! to clients and to us.

use std::fmt::Write;

use super::*;

const MB: f64 = 1_000_000.0;

/// A cluster as a queue: what is asked of it waits 1 / (1 - load).
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

    /// Small requests take a millisecond where nothing else is asked.
    fn delay(&self, load: f64) -> Duration {
        Duration::from_secs_f64(0.001 / (1.0 - (load / self.capacity).min(0.98)))
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
            let (alone, met) = (self.delay(clients), self.delay(clients + self.sent));
            let has_looked = self.now.as_millis() % 500 == 0;
            let seen = if clients > 0.0 { Clients::Write(Some(clients)) } else { Clients::Quiet };
            self.control.step(
                self.now,
                &Signs {
                    clients: has_looked.then_some(seen),
                    added: Some(Added { alone, added: met - alone }),
                    throttled: false,
                    slow: false,
                    sent_bytes: (self.sent * STEP.as_secs_f64()) as u64,
                },
            );
            if self.now.as_millis() % 1_000 == 0 {
                self.draw(clients, met);
            }
        }
    }

    /// A mark is 10 MB/s.
    fn draw(&mut self, clients: f64, met: Duration) {
        let bar = |rate: f64, mark: &str| mark.repeat((rate / MB / 10.0).round() as usize);
        let (at, ms) = (self.now.as_secs(), met.as_secs_f64() * 1_000.0);
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
 1 s   1.1 ms mmm
 2 s   1.2 ms mmmmmmmm
 3 s  50.0 ms mmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmm
 4 s  50.0 ms mmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmm
 5 s  50.0 ms mmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmm
 6 s   2.0 ms ccccccccccccmmmmmmmm
 7 s   1.8 ms ccccccccccccmmmmmm
 8 s   1.9 ms ccccccccccccmmmmmmm
 9 s   2.1 ms ccccccccccccmmmmmmmmm
10 s   1.8 ms ccccccccccccmmmmmm
11 s   1.9 ms ccccccccccccmmmmmmm
12 s   2.1 ms ccccccccccccmmmmmmmmm
13 s   1.8 ms ccccccccccccmmmmmm
14 s   1.9 ms ccccccccccccmmmmmmm
15 s   2.1 ms ccccccccccccmmmmmmmmm
16 s   1.4 ms mmmmmmmmmmm
17 s   1.5 ms mmmmmmmmmmmmm
18 s  50.0 ms mmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmm
19 s  50.0 ms mmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmm
20 s  50.0 ms mmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmm
21 s  50.0 ms mmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmm
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
 1 s   1.3 ms ccccccmmm
 2 s   1.5 ms ccccccmmmmmmmm
 3 s   1.6 ms ccccccmmmmmmmmm
 4 s   1.8 ms ccccccmmmmmmmmmmm
 5 s   1.5 ms ccccccmmmmmmmm
 6 s   1.6 ms ccccccmmmmmmmmmm
 7 s   1.8 ms ccccccmmmmmmmmmmmm
 8 s   1.5 ms ccccccmmmmmmmm
 9 s   6.2 ms ccccccmm
10 s   3.9 ms ccccccm
11 s   3.2 ms ccccccm
12 s   3.5 ms ccccccm
13 s   3.8 ms ccccccm
14 s   3.3 ms ccccccm
15 s   3.5 ms ccccccm
16 s   3.8 ms ccccccm
17 s   3.3 ms ccccccm
18 s   3.5 ms ccccccm
19 s   1.2 ms ccccccm
20 s   1.2 ms ccccccmm
21 s   1.3 ms ccccccmm
22 s   1.4 ms ccccccmmmmm
23 s   1.9 ms ccccccmmmmmmmmmmmm
24 s   1.7 ms ccccccmmmmmmmmmm
25 s   1.9 ms ccccccmmmmmmmmmmmm
26 s   1.6 ms ccccccmmmmmmmmm
27 s   1.7 ms ccccccmmmmmmmmmmm
28 s   1.9 ms ccccccmmmmmmmmmmmmm
29 s   1.6 ms ccccccmmmmmmmmm
30 s   1.7 ms ccccccmmmmmmmmmmm
";
    assert_drawn(&world, expected);
}

fn signs(clients: Clients) -> Signs {
    let added = Some(Added { alone: Duration::from_millis(1), added: Duration::ZERO });
    Signs { clients: Some(clients), added, throttled: false, slow: false, sent_bytes: u64::MAX >> 20 }
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
    let much = Some(Added { alone: Duration::from_millis(2), added: Duration::from_micros(1_100) });
    let little = Some(Added { alone: Duration::from_millis(2), added: Duration::from_micros(900) });
    for harm in [
        Signs { throttled: true, ..quiet },
        Signs { slow: true, ..quiet },
        Signs { added: much, ..quiet },
    ] {
        let mut control = Control::new(Duration::ZERO);
        assert_eq!(steps(&mut control, seconds(0), seconds(60), &harm), FLOOR_BYTES_PER_SECOND);
        assert!(steps(&mut control, seconds(60), seconds(62), &quiet) > FLOOR_BYTES_PER_SECOND);
    }
    let mut control = Control::new(Duration::ZERO);
    let harmless = Signs { added: little, ..quiet };
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
    let blind = Signs { added: None, ..signs(Clients::Write(None)) };
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
