//! Refresh leases.

use super::*;
use std::process::{Command, Stdio};

/// Another process that lives: the parent of this one.
fn stranger() -> LeaseOwner {
    let here = LeaseOwner::current();
    let pid = std::os::unix::process::parent_id();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let started = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(19).unwrap().parse().unwrap();
    LeaseOwner { boot: here.boot, pid, started }
}

fn acquired(outcome: &LeaseOutcome) -> (i64, bool) {
    match outcome {
        LeaseOutcome::Acquired { fence, interrupted } => (*fence, *interrupted),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_lease_is_held_by_one_until_it_is_returned() {
    let (_directory, store) = store().await;
    let record = connection("work");
    store.insert_connection(&record, false).await.unwrap();
    let generation = store.changes_since(&Seen::default()).await.unwrap().generation;
    let (me, other) = (LeaseOwner::current(), stranger());
    let acquire = |owner, now| store.acquire_refresh_lease(&record.id, 1, owner, now, 45);
    let (fence, interrupted) = acquired(&acquire(&other, NOW).await.unwrap());
    assert!(!interrupted);
    for owner in [&me, &other] {
        let held = acquire(owner, NOW + 44).await.unwrap();
        assert_eq!(held, LeaseOutcome::Held { until: NOW + 45 });
    }
    store.release_refresh_lease(&record.id, fence + 1).await.unwrap();
    assert!(matches!(acquire(&me, NOW).await.unwrap(), LeaseOutcome::Held { .. }), "another's fence returns nothing");
    store.release_refresh_lease(&record.id, fence).await.unwrap();
    let (next, interrupted) = acquired(&acquire(&me, NOW).await.unwrap());
    assert!(next > fence);
    assert!(!interrupted, "the first holder had its answer");
    assert_eq!(store.changes_since(&Seen::default()).await.unwrap().generation, generation, "leases are no change");
}

#[tokio::test]
async fn the_write_needs_the_newest_fence_and_ends_the_lease() {
    let (_directory, store) = store().await;
    let record = connection("work");
    store.insert_connection(&record, false).await.unwrap();
    let me = LeaseOwner::current();
    let acquire = |version, now| store.acquire_refresh_lease(&record.id, version, &me, now, 45);
    let (old, _) = acquired(&acquire(1, NOW).await.unwrap());
    // The first holder hangs past its time; the second takes over and is told so.
    let (fence, interrupted) = acquired(&acquire(1, NOW + 45).await.unwrap());
    assert!(fence > old && interrupted);
    for wrong in [old, fence + 1] {
        assert_eq!(refusal(store.update_credential(&record.id, &update(2), Some(wrong)).await), "conflict");
    }
    let held = acquire(1, NOW + 50).await.unwrap();
    assert!(matches!(held, LeaseOutcome::Held { .. }), "a refused write leaves the lease: {held:?}");
    for version in [1, 3] {
        assert_eq!(refusal(store.update_credential(&record.id, &update(version), Some(fence)).await), "conflict");
    }
    store.update_credential(&record.id, &update(2), Some(fence)).await.unwrap();
    assert_eq!(refusal(store.update_credential(&record.id, &update(3), Some(fence)).await), "conflict", "used once");

    let LeaseOutcome::Moved(moved) = acquire(1, NOW + 50).await.unwrap() else { panic!("the version moved") };
    assert_eq!((moved.version, moved.access), (2, Sealed::from_bytes(b"access 2")));
    let (third, interrupted) = acquired(&acquire(2, NOW + 50).await.unwrap());
    assert!(third > fence);
    assert!(!interrupted, "the attempt on the old version has its answer");
}

#[tokio::test]
async fn a_person_s_new_secret_wins_over_a_refresh_under_way() {
    let (_directory, store) = store().await;
    let record = connection("work");
    store.insert_connection(&record, false).await.unwrap();
    let (me, other) = (LeaseOwner::current(), stranger());
    let (fence, _) = acquired(&store.acquire_refresh_lease(&record.id, 1, &other, NOW, 45).await.unwrap());
    store.update_credential(&record.id, &update(2), None).await.unwrap();
    assert_eq!(refusal(store.update_credential(&record.id, &update(2), Some(fence)).await), "conflict");
    let (_, interrupted) = acquired(&store.acquire_refresh_lease(&record.id, 2, &me, NOW, 45).await.unwrap());
    assert!(!interrupted);
}

#[tokio::test]
async fn a_dead_owner_s_lease_is_void_at_once() {
    let (_directory, store) = store().await;
    let record = connection("work");
    store.insert_connection(&record, false).await.unwrap();
    let me = LeaseOwner::current();
    let acquire = |owner: &LeaseOwner| {
        let owner = owner.clone();
        let (store, id) = (&store, &record.id);
        async move { store.acquire_refresh_lease(id, 1, &owner, NOW, 45).await.unwrap() }
    };
    let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    let started = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(19).unwrap().parse().unwrap();
    let owner = LeaseOwner { boot: me.boot.clone(), pid: child.id(), started };
    let (fence, _) = acquired(&acquire(&owner).await);
    assert!(matches!(acquire(&me).await, LeaseOutcome::Held { .. }));
    child.kill().unwrap();
    child.wait().unwrap();
    let (next, interrupted) = acquired(&acquire(&me).await);
    assert!(next > fence);
    assert!(interrupted, "it died before its answer was stored");
    assert_eq!(refusal(store.update_credential(&record.id, &update(2), Some(fence)).await), "conflict");
    store.release_refresh_lease(&record.id, next).await.unwrap();

    for (name, owner) in [
        ("before the last boot", LeaseOwner { boot: "another".to_owned(), ..me.clone() }),
        ("process id used again", LeaseOwner { started: me.started + 1, ..me.clone() }),
    ] {
        acquired(&acquire(&owner).await);
        let (fence, interrupted) = acquired(&acquire(&me).await);
        assert!(interrupted, "{name}");
        store.release_refresh_lease(&record.id, fence).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_ask_one_gets_the_lease() {
    let (directory, store) = store().await;
    let record = connection("work");
    store.insert_connection(&record, false).await.unwrap();
    let other = open(&directory.path().join("nexus.db")).await.unwrap();
    let stores = [std::sync::Arc::new(store), std::sync::Arc::new(other)];
    let askers: Vec<_> = (0..16)
        .map(|n| {
            let (store, id) = (std::sync::Arc::clone(&stores[n % 2]), record.id.clone());
            tokio::spawn(
                async move { store.acquire_refresh_lease(&id, 1, &LeaseOwner::current(), NOW, 45).await.unwrap() },
            )
        })
        .collect();
    let mut won = 0;
    for asker in askers {
        won += usize::from(matches!(asker.await.unwrap(), LeaseOutcome::Acquired { .. }));
    }
    assert_eq!(won, 1);
}

#[tokio::test]
async fn a_lease_goes_with_its_connection() {
    let (_directory, store) = store().await;
    let record = connection("work");
    store.insert_connection(&record, false).await.unwrap();
    let me = LeaseOwner::current();
    let (fence, _) = acquired(&store.acquire_refresh_lease(&record.id, 1, &me, NOW, 45).await.unwrap());
    let next = ConnectionRecord { version: 2, ..record.clone() };
    store.insert_connection(&next, true).await.unwrap();
    let (second, interrupted) = acquired(&store.acquire_refresh_lease(&record.id, 2, &me, NOW, 45).await.unwrap());
    assert!(second > fence && !interrupted);
    store.delete_connection(&Scope::default(), "work").await.unwrap();
    assert_eq!(refusal(store.acquire_refresh_lease(&record.id, 2, &me, NOW, 45).await), "not found");
    assert_eq!(refusal(store.update_credential(&record.id, &update(3), Some(second)).await), "not found");
    store.release_refresh_lease(&record.id, second).await.unwrap();
}
