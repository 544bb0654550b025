//! The two proofs of a join.

use ring::hmac;

/// What only the two ends of a TLS session know, and whoever sits between two sessions can't make equal.
pub(crate) type Binding = [u8; 32];

/// RFC 5705: labels of one's own begin so.
pub(crate) const EXPORTER_LABEL: &[u8] = b"EXPORTER-lockstep-join-1";

/// Each proves something else, so that none can be sent back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Joiner,
    Member,
}

impl Role {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Joiner => b"lockstep join 1: joiner",
            Self::Member => b"lockstep join 1: member",
        }
    }
}

pub(crate) fn make(secret: &[u8], role: Role, binding: &Binding) -> Vec<u8> {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret));
    context.update(role.label());
    context.update(binding);
    context.sign().as_ref().to_vec()
}

/// In constant time.
pub(crate) fn holds(secret: &[u8], role: Role, binding: &Binding, proof: &[u8]) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    hmac::verify(&key, &[role.label(), binding].concat(), proof).is_ok()
}

/// What a joiner signs with its new key, so that it can't pass off another's.
pub(crate) fn possession(binding: &Binding) -> Vec<u8> {
    [b"lockstep join 1: key".as_slice(), binding].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_holds_for_its_secret_role_and_session_only() {
        let proof = make(b"secret", Role::Joiner, &[1; 32]);
        assert!(holds(b"secret", Role::Joiner, &[1; 32], &proof));
        assert!(!holds(b"secreT", Role::Joiner, &[1; 32], &proof));
        assert!(!holds(b"secret", Role::Member, &[1; 32], &proof), "sent back");
        assert!(!holds(b"secret", Role::Joiner, &[2; 32], &proof), "passed on");
        assert!(!holds(b"secret", Role::Joiner, &[1; 32], &proof[..16]), "cut off");
        assert!(!holds(b"secret", Role::Joiner, &[1; 32], b""));
    }
}
