//! One seed in this process. What it prints is the same, byte for byte, whenever it is run.

use std::io::{BufWriter, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use rustix::time::{ClockId, clock_gettime};

use crate::disk::Fnv;
use crate::options::Options;
use crate::time::Time;
use crate::trace::Trace;
use crate::world::World;

/// Lines are printed this often, so that a run that hangs has said how far it came.
const PRINT_EVERY_STEPS: u64 = 1_000;

/// A seed takes some seconds of a processor's time, up to a minute of one that can't do without a long quiet.
const CPU_LIMIT: Duration = Duration::from_secs(300);
/// What waits for ever uses none: also a machine that is shared by many is done by then.
const WALL_LIMIT: Duration = Duration::from_secs(3_600);
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// # Errors
/// When the seed fails.
pub fn run(seed: u64) -> Result<()> {
    let time = Time::default();
    let trace = Trace::install(time.clone())?;
    let options = Options::of(seed);
    let has_panicked = note_panics(options.damages_a_disk());
    end_if_it_hangs(seed, trace.clone());
    let mut out = Printer { out: BufWriter::new(std::io::stdout().lock()), hash: Fnv::default(), lines: 0 };
    out.print(&options.to_string())?;
    let mut world = World::new(options, time);
    let outcome = loop {
        let steps = catch_unwind(AssertUnwindSafe(|| {
            (0..PRINT_EVERY_STEPS).try_fold(true, |more, _| if more { world.step() } else { Ok(false) })
        }));
        out.print(&trace.take())?;
        match steps {
            Err(_) => break Err("panicked".to_owned()),
            Ok(_) if has_panicked.load(Ordering::Relaxed) => break Err("panicked".to_owned()),
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => break Ok(()),
            Ok(Err(error)) => break Err(format!("{error:#}")),
        }
    };
    let (simulated_s, lines, hash) = (world.elapsed().as_secs(), out.lines, out.hash.0);
    let passed = if outcome.is_ok() { "passed" } else { "FAILED" };
    out.print(&format!("seed {seed} {passed}: {simulated_s} s simulated, {lines} lines, {hash:016x}\n"))?;
    out.out.flush()?;
    match outcome {
        Ok(()) => Ok(()),
        Err(why) => bail!("seed {seed}: {why}"),
    }
}

/// What never ends in a moment of simulated time, no simulated limit ends: so the machine's clock does, and
/// only then is anything decided by it.
fn end_if_it_hangs(seed: u64, trace: Trace) {
    std::thread::spawn(move || {
        let mut waited = Duration::ZERO;
        while waited < WALL_LIMIT && cpu_time() < CPU_LIMIT {
            std::thread::sleep(LOOK_EVERY);
            waited += LOOK_EVERY;
        }
        // The lock of what is printed is the run's own.
        eprint!("{}", trace.take());
        eprintln!("error: seed {seed}: hangs: it isn't over within {CPU_LIMIT:?} of a processor");
        std::process::exit(1);
    });
}

/// Of this process.
fn cpu_time() -> Duration {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    Duration::from_secs(used.tv_sec.unsigned_abs())
}

/// A panic fails its seed, also one that an actor's supervisor catches and lives with. On a damaged disk
/// redb may panic: the product catches that.
fn note_panics(forgives_redb: bool) -> Arc<AtomicBool> {
    let noted = Arc::new(AtomicBool::new(false));
    let note = noted.clone();
    std::panic::set_hook(Box::new(move |panic| {
        let is_redbs = panic.location().is_some_and(|place| place.file().contains("/redb-"));
        if !(forgives_redb && is_redbs) {
            note.store(true, Ordering::Relaxed);
        }
        tracing::error!("{panic}");
        // Also what ends the process at once.
        eprintln!("{panic}");
    }));
    noted
}

struct Printer<W: Write> {
    out: W,
    hash: Fnv,
    lines: usize,
}

impl<W: Write> Printer<W> {
    fn print(&mut self, text: &str) -> Result<()> {
        self.hash.add(text.as_bytes());
        self.lines += text.lines().count();
        self.out.write_all(text.as_bytes())?;
        Ok(())
    }
}
