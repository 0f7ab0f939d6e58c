//! `ssl:` remotes against a real ovsdb-server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{Follower, northbound, switch};
use ovsdb::client::{Client, ClientConfig, ConfigError, Remote, TlsConfig};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use testkit::ovn::{Schema, Server, ServerOptions, Tls};

/// A CA that makes certificates as ovs-pki does: whoever it is for, the name is `ovn`.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: tempfile::TempDir,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, dir }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    fn issue(&self, who: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["ovn".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let (key_file, certificate_file) = (
            self.path(&format!("{who}-key.pem")),
            self.path(&format!("{who}-cert.pem")),
        );
        fs::write(&key_file, key.serialize_pem()).unwrap();
        fs::write(&certificate_file, certificate.pem()).unwrap();
        (key_file, certificate_file)
    }

    fn server(&self) -> Tls {
        let (private_key, certificate) = self.issue("server");
        Tls {
            private_key,
            certificate,
            ca_cert: self.path("ca.pem"),
        }
    }

    fn client(&self, ca_cert: &Path) -> TlsConfig {
        let (private_key, certificate) = self.issue("client");
        TlsConfig {
            private_key,
            certificate,
            ca_cert: ca_cert.to_owned(),
            server_name: None,
        }
    }
}

fn start(authority: &Authority) -> Server {
    Server::start_with(
        Schema::Northbound,
        ServerOptions {
            tls: Some(authority.server()),
            ..ServerOptions::default()
        },
    )
}

fn config(server: &Server, tls: TlsConfig) -> ClientConfig {
    let mut config = northbound(&server.ssl_remote());
    config.tls = Some(tls);
    config
}

async fn problem(config: ClientConfig) -> String {
    let f = Follower::start(config);
    let mut watch = f.handle.watch();
    let status = tokio::time::timeout(
        Duration::from_secs(10),
        watch.wait_for(|s| s.problem.is_some() || s.is_live()),
    );
    let status = status.await.unwrap().unwrap().clone();
    assert!(!status.is_live(), "{status}");
    status.problem.unwrap()
}

#[tokio::test]
async fn certificates_of_one_authority_trust_each_other() {
    let authority = Authority::new("pki");
    let server = start(&authority);
    let tls = authority.client(&authority.path("ca.pem"));
    let mut f = Follower::live(config(&server, tls.clone())).await;
    f.commit(1, vec![switch("sw")]).await.unwrap();
    // More than one TLS record in both directions.
    let many = (0..3000).map(|i| switch(&format!("sw{i}"))).collect();
    f.commit(2, many).await.unwrap();
    assert_eq!(f.replica.count("Logical_Switch"), 3001);

    let named = TlsConfig {
        server_name: Some("ovn".to_owned()),
        ..tls.clone()
    };
    assert!(Follower::live(config(&server, named)).await.synced);

    let other_name = TlsConfig {
        server_name: Some("elsewhere".to_owned()),
        ..tls
    };
    let problem = problem(config(&server, other_name)).await;
    assert!(problem.contains("not valid for name"), "{problem}");
}

#[tokio::test]
async fn a_file_that_is_of_no_use_is_named() {
    let authority = Authority::new("pki");
    let server = start(&authority);
    let tls = authority.client(&authority.path("ca.pem"));
    let (other_key, _) = authority.issue("other");
    let torn = authority.path("torn.pem");
    fs::write(
        &torn,
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    let of_another = TlsConfig {
        private_key: other_key.clone(),
        ..tls.clone()
    };
    let no_key = TlsConfig {
        private_key: tls.certificate.clone(),
        ..tls.clone()
    };
    let no_ca = TlsConfig {
        ca_cert: torn.clone(),
        ..tls.clone()
    };
    for (config_of, file) in [
        (of_another, other_key),
        (no_key, tls.certificate.clone()),
        (no_ca, torn),
    ] {
        let problem = problem(config(&server, config_of)).await;
        assert!(problem.contains(file.to_str().unwrap()), "{problem}");
    }
}

#[tokio::test]
async fn strangers_are_refused_in_both_directions() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let server = start(&ours);
    let we_distrust = ours.client(&theirs.path("ca.pem"));
    let problem_here = problem(config(&server, we_distrust)).await;
    assert!(problem_here.contains("UnknownIssuer"), "{problem_here}");
    // The server refuses a client of another authority.
    let it_distrusts = theirs.client(&ours.path("ca.pem"));
    problem(config(&server, it_distrusts)).await;
}

#[tokio::test]
async fn renewed_certificates_are_read_at_the_next_connect() {
    let authority = Authority::new("pki");
    let mut server = start(&authority);
    let tls = authority.client(&authority.path("ca.pem"));
    let missing = TlsConfig {
        certificate: authority.path("not-yet.pem"),
        ..tls.clone()
    };
    let mut f = Follower::start(config(&server, missing));
    let status = f.problem().await.to_string();
    assert!(status.contains("not-yet.pem"), "{status}");
    fs::copy(&tls.certificate, authority.path("not-yet.pem")).unwrap();
    f.until(|f| f.synced).await;
    server.restart();
    f.until(|f| f.connections == 2 && f.synced).await;
}

#[tokio::test]
async fn a_configuration_that_cannot_work_is_refused_at_once() {
    let remotes = |text| Remote::parse_list(text).unwrap();
    let connect = |config| Client::connect(config).map(|_| ()).unwrap_err();
    assert_eq!(
        connect(ClientConfig::new(vec![], "D")),
        ConfigError::NoRemotes
    );
    let ssl = remotes("ssl:[2001:db8::1]:6641");
    assert_eq!(
        connect(ClientConfig::new(ssl.clone(), "D")),
        ConfigError::NoTls(ssl[0].clone())
    );
    for (wrong, why) in [
        ("tcp:1.2.3.4", "no port"),
        ("tcp:1.2.3.4:0", "not a number"),
        ("tcp:2001:db8::1:6641", "brackets"),
        ("ssl:[::1:6641", "not closed"),
        ("tcp::6641", "no host"),
        ("unix:", "no path"),
        ("http:x", "expected unix:PATH"),
    ] {
        let error = Remote::parse_list(wrong).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains(wrong), "{error}");
    }
    let list = "unix:/run/ovn/ovnnb_db.sock,tcp:[::1]:6641, ssl:nb.example:6641";
    let printed: Vec<_> = remotes(list).iter().map(ToString::to_string).collect();
    assert_eq!(printed.join(", "), list.replace(",tcp", ", tcp"));
}
