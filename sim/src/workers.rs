//! Work on many things at a time, outside of every simulated world.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anstream::eprintln;

/// What tells work to begin nothing more. The first Ctrl-C says so, and what was found is kept; the second
/// ends the program.
pub(crate) fn stopped_by_ctrl_c() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    let _ = ctrlc::set_handler(move || {
        if asked.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("\nstopping when the runs under way are over; Ctrl-C once more ends at once");
    });
    stop
}

/// Does `work` with each of `things`, `jobs` at a time; `stop` begins no further one.
pub(crate) fn each<T>(
    things: impl Iterator<Item = T> + Send,
    jobs: usize,
    stop: &AtomicBool,
    work: &(dyn Fn(T) + Sync),
) {
    let things = Mutex::new(things);
    let next = || things.lock().unwrap_or_else(PoisonError::into_inner).next();
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let Some(thing) = next() else { break };
                    work(thing);
                }
            });
        }
    });
}

/// What `work` makes of each of `things`, `jobs` at a time, with its place among them, in their order; `stop`
/// begins no further one.
pub(crate) fn side_by_side<T: Sync, R: Send>(
    things: &[T],
    jobs: usize,
    stop: &AtomicBool,
    work: &(dyn Fn(&T) -> R + Sync),
) -> Vec<(usize, R)> {
    let done = Mutex::new(Vec::with_capacity(things.len()));
    each(things.iter().enumerate(), jobs, stop, &|(n, thing)| {
        let made = work(thing);
        done.lock().unwrap_or_else(PoisonError::into_inner).push((n, made));
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(n, _)| *n);
    done
}
