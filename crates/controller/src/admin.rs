//! `/healthz`, `/livez`, `/readyz`, `/metrics`.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use engine::Report;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::metrics;
use crate::watch::Troubles;

/// A loop that does not answer within this time does not turn.
const ANSWER: Duration = Duration::from_secs(5);

/// A question to the engine's loop.
pub type Query = oneshot::Sender<Snapshot>;

/// The loop's answer.
#[derive(Debug)]
pub struct Snapshot {
    /// From the engine.
    pub report: Report,
    /// Turns of the loop.
    pub turns: u64,
    /// Database sessions that are not live, in words.
    pub databases: Vec<String>,
}

/// What the pages are made from.
#[derive(Clone, Debug)]
pub struct Admin {
    queries: mpsc::Sender<Query>,
    troubles: Troubles,
    /// What the process waits for before there is an engine.
    start: Arc<Mutex<Option<String>>>,
}

impl Admin {
    /// Pages of a process that is starting.
    pub fn new(queries: mpsc::Sender<Query>, troubles: Troubles) -> Self {
        Self {
            queries,
            troubles,
            start: Arc::new(Mutex::new(Some("the API server".to_owned()))),
        }
    }

    /// Says what the start waits for; `None` once it is over.
    pub fn starting(&self, what: Option<String>) {
        *self.start.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    fn waits_for_start(&self) -> Option<String> {
        self.start
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    async fn ask(&self) -> Option<Snapshot> {
        let (answer, asked) = oneshot::channel();
        let answer = async {
            self.queries.send(answer).await.ok()?;
            asked.await.ok()
        };
        timeout(ANSWER, answer).await.ok().flatten()
    }

    /// Serves until `stop`.
    pub async fn serve(self, address: SocketAddr, stop: CancellationToken) -> anyhow::Result<()> {
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("listening on {address}; is another controller running here? (--bind-address, --pprof-port)")
        })?;
        let pages = Router::new()
            .route("/healthz", get(alive))
            .route("/livez", get(alive))
            .route("/readyz", get(ready))
            .route("/metrics", get(figures))
            .with_state(self);
        axum::serve(listener, pages)
            .with_graceful_shutdown(stop.cancelled_owned())
            .await?;
        Ok(())
    }
}

/// Whether the process does its work, or waits for its start with patience.
async fn alive(State(admin): State<Admin>) -> Response {
    if admin.waits_for_start().is_some() || admin.ask().await.is_some() {
        "ok\n".into_response()
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the main loop does not answer\n",
        )
            .into_response()
    }
}

/// Whether it can serve as leader or as hot standby; otherwise what it waits for, a line each, and what is in the way.
async fn ready(State(admin): State<Admin>) -> Response {
    let (waits, troubles) = if let Some(what) = admin.waits_for_start() {
        (vec![what], Vec::new())
    } else if let Some(snapshot) = admin.ask().await {
        let mut troubles = admin.troubles.list();
        troubles.extend(snapshot.databases);
        (snapshot.report.waits_for, troubles)
    } else {
        (
            vec!["the main loop, which does not answer".to_owned()],
            Vec::new(),
        )
    };
    if waits.is_empty() {
        return "ok\n".into_response();
    }
    let waits = waits.iter().map(|what| format!("waiting for {what}\n"));
    let text: String = waits
        .chain(troubles.iter().map(|trouble| format!("{trouble}\n")))
        .collect();
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

async fn figures(State(admin): State<Admin>) -> Response {
    let snapshot = if admin.waits_for_start().is_some() {
        None
    } else {
        admin.ask().await
    };
    let kind = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    (kind, metrics::page(snapshot.as_ref())).into_response()
}
