//! What lets a node into a fleet: a secret that a member knows too, and the name of that secret.
//!
//! Never shows its secret, not even in part: not in errors, not in `Debug`.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Names the secret that whoever set the nodes up gave to all of them.
pub const SHARED: &str = "shared";

/// Tells tokens apart: 100 at most are open.
const ID_BYTES: usize = 8;

/// As strong as the curve of the certificates that it leads to.
const SECRET_BYTES: usize = 32;

/// Whoever poses as a member can try guesses on what a joiner sends it, so a secret isn't a word.
const SHARED_SECRET_BYTES_MIN: usize = 16;

/// Of any id that is sent.
pub(crate) const ID_BYTES_MAX: usize = 64;

#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub id: Arc<str>,
    pub secret: Arc<[u8]>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("a join token is written ID.SECRET, as 'lockstep node token' prints it; this one has no dot")]
    NoDot,
    #[error("the part of the join token before the dot must be 11 characters of URL-safe base64")]
    Id,
    #[error(
        "the part of the join token after the dot must be 43 characters of URL-safe base64; \
         it has {0} characters: was it cut off?"
    )]
    SecretLength(usize),
    #[error("the part of the join token after the dot isn't URL-safe base64 (A-Z, a-z, 0-9, - and _)")]
    Secret,
    #[error("the shared join secret has {0} bytes; at least {SHARED_SECRET_BYTES_MIN} are needed")]
    SharedTooShort(usize),
}

impl Token {
    /// A one-time token of these random bytes, without the first bit: one that begins with `-` would be taken
    /// for an option of the command line.
    pub fn of(mut id: [u8; ID_BYTES], secret: [u8; SECRET_BYTES]) -> Self {
        id[0] &= 0x7f;
        Self { id: URL_SAFE_NO_PAD.encode(id).into(), secret: secret.as_slice().into() }
    }

    /// The secret that all nodes were given, as its file holds it: blanks and line ends around it don't
    /// count.
    ///
    /// # Errors
    /// [`TokenError::SharedTooShort`].
    pub fn shared(file: &[u8]) -> Result<Self, TokenError> {
        let secret = file.trim_ascii();
        if secret.len() < SHARED_SECRET_BYTES_MIN {
            return Err(TokenError::SharedTooShort(secret.len()));
        }
        Ok(Self { id: SHARED.into(), secret: secret.into() })
    }

    /// Reads `ID.SECRET`.
    ///
    /// # Errors
    /// What is wrong with the text, without showing it.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let (id, secret) = text.trim().split_once('.').ok_or(TokenError::NoDot)?;
        let id_bytes = URL_SAFE_NO_PAD.decode(id).map_err(|_| TokenError::Id)?;
        if id_bytes.len() != ID_BYTES {
            return Err(TokenError::Id);
        }
        let characters = secret.chars().count();
        if characters != URL_SAFE_NO_PAD.encode([0; SECRET_BYTES]).len() {
            return Err(TokenError::SecretLength(characters));
        }
        let secret = URL_SAFE_NO_PAD.decode(secret).map_err(|_| TokenError::Secret)?;
        Ok(Self { id: id.into(), secret: secret.into() })
    }

    /// `ID.SECRET`, for the one who may see it.
    pub fn reveal(&self) -> String {
        format!("{}.{}", self.id, URL_SAFE_NO_PAD.encode(&self.secret))
    }

    pub fn is_shared(&self) -> bool {
        &*self.id == SHARED
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_revealed_is_read_back(id: [u8; ID_BYTES], secret: [u8; SECRET_BYTES]) {
            let token = Token::of(id, secret);
            prop_assert!(!token.reveal().starts_with('-'));
            prop_assert_eq!(Token::parse(&format!(" {}\n", token.reveal())), Ok(token));
        }

        #[test]
        fn no_text_makes_it_panic_or_is_shown_in_an_error(text in "\\PC{0,80}") {
            if let Err(error) = Token::parse(&text) {
                let secret = text.split_once('.').map_or("", |(_, secret)| secret.trim());
                prop_assert!(secret.len() < 8 || !error.to_string().contains(secret));
            }
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert!(Token::of([0xfa; 8], [2; 32]).reveal().starts_with('e'), "not with -");
        let good = Token::of([1; 8], [2; 32]).reveal();
        let wrong = |text: &str| Token::parse(text).expect_err("not a token");
        assert_eq!(wrong("abc"), TokenError::NoDot);
        assert_eq!(wrong(&good[1..]), TokenError::Id);
        assert_eq!(wrong(&good[..good.len() - 1]), TokenError::SecretLength(42));
        assert_eq!(wrong(&format!("{}+", &good[..good.len() - 1])), TokenError::Secret);
        assert_eq!(Token::shared(b" short \n"), Err(TokenError::SharedTooShort(5)));
        let shared = Token::shared(b"correct horse battery\n").expect("long enough");
        assert_eq!((&*shared.secret, shared.is_shared()), (&b"correct horse battery"[..], true));
        assert!(!format!("{shared:?}").contains("horse"));
    }
}
