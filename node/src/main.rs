//! The one binary of Lockstep.

use std::process::ExitCode;

fn main() -> ExitCode {
    lockstep::run()
}
