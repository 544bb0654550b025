//! ACLs follow the source (SPEC section 5, task `AclSync`): what the filters mean is at the destination as the
//! source has it, but for what would let others write to a mirror topic: that waits for the mirror's stop.
//!
//! An ACL that names a mirror is synced by the owner of that mirror's partition 0, as it would stop it; all
//! others by one node of the link. Nothing is written without its lease, nor about a mirror that has stopped.
//! What is written is in the catalog before, so that `owned` knows it whoever goes on. A list that couldn't be
//! read, or that another doesn't confirm, deletes nothing. What allows never comes before what denies.
//!
//! - [`plan`]: what is to be done, as a value. [`limits`]: which ALLOW waits for which DENY. [`mirrors`]: what
//!   ACLs have to do with mirror topics, and who syncs which. [`filters`]: which ACLs. [`settings`]: the keys.
//! - `round`: both ends once. `read`: their lists, and Lockstep's own principals. `record`: the catalog's part.
//! - [`at_stop`]: what was withheld. `stop_plan`: what that is. [`preview`]: what the sync would do.

pub mod at_stop;
#[cfg(test)]
mod fake;
pub mod filters;
#[cfg(test)]
pub(crate) mod fixture;
pub mod limits;
pub mod mirrors;
pub mod plan;
pub mod preview;
mod read;
mod record;
mod round;
pub mod settings;
mod stop_plan;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use catalog::{LinkId, NodeId};
use kafka::acls::{Acl, AclError, Outcomes};
use kafka::client::Dial;
use tokio::time::Instant;

use self::mirrors::Mirrors;
use self::round::Memory;
use self::settings::AclSettings;
use super::found::Found;
use crate::catalog_port::CatalogPort;
use crate::observe::{Observatory, TaskView};
use crate::plane::LinkPlane;

/// What a user calls it.
pub const TASK: &str = "AclSync";

/// How often it is looked whether a round is due: configs may have changed.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// ACLs in one request: the controller writes each as a record, all of a request at once.
const ACLS_A_REQUEST: usize = 200;

/// Errors and remarks kept of a round, at most; of others there is a count.
const TOLD_MAX: usize = 200;

pub struct AclSync {
    pub link: LinkId,
    pub node: NodeId,
    pub plane: Arc<LinkPlane>,
    pub catalog: Arc<dyn CatalogPort>,
    pub observatory: Arc<Observatory>,
    pub dial: Arc<dyn Dial>,
}

impl AclSync {
    /// Until the task is aborted.
    pub async fn run(self) {
        let mut memory = Memory::default();
        let mut last: Option<Instant> = None;
        let mut told = BTreeMap::new();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let link = self.catalog.watch().borrow().catalog.links.get(&self.link).cloned();
            let link = link.filter(|link| !link.is_paused());
            let Some(settings) = link.and_then(|link| AclSettings::of(&link.configs)) else {
                (memory, last) = (Memory::default(), None);
                self.observatory.clear_task(&self.link, TASK);
                continue;
            };
            if last.is_some_and(|at| at.elapsed() < settings.every) {
                continue;
            }
            last = Some(Instant::now());
            let mut found = Found::default();
            if let Err(error) = self.round(&settings, &mut memory, &mut found).await {
                // What is absent is to be absent in two lists in a row.
                memory.forget_absent();
                found.tell(error);
            }
            let Found { errors, remarks } = found.bounded(TOLD_MAX);
            for (acl, error) in errors.iter().filter(|(acl, error)| told.get(*acl) != Some(*error)) {
                tracing::warn!(%acl, "{TASK}: {}", error.message);
            }
            told = errors.clone();
            self.observatory.set_task(&self.link, TaskView { name: TASK, errors, remarks });
        }
    }
}

#[derive(Clone, Copy)]
enum Write {
    Create,
    Delete,
}

/// Tells what was written, and returns what was refused.
fn changed(outcomes: &Outcomes, write: Write) -> Vec<(Acl, AclError)> {
    let what = match write {
        Write::Create => "created",
        Write::Delete => "deleted",
    };
    let mut refused = Vec::new();
    for (acl, outcome) in outcomes {
        match outcome {
            Ok(()) => {
                tracing::info!("{TASK}: {what} {acl}");
                metrics::counter!("lockstep_acl_changes_total").increment(1);
            }
            Err(error) => refused.push((acl.clone(), error.clone())),
        }
    }
    refused
}
