//! Where members are, from one start to the next.

mod support;

use std::sync::{Arc, Mutex};

use catalog::command::NodeDescription;
use catalog::{Action, NodeId};
use consensus::Consensus;
use peers::book::Addresses;
use support::options;
use tempfile::TempDir;

const OTHER: NodeId = NodeId(7);

#[tokio::test]
async fn what_was_kept_counts_until_the_catalog_says_and_then_that_is_kept() {
    let dir = TempDir::new().expect("a directory");
    let consensus = Consensus::bootstrap(options(dir.path())).await.expect("bootstrap");
    let told: Arc<Mutex<Vec<Addresses>>> = Arc::default();
    let keep = {
        let told = told.clone();
        move |addresses: &Addresses| told.lock().expect("whole").push(addresses.clone())
    };
    let kept = Addresses::from([(OTHER, "b:1".into())]);
    let mut book = consensus::book(&consensus, kept, keep);
    assert_eq!(book.borrow_and_update().members, [(OTHER, Some("b:1".into()))].into());
    assert!(told.lock().expect("whole").is_empty(), "it is kept already");
    let node = consensus.node_id();
    let description =
        NodeDescription { name: "a".into(), address: Some("a:1".into()), level: 1, version: "1".into() };
    consensus.submit(Action::RecordStart { node, description }).await.expect("recorded");
    book.changed().await.expect("told");
    assert_eq!(book.borrow().members, [(node, Some("a:1".into()))].into());
    assert_eq!(*told.lock().expect("whole"), [Addresses::from([(node, "a:1".into())])]);
    consensus.shutdown().await;
}
