//! Where members are, as the catalog says.
//!
//! A node that starts knows what its last snapshot says, and learns from a Raft leader what was committed
//! since. Until the catalog says anything it goes by the addresses that it kept: whoever was removed
//! meanwhile is called by nobody, and has to ask.

use std::sync::Arc;

use peers::Book;
use peers::book::Addresses;
use tokio::sync::watch;

use crate::{Applied, Consensus};

/// `kept`: from the last time, or from whoever let this node in. `keep` is told what to keep, now and
/// whenever it changes.
pub fn book(
    consensus: &Consensus,
    kept: Addresses,
    keep: impl Fn(&Addresses) + Send + 'static,
) -> watch::Receiver<Arc<Book>> {
    let of = |applied: &Applied| (!applied.catalog.nodes.is_empty()).then(|| Book::of(&applied.catalog));
    let mut applied = consensus.watch();
    let begin = of(&applied.borrow_and_update()).unwrap_or_else(|| Book {
        members: kept.iter().map(|(id, address)| (*id, Some(address.clone()))).collect(),
        removed: Default::default(),
    });
    let mut kept = kept;
    let mut keep_what_changed = move |book: &Book| {
        let addresses: Addresses =
            book.members.iter().filter_map(|(id, address)| Some((*id, address.clone()?))).collect();
        if kept != addresses {
            keep(&addresses);
            kept = addresses;
        }
    };
    keep_what_changed(&begin);
    let (book, known) = watch::channel(Arc::new(begin));
    tokio::spawn(async move {
        while applied.changed().await.is_ok() {
            let Some(now) = of(&applied.borrow_and_update()) else { continue };
            keep_what_changed(&now);
            book.send_if_modified(|held| {
                let changes = **held != now;
                if changes {
                    *held = Arc::new(now);
                }
                changes
            });
        }
    });
    known
}
