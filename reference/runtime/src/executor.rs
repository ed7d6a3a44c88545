//! The executor under the seam: how tasks start and how time passes, and nothing else.
//!
//! tokio, or madsim in a build made for it (`--cfg madsim`). This is the one place in the house where
//! executors differ. Both read the process's clock, which madsim puts its own under.

#[cfg(madsim)]
pub(crate) use of_madsim::{AbortHandle, JoinHandle, sleep, sleep_until, spawn, timeout};
#[cfg(not(madsim))]
pub(crate) use of_tokio::{AbortHandle, JoinHandle, sleep, sleep_until, spawn, timeout};

#[cfg(not(madsim))]
mod of_tokio {
    use std::time::Duration;

    pub(crate) use tokio::task::{AbortHandle, JoinHandle};
    use tokio::time::Instant;

    use crate::clock::Elapsed;

    #[expect(clippy::disallowed_methods, reason = "the one spawn of the house")]
    pub(crate) fn spawn<F>(future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        tokio::spawn(future)
    }

    #[expect(clippy::disallowed_methods, reason = "the one sleep of the house")]
    pub(crate) async fn sleep(duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    #[expect(clippy::disallowed_methods, reason = "the one sleep of the house")]
    pub(crate) async fn sleep_until(moment: Instant) {
        tokio::time::sleep_until(moment).await;
    }

    #[expect(clippy::disallowed_methods, reason = "the one time-out of the house")]
    pub(crate) async fn timeout<F: Future>(limit: Duration, future: F) -> Result<F::Output, Elapsed> {
        tokio::time::timeout(limit, future).await.map_err(|_| Elapsed)
    }
}

#[cfg(madsim)]
mod of_madsim {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::{Poll, Waker};
    use std::time::Duration;

    use futures_util::future::{Either, select};
    pub(crate) use madsim::task::{AbortHandle, JoinHandle, spawn};
    use tokio::time::Instant;

    use crate::clock::Elapsed;

    pub(crate) async fn sleep(duration: Duration) {
        woken_once(madsim::time::sleep(duration)).await;
    }

    pub(crate) async fn sleep_until(moment: Instant) {
        woken_once(madsim::time::sleep_until(moment.into_std())).await;
    }

    pub(crate) async fn timeout<F: Future>(limit: Duration, future: F) -> Result<F::Output, Elapsed> {
        match select(pin!(future), pin!(sleep(limit))).await {
            Either::Left((output, _)) => Ok(output),
            Either::Right(_) => Err(Elapsed),
        }
    }

    /// madsim's sleep sets another timer whenever it is polled, and a timer wakes even when its sleep is
    /// gone: a task with a long time-out would be woken for ever more often.
    async fn woken_once(sleep: madsim::time::Sleep) {
        let mut sleep = pin!(sleep);
        let mut told: Option<Waker> = None;
        poll_fn(|context| {
            if told.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) && !sleep.is_elapsed() {
                return Poll::Pending;
            }
            told = Some(context.waker().clone());
            sleep.as_mut().poll(context)
        })
        .await;
    }
}
