//! Certificates and kubeconfigs of a lab.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::lab::{Lab, Node};

/// Users that exist in every lab: file name, organization (Kubernetes group), common name (Kubernetes user).
const USERS: [(&str, &str, &str); 7] = [
    ("admin", "system:masters", "admin"),
    (
        "kube-controller-manager",
        "",
        "system:kube-controller-manager",
    ),
    ("kube-scheduler", "", "system:kube-scheduler"),
    ("kube-proxy", "", "system:kube-proxy"),
    ("kube-ovn-controller", "kube-ovn", "kube-ovn-controller"),
    ("kube-ovn-cni", "kube-ovn", "kube-ovn-cni"),
    (
        "kubelet-client",
        "system:masters",
        "kube-apiserver-kubelet-client",
    ),
];

type Authority = Issuer<'static, KeyPair>;

/// Make what is missing below `pki/`. The authority is made once; nodes may be added later.
pub fn ensure(lab: &Lab) -> Result<()> {
    let dir = lab.dir.join("pki");
    if !dir.join("ca.crt").exists() {
        fs::create_dir_all(&dir)?;
        let front = authority("front-proxy-ca")?;
        store(&dir, "front-proxy-ca", &front.0, &front.1)?;
        issue(
            &dir,
            "front-proxy-client",
            "",
            "front-proxy-client",
            &[],
            &issuer(&front)?,
        )?;
        let accounts = KeyPair::generate()?;
        write(&dir.join("sa.key"), &accounts.serialize_pem())?;
        write(&dir.join("sa.pub"), &accounts.public_key_pem())?;

        let ca = authority("kubernetes-ca")?;
        let signer = issuer(&ca)?;
        issue(
            &dir,
            "apiserver",
            "",
            "kube-apiserver",
            &server_names(lab)?,
            &signer,
        )?;
        for (file, group, user) in USERS {
            issue(&dir, file, group, user, &[], &signer)?;
            kubeconfig(lab, file)?;
        }
        // Last: its presence says that the rest is there.
        store(&dir, "ca", &ca.0, &ca.1)?;
    }
    for node in &lab.nodes {
        ensure_node(lab, node)?;
    }
    Ok(())
}

/// The certificate of a node's kubelet, for both of its roles.
pub fn ensure_node(lab: &Lab, node: &Node) -> Result<()> {
    let dir = lab.dir.join("pki");
    if dir.join(format!("{}.kubeconfig", node.name)).exists() {
        return Ok(());
    }
    let key = KeyPair::from_pem(&fs::read_to_string(dir.join("ca.key"))?)?;
    let signer = Issuer::new(authority_params("kubernetes-ca")?, key);
    let mut names = vec![SanType::IpAddress(node.address().into())];
    if lab.spec.dual_stack {
        names.push(SanType::IpAddress(node.address6().into()));
    }
    let user = format!("system:node:{}", node.name);
    issue(&dir, &node.name, "system:nodes", &user, &names, &signer)?;
    kubeconfig(lab, &node.name)
}

fn server_names(lab: &Lab) -> Result<Vec<SanType>> {
    let mut names = Vec::new();
    for name in [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ] {
        names.push(SanType::DnsName(name.try_into()?));
    }
    let mut addresses: Vec<IpAddr> = vec![
        "127.0.0.1".parse()?,
        "::1".parse()?,
        "10.68.0.1".parse()?,
        "fd00:10:68::1".parse()?,
        lab.control_address()?,
    ];
    addresses.push(lab.first()?.address6().into());
    names.extend(addresses.into_iter().map(SanType::IpAddress));
    Ok(names)
}

fn authority_params(name: &str) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    Ok(params)
}

fn authority(name: &str) -> Result<(KeyPair, rcgen::Certificate)> {
    let key = KeyPair::generate()?;
    let certificate = authority_params(name)?.self_signed(&key)?;
    Ok((key, certificate))
}

fn issuer(authority: &(KeyPair, rcgen::Certificate)) -> Result<Authority> {
    let name = if authority.1.der().windows(11).any(|w| w == b"front-proxy") {
        "front-proxy-ca"
    } else {
        "kubernetes-ca"
    };
    let key = KeyPair::from_pem(&authority.0.serialize_pem())?;
    Ok(Issuer::new(authority_params(name)?, key))
}

fn issue(
    dir: &Path,
    file: &str,
    group: &str,
    user: &str,
    names: &[SanType],
    signer: &Authority,
) -> Result<()> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    if !group.is_empty() {
        params
            .distinguished_name
            .push(DnType::OrganizationName, group);
    }
    params.distinguished_name.push(DnType::CommonName, user);
    params.subject_alt_names = names.to_vec();
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::ServerAuth,
    ];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, signer)?;
    store(dir, file, &key, &certificate)
}

fn store(dir: &Path, file: &str, key: &KeyPair, certificate: &rcgen::Certificate) -> Result<()> {
    write(&dir.join(format!("{file}.key")), &key.serialize_pem())?;
    write(&dir.join(format!("{file}.crt")), &certificate.pem())
}

fn write(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn kubeconfig(lab: &Lab, user: &str) -> Result<()> {
    let dir = lab.dir.join("pki");
    let path = dir.display();
    let server = format!("https://{}:6443", lab.control_address()?);
    write(
        &dir.join(format!("{user}.kubeconfig")),
        &format!(
            "apiVersion: v1\n\
             kind: Config\n\
             clusters:\n\
             - name: {name}\n  cluster:\n    server: {server}\n    certificate-authority: {path}/ca.crt\n\
             users:\n\
             - name: {user}\n  user:\n    client-certificate: {path}/{user}.crt\n    client-key: {path}/{user}.key\n\
             contexts:\n\
             - name: {name}\n  context:\n    cluster: {name}\n    user: {user}\n\
             current-context: {name}\n",
            name = lab.name
        ),
    )
}
