//! The admin server: is it alive, is it ready, and if not for what does it wait; figures.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use engine::Report;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};

use crate::metrics;

/// A loop that does not answer within this time is stuck.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the main loop for a snapshot.
pub type Query = oneshot::Sender<Report>;

/// What the server knows.
#[derive(Clone, Debug)]
pub struct Admin {
    /// What the start still waits for; `None` once the loop runs.
    starting: watch::Receiver<Option<String>>,
    queries: mpsc::Sender<Query>,
    /// Lines of the adapters: watches and sessions that are in trouble.
    troubles: Troubles,
}

/// Asks the adapters what is wrong.
#[derive(Clone)]
pub struct Troubles(Arc<dyn Fn() -> Vec<String> + Send + Sync>);

impl Troubles {
    /// Wraps the question.
    pub fn new(ask: impl Fn() -> Vec<String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }
}

impl std::fmt::Debug for Troubles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Troubles")
    }
}

impl Admin {
    /// A server's state.
    pub const fn new(starting: watch::Receiver<Option<String>>, queries: mpsc::Sender<Query>, troubles: Troubles) -> Self {
        Self { starting, queries, troubles }
    }

    /// Binds at once, so that a port that is taken is an error of the start; serves in the background.
    pub async fn serve(self, address: SocketAddr) -> Result<()> {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}; is another controller running here? (--pprof-port)"))?;
        let router = Router::new()
            .route("/healthz", get(livez))
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics_page))
            .with_state(self);
        tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the admin server has ended");
            }
        });
        Ok(())
    }

    async fn report(&self) -> Option<Report> {
        let (ask, answer) = oneshot::channel();
        let report = async {
            self.queries.send(ask).await.ok()?;
            answer.await.ok()
        };
        tokio::time::timeout(PATIENCE, report).await.ok().flatten()
    }

    fn starting(&self) -> Option<String> {
        self.starting.borrow().clone()
    }
}

async fn livez(State(admin): State<Admin>) -> Response {
    if admin.starting().is_some() || admin.report().await.is_some() {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the main loop does not answer\n").into_response()
    }
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let mut waits = Vec::new();
    match admin.starting() {
        Some(what) => waits.push(what),
        None => match admin.report().await {
            Some(report) => waits.extend(report.waits_for),
            None => waits.push("the main loop, which does not answer".to_owned()),
        },
    }
    if waits.is_empty() {
        return "ok\n".into_response();
    }
    let mut text: String = waits.iter().map(|what| format!("waiting for {what}\n")).collect();
    for line in (admin.troubles.0)() {
        text.push_str(&line);
        text.push('\n');
    }
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

async fn metrics_page(State(admin): State<Admin>) -> Response {
    match admin.report().await {
        Some(report) => {
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics::page(&report)).into_response()
        }
        None => (StatusCode::SERVICE_UNAVAILABLE, "the controller is starting\n").into_response(),
    }
}
