//! One standalone ovsdb-server.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::{PATIENCE, Schema, appctl, tempdir};
use crate::process::{Process, program, run, wait_for};

/// Certificates of a server, as PEM files.
#[derive(Clone, Debug)]
pub struct Tls {
    pub private_key: PathBuf,
    pub certificate: PathBuf,
    pub ca_cert: PathBuf,
}

/// What a server listens on besides its unix socket.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    /// Plain TCP on 127.0.0.1.
    pub tcp: bool,
    /// TLS on 127.0.0.1; clients need a certificate of the same CA.
    pub tls: Option<Tls>,
}

/// A standalone ovsdb-server with one database.
#[derive(Debug)]
pub struct Server {
    schema: Schema,
    options: ServerOptions,
    ports: [u16; 2],
    process: Option<Process>,
    dir: TempDir,
}

/// A free TCP port of 127.0.0.1. It could be taken before it is used; the kernel hands them out in turn, so that this
/// does not happen in practice.
pub(super) fn free_port() -> u16 {
    TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))
        .and_then(|l| l.local_addr())
        .map_or_else(|e| panic!("a free port: {e}"), |a| a.port())
}

pub(super) fn command(dir: &Path, database: &Path, name: &str) -> Command {
    let mut command = Command::new(program("ovsdb-server", "openvswitch-common"));
    command
        .arg(database)
        .arg(format!(
            "--remote=punix:{}",
            dir.join(format!("{name}.sock")).display()
        ))
        .arg(format!(
            "--unixctl={}",
            dir.join(format!("{name}.ctl")).display()
        ))
        .args(["--no-chdir", "-vconsole:info", "-vsyslog:off", "-vfile:off"])
        .env("OVS_RUNDIR", dir)
        .current_dir(dir);
    command
}

impl Server {
    /// Starts a server with an empty database on a unix socket.
    ///
    /// # Panics
    ///
    /// If a program is missing or the server does not come up.
    pub fn start(schema: Schema) -> Self {
        Self::start_with(schema, ServerOptions::default())
    }

    pub fn start_with(schema: Schema, options: ServerOptions) -> Self {
        let dir = tempdir();
        let tool = program("ovsdb-tool", "openvswitch-common");
        let file = dir.path().join("db");
        run(
            &tool,
            [
                "create".as_ref(),
                file.as_os_str(),
                schema.path().as_os_str(),
            ],
        );
        let mut server = Self {
            schema,
            options,
            ports: [free_port(), free_port()],
            process: None,
            dir,
        };
        server.restart();
        server
    }

    /// Starts it again, on the same addresses and with the contents that are on disk. Kills it first if it runs.
    pub fn restart(&mut self) {
        self.process = None;
        let dir = self.dir.path();
        let mut command = command(dir, &dir.join("db"), "db");
        if self.options.tcp {
            command.arg(format!("--remote=ptcp:{}:127.0.0.1", self.ports[0]));
        }
        if let Some(tls) = &self.options.tls {
            command
                .arg(format!("--remote=pssl:{}:127.0.0.1", self.ports[1]))
                .arg(format!("--private-key={}", tls.private_key.display()))
                .arg(format!("--certificate={}", tls.certificate.display()))
                .arg(format!("--ca-cert={}", tls.ca_cert.display()));
        }
        let mut process = Process::spawn(command, &dir.join("db.log"));
        wait_for("ovsdb-server listens", PATIENCE, || {
            process.assert_running("ovsdb-server");
            let connects = |port: u16| TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port)));
            UnixStream::connect(dir.join("db.sock")).ok()?;
            if self.options.tcp {
                connects(self.ports[0]).ok()?;
            }
            if self.options.tls.is_some() {
                connects(self.ports[1]).ok()?;
            }
            Some(())
        });
        self.process = Some(process);
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        self.process = None;
    }

    pub fn freeze(&self) {
        self.process().freeze();
    }

    pub fn thaw(&self) {
        self.process().thaw();
    }

    /// # Panics
    ///
    /// If it was killed.
    pub fn process(&self) -> &Process {
        self.process
            .as_ref()
            .unwrap_or_else(|| panic!("the server was killed"))
    }

    /// The temporary directory it lives in.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("db.sock")
    }

    /// `unix:PATH`.
    pub fn remote(&self) -> String {
        format!("unix:{}", self.socket().display())
    }

    /// `tcp:127.0.0.1:PORT`, if asked for.
    pub fn tcp_remote(&self) -> String {
        format!("tcp:127.0.0.1:{}", self.ports[0])
    }

    /// `ssl:127.0.0.1:PORT`, if asked for.
    pub fn ssl_remote(&self) -> String {
        format!("ssl:127.0.0.1:{}", self.ports[1])
    }

    pub fn database(&self) -> &str {
        self.schema.database()
    }

    /// Runs `ovn-nbctl`, `ovn-sbctl` or `ovs-vsctl`, whichever fits.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub fn ctl<S: Into<String>>(&self, args: impl IntoIterator<Item = S>) -> String {
        let args = args.into_iter().map(Into::into).collect();
        self.schema.ctl(&self.remote(), args)
    }

    /// Asks the server itself (ovsdb-server(1), RUNTIME MANAGEMENT COMMANDS).
    pub fn appctl(&self, args: &[&str]) -> Option<String> {
        appctl(&self.dir.path().join("db.ctl"), args)
    }
}
