//! `/healthz`, `/livez`, `/readyz` and `/metrics`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use http::StatusCode;
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::metrics::Metrics;
use crate::owner::{Ask, Event, Readiness};

#[derive(Debug, Clone)]
pub struct Admin {
    pub readiness: watch::Receiver<Readiness>,
    pub metrics: Arc<Metrics>,
    pub owner: mpsc::Sender<Event>,
    pub cni_socket: PathBuf,
}

/// Serves on each address until cancelled. A port that is taken (the daemon before us has not gone yet) is tried again.
pub fn serve(admin: &Admin, addresses: &[IpAddr], port: u16, stop: &CancellationToken) {
    for address in addresses {
        let address = SocketAddr::new(*address, port);
        let (admin, stop) = (admin.clone(), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = serve_one(admin, address) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

async fn serve_one(admin: Admin, address: SocketAddr) {
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) => warn!("health and metrics on {address}: {error}; trying again"),
        }
        sleep(Duration::from_secs(2)).await;
    };
    info!("health and metrics on {address}");
    let router = axum::Router::new()
        .route("/healthz", get(alive))
        .route("/livez", get(alive))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(admin);
    if let Err(error) = axum::serve(listener, router).await {
        warn!("health and metrics on {address}: {error}");
    }
}

/// Alive: the owner loop turns and the CNI socket accepts. What the daemon waits for does not matter here, a socket that
/// cannot be made among it: a restart would not bring it.
async fn alive(State(admin): State<Admin>) -> impl IntoResponse {
    let (reply, answer) = oneshot::channel();
    let patience = Duration::from_secs(2);
    let turns = async {
        admin
            .owner
            .send(Event::Ask(Ask::Unready(reply)))
            .await
            .is_ok()
            && answer.await.is_ok()
    };
    if !timeout(patience, turns).await.unwrap_or(false) {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            "the owner loop does not answer\n".to_owned(),
        );
    }
    if !admin.readiness.borrow().serving {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    match timeout(patience, UnixStream::connect(&admin.cni_socket)).await {
        Ok(Ok(_)) => (StatusCode::OK, "ok\n".to_owned()),
        Ok(Err(error)) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{}: {error}\n", admin.cni_socket.display()),
        ),
        Err(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{} does not accept\n", admin.cni_socket.display()),
        ),
    }
}

async fn ready(State(admin): State<Admin>) -> impl IntoResponse {
    let readiness = admin.readiness.borrow().clone();
    if readiness.waiting.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    let lines = readiness.waiting.join("\nwaiting for ");
    (
        StatusCode::SERVICE_UNAVAILABLE,
        format!("waiting for {lines}\n"),
    )
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    let readiness = admin.readiness.borrow().clone();
    match admin.metrics.encode(&readiness) {
        Ok(text) => (
            StatusCode::OK,
            [(
                http::header::CONTENT_TYPE,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            )],
            text,
        )
            .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
