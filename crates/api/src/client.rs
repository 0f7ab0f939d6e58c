//! The connection to the API server, for programs (feature `client`).
//!
//! A watch only listens. When its peer vanishes without a word (a machine loses its power, a load balancer forgets a
//! connection, the own address is taken away), nothing that arrives says so: kube's watcher would listen on for 295
//! seconds. So the kernel asks: TCP keepalive while nothing is under way, `TCP_USER_TIMEOUT` while something is.

use std::path::Path;
use std::time::Duration;

use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use tower::{BoxError, ServiceBuilder};

/// For a connection, TLS included: an API server that takes longer is one that is not there.
const CONNECT: Duration = Duration::from_secs(5);
/// A connection that has been silent for so long is asked whether it is still there ...
const IDLE: Duration = Duration::from_secs(10);
/// ... and asked again ...
const AGAIN: Duration = Duration::from_secs(5);
/// ... so often.
const TRIES: u32 = 3;
/// A peer that has acknowledged nothing for so long is gone, be it data or such questions (tcp(7), TCP_USER_TIMEOUT:
/// counts in place of [`TRIES`] where the kernel knows it).
const GONE: Duration = Duration::from_secs(20);
/// A connection that has rested for longer is not used again: a request on a dead one would be stuck for [`GONE`].
const REST: Duration = Duration::from_secs(5);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("kubeconfig {path}")]
    Kubeconfig {
        path: String,
        #[source]
        source: KubeconfigError,
    },
    #[error("no kubeconfig is given, and this is no pod")]
    NoPod(#[source] InClusterError),
    #[error("the settings for the API server")]
    Settings(#[source] kube::Error),
}

/// A client by a kubeconfig file, or by what a pod is given. Does not connect yet.
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client, ClientError> {
    let config = match kubeconfig {
        Some(path) => from_file(path)
            .await
            .map_err(|source| ClientError::Kubeconfig {
                path: path.display().to_string(),
                source,
            })?,
        None => Config::incluster().map_err(ClientError::NoPod)?,
    };
    from_config(config).map_err(ClientError::Settings)
}

async fn from_file(path: &Path) -> Result<Config, KubeconfigError> {
    let file = Kubeconfig::read_from(path)?;
    Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await
}

/// A client by such settings: kube's own stack over a socket of ours (kube's has no such options), without kube's own
/// repetition of what the server refused for now. Whoever asks for something knows whether it still is to be done by then; a
/// write that is sent again ten seconds later may be one of a controller that does not lead any more.
pub fn from_config(mut config: Config) -> kube::Result<Client> {
    config.connect_timeout = Some(CONNECT);
    config.default_retry = false;
    if config.proxy_url.is_some() {
        // kube says which proxies it can do.
        return Client::try_from(config);
    }
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_keepalive(Some(IDLE));
    http.set_keepalive_interval(Some(AGAIN));
    http.set_keepalive_retries(Some(TRIES));
    http.set_tcp_user_timeout(Some(GONE));
    let mut connector = TimeoutConnector::new(config.rustls_https_connector_with_connector(http)?);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    let http = legacy::Client::builder(TokioExecutor::new())
        .pool_idle_timeout(REST)
        .build::<_, Body>(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(ClientBuilder::new(service, config.default_namespace).build())
}
