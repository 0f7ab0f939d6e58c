//! The two doors between a lab and the machine's own network, both in one process and without touching that network:
//!
//! ```text
//!   machine  127.0.0.1:PORT ──────────────> 192.168.1.41:6443   in the first node   (KUBECONFIG for any tool)
//!   ext      192.168.1.1:3128 (CONNECT) ──> anywhere            in the machine      (containerd pulls other images)
//! ```
//! A thread may enter another network namespace by itself, and a socket stays where it was made; so a connection is
//! opened by a thread that stands on one side and copied by threads that do not care.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns};

use crate::lab::{Lab, Launch, OUTSIDE, Place};
use crate::network::EXT;

/// Where nodes find the way out of the lab.
pub const PROXY_PORT: u16 = 3128;
/// How long a connection may take to open.
const DIAL: Duration = Duration::from_secs(10);

fn port_file(dir: &Path) -> PathBuf {
    dir.join("relay.port")
}

/// The kubeconfig that works from the machine itself.
pub fn kubeconfig(lab: &Lab) -> PathBuf {
    lab.dir.join("kubeconfig")
}

/// Start the relay and write the kubeconfig that goes through it.
pub fn ensure(lab: &Lab) -> Result<()> {
    let holder = |component: &str, node: Option<&str>| {
        lab.record(component, node)
            .map(|r| r.pid.to_string())
            .with_context(|| format!("{component} has no holder"))
    };
    let first = lab.first()?;
    let own = std::env::current_exe().context("cannot find the path of this program")?;
    lab.ensure(&Launch {
        component: "relay",
        node: None,
        place: Place::Host,
        program: &own.to_string_lossy(),
        args: vec![
            "relay".into(),
            lab.dir.display().to_string(),
            holder("node", Some(&first.name))?,
            format!("{}:6443", first.address()),
            holder(EXT, None)?,
        ],
        env: Vec::new(),
        watch_program: false,
    })?;
    let file = port_file(&lab.dir);
    let port = crate::command::wait_for("the relay", DIAL, || {
        if let Err(error) = lab.must_live("relay", None) {
            return Ok(Some(Err(error)));
        }
        Ok(std::fs::read_to_string(&file).ok().map(Ok))
    })??;
    let inside = std::fs::read_to_string(lab.pki("admin.kubeconfig"))?;
    let outside = inside.replace(
        &format!("https://{}:6443", first.address()),
        &format!("https://127.0.0.1:{port}"),
    );
    crate::lab::write_if_changed(&kubeconfig(lab), &outside)
}

/// The body of the process: `relay DIR NODE-PID API EXT-PID`.
pub fn main(dir: &Path, node: i32, api: SocketAddr, ext: i32) -> Result<()> {
    let door = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen on 127.0.0.1")?;
    let port = door.local_addr()?.port();
    let namespace = File::open(format!("/proc/{node}/ns/net"))?;
    thread::spawn(move || serve_api(&door, &namespace, api));

    let (calls, called) = mpsc::sync_channel::<TcpStream>(64);
    let outside = File::open(format!("/proc/{ext}/ns/net"))?;
    thread::spawn(move || {
        if let Err(error) = listen_outside(&outside, &calls) {
            eprintln!("no way out: {error:#}");
        }
    });
    crate::lab::write_atomic(&port_file(dir), &port.to_string())?;
    // This thread never leaves the machine's own namespace, and neither do those that it makes.
    for call in called {
        thread::spawn(move || {
            if let Err(error) = go_out(call) {
                eprintln!("{error:#}");
            }
        });
    }
    // The way out could not be opened; the other door still works.
    loop {
        thread::park();
    }
}

fn serve_api(door: &TcpListener, namespace: &File, api: SocketAddr) {
    if let Err(error) = setns(namespace, CloneFlags::CLONE_NEWNET) {
        eprintln!("cannot enter the first node: {error}");
        return;
    }
    for client in door.incoming().flatten() {
        thread::spawn(move || match TcpStream::connect_timeout(&api, DIAL) {
            Ok(server) => join(client, server),
            Err(error) => eprintln!("{api}: {error}"),
        });
    }
}

fn listen_outside(namespace: &File, calls: &mpsc::SyncSender<TcpStream>) -> Result<()> {
    setns(namespace, CloneFlags::CLONE_NEWNET).context("cannot enter the host outside")?;
    let listener = TcpListener::bind((OUTSIDE, PROXY_PORT))?;
    for client in listener.incoming().flatten() {
        if calls.send(client).is_err() {
            bail!("nobody takes calls any more");
        }
    }
    Ok(())
}

/// One call for the way out: `CONNECT host:port HTTP/1.1`.
fn go_out(client: TcpStream) -> Result<()> {
    client.set_read_timeout(Some(DIAL))?;
    let mut reader = BufReader::new(client.try_clone()?.take(16 << 10));
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            bail!("a call ended before its head");
        }
    }
    client.set_read_timeout(None)?;
    let mut client = client;
    let Some(target) = target(&head) else {
        client.write_all(b"HTTP/1.1 405 Only CONNECT\r\nContent-Length: 0\r\n\r\n")?;
        return Ok(());
    };
    // A machine that itself needs a proxy says so in its environment; then the call is passed on as it is.
    let proxy = ["HTTPS_PROXY", "https_proxy"]
        .iter()
        .find_map(|name| std::env::var(name).ok());
    let next = proxy.as_deref().map_or(target, |url| {
        url.split_once("://")
            .map_or(url, |(_, rest)| rest)
            .trim_end_matches('/')
    });
    match dial(next) {
        Ok(mut server) => {
            if proxy.is_some() {
                server.write_all(head.as_bytes())?;
            } else {
                client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
            }
            join(client, server);
        }
        Err(error) => {
            client.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")?;
            return Err(error.context(format!("cannot reach {next}")));
        }
    }
    Ok(())
}

fn target(head: &str) -> Option<&str> {
    let mut words = head.lines().next()?.split(' ');
    (words.next()? == "CONNECT").then(|| words.next()).flatten()
}

fn dial(name: &str) -> Result<TcpStream> {
    let mut last = anyhow::anyhow!("{name} has no address");
    for address in name.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, DIAL) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

/// Copy both ways until both sides are done.
fn join(mut client: TcpStream, mut server: TcpStream) {
    let (Ok(mut from_client), Ok(mut to_server)) = (client.try_clone(), server.try_clone()) else {
        return;
    };
    let up = thread::spawn(move || {
        let _ = std::io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    });
    let _ = std::io::copy(&mut server, &mut client);
    let _ = client.shutdown(Shutdown::Write);
    let _ = up.join();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_connect_is_understood() {
        assert_eq!(
            target("CONNECT registry-1.docker.io:443 HTTP/1.1\r\nHost: x\r\n\r\n"),
            Some("registry-1.docker.io:443")
        );
        assert_eq!(target("GET / HTTP/1.1\r\n\r\n"), None);
        assert_eq!(target(""), None);
    }

    #[test]
    fn joined_streams_carry_both_ways_and_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let echo = TcpListener::bind("127.0.0.1:0").unwrap();
        let echo_address = echo.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = echo.accept().unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            stream.write_all(text.to_uppercase().as_bytes()).unwrap();
        });
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (inside, _) = listener.accept().unwrap();
        let server = TcpStream::connect(echo_address).unwrap();
        thread::spawn(move || join(inside, server));
        client.write_all(b"hello").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "HELLO");
    }
}
