//! Work on many things at a time, outside of every simulated world.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// What `work` makes of each of `things`, `jobs` at a time, with its place among them, in their order; `stop`
/// begins no further one.
pub(crate) fn side_by_side<T: Sync, R: Send>(
    things: &[T],
    jobs: usize,
    stop: &AtomicBool,
    work: &(dyn Fn(&T) -> R + Sync),
) -> Vec<(usize, R)> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let Some(thing) = things.get(n) else { break };
                    let made = work(thing);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((n, made));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(n, _)| *n);
    done
}
