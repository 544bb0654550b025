//! Where members are: what the catalog says, and what they said themselves when they last called.
//!
//! A node that restarts elsewhere calls the others before the catalog can say so, or can't be told to
//! the catalog because no one is Raft leader: its own word counts, until the catalog has a new one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use catalog::{Catalog, NodeId};

use crate::identity::{IdentityError, read, replace};

/// Members as the catalog knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Book {
    /// Members, and where they are (`host:port`) as far as is known.
    pub members: BTreeMap<NodeId, Option<Arc<str>>>,
    /// Were members. They aren't listened to, and are told why.
    pub removed: BTreeSet<NodeId>,
}

impl Book {
    pub fn of(catalog: &Catalog) -> Self {
        let members = catalog.nodes.iter().map(|(id, node)| (*id, node.address.clone())).collect();
        Self { members, removed: catalog.fleet.removed.keys().copied().collect() }
    }

    fn address(&self, node: NodeId) -> Option<&Arc<str>> {
        self.members.get(&node)?.as_ref()
    }
}

/// Where members are (`host:port`).
pub type Addresses = BTreeMap<NodeId, Arc<str>>;

/// In the data directory: a line a member, its id and its address.
const FILE: &str = "peer-addresses";

/// As [`keep`] left them; none where it never did.
///
/// # Errors
/// [`IdentityError`] of a file that can't be read or isn't as it was written.
pub fn kept(directory: &Path) -> Result<Addresses, IdentityError> {
    let path = directory.join(FILE);
    let Some(text) = read(&path)? else { return Ok(Addresses::new()) };
    let text = String::from_utf8_lossy(&text);
    let line = |line: &str| {
        let (id, address) = line.split_once(' ')?;
        Some((NodeId(u64::from_str_radix(id, 16).ok()?), address.into()))
    };
    text.lines().map(|text| line(text).ok_or_else(|| text.to_owned())).collect::<Result<_, String>>().map_err(
        |text| IdentityError::Contents { path, why: format!("'{text}' isn't a node's id and address") },
    )
}

/// For a start at which the catalog doesn't say anything yet.
///
/// # Errors
/// [`IdentityError`] of a file that can't be written.
pub fn keep(directory: &Path, addresses: &Addresses) -> Result<(), IdentityError> {
    let lines: String = addresses.iter().map(|(id, address)| format!("{id} {address}\n")).collect();
    replace(&directory.join(FILE), &lines)
}

/// Nodes that said where they are and that the catalog doesn't know (yet), at most: those that have just
/// joined elsewhere.
const STRANGERS_MAX: usize = 1_000;

/// What nodes said of where they are.
#[derive(Default)]
pub(crate) struct Said {
    by_node: Mutex<BTreeMap<NodeId, Word>>,
}

struct Word {
    address: Arc<str>,
    /// The catalog's address at that time: a newer one counts for more.
    written: Option<Arc<str>>,
}

impl Said {
    fn by_node(&self) -> MutexGuard<'_, BTreeMap<NodeId, Word>> {
        self.by_node.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn say(&self, book: &Book, node: NodeId, address: Arc<str>) {
        let written = book.address(node).cloned();
        let mut by_node = self.by_node();
        if by_node.len() < STRANGERS_MAX || book.members.contains_key(&node) {
            by_node.insert(node, Word { address, written });
        }
    }

    pub fn keep(&self, keep: impl Fn(NodeId) -> bool) {
        self.by_node().retain(|node, _| keep(*node));
    }

    /// Where to try it for the `attempt`th time in a row: first where it said, then where it is written.
    pub fn address(&self, book: &Book, node: NodeId, attempt: u32) -> Option<Arc<str>> {
        let written = book.address(node);
        let by_node = self.by_node();
        let said =
            by_node.get(&node).filter(|word| word.written.as_ref() == written).map(|word| &word.address);
        let preferred = if attempt.is_multiple_of(2) { said.or(written) } else { written.or(said) };
        preferred.cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(7);

    fn book(address: Option<&str>) -> Book {
        Book { members: [(NODE, address.map(Arc::from))].into(), removed: BTreeSet::new() }
    }

    fn where_is(said: &Said, book: &Book, attempt: u32) -> Option<String> {
        said.address(book, NODE, attempt).map(|address| address.to_string())
    }

    #[test]
    fn a_nodes_own_word_counts_until_the_catalog_has_a_new_one() {
        let said = Said::default();
        assert_eq!(where_is(&said, &book(None), 0), None);
        assert_eq!(where_is(&said, &book(Some("a:1")), 0).as_deref(), Some("a:1"));
        said.say(&book(Some("a:1")), NODE, "b:1".into());
        assert_eq!(where_is(&said, &book(Some("a:1")), 0).as_deref(), Some("b:1"));
        assert_eq!(where_is(&said, &book(Some("c:1")), 0).as_deref(), Some("c:1"));
    }

    #[test]
    fn after_a_failure_the_other_address_is_tried() {
        let said = Said::default();
        said.say(&book(Some("a:1")), NODE, "b:1".into());
        let tried: Vec<_> = (0..4).map(|attempt| where_is(&said, &book(Some("a:1")), attempt)).collect();
        assert_eq!(tried, ["b:1", "a:1", "b:1", "a:1"].map(|a| Some(a.to_owned())));
    }

    #[test]
    fn a_node_that_the_catalog_doesnt_know_yet_is_found_where_it_said() {
        let said = Said::default();
        said.say(&Book::default(), NODE, "b:1".into());
        assert_eq!(where_is(&said, &Book::default(), 1).as_deref(), Some("b:1"));
        said.keep(|_| false);
        assert_eq!(where_is(&said, &Book::default(), 0), None);
    }

    #[test]
    fn addresses_are_kept_for_the_next_start_and_a_broken_line_is_named() {
        let directory = tempfile::TempDir::new().expect("a directory");
        assert_eq!(kept(directory.path()).expect("none yet"), Addresses::new());
        for all in [vec![(NODE, "a:1")], vec![(NODE, "b:1"), (NodeId(u64::MAX), "[::1]:2")]] {
            let all: Addresses = all.into_iter().map(|(id, address)| (id, address.into())).collect();
            keep(directory.path(), &all).expect("written");
            assert_eq!(kept(directory.path()).expect("read"), all);
        }
        std::fs::write(directory.path().join(FILE), "7 a:1\nnobody").expect("written");
        let told = kept(directory.path()).expect_err("broken").to_string();
        assert!(told.contains(FILE) && told.contains("'nobody'"), "{told}");
    }
}
