//! Byte streams to servers.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::{Remote, TlsConfig};

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub(super) async fn connect(
    remote: &Remote,
    tls: Option<&TlsConfig>,
) -> io::Result<Box<dyn Stream>> {
    match remote {
        Remote::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        Remote::Tcp { host, port } => Ok(Box::new(tcp(host, *port).await?)),
        Remote::Ssl { host, port } => {
            let tls = tls.ok_or_else(|| io::Error::other("no certificates are configured"))?;
            let config = tls.load().map_err(io::Error::other)?;
            let name = tls.server_name().map_err(io::Error::other)?;
            let stream = tcp(host, *port).await?;
            Ok(Box::new(
                TlsConnector::from(config).connect(name, stream).await?,
            ))
        }
    }
}

async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
