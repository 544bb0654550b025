//! Which broker coordinates a group or a transactional id. Never asks one to do anything.

use std::collections::BTreeMap;

use kafka_protocol::messages::{ApiKey, FindCoordinatorRequest};
use kafka_protocol::protocol::StrBytes;

use crate::client::Client;
use crate::connection::{Api, Connection};
use crate::error::{Error, ErrorCode};
use crate::shape;

static FIND_COORDINATOR: Api = Api {
    key: ApiKey::FindCoordinator as i16,
    name: "FindCoordinator",
    versions: &[(4, true, shape::FIND_COORDINATOR_V4), (2, false, shape::FIND_COORDINATOR_V2)],
};

/// From this version on a request names several keys (KIP-699).
const SEVERAL_KEYS: i16 = 4;
const GROUP_KEY_TYPE: i8 = 0;
const TRANSACTION_KEY_TYPE: i8 = 1;

/// By key, or why one isn't told.
pub type Found = BTreeMap<String, Result<i32, ErrorCode>>;

/// The brokers that coordinate these groups: 15 passes with time, 30 needs DESCRIBE on the group.
///
/// # Errors
/// Those of [`Connection::call`].
pub async fn of_groups(client: &Client, groups: &[&str]) -> Result<Found, Error> {
    find(client, groups, GROUP_KEY_TYPE).await
}

/// A control connection to the coordinator of a transactional id.
pub(crate) async fn of_transactional_id(client: &Client, id: &str) -> Result<Connection, Error> {
    let what = format!("FindCoordinator of transactional id {id}");
    let found = find(client, &[id], TRANSACTION_KEY_TYPE).await?.remove(id);
    // Not told of is as good as not there yet.
    match found.unwrap_or(Err(ErrorCode::COORDINATOR_NOT_AVAILABLE)) {
        Ok(broker) => client.control(broker).await,
        Err(code) => Err(Error::Broker { what, code }),
    }
}

async fn find(client: &Client, keys: &[&str], key_type: i8) -> Result<Found, Error> {
    let connection = client.any_broker().await?;
    let text = |key: &str| StrBytes::from_string(key.to_owned());
    let told = |node: i32, code: i16| ErrorCode::of(code).map_or(Ok(node), Err);
    let request = FindCoordinatorRequest::default().with_key_type(key_type);
    if connection.version(&FIND_COORDINATOR)?.0 >= SEVERAL_KEYS {
        let request = request.with_coordinator_keys(keys.iter().map(|key| text(key)).collect());
        let (found, _) = connection.call(&FIND_COORDINATOR, &request).await?;
        let found = found.coordinators.into_iter();
        return Ok(found.map(|f| (f.key.to_string(), told(f.node_id.0, f.error_code))).collect());
    }
    let mut all = Found::new();
    for key in keys {
        let request = request.clone().with_key(text(key));
        let (found, _) = connection.call(&FIND_COORDINATOR, &request).await?;
        all.insert((*key).to_owned(), told(found.node_id.0, found.error_code));
    }
    Ok(all)
}
