#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::atomic::AtomicUsize;

use super::*;

const QUICK: Rules =
    Rules { beat: Duration::from_millis(40), patience: Duration::from_millis(200), locks: true };

fn owner(what: &str) -> Owner {
    Owner { what: what.to_owned(), run_id: Some("0198".to_owned()), command: "torcula".to_owned() }
}

fn take(folder: &Path, what: &str, rules: Rules) -> Result<Guard> {
    acquire_by(folder, &owner(what), Arc::new(()), rules)
}

/// A note by another machine.
fn elsewhere() -> Holder {
    Holder { host: "elsewhere".to_owned(), pid: 1, ..Holder::new(&owner("run away")) }
}

fn leave(folder: &Path, holder: &Holder) {
    std::fs::write(folder.join(NAME), serde_json::to_string(holder).unwrap() + "\n").unwrap();
}

#[test]
fn second_writer_is_told_who_holds_the_lock_and_since_when() {
    let folder = tempfile::tempdir().unwrap();
    let guard = take(folder.path(), "run one", QUICK).unwrap();
    let error = take(folder.path(), "run two", QUICK).unwrap_err();
    let note = note::read(&folder.path().join(NAME)).unwrap();
    for part in [
        "run one",
        "run 0198",
        &note.host,
        &std::process::id().to_string(),
        &note.started_at.to_string(),
    ] {
        assert!(error.reason().contains(part), "{part}: {error}");
    }
    assert!(error.advice().unwrap().contains("torcula status"), "{error}");
    assert!(state(folder.path()).held);
    drop(guard);
    let free = state(folder.path());
    assert!(!free.held && free.holder.is_none());
    let _guard = take(folder.path(), "run two", QUICK).unwrap();
}

#[test]
fn a_writer_that_is_ending_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let guard = take(folder.path(), "run one", RULES).unwrap();
    let ending = std::thread::spawn(move || {
        sleep(PAUSE * 4);
        drop(guard);
    });
    assert!(take(folder.path(), "run two", RULES).is_ok());
    ending.join().unwrap();
}

#[test]
fn a_note_left_on_this_machine_is_no_lock() {
    let folder = tempfile::tempdir().unwrap();
    leave(folder.path(), &Holder::new(&owner("run dead")));
    assert!(!state(folder.path()).held);
    let began = Instant::now();
    let guard = take(folder.path(), "run", RULES).unwrap();
    assert!(began.elapsed() < BEAT, "the kernel said at once that nobody holds it");
    assert_eq!(guard.left().unwrap().what, "run dead");
    // What no version of Torcula wrote is no holder.
    drop(guard);
    std::fs::write(folder.path().join(NAME), "{\"pid\":1").unwrap();
    assert!(take(folder.path(), "run", QUICK).unwrap().left().is_none());
}

#[test]
fn a_note_of_another_machine_is_a_lock_while_its_heart_beats() {
    let folder = tempfile::tempdir().unwrap();
    let mut other = elsewhere();
    // Its clock may say what it likes.
    other.beat_at = Timestamp(0);
    leave(folder.path(), &other);
    let path = folder.path().to_owned();
    let (stop, stopped) = channel::<()>();
    let alive = std::thread::spawn(move || {
        while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(QUICK.beat) {
            other.beat += 1;
            leave(&path, &other);
        }
    });
    let error = take(folder.path(), "run", QUICK).unwrap_err();
    assert!(error.reason().contains("elsewhere"), "{error}");
    assert!(error.advice().unwrap().contains("on elsewhere"), "{error}");
    drop(stop);
    alive.join().unwrap();
    // Now it is silent: dead.
    let guard = take(folder.path(), "run", QUICK).unwrap();
    assert_eq!(guard.left().unwrap().host, "elsewhere");
}

#[test]
fn where_there_are_no_locks_the_heartbeat_decides() {
    let folder = tempfile::tempdir().unwrap();
    let none = Rules { locks: false, ..QUICK };
    let guard = take(folder.path(), "run one", none).unwrap();
    assert!(take(folder.path(), "run two", none).is_err());
    drop(guard);
    leave(folder.path(), &Holder::new(&owner("run dead")));
    assert!(take(folder.path(), "run three", none).is_ok());
}

#[test]
fn a_holder_that_was_taken_for_dead_is_told_and_leaves_the_new_note() {
    struct Told(AtomicUsize);
    impl Vitals for Told {
        fn lost(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let told = Arc::new(Told(AtomicUsize::new(0)));
    let guard =
        acquire_by(folder.path(), &owner("run slow"), Arc::clone(&told) as Arc<dyn Vitals>, QUICK)
            .unwrap();
    leave(folder.path(), &elsewhere());
    let began = Instant::now();
    while told.0.load(Ordering::SeqCst) == 0 {
        assert!(began.elapsed() < Duration::from_secs(20), "nobody told it");
        sleep(PAUSE);
    }
    drop(guard);
    assert_eq!(note::read(&folder.path().join(NAME)).unwrap().host, "elsewhere");
}

#[test]
fn the_heartbeat_tells_the_progress_and_every_note_is_whole() {
    struct Far;
    impl Vitals for Far {
        fn progress(&self) -> Option<Progress> {
            let nanos = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
            // Notes of different lengths, one after the other.
            Some(Progress {
                step: "x".repeat(nanos as usize % 300),
                todo: 7,
                ..Progress::default()
            })
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let rules = Rules { beat: Duration::from_millis(1), ..QUICK };
    let _guard = acquire_by(folder.path(), &owner("run"), Arc::new(Far), rules).unwrap();
    let mut last = 0;
    for _ in 0..200 {
        let holder = state(folder.path()).holder.unwrap();
        assert!(holder.beat >= last && !holder.is_stale());
        last = holder.beat;
        sleep(Duration::from_millis(1));
    }
    assert!(last > 3, "{last} beats");
    assert_eq!(state(folder.path()).holder.unwrap().progress.unwrap().todo, 7);
}

#[test]
fn missing_folder_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    assert!(take(&folder.path().join("none"), "run", QUICK).is_err());
}
