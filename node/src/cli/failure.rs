//! Why a command failed: the reason, a hint, the exit code.

use std::process::ExitCode;

use super::output;

const FAILED: u8 = 1;
const USAGE: u8 = 2;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub message: String,
    pub hint: Option<String>,
    code: u8,
}

impl Failure {
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, code: FAILED }
    }

    /// The command line itself is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { code: USAGE, ..Self::new(message) }
    }

    #[cfg(all(test, not(feature = "audit")))]
    pub fn is_usage(&self) -> bool {
        self.code == USAGE
    }

    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    pub fn tell(self) -> ExitCode {
        output::say(&format!("error: {}", self.message));
        if let Some(hint) = self.hint {
            output::say(&format!("hint: {hint}"));
        }
        ExitCode::from(self.code)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(format!("{error:#}"))
    }
}
