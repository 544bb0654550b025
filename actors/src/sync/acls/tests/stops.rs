//! Stops.

use super::*;

fn open() -> Gate {
    Arc::new(|| true)
}

#[tokio::test(start_paused = true)]
async fn a_failover_writes_what_was_withheld_for_its_topic_and_says_how_old_that_is() {
    let world = world(1, &[]);
    world.record(&[(WRITE, Withheld), (EVERY, Withheld)]);
    world.stops(StopKind::FailOver);
    let left = world.stop(None, &open()).await.expect("sent");
    assert_eq!(
        left,
        [
            "ACLs were written as they were recorded, as the source had them 7 s before this stop was asked for"
        ]
    );
    assert_eq!(world.destination.acls(), acls(&[WRITE, EVERY_FOR_IT]));
    let recorded: BTreeSet<_> =
        world.recorded().into_iter().map(|(acl, state)| format!("{state:?} {acl}")).collect();
    let expected = [(WRITE, Written), (EVERY_FOR_IT, Written), (EVERY, Withheld)];
    assert_eq!(recorded, expected.iter().map(|(text, state)| format!("{state:?} {}", acl(text))).collect());
}

#[tokio::test(start_paused = true)]
async fn one_error_of_one_broker_loses_nothing_at_a_stop() {
    for (api, fault) in [
        (ApiKey::DescribeAcls, Fault::Closes),
        (ApiKey::DescribeAcls, Fault::Refuses(REQUEST_TIMED_OUT)),
        (ApiKey::CreateAcls, Fault::Closes),
        (ApiKey::CreateAcls, Fault::ActsAndCloses),
        (ApiKey::CreateAcls, Fault::Refuses(REQUEST_TIMED_OUT)),
    ] {
        let world = world(2, &[]);
        world.record(&[(WRITE, Withheld)]);
        world.stops(StopKind::Promote);
        world.destination.fails(1, api, fault, 99);
        let left = world.stop(Some(&[WRITE]), &open()).await;
        assert_eq!(left, Ok(Vec::new()), "{api:?} {fault:?}");
        assert_eq!(world.destination.acls(), acls(&[WRITE]));
        assert_eq!(world.recorded(), [(acl(WRITE), Written)], "{api:?} {fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_no_broker_takes_within_the_limit_is_to_be_written_by_hand() {
    let world = world(2, &[]);
    world.record(&[(WRITE, Withheld)]);
    world.stops(StopKind::Promote);
    for broker in [1, 2] {
        world.destination.fails(broker, ApiKey::CreateAcls, Fault::Closes, 99);
    }
    let begun = Instant::now();
    let left = world.stop(Some(&[WRITE]), &open()).await.expect("something was sent");
    assert!(
        left[0].contains("may still come); write by hand what is missing: ALLOW User:a WRITE"),
        "{left:?}"
    );
    let took = begun.elapsed();
    assert!((10..15).contains(&took.as_secs()) && left.len() == 1, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_for_good_is_told_and_isnt_ours() {
    let world = world(2, &[]);
    world.record(&[(WRITE, Withheld), (EVERY, Withheld)]);
    world.stops(StopKind::Promote);
    world.destination.fails(1, ApiKey::CreateAcls, Fault::Refuses(INVALID_REQUEST), 1);
    let left = world.stop(Some(&[WRITE]), &open()).await.expect("sent");
    assert!(left[0].starts_with(&format!("{} isn't written: ", acl(WRITE))), "{left:?}");
    assert_eq!(left[1], format!("{} isn't written: the source has it no longer", acl(EVERY)));
    assert_eq!(world.recorded(), [(acl(EVERY), Withheld), (acl(WRITE), Withheld)], "neither is ours");
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_for_good_is_told_also_when_another_is_to_be_tried_again() {
    let world = world(2, &[]);
    world.record(&[(WRITE, Withheld), (EVERY, Withheld)]);
    world.stops(StopKind::FailOver);
    world.destination.fails(1, ApiKey::CreateAcls, Fault::Answers(&[INVALID_REQUEST, REQUEST_TIMED_OUT]), 1);
    world.destination.fails(2, ApiKey::CreateAcls, Fault::Answers(&[INVALID_REQUEST, 0]), 1);
    let left = world.stop(None, &open()).await.expect("sent");
    assert!(left[0].starts_with(&format!("{} isn't written: ", acl(WRITE))), "{left:?}");
    assert_eq!((left.len(), world.destination.acls()), (2, acls(&[EVERY_FOR_IT])));
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_when_nothing_may_be_sent_and_goes_on_then() {
    let world = world(1, &[]);
    world.record(&[(WRITE, Withheld)]);
    world.stops(StopKind::FailOver);
    let shut = Mutex::new(true);
    let gate: Gate = Arc::new(move || !std::mem::replace(&mut *shut.lock().expect("unlocked"), false));
    world.stop(None, &gate).await.expect_err("it waits");
    assert!(world.destination.acls().is_empty());
    world.stop(None, &gate).await.expect("sent");
    assert_eq!(world.destination.acls(), acls(&[WRITE]));
}

#[tokio::test(start_paused = true)]
async fn a_promotion_asks_every_broker_of_the_source_for_a_while_and_else_goes_by_what_is_recorded() {
    let world = world(2, &[]);
    world.record(&[(WRITE, Withheld)]);
    world.stops(StopKind::Promote);
    world.source.set(&[READ]);
    world.source.fails(1, ApiKey::DescribeAcls, Fault::Closes, 1);
    let look = || last_look(&world.sync.plane, &*world.catalog, &world.key);
    assert_eq!(look().await, (Some(acls(&[READ])), None));
    for broker in [1, 2] {
        world.source.fails(broker, ApiKey::DescribeAcls, Fault::Closes, 99);
    }
    let begun = Instant::now();
    let (found, remark) = look().await;
    let remark = remark.expect("told");
    assert!(remark.contains("what was recorded counts, as the source had them 7 s before"), "{remark}");
    assert_eq!((found, begun.elapsed().as_secs()), (None, 10));
}

#[tokio::test(start_paused = true)]
async fn what_was_withheld_when_the_sync_was_turned_off_is_told() {
    let world = world(1, &[(ENABLE, "false")]);
    world.record(&[(WRITE, Withheld), (EVERY, Withheld), (READ, Written)]);
    world.stops(StopKind::FailOver);
    let left = world.stop(None, &open()).await.expect("nothing to wait for");
    let told = format!(
        "acl.sync.enable is off, so withheld ACLs weren't written; write by hand what clients need: {}, {}",
        acl(WRITE),
        acl(EVERY_FOR_IT)
    );
    assert_eq!(left, [told]);
    assert_eq!(world.destination.acls(), acls(&[]));
}
