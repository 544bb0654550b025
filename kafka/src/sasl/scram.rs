//! The client's side of SCRAM (RFC 5802, RFC 7677) as values: messages in, messages out.
//!
//! No channel binding (Kafka has none) and no SASLprep: Kafka hashes a password's UTF-8 bytes as
//! they are. The broker must prove that it knows the password; without that a false one could
//! pass for it. Never does more work than a bound that a hostile broker can't raise.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac};

use super::NONCE_BYTES;
use crate::secret::Secret;

/// RFC 7677's least; Kafka refuses to store less.
const ITERATIONS_MIN: u32 = 4096;
/// Kafka itself stops at 16,384. Half a second of one core: all that a broker can make us spend.
const ITERATIONS_MAX: u32 = 1_000_000;
/// Kafka's are below 100 bytes.
const SERVER_MESSAGE_BYTES_MAX: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    Sha256,
    Sha512,
}

impl Hash {
    fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }

    fn sign(self, key: &[u8], text: &[u8]) -> Vec<u8> {
        hmac::sign(&hmac::Key::new(self.hmac(), key), text).as_ref().to_vec()
    }
}

/// Before the broker's challenge.
pub struct Scram {
    hash: Hash,
    nonce: String,
    first_bare: String,
}

impl Scram {
    pub fn new(hash: Hash, username: &Secret, nonce: &[u8; NONCE_BYTES]) -> Self {
        Self::with_nonce(hash, username, STANDARD.encode(nonce))
    }

    fn with_nonce(hash: Hash, username: &Secret, nonce: String) -> Self {
        let name = String::from_utf8_lossy(username.reveal()).replace('=', "=3D").replace(',', "=2C");
        Self { hash, first_bare: format!("n={name},r={nonce}"), nonce }
    }

    pub fn client_first(&self) -> Vec<u8> {
        format!("n,,{}", self.first_bare).into_bytes()
    }

    /// Takes the broker's challenge; the password must now be salted.
    ///
    /// # Errors
    /// What about the challenge isn't acceptable.
    pub fn challenged(self, server_first: &[u8], password: &Secret) -> Result<Salting, String> {
        let server_first = text(server_first)?;
        let malformed = || "the broker's challenge is malformed".to_owned();
        let mut parts = server_first.splitn(4, ',');
        let mut part = |name: &str| parts.next().and_then(|p| p.strip_prefix(name)).ok_or_else(malformed);
        let (nonce, salt, iterations) = (part("r=")?, part("s=")?, part("i=")?);
        if nonce.len() <= self.nonce.len() || !nonce.starts_with(&self.nonce) {
            return Err("the broker's nonce doesn't begin with ours".into());
        }
        let salt = STANDARD.decode(salt).ok().filter(|salt| !salt.is_empty()).ok_or_else(malformed)?;
        let iterations: u32 = iterations.parse().map_err(|_| malformed())?;
        if !(ITERATIONS_MIN..=ITERATIONS_MAX).contains(&iterations) {
            return Err(format!(
                "the broker asks for {iterations} iterations, only {ITERATIONS_MIN} to {ITERATIONS_MAX} \
                    are accepted"
            ));
        }
        let without_proof = format!("c=biws,r={nonce}");
        let auth_message = format!("{},{server_first},{without_proof}", self.first_bare);
        let key = hmac::Key::new(self.hash.hmac(), password.reveal());
        let first = hmac::sign(&key, &[salt.as_slice(), &1u32.to_be_bytes()].concat());
        Ok(Salting {
            hash: self.hash,
            key,
            salted: first.as_ref().to_vec(),
            last: first,
            rounds_left: iterations - 1,
            without_proof,
            auth_message,
        })
    }
}

/// PBKDF2 under way (RFC 5802's `Hi`), in parts: it takes milliseconds to a good half second.
pub struct Salting {
    hash: Hash,
    key: hmac::Key,
    last: hmac::Tag,
    salted: Vec<u8>,
    rounds_left: u32,
    without_proof: String,
    auth_message: String,
}

impl Salting {
    /// Up to `rounds` more; true when it is done.
    pub fn run(&mut self, rounds: u32) -> bool {
        let rounds = rounds.min(self.rounds_left);
        for _ in 0..rounds {
            self.last = hmac::sign(&self.key, self.last.as_ref());
            self.salted.iter_mut().zip(self.last.as_ref()).for_each(|(to, from)| *to ^= from);
        }
        self.rounds_left -= rounds;
        self.rounds_left == 0
    }

    /// The last message to the broker, and what its answer is checked against.
    pub fn finish(self) -> (Vec<u8>, ServerProof) {
        assert_eq!(self.rounds_left, 0, "salting is done");
        let hash = self.hash;
        let client_key = hash.sign(&self.salted, b"Client Key");
        let stored_key = match hash {
            Hash::Sha256 => digest::digest(&digest::SHA256, &client_key),
            Hash::Sha512 => digest::digest(&digest::SHA512, &client_key),
        };
        let signature = hash.sign(stored_key.as_ref(), self.auth_message.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(key, sign)| key ^ sign).collect();
        let message = format!("{},p={}", self.without_proof, STANDARD.encode(proof));
        let server_key = hash.sign(&self.salted, b"Server Key");
        let key = hmac::Key::new(hash.hmac(), &server_key);
        (message.into_bytes(), ServerProof { key, auth_message: self.auth_message })
    }
}

/// Knows what only a broker with the user's keys can answer.
pub struct ServerProof {
    key: hmac::Key,
    auth_message: String,
}

impl ServerProof {
    /// # Errors
    /// When the broker reports an error or doesn't prove that it knows the password.
    pub fn check(&self, server_final: &[u8]) -> Result<(), String> {
        let server_final = text(server_final)?;
        let first = server_final.split(',').next().unwrap_or_default();
        if first.starts_with("e=") {
            return Err("the broker ended the exchange with an error".into());
        }
        let signature = first.strip_prefix("v=").and_then(|v| STANDARD.decode(v).ok());
        let signature = signature.ok_or("the broker's last message is malformed")?;
        hmac::verify(&self.key, self.auth_message.as_bytes(), &signature).map_err(|_| {
            "the broker didn't prove that it knows the password; this may not be the broker it claims to \
                be"
            .into()
        })
    }
}

fn text(message: &[u8]) -> Result<&str, String> {
    let fits = message.len() <= SERVER_MESSAGE_BYTES_MAX;
    let text = std::str::from_utf8(message).ok().filter(|_| fits);
    text.ok_or_else(|| "the broker's message isn't short text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Vector {
        hash: Hash,
        nonce: &'static str,
        server_first: &'static str,
        client_final: &'static str,
        server_final: &'static str,
    }

    /// RFC 7677, section 3.
    const SHA256: Vector = Vector {
        hash: Hash::Sha256,
        nonce: "rOprNGfwEbeRWgbNEkqO",
        server_first: "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        client_final: "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                       p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        server_final: "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
    };

    fn challenge(vector: &Vector, password: &str) -> Result<Salting, String> {
        let scram = Scram::with_nonce(vector.hash, &"user".into(), vector.nonce.into());
        let first = scram.client_first();
        assert_eq!(first, format!("n,,n=user,r={}", vector.nonce).into_bytes());
        scram.challenged(vector.server_first.as_bytes(), &password.into())
    }

    #[test]
    fn the_rfc_vector_is_met_in_parts_of_any_size() {
        for rounds in [1, 1000, 4095, u32::MAX] {
            let mut salting = challenge(&SHA256, "pencil").unwrap();
            while !salting.run(rounds) {}
            let (client_final, proof) = salting.finish();
            assert_eq!(String::from_utf8(client_final).unwrap(), SHA256.client_final);
            assert_eq!(proof.check(SHA256.server_final.as_bytes()), Ok(()));
        }
    }

    /// No RFC has a vector with SHA-512: `Hi` is compared with ring's PBKDF2, the rest is the same
    /// code, and real brokers judge it in `tests/real_kafka_security.rs`.
    #[test]
    fn salting_is_pbkdf2_for_both_hashes() {
        for (hash, algorithm) in [
            (Hash::Sha256, ring::pbkdf2::PBKDF2_HMAC_SHA256),
            (Hash::Sha512, ring::pbkdf2::PBKDF2_HMAC_SHA512),
        ] {
            let mut salting = challenge(&Vector { hash, ..SHA256 }, "pencil").unwrap();
            while !salting.run(1500) {}
            let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
            let rounds = std::num::NonZeroU32::new(4096).unwrap();
            ring::pbkdf2::verify(algorithm, rounds, &salt, b"pencil", &salting.salted).unwrap();
        }
    }

    #[test]
    fn a_broker_that_does_not_know_the_password_is_refused() {
        let mut salting = challenge(&SHA256, "pencils").unwrap();
        while !salting.run(u32::MAX) {}
        let (_, proof) = salting.finish();
        for (answer, reason) in [
            (SHA256.server_final, "the broker didn't prove that it knows the password"),
            ("v=", "the broker didn't prove that it knows the password"),
            ("v=!", "the broker's last message is malformed"),
            ("", "the broker's last message is malformed"),
            ("e=other-error", "the broker ended the exchange with an error"),
        ] {
            let error = proof.check(answer.as_bytes()).unwrap_err();
            assert!(error.starts_with(reason), "{answer}: {error}");
        }
    }

    #[test]
    fn a_challenge_that_weakens_or_stalls_us_is_refused() {
        let nonce = SHA256.nonce;
        for (server_first, reason) in [
            (
                format!("r={nonce}x,s=QQ==,i=1"),
                "the broker asks for 1 iterations, only 4096 to 1000000 are accepted",
            ),
            (
                format!("r={nonce}x,s=QQ==,i=4294967295"),
                "the broker asks for 4294967295 iterations, only 4096 to 1000000 are accepted",
            ),
            (format!("r={nonce},s=QQ==,i=4096"), "the broker's nonce doesn't begin with ours"),
            ("r=other,s=QQ==,i=4096".into(), "the broker's nonce doesn't begin with ours"),
            (format!("r={nonce}x,s=,i=4096"), "the broker's challenge is malformed"),
            (format!("m=x,r={nonce}x,s=QQ==,i=4096"), "the broker's challenge is malformed"),
            (format!("r={nonce}x,s=QQ==,i=-4096"), "the broker's challenge is malformed"),
            ("x".repeat(5000), "the broker's message isn't short text"),
        ] {
            let scram = Scram::with_nonce(Hash::Sha256, &"user".into(), nonce.into());
            let found = scram.challenged(server_first.as_bytes(), &"pencil".into());
            assert_eq!(found.map(|_| ()).unwrap_err(), reason, "{server_first}");
        }
    }

    #[test]
    fn a_user_name_cannot_smuggle_attributes() {
        let scram = Scram::with_nonce(Hash::Sha256, &"a,r==evil".into(), "n".into());
        assert_eq!(scram.client_first(), b"n,,n=a=2Cr=3D=3Devil,r=n");
    }

    /// A broker's side, of the same primitives: (its first message, its last one).
    fn broker(hash: Hash, salted: &[u8], auth_message: &str) -> String {
        let server_key = hash.sign(salted, b"Server Key");
        format!("v={}", STANDARD.encode(hash.sign(&server_key, auth_message.as_bytes())))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn a_broker_that_knows_the_password_is_believed_and_no_changed_word_of_it(
            (username, password) in (any::<String>(), any::<String>()),
            (nonce, more) in ("[!-+./-~]{1,30}", "[!-+./-~]{1,30}"),
            salt in prop::collection::vec(any::<u8>(), 1..40),
            flipped in any::<prop::sample::Index>(),
        ) {
            for hash in [Hash::Sha256, Hash::Sha512] {
                let scram = Scram::with_nonce(hash, &username.as_str().into(), nonce.clone());
                let first_bare = String::from_utf8(scram.client_first()).unwrap()[3..].to_owned();
                let server_first = format!("r={nonce}{more},s={},i=4096", STANDARD.encode(&salt));
                let mut salting = scram.challenged(server_first.as_bytes(), &password.as_str().into()).unwrap();
                while !salting.run(u32::MAX) {}
                let salted = salting.salted.clone();
                let (client_final, proof) = salting.finish();
                let client_final = String::from_utf8(client_final).unwrap();
                let (without_proof, _) = client_final.rsplit_once(",p=").unwrap();
                let last = broker(hash, &salted, &format!("{first_bare},{server_first},{without_proof}"));
                prop_assert_eq!(proof.check(last.as_bytes()), Ok(()));
                let mut other = last.into_bytes();
                let at = 2 + flipped.index(other.len() - 4);
                other[at] = if other[at] == b'A' { b'B' } else { b'A' };
                prop_assert!(proof.check(&other).is_err());
            }
        }
    }

    proptest! {
        #[test]
        fn rubbish_never_panics(
            message in prop::collection::vec(any::<u8>(), 0..200),
            parts in prop::collection::vec(
                prop_oneof![Just("r=n".to_owned()), Just(",s=".to_owned()), Just("QQ==".to_owned()),
                    Just(",i=".to_owned()), Just("4096".to_owned()), Just("v=".to_owned()), "\\PC{0,6}"],
                0..9,
            ),
        ) {
            for message in [message, parts.concat().into_bytes()] {
                let scram = Scram::with_nonce(Hash::Sha512, &"user".into(), "n".into());
                let _ = scram.challenged(&message, &"pencil".into());
                let key = hmac::Key::new(hmac::HMAC_SHA256, b"key");
                let proof = ServerProof { key, auth_message: String::new() };
                prop_assert!(proof.check(&message).is_err());
            }
        }
    }
}
