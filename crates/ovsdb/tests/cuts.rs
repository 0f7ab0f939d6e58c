//! A connection that is cut after any byte, in either direction: nothing is lost, nothing is doubled.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use common::{Writer, northbound};
use ovsdb::client::Backoff;
use tempfile::TempDir;
use testkit::ovn::{Schema, Server};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// Stands between client and server, and lets each connection pass only so many bytes.
struct Proxy {
    dir: TempDir,
    calm: Arc<AtomicBool>,
    cuts: Arc<AtomicUsize>,
}

/// Carries bytes until the allowance is used up. What was read before the cut is delivered: a real network does so, too.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut allowance: usize,
) {
    let mut buffer = vec![0; 4096];
    while allowance > 0 {
        let most = buffer.len().min(allowance);
        match from.read(&mut buffer[..most]).await {
            Ok(0) | Err(_) => return,
            Ok(count) => {
                if to.write_all(&buffer[..count]).await.is_err() {
                    return;
                }
                allowance -= count;
            }
        }
    }
}

impl Proxy {
    fn start(server: PathBuf, seed: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        let calm = Arc::new(AtomicBool::new(false));
        let cuts = Arc::new(AtomicUsize::new(0));
        let (quiet, count) = (Arc::clone(&calm), Arc::clone(&cuts));
        tokio::spawn(async move {
            // Knuth's generator: the same cuts in each run of a seed.
            let mut state = seed;
            let mut random = |below: usize| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                usize::try_from(state >> 33).unwrap() % below
            };
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = UnixStream::connect(&server).await.unwrap();
                let (mut up, mut down) = (300 + random(6_000), 20_000 + random(80_000));
                if quiet.load(Ordering::Relaxed) {
                    (up, down) = (usize::MAX, usize::MAX);
                }
                let count = Arc::clone(&count);
                tokio::spawn(async move {
                    let (client_reads, client_writes) = client.into_split();
                    let (server_reads, server_writes) = server.into_split();
                    tokio::select! {
                        () = carry(client_reads, server_writes, up) => {}
                        () = carry(server_reads, client_writes, down) => {}
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        Self { dir, calm, cuts }
    }

    fn remote(&self) -> String {
        format!("unix:{}", self.dir.path().join("s").display())
    }
}

async fn writes_through_cuts(seed: u64) {
    let server = Server::start(Schema::Northbound);
    let proxy = Proxy::start(server.socket(), seed);
    proxy.calm.store(true, Ordering::Relaxed);
    let mut config = northbound(&proxy.remote());
    config.backoff = Backoff {
        initial: Duration::from_millis(1),
        max: Duration::from_millis(5),
    };
    let mut writer = Writer::start(config).await;
    // The first connection is calm until the server hangs up on it.
    proxy.calm.store(false, Ordering::Relaxed);
    server
        .appctl(&["ovsdb-server/reconnect"])
        .expect("the server hangs up");
    for _ in 0..150 {
        writer.write().await;
    }
    proxy.calm.store(true, Ordering::Relaxed);
    for _ in 0..20 {
        writer.write().await;
    }
    let cuts = proxy.cuts.load(Ordering::Relaxed);
    assert!(cuts > 10, "{cuts} cuts");
    assert!(writer.unknown > 0, "no cut at a bad moment");
    writer.check(&server.remote()).await;
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_1() {
    writes_through_cuts(1).await;
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_2() {
    writes_through_cuts(20_261).await;
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_3() {
    writes_through_cuts(0xdead_beef).await;
}
