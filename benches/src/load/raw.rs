//! HTTP/1.1 connections with nothing between the bench and the wire that could be the slow part.

use anyhow::{Context as _, Result, bail};
use bytes::{Buf as _, Bytes, BytesMut};
use fusion_runtime::Host;
use fusion_runtime::net::Stream;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use url::Url;

/// A connection over hyper, for requests that differ.
pub(crate) struct Connection(SendRequest<Full<Bytes>>);

/// A connection that repeats prepared bytes.
pub(crate) struct Repeater {
    stream: Stream,
    read: BytesMut,
}

impl Connection {
    pub(crate) async fn open(host: &Host, url: &Url) -> Result<Self> {
        let stream = connect(host, url).await?;
        let (sender, driver) = Builder::new().handshake(TokioIo::new(stream)).await?;
        host.tasks.spawn(async move {
            let _ = driver.await;
        });
        Ok(Self(sender))
    }

    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>> {
        self.0.ready().await?;
        let (parts, body) = self.0.send_request(request).await?.into_parts();
        Ok(Response::from_parts(parts, body.collect().await?.to_bytes()))
    }
}

impl Repeater {
    pub(crate) async fn open(host: &Host, url: &Url) -> Result<Self> {
        Ok(Self { stream: connect(host, url).await?, read: BytesMut::with_capacity(4096) })
    }

    /// Sends prepared bytes and reads the whole answer, which must be a 200.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> Result<()> {
        self.stream.write_all(request).await?;
        self.stream.flush().await?;
        loop {
            if let Some(length) = answer_length(&self.read)? {
                self.read.advance(length);
                return Ok(());
            }
            if self.stream.read_buf(&mut self.read).await? == 0 {
                bail!("the server closed the connection");
            }
        }
    }
}

/// A connection to where `url` leads, secured unless both ends are in clear.
pub(crate) async fn connect(host: &Host, url: &Url) -> Result<Stream> {
    let name = url.host_str().context("a URL without a host")?;
    let port = url.port_or_known_default().context("a URL without a port")?;
    let address = host.net.resolve(name, port).await?.into_iter().next().context("no address")?;
    Ok(host.net.connect(address, name).await?)
}

/// How long the answer at the start of `read` is, when it is whole.
fn answer_length(read: &[u8]) -> Result<Option<usize>> {
    let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&read[..end])?;
    if !head.starts_with("HTTP/1.1 200") {
        bail!("answered with {}", head.lines().next().unwrap_or_default());
    }
    let length = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .context("an answer without a length")?;
    let whole = end + 4 + length.1.trim().parse::<usize>()?;
    Ok((read.len() >= whole).then_some(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_body_is_there() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbodynext";
        assert_eq!(answer_length(&answer[..20]).unwrap(), None);
        assert_eq!(answer_length(&answer[..40]).unwrap(), None);
        assert_eq!(answer_length(answer).unwrap(), Some(42));
        assert!(answer_length(b"HTTP/1.1 429 Too Many\r\n\r\n").is_err());
    }
}
