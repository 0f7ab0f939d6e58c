//! `/healthz`, `/livez`, `/readyz`, `/metrics`, and `/brakes`: what waits for consent to be deleted, and the consent.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::{ConnectInfo, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use engine::{HeldDeletes, Report};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::metrics;
use crate::watch::Troubles;

/// A loop that does not answer within this time does not turn.
const ANSWER: Duration = Duration::from_secs(5);

/// A question to the engine's loop, or an order.
#[derive(Debug)]
pub enum Question {
    /// How does everything stand?
    Snapshot(oneshot::Sender<Snapshot>),
    /// What do the brakes hold, line by line?
    Held(oneshot::Sender<HeldPlan>),
    /// So many rows may be deleted; the answer is what was held when the order came.
    Release(usize, oneshot::Sender<HeldPlan>),
}

/// What the brakes hold.
#[derive(Debug)]
pub struct HeldPlan {
    /// Whether this process writes at all.
    pub leads: bool,
    /// By table.
    pub tables: Vec<HeldDeletes>,
    /// Every change that waits, in words. Not for an order.
    pub lines: Vec<String>,
    /// Rows of the Go implementation that nothing claims, and that stay.
    pub unclaimed: Vec<String>,
}

impl HeldPlan {
    /// Rows that would be deleted.
    pub fn rows(&self) -> usize {
        self.tables.iter().map(|table| table.rows).sum()
    }
}

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
    questions: mpsc::Sender<Question>,
    troubles: Troubles,
    /// What the process waits for before there is an engine.
    start: Arc<Mutex<Option<String>>>,
}

impl Admin {
    /// Pages of a process that is starting.
    pub fn new(questions: mpsc::Sender<Question>, troubles: Troubles) -> Self {
        Self {
            questions,
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
        self.ask_for(Question::Snapshot).await
    }

    async fn ask_for<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> Option<T> {
        let (answer, asked) = oneshot::channel();
        let answer = async {
            self.questions.send(question(answer)).await.ok()?;
            asked.await.ok()
        };
        timeout(ANSWER, answer).await.ok().flatten()
    }

    /// Serves until `stop`.
    pub async fn serve(self, address: SocketAddr, stop: CancellationToken) -> anyhow::Result<()> {
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("listening on {address}; is another controller running here? (--bind-address, --pprof-port)")
        })?;
        self.serve_on(listener, stop).await
    }

    /// Serves on a listener that is there already.
    pub async fn serve_on(
        self,
        listener: TcpListener,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let pages = Router::new()
            .route("/healthz", get(alive))
            .route("/livez", get(alive))
            .route("/readyz", get(ready))
            .route("/metrics", get(figures))
            .route("/brakes", get(held).post(release))
            .with_state(self)
            .into_make_service_with_connect_info::<SocketAddr>();
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
    let mut brakes = Vec::new();
    let (waits, troubles) = if let Some(what) = admin.waits_for_start() {
        (vec![what], Vec::new())
    } else if let Some(snapshot) = admin.ask().await {
        let mut troubles = admin.troubles.list();
        troubles.extend(snapshot.databases);
        brakes = snapshot.report.held;
        (snapshot.report.waits_for, troubles)
    } else {
        (
            vec!["the main loop, which does not answer".to_owned()],
            Vec::new(),
        )
    };
    if waits.is_empty() {
        // Another process could do no better: that is no reason to be taken for ill.
        let mut text = String::from("ok\n");
        for held in brakes {
            let _ = writeln!(
                text,
                "the brakes are on: {held} wait for consent to be deleted, see /brakes"
            );
        }
        return text.into_response();
    }
    let waits = waits.iter().map(|what| format!("waiting for {what}\n"));
    let text: String = waits
        .chain(troubles.iter().map(|trouble| format!("{trouble}\n")))
        .collect();
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

/// What waits for consent, every line of it, and how to agree.
async fn held(State(admin): State<Admin>) -> Response {
    match admin.ask_for(Question::Held).await {
        Some(plan) => (explain(&plan) + &others(&plan)).into_response(),
        None => silent(),
    }
}

/// Whether a request comes from this host or pod.
fn is_local(peer: SocketAddr) -> bool {
    // The listener may be one for both families.
    peer.ip().to_canonical().is_loopback()
}

/// The operator agrees to the deletion of so many rows.
async fn release(
    State(admin): State<Admin>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    RawQuery(query): RawQuery,
) -> Response {
    // The pages may be open to the whole cluster, this is not for everybody in it.
    if !is_local(peer) {
        let text = "this is answered on the controller's own host or in its pod alone (127.0.0.1, kubectl port-forward)\n";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    let rows = query
        .iter()
        .flat_map(|query| query.split('&'))
        .find_map(|pair| pair.strip_prefix("rows=")?.parse::<usize>().ok());
    let Some(rows) = rows else {
        let text =
            "say how many rows may be deleted: POST /brakes?rows=N; GET /brakes shows them\n";
        return (StatusCode::BAD_REQUEST, text).into_response();
    };
    let Some(plan) = admin
        .ask_for(|answer| Question::Release(rows, answer))
        .await
    else {
        return silent();
    };
    if plan.leads && plan.rows() > 0 && plan.rows() <= rows {
        return format!("agreed: {} rows go\n", plan.rows()).into_response();
    }
    (StatusCode::CONFLICT, explain(&plan)).into_response()
}

fn silent() -> Response {
    let text = "the main loop does not answer\n";
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

/// A held plan for the one who has to decide.
fn explain(plan: &HeldPlan) -> String {
    if !plan.leads {
        return "this process does not lead and deletes nothing; ask the holder of the Lease kube-ovn-controller\n"
            .to_owned();
    }
    if plan.tables.is_empty() {
        return "the brakes hold nothing\n".to_owned();
    }
    let mut text = String::from(
        "Nobody in Kubernetes wants these any more, as far as this controller can see:\n",
    );
    for table in &plan.tables {
        let _ = writeln!(text, "  {table}");
    }
    for line in &plan.lines {
        let _ = writeln!(text, "    {line}");
    }
    let _ = writeln!(
        text,
        "If something of it is in use, leave it: look what is missing in Kubernetes (kubectl get nodes,pods -A); what comes back is kept.\nIf all of it may go: POST /brakes?rows={} to this address, on this host. If there is more by then, nothing is done.",
        plan.rows()
    );
    text
}

/// Rows that are left alone.
fn others(plan: &HeldPlan) -> String {
    let mut text = String::new();
    if !plan.unclaimed.is_empty() {
        let _ = writeln!(
            text,
            "\nThe Go implementation wrote these, and nothing of this version claims them. They are left alone, whatever is agreed to:"
        );
        for row in &plan.unclaimed {
            let _ = writeln!(text, "    {row}");
        }
    }
    text
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_host_itself_lets_go() {
        for local in ["127.0.0.1:9", "[::1]:9", "[::ffff:127.0.0.1]:9"] {
            assert!(is_local(local.parse().unwrap()), "{local}");
        }
        for afar in ["10.16.0.5:9", "[fd00::5]:9", "[::ffff:10.16.0.5]:9"] {
            assert!(!is_local(afar.parse().unwrap()), "{afar}");
        }
    }
}
