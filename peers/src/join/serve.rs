//! The member's side.

use std::sync::Arc;
use std::time::Duration;

use catalog::command::NodeDescription;
use catalog::{NodeId, codec};
use serde::{Deserialize, Serialize};

use super::proof::{self, Binding, Role};
use super::tries::Tries;
use super::{Gate, JoinRequest, Joiner};
use crate::authority;
use crate::frame::{Frame, FrameError, Kind, Turns};
use crate::hello::JoinHello;
use crate::refusal::Refusal;
use crate::token::{ID_BYTES_MAX, SHARED};

/// A joiner's request on the wire.
#[derive(Serialize, Deserialize)]
pub(super) struct Asked {
    node: NodeId,
    description: NodeDescription,
    public_key: Vec<u8>,
    /// Of [`proof::possession`].
    signature: Vec<u8>,
}

impl Asked {
    /// None: the system gave no random bytes.
    pub(super) fn by(joiner: &Joiner, binding: &Binding) -> Option<Self> {
        let (public_key, signature) = match &joiner.key {
            Some(key) => (key.public().to_vec(), key.sign(&proof::possession(binding))?),
            None => (Vec::new(), Vec::new()),
        };
        Some(Self { node: joiner.node, description: joiner.description.clone(), public_key, signature })
    }

    fn has_its_key(&self, binding: &Binding) -> bool {
        self.public_key.is_empty()
            || authority::is_signed(&self.public_key, &proof::possession(binding), &self.signature)
    }
}

/// What became of a joiner.
pub(crate) enum Outcome {
    Admitted(NodeId),
    Refused(String),
    /// Without a look at what it brought.
    Paused,
}

/// A joiner that knows the secret.
struct Proven<'a> {
    gate: &'a Arc<dyn Gate>,
    token: String,
    secret: Arc<[u8]>,
}

enum Turned {
    Away(Refusal),
    Paused(Duration),
}

impl From<Refusal> for Turned {
    fn from(refusal: Refusal) -> Self {
        Self::Away(refusal)
    }
}

/// The doorkeeper: its gate, and how often it was tried.
pub(crate) struct Door {
    pub gate: Option<Arc<dyn Gate>>,
    pub tries: Tries,
}

impl Door {
    pub fn of(gate: Option<Arc<dyn Gate>>) -> Self {
        Self { gate, tries: Tries::default() }
    }

    /// Answers a joiner whose first frame this is, and who calls from there.
    pub async fn answer(
        &self,
        turns: &mut Turns<'_>,
        first: Frame,
        binding: &Binding,
        from: &str,
    ) -> Result<Outcome, FrameError> {
        let Proven { gate, token, secret } = match self.proven(first, binding, from) {
            Ok(proven) => proven,
            Err(Turned::Away(refusal)) => return refuse(turns, refusal).await,
            Err(Turned::Paused(pause)) => {
                let seconds = pause.as_millis().div_ceil(1_000);
                let words =
                    format!("there were too many wrong join tokens from there; try again in {seconds} s");
                refuse(turns, Refusal::Other(words)).await?;
                return Ok(Outcome::Paused);
            }
        };
        let proof = proof::make(&secret, Role::Member, binding);
        turns.send(&Frame::new(Kind::JoinProof, proof)).await?;
        let frame = turns.receive().await?;
        let asked = match codec::decode::<Asked>(&frame.body) {
            Ok(asked) if frame.kind == Kind::JoinRequest => asked,
            _ => return refuse(turns, Refusal::Garbage("the request to join isn't one".into())).await,
        };
        if !asked.has_its_key(binding) {
            let words = "the request to join isn't signed with the key that it holds".into();
            return refuse(turns, Refusal::Certificate(words)).await;
        }
        let node = asked.node;
        let request = JoinRequest {
            node,
            description: asked.description,
            public_key: asked.public_key.into(),
            token: (token != SHARED).then(|| token.into()),
        };
        match gate.admit(request).await {
            Ok(admitted) => {
                turns.send(&Frame::new(Kind::Admitted, codec::encode(&admitted))).await?;
                Ok(Outcome::Admitted(node))
            }
            Err(words) => refuse(turns, Refusal::Other(words)).await,
        }
    }

    fn proven(&self, first: Frame, binding: &Binding, from: &str) -> Result<Proven<'_>, Turned> {
        let gate = self.gate.as_ref().ok_or_else(|| Refusal::Other("nodes can't join here".into()))?;
        let JoinHello { token, proof } = JoinHello::decode(first.body)?;
        if let Some(pause) = self.tries.pause(from) {
            return Err(Turned::Paused(pause));
        }
        let secret = (token.len() <= ID_BYTES_MAX).then(|| gate.secret(&token)).flatten();
        match secret {
            Some(secret) if proof::holds(&secret, Role::Joiner, binding, &proof) => {
                Ok(Proven { gate, token, secret })
            }
            found => {
                self.tries.wrong(from);
                Err(Refusal::Other(wrong(&token, found.is_some())).into())
            }
        }
    }
}

fn wrong(token: &str, known: bool) -> String {
    match (token, known) {
        (SHARED, true) => "the join secret isn't the one that this fleet's nodes were given".into(),
        (SHARED, false) => {
            "this node was given no shared join secret (--join-token-file); use one, or a token of \
             'lockstep node token'"
                .into()
        }
        (_, true) => "the join token's secret is wrong: was it copied whole?".into(),
        (_, false) => {
            "the join token isn't known here, was used, or has expired; make a new one with 'lockstep node token'"
                .into()
        }
    }
}

async fn refuse(turns: &mut Turns<'_>, refusal: Refusal) -> Result<Outcome, FrameError> {
    let frame = Frame::new(Kind::Refused, refusal.words().to_owned()).with_detail(refusal.code());
    turns.send(&frame).await?;
    Ok(Outcome::Refused(refusal.words().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::read;
    use crate::identity::NodeKey;
    use crate::join::{AdmitFuture, Channel};

    const BINDING: Binding = [1; 32];
    const SECRET: &[u8] = b"a secret of the tests";

    fn asked(binding: &Binding) -> Asked {
        let description =
            NodeDescription { name: "new".into(), address: None, level: 2, version: "0.1.0".into() };
        let key = Some(Arc::new(NodeKey::generate().expect("a key")));
        let joiner = Joiner { node: NodeId(7), description, key, channel: Channel::Tls };
        Asked::by(&joiner, binding).expect("signed")
    }

    struct NoGate;

    impl Gate for NoGate {
        fn secret(&self, _: &str) -> Option<Arc<[u8]>> {
            Some(SECRET.into())
        }

        fn admit(&self, _: JoinRequest) -> AdmitFuture {
            panic!("asked of a request that isn't its sender's")
        }
    }

    #[tokio::test]
    async fn a_key_is_admitted_only_by_who_has_it_and_in_this_session() {
        let of_another_session = asked(&[2; 32]);
        let of_another_key = Asked { public_key: asked(&BINDING).public_key, ..asked(&BINDING) };
        let unsigned = Asked { signature: Vec::new(), ..asked(&BINDING) };
        let no_key = Asked { public_key: vec![4; 65], ..asked(&BINDING) };
        assert!(asked(&BINDING).has_its_key(&BINDING));
        for wrong in [of_another_session, of_another_key, unsigned, no_key] {
            let (mut near, far) = tokio::io::duplex(100_000);
            let mut far: crate::dial::BoxedStream = Box::new(far);
            let sent = Frame::new(Kind::JoinRequest, codec::encode(&wrong));
            crate::frame::write(&mut near, &sent).await.expect("sent");
            let proof = proof::make(SECRET, Role::Joiner, &BINDING);
            let hello = JoinHello { token: "a".into(), proof }.encode();
            let door = Door::of(Some(Arc::new(NoGate)));
            let first = Frame::new(Kind::JoinHello, hello);
            let outcome = door.answer(&mut Turns(&mut far), first, &BINDING, "b:1").await.expect("answered");
            assert!(matches!(outcome, Outcome::Refused(words) if words.contains("isn't signed")));
            assert_eq!(read(&mut near, 100).await.expect("a frame").kind, Kind::JoinProof);
            assert_eq!(read(&mut near, 100).await.expect("a frame").kind, Kind::Refused);
        }
    }
}
