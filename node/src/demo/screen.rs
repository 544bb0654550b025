//! What is seen: on a terminal a table that is drawn over itself, elsewhere (and where it doesn't fit) a
//! line now and then.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use super::load::Load;
use super::operator::Mirror;
use super::proof::Proof;
use super::{NODES, TOPIC};
use crate::cli::{Failure, output};

/// What the table takes.
const COLUMNS_MIN: u16 = 60;
const ROWS_MIN: u16 = 13;
/// Without a table.
const LINE_EVERY: Duration = Duration::from_secs(5);

pub struct Screen {
    live: bool,
    /// Lines of the table that is on the screen.
    drawn: usize,
    last_line: Duration,
    /// Records at the last update, for rates.
    before: Option<(Duration, i64, i64)>,
    rates: (f64, f64),
}

impl Screen {
    pub fn new() -> Self {
        Self { live: has_room(), drawn: 0, last_line: Duration::ZERO, before: None, rates: (0.0, 0.0) }
    }

    /// Words, above the table.
    pub fn say(&mut self, words: &str) {
        self.erase();
        // Nobody is left to tell that nobody listens.
        let _ = write(&format!("{words}\n"));
    }

    pub fn event(&mut self, elapsed: Duration, words: &str) {
        self.say(&format!("{:>5.1} s  {words}", elapsed.as_secs_f64()));
    }

    /// Data: what stays when the demo is over.
    ///
    /// # Errors
    /// When it can't be written, unless the reader has seen enough.
    pub fn show(&mut self, text: &str) -> Result<(), Failure> {
        self.erase();
        match write(&format!("\n{text}\n")) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Failure::new(format!("can't write to stdout: {error}")))
            }
            _ => Ok(()),
        }
    }

    pub fn finish(&mut self) {
        self.erase();
    }

    pub fn update(
        &mut self,
        elapsed: Duration,
        lasts: Duration,
        nodes: usize,
        mirror: &Mirror,
        load: &Load,
        proof: &Proof,
    ) {
        let (produced, verified) = (load.ends(), proof.ends());
        self.measure(elapsed, produced.iter().sum(), verified.iter().sum());
        if !has_room() {
            // Terminals are resized; what stands there is wrapped in ways that can't be drawn over.
            (self.live, self.drawn) = (false, 0);
        }
        if self.live {
            let table = self.table(elapsed, lasts, nodes, mirror, &verified);
            self.erase();
            self.drawn = table.lines().count();
            let _ = write(&table);
        } else if elapsed >= self.last_line + LINE_EVERY {
            self.last_line = elapsed;
            let sum = |numbers: &[i64]| numbers.iter().sum::<i64>();
            let lag = total_lag(mirror).map_or("unknown".to_owned(), |lag| lag.to_string());
            let words = format!("{} produced, {} verified, lag {lag}", sum(&produced), sum(&verified));
            self.event(elapsed, &words);
        }
    }

    fn measure(&mut self, elapsed: Duration, produced: i64, verified: i64) {
        match self.before {
            Some((at, _, _)) if elapsed < at + Duration::from_secs(1) => {}
            Some((at, made, equal)) => {
                let seconds = (elapsed - at).as_secs_f64();
                self.rates = ((produced - made) as f64 / seconds, (verified - equal) as f64 / seconds);
                self.before = Some((elapsed, produced, verified));
            }
            None => self.before = Some((elapsed, produced, verified)),
        }
    }

    fn table(
        &self,
        elapsed: Duration,
        lasts: Duration,
        nodes: usize,
        mirror: &Mirror,
        verified: &[i64],
    ) -> String {
        let (made, equal) = self.rates;
        let head = format!(
            "{} of {} s, {nodes} of {NODES} nodes run,\n{made:.0} records/s produced, {equal:.0} records/s verified\n",
            elapsed.as_secs(),
            lasts.as_secs()
        );
        let rows = verified.iter().enumerate().map(|(index, verified)| {
            let row = mirror.as_ref().and_then(|mirror| mirror.mirror_lags.get(index));
            let node = output::or_dash(row.and_then(|row| row.node.as_ref()));
            let state = row.map_or("-", |row| row.state.as_str()).to_owned();
            let lag = output::known(row.and_then(|row| row.lag));
            vec![format!("{TOPIC}-{index}"), node, state, lag, verified.to_string()]
        });
        format!("\n{head}{}\n", output::table(&["PARTITION", "NODE", "STATE", "LAG", "VERIFIED"], rows))
    }

    fn erase(&mut self) {
        if self.drawn > 0 {
            // Up to the table's first line, and clear from there.
            let _ = write(&format!("\x1b[{}A\x1b[0J", self.drawn));
            self.drawn = 0;
        }
    }
}

fn has_room() -> bool {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    if dumb || !io::stdout().is_terminal() {
        return false;
    }
    // A terminal that doesn't tell its size says zero.
    let fits = |size: u16, least: u16| size == 0 || size >= least;
    rustix::termios::tcgetwinsize(io::stdout())
        .is_ok_and(|size| fits(size.ws_col, COLUMNS_MIN) && fits(size.ws_row, ROWS_MIN))
}

fn total_lag(mirror: &Mirror) -> Option<i64> {
    let rows = &mirror.as_ref()?.mirror_lags;
    rows.iter().map(|row| row.lag).sum()
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush())
}
