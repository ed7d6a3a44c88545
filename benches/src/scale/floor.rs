//! The floor: the same router called without any network, on the same kind of runtime.

use anyhow::{Context as _, Result};
use axum::body::Body;
use fusion_runtime::{Clock, Tasks, Timestamp};
use futures_util::future::try_join_all;
use http::Request;
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use super::Shown;
use super::bare::{MINUTE, router};
use crate::measure::Meter;

pub(super) fn minute(rpcs: usize) -> Result<Shown> {
    let meter = Meter::start();
    on_paused_runtime(async {
        let clock = Clock::starting_at(Timestamp(0));
        for _ in 0..rpcs {
            clock.sleep(MINUTE / rpcs as u32).await;
            ask(&router()).await?;
        }
        Ok(())
    })?;
    Ok(Shown { cost: meter.elapsed(), work: rpcs as u64, ..Shown::here()? })
}

pub(super) fn busy(hosts: usize, rpcs: usize) -> Result<Shown> {
    on_paused_runtime(async {
        let (meter, tasks, each) = (Meter::start(), Tasks::default(), rpcs / hosts);
        let asking = (0..hosts).map(|_| {
            let task = tasks.spawn(async move {
                let router = router();
                for _ in 0..each {
                    ask(&router).await?;
                }
                anyhow::Ok(())
            });
            async move { task.join().await.context("a task ended by itself")? }
        });
        try_join_all(asking).await?;
        Ok(Shown { cost: meter.elapsed(), work: (each * hosts) as u64, ..Shown::here()? })
    })
}

async fn ask(router: &axum::Router) -> Result<()> {
    let answer = router.clone().oneshot(Request::get("/").body(Body::empty())?).await?;
    let body = answer.into_body().collect().await?.to_bytes();
    anyhow::ensure!(&body[..] == b"hello", "not what the router serves");
    Ok(())
}

fn on_paused_runtime<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build()?.block_on(work)
}
