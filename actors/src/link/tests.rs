use super::*;
use crate::clock::Uptime;
use crate::fixture::{self, FakeCatalog, HERE};
use kafka::client::DialFuture;
use std::io::ErrorKind;

const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Nobody is there.
struct NoNetwork;

impl Dial for NoNetwork {
    fn dial(&self, _: Arc<str>) -> DialFuture {
        Box::pin(async { Err(ErrorKind::ConnectionRefused.into()) })
    }
}

struct Supervised {
    supervisor: ActorRef<LinkMessage>,
    ended: tokio::task::JoinHandle<()>,
    dial: std::sync::Weak<NoNetwork>,
}

/// A supervisor of `link` once its partitions are seen.
async fn supervised(link: Link, doubts: Doubts) -> Supervised {
    let client = || {
        let configs = BTreeMap::from([("bootstrap.servers".to_owned(), "a:1".to_owned())]);
        ClientConfig::from_configs(&configs).expect("a client")
    };
    let clock = WallClock::new(|| 0);
    let lease = LeaseKeeper::alone(Uptime::new(|| Duration::ZERO));
    let observatory = Arc::new(Observatory::new(clock.clone(), lease.clone()));
    let dial = Arc::new(NoNetwork);
    let dialled = Arc::downgrade(&dial);
    let surroundings = Surroundings {
        node: HERE,
        catalog: Arc::new(FakeCatalog(tokio::sync::watch::Sender::default())),
        observatory: observatory.clone(),
        clock,
        dial,
        lease,
        releases: Arc::default(),
        credit: CreditLimits::default(),
        governors: Arc::default(),
    };
    let link = Arc::new(link);
    let arguments = LinkArguments {
        link: link.clone(),
        source: client(),
        destination: client(),
        surroundings,
        leaving: Leaving::new(),
        doubts,
    };
    let (supervisor, ended) = Actor::spawn(None, LinkSupervisor, arguments).await.expect("a supervisor");
    let running = |topic: &Arc<str>| !observatory.partitions(&link.key(topic)).is_empty();
    while !link.mirrors.keys().all(running) {
        tokio::task::yield_now().await;
    }
    Supervised { supervisor, ended, dial: dialled }
}

/// Runs a supervisor of `link` until its partitions are seen, and stops it in order.
async fn doubts_left(link: Link, doubts: Doubts) -> Doubts {
    let Supervised { supervisor, ended, .. } = supervised(link, doubts).await;
    let (answer, stopped) = oneshot::channel();
    supervisor.cast(LinkMessage::Stop(answer)).expect("it runs");
    let left = tokio::time::timeout(STOP_LIMIT, stopped).await.expect("in time").expect("an answer");
    ended.await.expect("its end");
    left
}

/// As one that panics does: nothing is called on its way out.
#[tokio::test]
async fn a_supervisor_that_is_gone_at_once_leaves_nothing_that_could_append() {
    let link = fixture::link(&[("orders", vec![fixture::owned_by(HERE, false)])]);
    let Supervised { supervisor, ended, dial } = supervised(link, Doubts::default()).await;
    assert!(dial.strong_count() > 0, "clients hold it");
    supervisor.kill();
    ended.await.expect("its end");
    let gone = async {
        while dial.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(STOP_LIMIT, gone).await.expect("its clients go with it");
}

/// Whether a next owner of partition 0 of each topic has something to wait out.
fn in_doubt(mut left: Doubts, topics: &[&str], unclean: bool) -> Vec<bool> {
    let start = |topic: &&str| Start { key: ((*topic).into(), 0), assignment_epoch: 1, unclean };
    topics.iter().map(|topic| left.take(&start(topic))).collect()
}

#[tokio::test]
async fn a_supervisor_that_stopped_in_order_leaves_no_doubt() {
    let link = fixture::link(&[("orders", vec![fixture::owned_by(HERE, false)])]);
    let left = doubts_left(link, Doubts::default()).await;
    assert_eq!(in_doubt(left, &["orders"], true), [false]);
}

#[tokio::test]
async fn doubts_that_were_not_waited_out_are_handed_on() {
    // One from the process before, one from the supervisor before, one of a partition not started.
    let link = fixture::link(&[
        ("clicks", vec![fixture::owned_by(HERE, false)]),
        ("orders", vec![fixture::owned_by(HERE, true)]),
        ("payments", vec![fixture::owned_by(HERE, false)]),
    ]);
    let mut doubts = Doubts::default();
    doubts.add(("clicks".into(), 0));
    doubts.add(("elsewhere".into(), 0));
    let left = doubts_left(link, doubts).await;
    let topics = ["clicks", "elsewhere", "orders", "payments"];
    assert_eq!(in_doubt(left, &topics, false), [true, true, true, false]);
}
