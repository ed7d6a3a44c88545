//! The only way to start concurrent work, so that a machine can be stopped, paused and counted.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::executor;

/// The tasks of one machine. Clones share one list.
#[derive(Clone, Default)]
pub struct Tasks(Arc<Scope>);

/// A started task. Dropping it leaves the task running.
pub struct Task<T>(executor::JoinHandle<T>);

#[derive(Default)]
struct Scope {
    next: AtomicU64,
    panics: AtomicU64,
    closed: AtomicBool,
    paused: AtomicBool,
    alive: Mutex<BTreeMap<u64, Option<executor::AbortHandle>>>,
    waiting: Mutex<Vec<Waker>>,
    hesitate: Mutex<Option<Hesitate>>,
    slow: AtomicBool,
    busy: Mutex<Option<Busy>>,
}

/// Decides, at each poll, whether a task steps back once to let the others go first. A simulator
/// uses it to explore the orders in which ready tasks can run.
pub type Hesitate = Box<dyn FnMut() -> bool + Send>;

/// Says, when a task is about to run, for how long the machine's processor is busy before it comes to it.
/// A simulator uses it to make a machine slow.
pub type Busy = Box<dyn FnMut() -> Duration + Send>;

impl Tasks {
    /// Starts `future` on this machine. After [`Tasks::abort_all`] it is dropped unstarted.
    pub fn spawn<F>(&self, future: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let guarded =
            Guarded { inner: Box::pin(future), scope: self.0.clone(), id, stepped_back: false, turn: None };
        lock(&self.0.alive).insert(id, None);
        let handle = executor::spawn(guarded);
        if let Some(entry) = lock(&self.0.alive).get_mut(&id) {
            *entry = Some(handle.abort_handle());
        }
        // After the list: whoever closes it meanwhile has either seen this task or is seen here.
        if self.0.closed.load(Ordering::Relaxed) {
            handle.abort();
        }
        Task(handle)
    }

    /// Ends every task at its next await; later spawns end at once. The machine has crashed.
    pub fn abort_all(&self) {
        self.0.closed.store(true, Ordering::Relaxed);
        let handles: Vec<_> = lock(&self.0.alive).values().flatten().cloned().collect();
        handles.iter().for_each(executor::AbortHandle::abort);
        self.resume();
    }

    /// Stops every task where it is, as SIGSTOP does, until [`Tasks::resume`].
    pub fn pause(&self) {
        self.0.paused.store(true, Ordering::Relaxed);
    }

    /// Lets paused tasks go on.
    pub fn resume(&self) {
        self.0.paused.store(false, Ordering::Relaxed);
        lock(&self.0.waiting).drain(..).for_each(Waker::wake);
    }

    /// Installs the decision of when a task steps back (see [`Hesitate`]).
    pub fn hesitate(&self, decide: Hesitate) {
        *lock(&self.0.hesitate) = Some(decide);
    }

    /// Makes the machine's processor slow (see [`Busy`]), or as fast as ever.
    pub fn slow_down(&self, busy: Option<Busy>) {
        self.0.slow.store(busy.is_some(), Ordering::Relaxed);
        *lock(&self.0.busy) = busy;
    }

    /// How many tasks have not ended.
    #[must_use]
    pub fn alive(&self) -> usize {
        lock(&self.0.alive).len()
    }

    /// How many tasks have ended by a panic.
    #[must_use]
    pub fn panics(&self) -> u64 {
        self.0.panics.load(Ordering::Relaxed)
    }
}

impl<T> Task<T> {
    /// Ends the task at its next await.
    pub fn abort(&self) {
        self.0.abort();
    }

    /// Waits for the task's result; `None` when it was aborted or panicked.
    pub async fn join(self) -> Option<T> {
        self.0.await.ok()
    }
}

/// A future that honours its machine's pause and leaves the list when it ends.
struct Guarded<F> {
    inner: Pin<Box<F>>,
    scope: Arc<Scope>,
    id: u64,
    stepped_back: bool,
    /// What it waits for until a slow processor comes to it.
    turn: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<F: Future> Future for Guarded<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if self.scope.paused.load(Ordering::Relaxed) {
            let mut waiting = lock(&self.scope.waiting);
            // Asked again under the lock: a resume in between would never wake this one.
            if self.scope.paused.load(Ordering::Relaxed) {
                waiting.push(context.waker().clone());
                return Poll::Pending;
            }
        }
        if self.waits_for_its_turn(context) {
            return Poll::Pending;
        }
        let step_back =
            !self.stepped_back && lock(&self.scope.hesitate).as_mut().is_some_and(|decide| decide());
        self.stepped_back = step_back;
        if step_back {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.inner.as_mut().poll(context)
    }
}

impl<F> Guarded<F> {
    /// Whether the processor is still busy. Woken meanwhile, the task runs once.
    fn waits_for_its_turn(&mut self, context: &mut Context<'_>) -> bool {
        if self.turn.is_none() {
            if !self.scope.slow.load(Ordering::Relaxed) {
                return false;
            }
            let busy = lock(&self.scope.busy).as_mut().map_or(Duration::ZERO, |busy| busy());
            if busy.is_zero() {
                return false;
            }
            self.turn = Some(Box::pin(executor::sleep(busy)));
        }
        let waits = self.turn.as_mut().is_some_and(|turn| turn.as_mut().poll(context).is_pending());
        if !waits {
            self.turn = None;
        }
        waits
    }
}

impl<F> Drop for Guarded<F> {
    fn drop(&mut self) {
        lock(&self.scope.alive).remove(&self.id);
        if std::thread::panicking() {
            self.scope.panics.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A poisoned lock only says that another task panicked; the lists stay usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Clock, Timestamp};

    /// Counts the seconds that a task lives.
    fn ticking(tasks: &Tasks, clock: &Clock) -> (Task<()>, Arc<AtomicU64>) {
        let (clock, ticks) = (clock.clone(), Arc::new(AtomicU64::new(0)));
        let counted = ticks.clone();
        let task = tasks.spawn(async move {
            loop {
                clock.sleep(Duration::from_secs(1)).await;
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        (task, ticks)
    }

    async fn pass(clock: &Clock, seconds: u64) {
        clock.sleep(Duration::from_secs(seconds) + Duration::from_millis(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_crash_ends_every_task_and_no_other_machines() {
        let (crashing, other) = (Tasks::default(), Tasks::default());
        let clock = Clock::starting_at(Timestamp(0));
        let tasks: Vec<_> = (0..5).map(|_| ticking(&crashing, &clock)).collect();
        let (_, others_ticks) = ticking(&other, &clock);
        pass(&clock, 3).await;
        assert_eq!(crashing.alive(), 5);

        crashing.clone().abort_all();
        pass(&clock, 3).await;

        assert_eq!((crashing.alive(), other.alive()), (0, 1));
        assert_eq!(others_ticks.load(Ordering::Relaxed), 6);
        for (task, ticks) in tasks {
            assert_eq!(task.join().await, None);
            assert_eq!(ticks.load(Ordering::Relaxed), 3);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_starts_on_a_crashed_machine() {
        let tasks = Tasks::default();
        tasks.abort_all();
        let clock = Clock::starting_at(Timestamp(0));
        let (task, ticks) = ticking(&tasks, &clock);
        assert_eq!(task.join().await, None);
        assert_eq!((tasks.alive(), ticks.load(Ordering::Relaxed)), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_paused_machine_does_nothing_until_it_is_resumed() {
        let tasks = Tasks::default();
        let clock = Clock::starting_at(Timestamp(0));
        let (_, ticks) = ticking(&tasks, &clock);
        pass(&clock, 2).await;
        tasks.pause();
        let (_, of_one_started_now) = ticking(&tasks, &clock);
        pass(&clock, 10).await;
        assert_eq!(ticks.load(Ordering::Relaxed), 2);
        assert_eq!(of_one_started_now.load(Ordering::Relaxed), 0);
        assert_eq!(tasks.alive(), 2);

        tasks.resume();
        pass(&clock, 3).await;
        // The sleep that ended meanwhile counts once, as after SIGCONT.
        assert_eq!(ticks.load(Ordering::Relaxed), 6);
        assert_eq!(of_one_started_now.load(Ordering::Relaxed), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_paused_machine_can_crash() {
        let tasks = Tasks::default();
        let clock = Clock::starting_at(Timestamp(0));
        let (task, _) = ticking(&tasks, &clock);
        tasks.pause();
        pass(&clock, 1).await;
        tasks.abort_all();
        assert_eq!(task.join().await, None);
        assert_eq!(tasks.alive(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn on_a_slow_machine_each_turn_of_a_task_takes_time_until_it_is_fast_again() {
        let tasks = Tasks::default();
        let clock = Clock::starting_at(Timestamp(0));
        tasks.slow_down(Some(Box::new(|| Duration::from_secs(4))));
        let (_, ticks) = ticking(&tasks, &clock);
        pass(&clock, 11).await;
        // It begins after 4 s; each further second it waits for takes 5.
        assert_eq!(ticks.load(Ordering::Relaxed), 1);
        tasks.slow_down(None);
        pass(&clock, 10).await;
        assert!(ticks.load(Ordering::Relaxed) >= 7, "{ticks:?}");
    }

    #[tokio::test]
    async fn a_task_gives_its_result_and_a_panic_is_counted() {
        let tasks = Tasks::default();
        assert_eq!(tasks.spawn(async { 7 }).join().await, Some(7));
        assert_eq!(tasks.panics(), 0);
        assert_eq!(tasks.spawn(async { panic!("planted") }).join().await, None::<()>);
        assert_eq!((tasks.panics(), tasks.alive()), (1, 0));
    }

    #[tokio::test]
    async fn a_task_that_hesitates_lets_the_others_go_first() {
        for (hesitant, order) in [(false, ["first", "second"]), (true, ["second", "first"])] {
            let tasks = Tasks::default();
            let mut answers = [hesitant].into_iter();
            tasks.hesitate(Box::new(move || answers.next().unwrap_or(false)));
            let seen = Arc::new(Mutex::new(Vec::new()));
            let started = ["first", "second"].map(|name| {
                let seen = seen.clone();
                tasks.spawn(async move { lock(&seen).push(name) })
            });
            for task in started {
                task.join().await;
            }
            assert_eq!(*lock(&seen), order);
        }
    }
}
