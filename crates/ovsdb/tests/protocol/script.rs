//! A server's end, which the test plays.

use std::path::PathBuf;
use std::time::Duration;

use ovsdb::client::{Backoff, ClientConfig, Remote, TableSelection};
use ovsdb::wire::FrameBuffer;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use crate::common;

pub const NIL: &str = "00000000-0000-0000-0000-000000000000";
pub const ONE: &str = "00000000-0000-0000-0000-000000000001";
pub const TWO: &str = "00000000-0000-0000-0000-000000000002";

pub struct Listener {
    listener: UnixListener,
    dir: TempDir,
}

impl Listener {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        Self { listener, dir }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    pub fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new(vec![Remote::Unix(self.path())], "D");
        config.backoff = Backoff {
            initial: Duration::from_millis(10),
            max: Duration::from_millis(10),
        };
        config.monitor("T", TableSelection::all())
    }

    pub async fn accept(&self) -> Peer {
        let (stream, _) = timeout(common::PATIENCE, self.listener.accept())
            .await
            .expect("the client connects")
            .unwrap();
        Peer {
            stream,
            frames: FrameBuffer::new(1 << 30),
        }
    }
}

/// The server's end of one connection.
pub struct Peer {
    pub stream: UnixStream,
    frames: FrameBuffer,
}

impl Peer {
    /// The next message of the client; none at the end.
    pub async fn receive(&mut self) -> Option<Value> {
        loop {
            if let Some(frame) = self.frames.next_frame().unwrap() {
                return Some(serde_json::from_slice(frame).unwrap());
            }
            let read = timeout(common::PATIENCE, self.stream.read_buf(self.frames.tail()));
            if read.await.expect("a message of the client").unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// The next message, which is a request of this method.
    pub async fn expect(&mut self, method: &str) -> Value {
        let request = self.receive().await.expect("a request");
        assert_eq!(request["method"], method, "{request}");
        request
    }

    pub async fn send(&mut self, message: Value) {
        self.stream
            .write_all(&serde_json::to_vec(&message).unwrap())
            .await
            .unwrap();
    }

    pub async fn reply(&mut self, request: &Value, result: Value) {
        self.send(json!({"id": request["id"], "result": result, "error": null}))
            .await;
    }

    pub async fn refuse(&mut self, request: &Value, error: Value) {
        self.send(json!({"id": request["id"], "result": null, "error": error}))
            .await;
    }

    /// Everything up to the monitor request, as a standalone server of today.
    pub async fn greet(&mut self) -> Value {
        let aware = self.expect("set_db_change_aware").await;
        self.reply(&aware, json!({})).await;
        let server = self.expect("monitor").await;
        assert_eq!(server["params"][0], "_Server");
        let row = json!({"name": "D", "model": "standalone", "connected": true, "leader": true});
        self.reply(&server, json!({"Database": {ONE: {"new": row}}}))
            .await;
        self.schema().await;
        self.receive().await.expect("a monitor request")
    }

    pub async fn schema(&mut self) {
        let request = self.expect("get_schema").await;
        self.reply(&request, schema()).await;
    }

    /// A session that is live with the rows of the reply.
    pub async fn serve(&mut self, last: &str, rows: Value) {
        let monitor = self.greet().await;
        assert_eq!(monitor["method"], "monitor_cond_since");
        self.reply(&monitor, json!([false, last, rows])).await;
    }
}

pub fn schema() -> Value {
    json!({"name": "D", "version": "1.0.0", "tables": {
        "T": {"columns": {
            "name": {"type": "string"},
            "ids": {"type": {"key": "string", "value": "string", "min": 0, "max": "unlimited"}},
            "tags": {"type": {"key": "integer", "min": 0, "max": "unlimited"}},
            "tag": {"type": {"key": "integer", "min": 0, "max": 1}},
        }},
        "Logical_Switch": {"columns": {"name": {"type": "string"}}}
    }})
}
