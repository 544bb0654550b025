//! DescribeCluster: its id and its brokers (KIP-700).

use kafka_protocol::error::ResponseError as Code;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{BrokerId, DescribeClusterRequest, DescribeClusterResponse};
use kafka_protocol::protocol::StrBytes;

use super::metadata::NOT_ASKED;
use super::{ApiError, Handler, Step, outcome};
use crate::fault::Caller;
use crate::state::State;

const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub(crate) struct DescribeCluster;

impl Handler for DescribeCluster {
    type Request = DescribeClusterRequest;

    const VERSIONS: std::ops::RangeInclusive<i16> = 0..=1;

    fn handle(
        state: &mut State,
        _: &Caller,
        request: DescribeClusterRequest,
    ) -> Step<DescribeClusterResponse> {
        let response = DescribeClusterResponse::default()
            .with_endpoint_type(BROKERS)
            .with_controller_id(BrokerId(-1))
            .with_cluster_authorized_operations(NOT_ASKED);
        let refused = match request.endpoint_type {
            BROKERS => None,
            CONTROLLERS => {
                let message = "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of \
                               type CONTROLLER";
                Some(ApiError::new(Code::MismatchedEndpointType, message))
            }
            other => {
                let message = format!("Unsupported endpoint type {other}");
                Some(ApiError::new(Code::UnsupportedEndpointType, message))
            }
        };
        if let Some(error) = refused {
            let (code, message) = outcome::<()>(Err(error));
            return Step::Done(response.with_error_code(code).with_error_message(message));
        }
        let live = state.live();
        let brokers = live.iter().filter_map(|id| state.endpoint(*id)).map(|endpoint| {
            DescribeClusterBroker::default()
                .with_broker_id(BrokerId(endpoint.id))
                .with_host(StrBytes::from_string(endpoint.host.clone()))
                .with_port(i32::from(endpoint.port))
        });
        Step::Done(
            response
                .with_cluster_id(StrBytes::from_string(state.settings.cluster_id.clone()))
                .with_controller_id(BrokerId(live.first().copied().unwrap_or(-1)))
                .with_brokers(brokers.collect()),
        )
    }
}
