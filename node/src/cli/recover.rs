//! `lockstep node recover`: a node goes on alone after the majority is lost for good.
//!
//! Works on the data directory of a node that isn't running. Before anything is written it asks the other
//! members whether they live: whoever is removed by mistake ends itself as soon as it hears of it, and what
//! it held beyond this node is lost.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context as _;
use bytes::Bytes;
use catalog::{Catalog, NodeId};
use clap::Args;
use consensus::{Prospect, Recovered};
use peers::dial::TcpDial;
use peers::{Book, Call as _, CallError, Refusal, Security, Service, Tls, Transport, transport};
use tokio::runtime::Builder;
use tokio::sync::watch;

use super::failure::Failure;
use super::output;
use crate::peering::trust;

pub const EXAMPLE: &str = "\
Example, on the machine of a node that is left, and stopped:
  lockstep node recover --data-dir /var/lib/lockstep
  lockstep server --data-dir /var/lib/lockstep";

/// A member that lives answers within milliseconds; one far away, or busy, within some seconds.
const ASK_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub struct RecoverArgs {
    /// Data directory of a node that isn't running
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Give up other members though some of them answer
    #[arg(long)]
    although_others_answer: bool,
    /// Don't ask
    #[arg(long)]
    yes: bool,
}

impl RecoverArgs {
    pub fn run(self) -> Result<(), Failure> {
        let options = consensus::Options::new(&self.data_dir, "");
        let failed = |error| Failure::from(anyhow::Error::new(error));
        let Prospect { recovered, catalog } = consensus::would_recover(&options).map_err(failed)?;
        let heard = ask_others(&self.data_dir, recovered.node_id, &catalog)?;
        heard.iter().for_each(|heard| output::say(&heard.to_string()));
        let answering = heard.iter().filter(|heard| heard.lives).count();
        if answering > 0 && !self.although_others_answer {
            let message =
                format!("{answering} of {} other members answered; nothing was changed", heard.len());
            return Err(Failure::new(message).hint(
                "they go on as the fleet if they are a majority; if they aren't, stop them first; if they are to be \
                 given up all the same: --although-others-answer",
            ));
        }
        if recovered.changed {
            output::confirm(&question(&recovered), self.yes)?;
        }
        let recovered = consensus::recover(&options).map_err(failed)?;
        output::say(&told(&recovered));
        Ok(())
    }
}

/// What came of asking one member.
struct Heard {
    who: String,
    address: Option<Arc<str>>,
    answer: String,
    /// It is, or may be, a member of this fleet that runs.
    lives: bool,
}

impl std::fmt::Display for Heard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { who, address, answer, .. } = self;
        match address {
            Some(address) => write!(f, "asked {who} at {address}: {answer}"),
            None => write!(f, "{who} wasn't asked: {answer}"),
        }
    }
}

/// Calls all other members at once, where this node last knew them to be.
fn ask_others(data_dir: &Path, me: NodeId, catalog: &Catalog) -> Result<Vec<Heard>, Failure> {
    let fleet = catalog.fleet.id.clone().filter(|_| catalog.nodes.keys().any(|id| *id != me));
    let Some(fleet) = fleet else { return Ok(Vec::new()) };
    let material = trust::of_fleet(data_dir, &catalog.fleet, me, false)?;
    let material = material.context("this node has no certificate to ask the others with")?;
    let security = Security::Tls(Tls::new(material).context("use this node's certificate")?);
    let runtime = Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    runtime.block_on(async {
        let (_book, book) = watch::channel(Arc::new(Book::of(catalog)));
        let transport = Transport::new(transport::Options {
            node: me,
            fleet,
            address: "".into(),
            level: catalog::fleet::LEVEL,
            version: env!("CARGO_PKG_VERSION").into(),
            security,
            dial: Arc::new(TcpDial),
            book,
        });
        let others = catalog.nodes.iter().filter(|(id, _)| **id != me).map(|(id, node)| {
            let call = transport.call(*id, Service::Status, Bytes::new(), ASK_WITHIN);
            let (who, address) = (format!("node {} ({id})", node.name), node.address.clone());
            tokio::spawn(async move { heard(who, address, call.await) })
        });
        let mut all = Vec::new();
        for asked in others.collect::<Vec<_>>() {
            // Whoever couldn't be asked isn't known to be gone.
            all.push(asked.await.context("ask a member")?);
        }
        Ok(all)
    })
}

fn heard(who: String, address: Option<Arc<str>>, answer: Result<Bytes, CallError>) -> Heard {
    let (lives, answer) = match answer {
        Ok(_) | Err(CallError::Busy(_) | CallError::Unanswered { .. }) => (true, "it runs".to_owned()),
        Err(CallError::Refused { why: why @ (Refusal::Fleet(_) | Refusal::Garbage(_)), .. }) => {
            (false, format!("no member stands there: {why}"))
        }
        Err(CallError::Refused { why, .. }) => {
            (true, format!("it answers, and doesn't talk to this node: {why}"))
        }
        Err(CallError::Unreachable { why, .. }) => (false, format!("no answer: {why}")),
        Err(error) => (false, format!("no answer: {error}")),
    };
    Heard { who, address, answer, lives }
}

fn question(found: &Recovered) -> String {
    format!(
        "Node {} {}. It is to become the only one of its fleet; all other nodes are removed from it for good, and \
         commands that only they had are lost. Do this only when a majority of voters never comes back.",
        found.node_name,
        holds(found)
    )
}

fn holds(found: &Recovered) -> String {
    let last = found.last_command_ms.and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis);
    let entries = found.last_index;
    match last.and_then(|since| UNIX_EPOCH.checked_add(since)) {
        Some(at) => {
            format!("holds {entries} entries, the last command of {}", humantime::format_rfc3339_seconds(at))
        }
        None => format!("holds {entries} entries"),
    }
}

fn told(found: &Recovered) -> String {
    let name = &found.node_name;
    if !found.changed {
        return format!("node {name} is the only one of its fleet already; nothing was changed");
    }
    let mut lines = vec![format!("node {name} ({}) is now the only one of its fleet", found.node_id)];
    lines.extend(found.removed.iter().map(|(id, name)| format!("removed: node {name} ({id})")));
    lines.push(format!("it {}: what was changed later is missing", holds(found)));
    if found.not_known_committed > 0 {
        lines.push(format!(
            "the last {} of them may never have been acknowledged; they count from now on",
            found.not_known_committed
        ));
    }
    if !found.voted {
        lines.push("it was a learner, which may have been further behind than a voter".to_owned());
    }
    lines.push(
        "start it, let new nodes join, and compare clusters, links and mirrors with what you expect"
            .to_owned(),
    );
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_speaks_as_a_member_lives_though_it_refuses_this_node() {
        let node = NodeId(7);
        let refused = |why| Err(CallError::Refused { node, address: "b:1".into(), why });
        let lives = |answer| heard("node b".into(), Some("b:1".into()), answer).lives;
        assert!(lives(Ok(Bytes::new())));
        assert!(lives(Err(CallError::Busy(node))));
        assert!(lives(refused(Refusal::Removed("removed".into()))));
        assert!(lives(refused(Refusal::Certificate("expired".into()))), "it may be one");
        assert!(lives(refused(Refusal::Node("it is node 9".into()))), "another member");
        assert!(!lives(refused(Refusal::Fleet("of another".into()))));
        assert!(!lives(refused(Refusal::Garbage("not this protocol".into()))));
        let unreachable = CallError::Unreachable { node, address: "b:1".into(), why: "refused".into() };
        assert!(!lives(Err(unreachable)));
        assert!(!lives(Err(CallError::NoAddress(node))));
        let told = heard("node b".into(), None, Err(CallError::NoAddress(node))).to_string();
        assert!(told.starts_with("node b wasn't asked"), "{told}");
    }
}
