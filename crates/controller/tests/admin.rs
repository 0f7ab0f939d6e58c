//! The admin pages over HTTP, with an engine's loop that answers from a script.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "this is a test"
)]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use controller::admin::{Admin, HeldPlan, Question, Snapshot};
use controller::watch::Troubles;
use engine::{Config, Engine, HeldDeletes};
use jiff::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// What the loop knows.
#[derive(Debug, Default)]
struct Script {
    leads: bool,
    held: Vec<HeldDeletes>,
    agreed: Vec<usize>,
}

fn pages(listener: TcpListener) -> Arc<Mutex<Script>> {
    let (questions, mut asked) = mpsc::channel(4);
    let admin = Admin::new(questions, Troubles::default());
    admin.starting(None);
    tokio::spawn(admin.serve_on(listener, CancellationToken::new()));
    let script = Arc::new(Mutex::new(Script::default()));
    let shared = Arc::clone(&script);
    tokio::spawn(async move {
        let mut engine = Engine::new(Config::default(), Timestamp::UNIX_EPOCH);
        while let Some(question) = asked.recv().await {
            let mut script = shared.lock().unwrap();
            let plan = HeldPlan {
                leads: script.leads,
                tables: script.held.clone(),
                lines: vec!["- Logical_Switch blue: ports a.default".into()],
                unclaimed: vec!["Port_Group old".into()],
            };
            match question {
                Question::Snapshot(asker) => {
                    let mut report = engine.report();
                    report.waits_for.clear();
                    report.held.clone_from(&script.held);
                    let snapshot = Snapshot {
                        report,
                        turns: 7,
                        databases: Vec::new(),
                    };
                    asker.send(snapshot).unwrap();
                }
                Question::Held(asker) => asker.send(plan).unwrap(),
                Question::Release(rows, asker) => {
                    script.agreed.push(rows);
                    asker.send(plan).unwrap();
                }
            }
        }
    });
    script
}

/// Status and body.
async fn ask(address: SocketAddr, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let text =
        format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

#[tokio::test]
async fn the_brakes_are_shown_and_let_go_by_number() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let script = pages(listener);
    assert_eq!(ask(address, "GET /readyz").await, (200, "ok\n".into()));
    let (status, text) = ask(address, "GET /brakes").await;
    assert_eq!(status, 200);
    assert!(text.contains("does not lead"), "{text}");
    let unclaimed = text.split_once("nothing of this version claims").unwrap().1;
    assert!(unclaimed.contains("Port_Group old"), "{text}");

    *script.lock().unwrap() = Script {
        leads: true,
        held: vec![HeldDeletes {
            table: "Logical_Switch_Port".into(),
            rows: 812,
            owned: 900,
            example: Some("a.default".into()),
        }],
        agreed: Vec::new(),
    };
    let (status, text) = ask(address, "GET /readyz").await;
    assert_eq!(status, 200, "a restart would not help");
    assert!(
        text.contains("812 of 900 rows of Logical_Switch_Port"),
        "{text}"
    );
    let (_, text) = ask(address, "GET /metrics").await;
    assert!(
        text.contains("kube_ovn_controller_brakes_held_rows{table=\"Logical_Switch_Port\"} 812\n"),
        "{text}"
    );
    assert!(
        text.contains("kube_ovn_controller_brakes_held 1\n"),
        "{text}"
    );
    let (_, text) = ask(address, "GET /brakes").await;
    assert!(
        text.contains("- Logical_Switch blue: ports a.default"),
        "{text}"
    );
    assert!(text.contains("POST /brakes?rows=812"), "{text}");

    assert_eq!(ask(address, "POST /brakes").await.0, 400);
    assert_eq!(ask(address, "POST /brakes?rows=all").await.0, 400);
    assert!(script.lock().unwrap().agreed.is_empty());
    let (status, text) = ask(address, "POST /brakes?rows=811").await;
    assert_eq!(status, 409, "{text}");
    assert_eq!(ask(address, "POST /brakes?rows=812").await.0, 200);
    assert_eq!(script.lock().unwrap().agreed, [811, 812]);
}
