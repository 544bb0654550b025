//! The one thing a coordinator reads of what members tell each other: the topics they subscribe to.

use std::collections::BTreeSet;

use bytes::{Buf, Bytes};
use kafka_protocol::messages::ConsumerProtocolSubscription;
use kafka_protocol::protocol::Decodable;

/// The topics of a consumer's subscription; None when it isn't one.
pub fn topics(mut metadata: Bytes) -> Option<BTreeSet<String>> {
    if metadata.remaining() < size_of::<i16>() || metadata.get_i16() < 0 {
        return None;
    }
    // Later versions only append fields.
    let subscription = ConsumerProtocolSubscription::decode(&mut metadata, 0).ok()?;
    Some(subscription.topics.iter().map(ToString::to_string).collect())
}
