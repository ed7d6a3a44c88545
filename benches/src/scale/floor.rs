//! The floor: the same router called without any network, on the same kind of runtime.

use anyhow::{Context as _, Result, bail};
use axum::body::Body;
use fusion_runtime::{Clock, Tasks, Timestamp};
use fusion_sim::village::{Done, MINUTE, Work, router};
use futures_util::future::try_join_all;
use http::Request;
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use crate::measure::Meter;

pub(super) fn village(work: Work) -> Result<Done> {
    work.in_world(|| match work {
        Work::Minute { rpcs, .. } => minute(rpcs),
        Work::Busy { hosts, rpcs } => busy(hosts, rpcs),
        Work::IdleHour { .. } => bail!("there is nobody who could be idle without a network"),
    })
}

fn minute(rpcs: usize) -> Result<Done> {
    let meter = Meter::start();
    on_paused_runtime(async {
        let clock = Clock::starting_at(Timestamp(0));
        for _ in 0..rpcs {
            clock.sleep(MINUTE / rpcs as u32).await;
            ask(&router()).await?;
        }
        Ok(())
    })?;
    Ok(Done { cost: meter.elapsed(), rpcs: rpcs as u64 })
}

fn busy(hosts: usize, rpcs: usize) -> Result<Done> {
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
        Ok(Done { cost: meter.elapsed(), rpcs: (each * hosts) as u64 })
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
