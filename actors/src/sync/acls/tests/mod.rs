//! Rounds and stops against clusters that know only ACLs, and fail on request.

use std::collections::BTreeSet;
use std::sync::Mutex;

use catalog::acls::{ACL_CHANGES_MAX, ACLS_MAX, AclChange, AclRecord, AclState};
use catalog::stop::{Stop, StopKind};
use catalog::{Catalog, Link, MirrorKey, MirrorStatus};
use consensus::Applied;
use kafka::connection::Gate;
use kafka_protocol::messages::ApiKey;
use tokio::sync::watch;

use super::at_stop::{AtStop, last_look};
use super::fake::{FakeDial, FakeKafka, Fault};
use super::fixture::{acl, acls};
use super::read::principals_of_others;
use super::settings::{ENABLE, FILTERS, MODE, Mode, OWN_PRINCIPALS};
use super::*;
use crate::clock::{Uptime, WallClock};
use crate::credit::CreditLimits;
use crate::fixture;
use crate::fixture::{FakeCatalog, HERE};
use crate::fleet::lease::LeaseKeeper;
use crate::pace::LinkPace;
use crate::plane::{Bounds, PlaneMeters};
use crate::settings::LinkSettings;

use AclState::{Intended, Withheld, Written};

mod rounds;
mod stops;

const NOW_MS: i64 = 1_800_000_000_000;
const REQUEST_TIMED_OUT: i16 = 7;
const INVALID_REQUEST: i16 = 42;

const READ: &str = "ALLOW User:a READ TOPIC LITERAL orders *";
const GROUP: &str = "ALLOW User:a READ GROUP LITERAL app *";
const DENY: &str = "DENY User:* READ TOPIC LITERAL orders 10.0.0.1";
const WRITE: &str = "ALLOW User:a WRITE TOPIC LITERAL orders *";
const EVERY: &str = "ALLOW User:b WRITE TOPIC LITERAL * *";
const EVERY_FOR_IT: &str = "ALLOW User:b WRITE TOPIC LITERAL orders *";

struct World {
    source: FakeKafka,
    destination: FakeKafka,
    sync: AclSync,
    catalog: Arc<dyn CatalogPort>,
    applied: watch::Sender<Arc<Applied>>,
    memory: Memory,
    key: MirrorKey,
}

/// A link with the mirror 'orders', whose ACLs follow.
fn world(brokers: i32, configs: &[(&str, &str)]) -> World {
    let mut link = fixture::link(&[("orders", vec![fixture::owned_by(HERE, false)])]);
    (link.source_cluster_id, link.destination_cluster_id) = ("east".into(), "west".into());
    let configs = [&[(ENABLE, "true"), (FILTERS, filters::FORM)], configs].concat();
    link.configs = configs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    let key = link.key(&"orders".into());
    let mut catalog = Catalog::default();
    catalog.nodes.insert(HERE, catalog::Node::of_level_1("n".into(), 1));
    catalog.links.insert(link.id.clone(), Arc::new(link.clone()));
    let applied = watch::Sender::new(Arc::new(Applied { index: 1, catalog }));
    let (source, destination) = (FakeKafka::new("east", brokers), FakeKafka::new("west", brokers));
    let dial: Arc<dyn Dial> = Arc::new(FakeDial([source.clone(), destination.clone()]));
    let (clock, lease) = (WallClock::new(|| NOW_MS), LeaseKeeper::alone(Uptime::new(|| Duration::ZERO)));
    let plane = LinkPlane::new(
        PlaneMeters::of_link("l"),
        source.client(&dial),
        destination.client(&dial),
        LinkSettings::from_configs(&link.configs),
        Bounds { credit: CreditLimits::default(), pace: LinkPace::new(None) },
        clock.clone(),
        lease.clone(),
    );
    let catalog: Arc<dyn CatalogPort> = Arc::new(FakeCatalog(applied.clone()));
    let observatory = Arc::new(Observatory::new(clock, lease));
    let sync = AclSync { link: link.id, node: HERE, plane, catalog: catalog.clone(), observatory, dial };
    World { source, destination, sync, catalog, applied, memory: Memory::default(), key }
}

impl World {
    async fn round(&mut self) -> Found {
        let configs = self.applied.borrow().catalog.links[&self.sync.link].configs.clone();
        let settings = AclSettings::of(&configs).expect("enabled");
        let mut found = Found::default();
        if let Err(error) = self.sync.round(&settings, &mut self.memory, &mut found).await {
            self.memory.forget_absent();
            found.tell(error);
        }
        found
    }

    fn recorded(&self) -> Vec<(Acl, AclState)> {
        record::recorded(&self.applied.borrow().catalog, &self.sync.link).into_iter().collect()
    }

    fn change(&self, change: impl FnOnce(&mut Catalog)) {
        let mut applied = Applied::clone(&self.applied.borrow());
        change(&mut applied.catalog);
        self.applied.send_replace(Arc::new(applied));
    }

    fn record(&self, of: &[(&str, AclState)]) {
        let acls = of.iter().map(|(text, state)| (record::binding(&acl(text)), *state)).collect();
        let record = AclRecord { acls, as_of_ms: NOW_MS - 7_000, ..AclRecord::default() };
        self.change(|catalog| drop(catalog.acls.insert(self.sync.link.clone(), Arc::new(record))));
    }

    /// The mirror is about to stop, behind its fence.
    fn stops(&self, kind: StopKind) {
        self.change(|catalog| {
            let link = Arc::make_mut(catalog.links.get_mut(&self.key.link).expect("a link"));
            let mirror = Arc::make_mut(link.mirrors.get_mut(&self.key.topic).expect("a mirror"));
            mirror.status = MirrorStatus::PendingStopped;
            let (before, fenced_at_ms) = (MirrorStatus::Active, Some(NOW_MS));
            let (ends, remarks) = (Vec::new(), Vec::new());
            mirror.stop = Some(Stop { kind, asked_at_ms: NOW_MS, before, fenced_at_ms, ends, remarks });
        });
    }

    async fn stop(&self, at_source: Option<&[&str]>, gate: &Gate) -> Result<Vec<String>, String> {
        let at_source = at_source.map(acls);
        let (plane, catalog, key) = (&self.sync.plane, &self.catalog, &self.key);
        AtStop { plane, catalog, key, gate, at_source: at_source.as_ref() }.write().await
    }
}
