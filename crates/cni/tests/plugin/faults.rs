//! A daemon that refuses, is down, slow, or talks nonsense.

use std::io::Write;
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::{Duration, Instant};

use api::cni::{Failure, Response, code};
use serde_json::json;

use crate::harness::{Daemon, read_request, run};

#[test]
fn refusals_carry_the_daemons_words_and_a_code() {
    let refused = |verb: &str, version: &str, status: u16, code: Option<u32>| {
        let failure = Failure {
            error: "pod shop/web-0 has no address yet".into(),
            code,
        };
        let daemon = Daemon::answering(status, &failure);
        let (code, text) = run(verb, &daemon.config(version)).error();
        assert!(text.contains(&failure.error), "{text}");
        code
    };
    assert_eq!(refused("ADD", "0.3.1", 500, None), code::TRY_AGAIN_LATER);
    assert_eq!(refused("ADD", "0.3.1", 503, None), code::TRY_AGAIN_LATER);
    assert_eq!(
        refused("ADD", "0.3.1", 400, None),
        code::INVALID_NETWORK_CONFIG
    );
    assert_eq!(refused("ADD", "1.1.0", 500, Some(105)), 105);
    assert_eq!(refused("DEL", "0.3.1", 500, None), code::TRY_AGAIN_LATER);
    assert_eq!(
        refused("STATUS", "1.1.0", 503, None),
        code::PLUGIN_NOT_AVAILABLE
    );
    assert_eq!(
        refused("STATUS", "1.1.0", 503, Some(51)),
        code::PLUGIN_NOT_AVAILABLE_LIMITED
    );
}

#[test]
fn an_error_inside_a_success_is_an_error() {
    let response = Response {
        error: "no address".into(),
        ..Response::default()
    };
    let daemon = Daemon::answering(200, &response);
    let (code, text) = run("ADD", &daemon.config("0.3.1")).error();
    assert_eq!(code, code::TRY_AGAIN_LATER);
    assert!(text.contains("no address"), "{text}");
}

#[test]
fn answers_that_make_no_sense_are_decoding_failures() {
    for answer in [
        json!("hello"),
        json!({ "ips": [{ "ip": "10.16.0.500", "cidr": "10.16.0.0/16" }] }),
        json!({ "ips": [{ "ip": "10.16.0.5", "cidr": "fd00::/64" }] }),
        json!({ "ips": [{ "ip": "10.16.0.5", "cidr": "10.16.0.0/33" }] }),
        json!({ "ips": [{ "ip": "10.16.0.5", "cidr": "10.16.0.0/16", "gateway": "x" }] }),
        json!({ "routes": [{ "gw": "" }] }),
    ] {
        let daemon = Daemon::answering(200, &answer);
        let (code, text) = run("ADD", &daemon.config("0.3.1")).error();
        assert_eq!(code, code::DECODING_FAILURE, "{answer}: {text}");
    }
}

#[test]
fn a_daemon_that_is_down_is_a_retryable_error_that_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    for is_stale in [false, true] {
        if is_stale {
            drop(UnixListener::bind(&socket).unwrap());
        }
        let config = json!({
            "cniVersion": "1.1.0", "name": "n", "type": "kube-ovn", "server_socket": socket, "timeout_seconds": 1
        });
        for (verb, expected) in [
            ("ADD", code::TRY_AGAIN_LATER),
            ("DEL", code::TRY_AGAIN_LATER),
            ("STATUS", code::PLUGIN_NOT_AVAILABLE),
        ] {
            let start = Instant::now();
            let (code, text) = run(verb, &config).error();
            assert_eq!(code, expected, "{verb}");
            assert!(text.contains("not running"), "{text}");
            assert!(text.contains(socket.to_str().unwrap()), "{text}");
            assert!(start.elapsed() < Duration::from_secs(5));
        }
    }
}

#[test]
fn a_daemon_that_is_slow_is_a_retryable_error_that_says_so() {
    let daemon = Daemon::serving(|_| thread::sleep(Duration::from_secs(30)));
    let mut config = daemon.config("1.1.0");
    config["timeout_seconds"] = json!(1);
    for (verb, expected) in [
        ("ADD", code::TRY_AGAIN_LATER),
        ("STATUS", code::PLUGIN_NOT_AVAILABLE),
    ] {
        let start = Instant::now();
        let (code, text) = run(verb, &config).error();
        assert_eq!(code, expected);
        assert!(text.contains("did not answer within 1 s"), "{text}");
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn a_daemon_that_drips_does_not_outlast_the_timeout() {
    let daemon = Daemon::serving(|stream| {
        while stream.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(100));
        }
    });
    let mut config = daemon.config("0.3.1");
    config["timeout_seconds"] = json!(1);
    let start = Instant::now();
    assert_eq!(run("ADD", &config).error().0, code::TRY_AGAIN_LATER);
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_daemon_that_restarts_in_the_middle_is_a_retryable_error() {
    let daemon = Daemon::serving(|stream| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
            .unwrap();
    });
    let (code, text) = run("ADD", &daemon.config("0.3.1")).error();
    assert_eq!(code, code::TRY_AGAIN_LATER);
    assert!(text.contains("broke off"), "{text}");
}

#[test]
fn a_daemon_that_comes_a_moment_later_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let config =
        json!({ "cniVersion": "0.3.1", "name": "n", "type": "kube-ovn", "server_socket": socket });
    let late = thread::spawn(move || {
        thread::sleep(Duration::from_millis(700));
        let (mut stream, _) = UnixListener::bind(socket).unwrap().accept().unwrap();
        read_request(&stream);
        stream
            .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
            .unwrap();
    });
    assert!(run("DEL", &config).success);
    late.join().unwrap();
}
