//! The tasks of a link beside its records.

use std::sync::Arc;

use catalog::Link;
use tokio::task::AbortHandle;

use super::Surroundings;
use crate::plane::LinkPlane;
use crate::settings::{self, LinkSettings};
use crate::sync::acls::AclSync;
use crate::sync::configs::ConfigSync;
use crate::sync::mirrors::AutoCreate;
use crate::sync::offsets::OffsetSync;

/// Starts what is kept in step.
pub(super) fn start(
    link: &Link,
    settings: &LinkSettings,
    plane: &Arc<LinkPlane>,
    surroundings: &Surroundings,
) -> [AbortHandle; 4] {
    let Surroundings { node, catalog, observatory, dial, .. } = surroundings;
    let configs = ConfigSync {
        link: link.id.clone(),
        node: *node,
        plane: plane.clone(),
        catalog: catalog.clone(),
        observatory: observatory.clone(),
        every: settings.topic_config_sync,
        include: settings::synced_topic_configs(&link.configs),
    };
    let offsets = OffsetSync {
        link: link.id.clone(),
        node: *node,
        plane: plane.clone(),
        catalog: catalog.clone(),
        observatory: observatory.clone(),
    };
    let acls = AclSync {
        link: link.id.clone(),
        node: *node,
        plane: plane.clone(),
        catalog: catalog.clone(),
        observatory: observatory.clone(),
        dial: dial.clone(),
    };
    let mirrors = AutoCreate {
        link: link.id.clone(),
        node: *node,
        plane: plane.clone(),
        catalog: catalog.clone(),
        observatory: observatory.clone(),
    };
    [
        tokio::spawn(configs.run()).abort_handle(),
        tokio::spawn(offsets.run()).abort_handle(),
        tokio::spawn(acls.run()).abort_handle(),
        tokio::spawn(mirrors.run()).abort_handle(),
    ]
}
