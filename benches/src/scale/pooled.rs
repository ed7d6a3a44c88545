//! hyper-util's pooled client over the same seam: what the reference's own client is compared with.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::Result;
use bytes::Bytes;
use fusion_runtime::Host;
use fusion_runtime::net::Stream;
use fusion_sim::village::Caller;
use futures_util::future::BoxFuture;
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::rt::{Executor, Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tower::Service;

/// The client of one host.
#[derive(Clone)]
pub(super) struct Pooled(Client<Connector, Full<Bytes>>);

#[derive(Clone)]
struct Connector(Host);

struct Secured(TokioIo<Stream>);

#[derive(Clone)]
struct OnHost(Host);

impl Pooled {
    pub(super) fn new(host: &Host) -> Self {
        let mut builder = Client::builder(OnHost(host.clone()));
        // As many idle connections as the own client keeps; nothing expires within the figure.
        builder.pool_max_idle_per_host(4).pool_idle_timeout(None);
        Self(builder.build(Connector(host.clone())))
    }
}

impl Caller for Pooled {
    async fn call(&self, request: Request<Bytes>) -> Result<Bytes> {
        let answer = self.0.request(request.map(Full::new)).await?;
        Ok(answer.into_body().collect().await?.to_bytes())
    }
}

impl Service<Uri> for Connector {
    type Response = Secured;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Secured>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let host = self.0.clone();
        Box::pin(async move {
            let name = uri.host().unwrap_or_default();
            let addresses = host.net.resolve(name, uri.port_u16().unwrap_or(443)).await?;
            let address = addresses.into_iter().next().ok_or(io::ErrorKind::NotFound)?;
            Ok(Secured(TokioIo::new(host.net.connect(address, name).await?)))
        })
    }
}

impl<F> Executor<F> for OnHost
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.tasks.spawn(future);
    }
}

impl Connection for Secured {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, into)
    }
}

impl Write for Secured {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
