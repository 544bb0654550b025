//! Stores that earlier builds wrote are read, and gone on with.

mod support;

use std::io::Read;

use catalog::NodeId;
use consensus::Consensus;
use flate2::read::GzDecoder;
use support::disk::Disk;
use support::{catalog, held, options, submit_range};

/// A fleet of one after 50 commands, with a snapshot and entries behind it; its values have no
/// checksums.
const WITHOUT_CHECKSUMS: &[u8] = include_bytes!("recorded/store-without-checksums.redb.gz");
const ITS_NODE: NodeId = NodeId(15_317_215_761_880_227_201);

fn recorded(gz: &[u8]) -> Disk {
    let mut image = Vec::new();
    GzDecoder::new(gz).read_to_end(&mut image).expect("a recorded store");
    Disk::holding(image)
}

#[tokio::test]
async fn a_store_without_checksums_opens_and_goes_on() {
    let disk = recorded(WITHOUT_CHECKSUMS);
    let node = Consensus::open_on(disk.clone(), options("memory".as_ref())).await.expect("readable");
    assert_eq!((node.node_id(), node.status().node_name.as_str()), (ITS_NODE, "node-a"));
    assert_eq!(held(&catalog(&node)), 50);
    submit_range(&node, 50..120).await;
    node.shutdown().await;
    let again = Consensus::open_on(disk, options("memory".as_ref())).await.expect("readable");
    assert_eq!(held(&catalog(&again)), 120);
}
