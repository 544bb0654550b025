//! Where members are, as the catalog says.
//!
//! A node that starts knows what its last snapshot says, and learns from a Raft leader what was committed
//! since. Until then it goes by the addresses that it kept as well: whoever was removed meanwhile is called by
//! nobody, and has to ask.

use std::sync::Arc;

use peers::Book;
use peers::book::Addresses;
use tokio::sync::watch;

use crate::{Applied, Consensus};

/// `kept`: from the last time, or from whoever let this node in. `keep` is told what to keep whenever it changes.
pub fn book(
    consensus: &Consensus,
    kept: Addresses,
    keep: impl Fn(&Addresses) + Send + 'static,
) -> watch::Receiver<Arc<Book>> {
    let of = |applied: &Applied| (!applied.catalog.nodes.is_empty()).then(|| Book::of(&applied.catalog));
    let mut applied = consensus.watch();
    // The catalog may be older than what was kept, and know nobody who still lives.
    let mut begin = Book::of(&applied.borrow_and_update().catalog);
    for (id, address) in &kept {
        if !begin.removed.contains(id) {
            begin.members.entry(*id).or_default().get_or_insert(address.clone());
        }
    }
    let mut kept = kept;
    let mut keep_what_changed = move |book: &Book| {
        let addresses: Addresses =
            book.members.iter().filter_map(|(id, address)| Some((*id, address.clone()?))).collect();
        if kept != addresses {
            keep(&addresses);
            kept = addresses;
        }
    };
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
