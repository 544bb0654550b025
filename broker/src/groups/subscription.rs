//! The one thing a coordinator reads of what members tell each other: the topics they subscribe to.

use std::collections::BTreeSet;

use bytes::{Buf, Bytes};
use kafka_protocol::messages::ConsumerProtocolSubscription;

use crate::decode::decode;

/// The topics of a consumer's subscription; None when it isn't one.
pub fn topics(mut metadata: Bytes) -> Option<BTreeSet<String>> {
    if metadata.remaining() < size_of::<i16>() || metadata.get_i16() < 0 {
        return None;
    }
    // Later versions only append fields.
    let subscription: ConsumerProtocolSubscription = decode(&mut metadata, 0).ok()?;
    Some(subscription.topics.iter().map(ToString::to_string).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_to_more_topics_than_it_can_hold_is_none() {
        let claimed = [&0_i16.to_be_bytes()[..], &i32::MAX.to_be_bytes(), &[0; 40]].concat();
        assert_eq!(topics(claimed.into()), None);
    }
}
