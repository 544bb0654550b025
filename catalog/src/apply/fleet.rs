//! Members come, start, drain and go.

use std::sync::Arc;

use super::{Applied, replace};
use crate::command::{NodeDescription, Outcome, Refusal};
use crate::fleet::{Authority, Duty, FleetId, JoinToken, Node};
use crate::model::{Catalog, NodeId};

/// Join tokens at once, at most; expired ones don't count.
pub const JOIN_TOKENS_MAX: usize = 100;

/// Removed nodes that are remembered, at most: the earliest removed are forgotten. One that is
/// forgotten has no certificate that is still valid.
pub const REMOVED_MAX: usize = 10_000;

/// The level of a node that doesn't say one.
const FIRST_LEVEL: u32 = 1;

impl Catalog {
    /// A start recorded by a build of the first level.
    pub(super) fn start_node(&mut self, id: NodeId, name: Arc<str>) -> Applied {
        self.not_removed(id)?;
        // Before a fleet is founded, whoever starts is in it.
        if self.fleet.id.is_some() {
            self.may_start(id, &name)?;
        }
        let version = Arc::from("");
        self.started(id, NodeDescription { name, address: None, level: FIRST_LEVEL, version });
        Ok(Outcome::Done)
    }

    pub(super) fn record_start(&mut self, id: NodeId, description: NodeDescription) -> Applied {
        self.not_removed(id)?;
        self.may_start(id, &description.name)?;
        self.knows_enough(&description)?;
        self.started(id, description);
        Ok(Outcome::Done)
    }

    /// Only the founder of a fleet starts without having been admitted.
    fn may_start(&self, id: NodeId, name: &Arc<str>) -> Result<(), Refusal> {
        if !self.nodes.is_empty() && !self.nodes.contains_key(&id) {
            return Err(Refusal::not_found("node", &id.to_string()));
        }
        self.name_is_free(id, name)
    }

    fn started(&mut self, id: NodeId, description: NodeDescription) {
        let before = self.nodes.get(&id);
        let starts = before.map_or(0, |node| node.starts) + 1;
        let was = before.map(|node| node.duty);
        if was == Some(Duty::Stops) {
            // What it hasn't given away yet it keeps.
            self.cancel_hand_overs(|owner, _| owner == Some(id));
        }
        let duty = if was == Some(Duty::Drains) { Duty::Drains } else { Duty::Mirrors };
        self.nodes.insert(id, node(description, starts, duty));
        self.take_over_own(id);
    }

    pub(super) fn admit_node(
        &mut self,
        id: NodeId,
        description: NodeDescription,
        token: Option<Arc<str>>,
        at_ms: i64,
    ) -> Applied {
        self.not_removed(id)?;
        self.knows_enough(&description)?;
        let uses = match &token {
            Some(token) => self.token_admits(token, id, at_ms)?,
            None => false,
        };
        let is_member = self.nodes.contains_key(&id);
        if !is_member {
            self.name_is_free(id, &description.name)?;
            self.nodes.insert(id, node(description, 0, Duty::Mirrors));
        }
        if uses && let Some(token) = token.and_then(|token| self.fleet.join_tokens.get_mut(&token)) {
            token.used_by = Some(id);
        }
        Ok(if uses || !is_member { Outcome::Done } else { Outcome::Unchanged })
    }

    /// Whether the node uses it up by that; else it is the one that it came in with.
    fn token_admits(&self, token: &Arc<str>, id: NodeId, at_ms: i64) -> Result<bool, Refusal> {
        let refused = |why: &str| {
            Refusal::Illegal(format!("join token '{token}' {why}; make a new one with 'lockstep node token'"))
        };
        let held = self.fleet.join_tokens.get(token).ok_or_else(|| refused("isn't known, or has expired"))?;
        match held.used_by {
            Some(user) if user != id => Err(refused("was used already")),
            _ if held.expires_ms <= at_ms => Err(refused("has expired")),
            Some(_) => Ok(false),
            // Whoever knows a token and a member's id isn't that member.
            None if self.nodes.get(&id).is_some_and(|node| node.starts > 0) => {
                Err(Refusal::Illegal(format!(
                    "node {id} is a member already and has started; a node joins with an empty data directory"
                )))
            }
            None => Ok(true),
        }
    }

    /// An older build can't read a log with kinds of commands that it doesn't know.
    fn knows_enough(&self, description: &NodeDescription) -> Result<(), Refusal> {
        let (level, needed) = (description.level, self.level());
        // A founder says by its first start what it knows.
        if self.nodes.is_empty() || level >= needed {
            return Ok(());
        }
        Err(Refusal::Illegal(format!(
            "node '{}' runs a version of lockstep that is older than what the fleet's members run (level {level}, \
             they are at {needed}): give it the version that they run",
            description.name
        )))
    }

    pub(super) fn set_duty(&mut self, id: NodeId, duty: Duty) -> Applied {
        let node = self.nodes.get_mut(&id).ok_or_else(|| Refusal::not_found("node", &id.to_string()))?;
        if replace(&mut node.duty, duty) == Outcome::Unchanged {
            return Ok(Outcome::Unchanged);
        }
        // What was to come to it goes elsewhere; what it was to give away may stay.
        match duty {
            Duty::Mirrors => self.cancel_hand_overs(|owner, _| owner == Some(id)),
            Duty::Drains | Duty::Stops => self.cancel_hand_overs(|_, to| to == id),
        }
        Ok(Outcome::Done)
    }

    pub(super) fn remove_node(&mut self, id: NodeId, lost: bool, at_ms: i64) -> Applied {
        let node = self.nodes.get(&id).ok_or_else(|| Refusal::not_found("node", &id.to_string()))?;
        let name = node.name.clone();
        if self.nodes.len() == 1 {
            let message =
                format!("node '{name}' is the last of its fleet; stop it and delete its data directory");
            return Err(Refusal::Illegal(message));
        }
        let owned = self.owned_by(id);
        if owned > 0 && !lost {
            let by = format!("it owns {owned} mirror partition(s); drain it first, or say that it is lost");
            return Err(Refusal::InUse { what: "node".into(), name: name.to_string(), by });
        }
        self.nodes.remove(&id);
        self.cancel_hand_overs(|_, to| to == id);
        self.fleet.removed.insert(id, at_ms);
        if self.fleet.removed.len() > REMOVED_MAX
            && let Some((&first, _)) = self.fleet.removed.iter().min_by_key(|(id, at)| (**at, **id))
        {
            self.fleet.removed.remove(&first);
        }
        Ok(Outcome::Done)
    }

    pub(super) fn found_fleet(&mut self, id: FleetId, authority: Authority) -> Applied {
        if let Some(held) = &self.fleet.id {
            return Err(Refusal::exists("fleet", &held.0));
        }
        self.fleet.id = Some(id);
        self.fleet.authorities = vec![authority];
        Ok(Outcome::Done)
    }

    pub(super) fn issue_token(&mut self, id: Arc<str>, token: JoinToken, at_ms: i64) -> Applied {
        if self.fleet.join_tokens.contains_key(&id) {
            return Err(Refusal::exists("join token", &id));
        }
        let fleet = &mut self.fleet;
        fleet.join_tokens.retain(|_, token| token.expires_ms > at_ms);
        if fleet.join_tokens.len() >= JOIN_TOKENS_MAX {
            let message = format!("{JOIN_TOKENS_MAX} join tokens are open; wait until one expires");
            return Err(Refusal::Illegal(message));
        }
        fleet.join_tokens.insert(id, token);
        Ok(Outcome::Done)
    }

    pub(super) fn add_authority(&mut self, authority: Authority) -> Applied {
        if self.fleet.authorities.len() > 1 {
            let message = "two authorities are trusted already: remove the old one first, with 'lockstep node authority \
                           remove ID'"
                .to_owned();
            return Err(Refusal::Illegal(message));
        }
        if self.fleet.authorities.iter().any(|held| held.certificate == authority.certificate) {
            return Err(Refusal::exists("authority", "with that certificate"));
        }
        self.fleet.authorities.push(authority);
        Ok(Outcome::Done)
    }

    pub(super) fn remove_authority(&mut self, certificate: &Arc<[u8]>) -> Applied {
        let authorities = &mut self.fleet.authorities;
        let Some(index) = authorities.iter().position(|a| a.certificate == *certificate) else {
            return Err(Refusal::not_found("authority", "with that certificate"));
        };
        if index + 1 == authorities.len() {
            let message =
                "this authority signs the fleet's certificates: make a new one first, with 'lockstep node \
                           authority rotate'"
                    .to_owned();
            return Err(Refusal::Illegal(message));
        }
        authorities.remove(index);
        Ok(Outcome::Done)
    }

    fn not_removed(&self, id: NodeId) -> Result<(), Refusal> {
        if !self.fleet.removed.contains_key(&id) {
            return Ok(());
        }
        Err(Refusal::Illegal(format!(
            "node {id} was removed from this fleet; let it join again as a new node, with an empty data directory"
        )))
    }

    fn name_is_free(&self, id: NodeId, name: &Arc<str>) -> Result<(), Refusal> {
        match self.nodes.iter().find(|(other, node)| **other != id && node.name == *name) {
            Some((other, _)) => Err(Refusal::Illegal(format!(
                "a node named '{name}' is a member already ({other}): give this one another --node-name; or, \
                 if that one is lost for good, remove it with 'lockstep node remove {name} --lost'"
            ))),
            None => Ok(()),
        }
    }
}

fn node(description: NodeDescription, starts: u64, duty: Duty) -> Node {
    let NodeDescription { name, address, level, version } = description;
    Node { name, starts, address, duty, level, version }
}
