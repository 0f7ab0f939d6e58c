//! The socket, and the verbs as HTTP requests on it.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::cni::{CheckRequest, GcRequest, Request, StatusRequest, code};
use axum::extract::{Json, State};
use axum::response::IntoResponse;
use axum::routing::post;
use http::StatusCode;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Cni, Failed};
use crate::owner::{Ask, Event};

/// Between looks at the socket's file, and between tries to make it.
const PAUSE: Duration = Duration::from_secs(1);

/// Serves on the socket until cancelled; requests under way are finished.
///
/// Its directory may come with Open vSwitch, later than we do, and may be made anew with the socket gone from it: then
/// it is made again. The owner is told each time whether requests can reach us.
pub async fn keep(cni: Cni, path: PathBuf, stop: CancellationToken) {
    let mut finishing = JoinSet::new();
    let mut displaced = false;
    let mut told = String::new();
    while !stop.is_cancelled() {
        let error = match take(&path, displaced).await {
            Ok((listener, file)) => {
                info!("CNI requests on {}", path.display());
                told.clear();
                report(&cni, Ok(())).await;
                let close = stop.child_token();
                let mut server = tokio::spawn(serve(cni.clone(), listener, close.clone()));
                tokio::select! {
                    () = lost(&path, file) => {
                        warn!("the CNI socket {} is gone", path.display());
                        displaced = true;
                        // What it has begun it finishes, beside the next.
                        close.cancel();
                        finishing.spawn(server);
                        continue;
                    }
                    _ = &mut server => io::Error::other("the server on it ended"),
                }
            }
            Err(error) => error,
        };
        if stop.is_cancelled() {
            break;
        }
        let problem = format!("the CNI socket {}: {error}", path.display());
        if told != problem {
            warn!("{problem}; trying again");
            told.clone_from(&problem);
        }
        report(&cni, Err(problem)).await;
        let _ = stop.run_until_cancelled(sleep(PAUSE)).await;
    }
    while finishing.join_next().await.is_some() {}
}

async fn report(cni: &Cni, reachable: Result<(), String>) {
    // Without an owner the process is about to end.
    let _ = cni.owner.send(Event::Cni(reachable)).await;
}

/// Device and inode of the socket's file.
type FileId = (u64, u64);

fn file_id(path: &Path) -> io::Result<FileId> {
    let file = fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

/// Makes the socket. A daemon that starts takes it from the one before; one that was `displaced` takes it back only from
/// one that has gone.
async fn take(path: &Path, displaced: bool) -> io::Result<(UnixListener, FileId)> {
    if displaced && UnixStream::connect(path).await.is_ok() {
        return Err(io::Error::other("another process serves on it"));
    }
    bind(path)
}

/// Makes the socket under another name and puts it in its place when all is ready: nobody finds none, or one that
/// others than root may connect to.
fn bind(path: &Path) -> io::Result<(UnixListener, FileId)> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    match fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(&new)?;
    fs::set_permissions(&new, Permissions::from_mode(0o600))?;
    let file = file_id(&new)?;
    fs::rename(&new, path)?;
    Ok((listener, file))
}

/// Ends when the path no longer leads to our socket.
async fn lost(path: &Path, file: FileId) {
    while file_id(path).is_ok_and(|now| now == file) {
        sleep(PAUSE).await;
    }
}

async fn serve(cni: Cni, listener: UnixListener, stop: CancellationToken) {
    let router = axum::Router::new()
        .route(api::cni::PATH_ADD, post(add))
        .route(api::cni::PATH_DEL, post(del))
        .route(api::cni::PATH_CHECK, post(check))
        .route(api::cni::PATH_GC, post(gc))
        .route(api::cni::PATH_STATUS, post(status))
        .with_state(cni);
    let served = axum::serve(listener, router)
        .with_graceful_shutdown(async move { stop.cancelled().await })
        .await;
    if let Err(error) = served {
        warn!("CNI server: {error}");
    }
}

/// Runs a request to its end even if the client hangs up, and counts it.
async fn finish<T, F>(cni: Cni, path: &'static str, work: F) -> axum::response::Response
where
    T: IntoResponse + Send + 'static,
    F: Future<Output = Result<T, Failed>> + Send + 'static,
{
    let start = Instant::now();
    let result = cni.tasks.spawn(work).await;
    let response = match result {
        Ok(Ok(answer)) => answer.into_response(),
        Ok(Err(failed)) => failed.into_response(),
        Err(error) => {
            Failed::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
        }
    };
    cni.metrics
        .cni(path, response.status().as_u16(), start.elapsed());
    response
}

async fn add(State(cni): State<Cni>, Json(request): Json<Request>) -> axum::response::Response {
    let work = {
        let cni = cni.clone();
        async move { cni.add(&request).await.map(Json) }
    };
    finish(cni, api::cni::PATH_ADD, work).await
}

async fn del(State(cni): State<Cni>, Json(request): Json<Request>) -> axum::response::Response {
    let work = {
        let cni = cni.clone();
        async move {
            cni.del(&request).await?;
            Ok(StatusCode::NO_CONTENT)
        }
    };
    finish(cni, api::cni::PATH_DEL, work).await
}

async fn check(
    State(cni): State<Cni>,
    Json(request): Json<CheckRequest>,
) -> axum::response::Response {
    let work = {
        let cni = cni.clone();
        async move {
            cni.check(&request).await?;
            Ok(StatusCode::NO_CONTENT)
        }
    };
    finish(cni, api::cni::PATH_CHECK, work).await
}

async fn gc(State(cni): State<Cni>, Json(request): Json<GcRequest>) -> axum::response::Response {
    let work = {
        let cni = cni.clone();
        async move {
            cni.gc(&request).await?;
            Ok(StatusCode::NO_CONTENT)
        }
    };
    finish(cni, api::cni::PATH_GC, work).await
}

async fn status(
    State(cni): State<Cni>,
    Json(_request): Json<StatusRequest>,
) -> axum::response::Response {
    let work = {
        let cni = cni.clone();
        async move {
            let unready = cni.ask(Ask::Unready).await?;
            if unready.is_empty() {
                return Ok(StatusCode::NO_CONTENT);
            }
            Err(Failed {
                code: Some(code::PLUGIN_NOT_AVAILABLE),
                ..Failed::later(format!("waiting for {}", unready.join("; ")))
            })
        }
    };
    finish(cni, api::cni::PATH_STATUS, work).await
}
