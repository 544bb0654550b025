//! The joiner's side.

use std::sync::Arc;
use std::time::Duration;

use catalog::command::NodeDescription;
use catalog::{NodeId, codec};

use super::proof::{self, Role};
use super::serve::Asked;
use super::{Admitted, JoinError};
use crate::dial::Dial;
use crate::frame::{Frame, FrameError, Kind, Turns};
use crate::hello::JoinHello;
use crate::identity::NodeKey;
use crate::refusal::Refusal;
use crate::tls::{handshake, trouble};
use crate::token::Token;

/// Connect, three round trips, and a command through a fleet that may just be choosing a Raft leader.
const JOIN_WITHIN: Duration = Duration::from_secs(20);

/// How a join is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    Tls,
    /// As [`crate::Security::UnprotectedForSimulation`].
    UnprotectedForSimulation,
}

/// Who wants to join.
#[derive(Clone)]
pub struct Joiner {
    pub node: NodeId,
    pub description: NodeDescription,
    /// The fleet signs a certificate for it; none where nodes have certificates of the operator's.
    pub key: Option<Arc<NodeKey>>,
    pub channel: Channel,
}

/// Asks the member at the address to be let in. After [`JoinError::Unreachable`] it may have been.
///
/// # Errors
/// [`JoinError`].
pub async fn join(
    dial: &dyn Dial,
    address: &Arc<str>,
    token: &Token,
    joiner: &Joiner,
) -> Result<Admitted, JoinError> {
    let unreachable = |why: String| JoinError::Unreachable { address: address.to_string(), why };
    let asking = async {
        let stream = dial.dial(address.clone()).await.map_err(|error| unreachable(error.to_string()))?;
        let secured = handshake::join(joiner.channel, stream).await;
        let mut secured = secured.map_err(|error| unreachable(trouble::words(&error)))?;
        let binding = secured.binding;
        let mut turns = Turns(&mut secured.stream);
        let proof = proof::make(&token.secret, Role::Joiner, &binding);
        let hello = JoinHello { token: token.id.to_string(), proof };
        let answer = exchange(&mut turns, Frame::new(Kind::JoinHello, hello.encode()), address).await?;
        if answer.kind != Kind::JoinProof
            || !proof::holds(&token.secret, Role::Member, &binding, &answer.body)
        {
            return Err(JoinError::Unproven { address: address.to_string() });
        }
        let asked = Asked::by(joiner, &binding).ok_or_else(|| unreachable("no random bytes".into()))?;
        let request = Frame::new(Kind::JoinRequest, codec::encode(&asked));
        let answer = exchange(&mut turns, request, address).await?;
        if answer.kind != Kind::Admitted {
            return Err(unreachable("it answered something else".into()));
        }
        codec::decode(&answer.body).map_err(|error| unreachable(error.to_string()))
    };
    match tokio::time::timeout(JOIN_WITHIN, asking).await {
        Ok(answer) => answer,
        Err(_) => Err(unreachable(format!("no answer within {JOIN_WITHIN:?}"))),
    }
}

async fn exchange(turns: &mut Turns<'_>, frame: Frame, address: &Arc<str>) -> Result<Frame, JoinError> {
    let address = || address.to_string();
    let sent_and_answered = async {
        turns.send(&frame).await?;
        turns.receive().await
    };
    match sent_and_answered.await {
        Ok(Frame { kind: Kind::Refused, detail, body, .. }) => {
            let why = Refusal::of(detail, String::from_utf8_lossy(&body).into_owned());
            Err(JoinError::Refused { address: address(), why: why.words().to_owned() })
        }
        Ok(frame) => Ok(frame),
        Err(FrameError::Stream(error)) => {
            Err(JoinError::Unreachable { address: address(), why: trouble::words(&error) })
        }
        Err(error) => Err(JoinError::Unreachable { address: address(), why: error.to_string() }),
    }
}
