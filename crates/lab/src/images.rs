//! Container images without internet: Debian packages and our Go programs, laid out as the storage of `docker-registry`.
//!
//! Packages are fetched and unpacked by apt and dpkg-deb (nothing is installed), split into layers that the images
//! share, and written where the registry reads them: `docker/registry/v2/{blobs,repositories}`. Layers are plain tar
//! files: on one machine copying is cheaper than compressing.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::command::capture;
use crate::lab::{Lab, Launch, Place, REGISTRY};
use crate::process::hex;
use crate::progress::Step;

/// The sandbox image of every pod.
pub const PAUSE: &str = "registry.k8s.io/pause:3.10";
/// Cluster DNS.
pub const COREDNS: &str = "registry.k8s.io/coredns/coredns:v1.14.3";
/// Kubernetes' test program, with curl, dig and nc beside it.
pub const AGNHOST: &str = "registry.k8s.io/e2e-test-images/agnhost:2.59";
/// The images of the walk-through, by the names that its commands use.
pub const BUSYBOX: &str = "busybox";
/// See [`BUSYBOX`].
pub const NGINX: &str = "nginx";

/// Packages of each layer; what the base brings is left out of the others.
const BASE: [&str; 3] = ["busybox", "dash", "libc-bin"];
const WEB: [&str; 1] = ["nginx-light"];
const TOOLS: [&str; 6] = [
    "curl",
    "bind9-dnsutils",
    "netcat-openbsd",
    "iproute2",
    "iputils-ping",
    "iperf3",
];

/// A change here makes new images.
const RECIPE: &str = "7";

const PAUSE_SOURCE: &str = include_str!("../../../lab/images/pause.c");

struct Image {
    /// Repository and tag as the registry sees them (`library/nginx`, `latest`).
    names: &'static [(&'static str, &'static str)],
    layers: &'static [&'static str],
    entrypoint: &'static [&'static str],
    command: &'static [&'static str],
}

const IMAGES: [Image; 5] = [
    Image {
        names: &[("pause", "3.10"), ("pause", "3.10.1")],
        layers: &["pause"],
        entrypoint: &["/pause"],
        command: &[],
    },
    Image {
        names: &[
            ("library/busybox", "latest"),
            ("e2e-test-images/busybox", "1.37.0-1"),
        ],
        layers: &["base"],
        entrypoint: &[],
        command: &["sh"],
    },
    Image {
        names: &[
            ("library/nginx", "latest"),
            ("library/nginx", "alpine"),
            ("e2e-test-images/nginx", "1.15-4"),
        ],
        layers: &["base", "nginx"],
        entrypoint: &[],
        command: &["nginx", "-g", "daemon off;"],
    },
    Image {
        names: &[
            ("e2e-test-images/agnhost", "2.59"),
            ("e2e-test-images/agnhost", "2.56"),
            ("e2e-test-images/jessie-dnsutils", "1.7"),
        ],
        // The DNS specs run the image's own /coredns as a server beside the cluster's.
        layers: &["base", "tools", "agnhost", "coredns"],
        entrypoint: &["/agnhost"],
        command: &["pause"],
    },
    Image {
        names: &[("coredns/coredns", "v1.14.3")],
        layers: &["coredns"],
        entrypoint: &["/coredns"],
        command: &[],
    },
];

/// The registry's storage that belongs to this program.
pub fn storage() -> PathBuf {
    let mut hash = Sha256::new();
    hash.update(RECIPE);
    hash.update(PAUSE_SOURCE);
    hash.update(crate::cache::kubernetes().to_string_lossy().as_bytes());
    crate::cache::root().join(format!("images-{}", &hex(&hash.finalize())[..12]))
}

/// Are the images there?
pub fn built() -> bool {
    storage().join("docker").exists()
}

/// Put the images together. The Kubernetes programs are built already.
pub fn build(step: &Step) -> Result<()> {
    if built() {
        return Ok(());
    }
    fs::create_dir_all(crate::cache::root())?;
    let work = tempfile::Builder::new()
        .prefix("images-")
        .tempdir_in(crate::cache::root())?;
    let work = work.path();
    let mut base = BTreeSet::new();
    for (layer, packages) in [("base", &BASE[..]), ("nginx", &WEB), ("tools", &TOOLS)] {
        step.now(format!("images: Debian packages of layer {layer}"));
        let brought = unpack(work, layer, packages, &base)?;
        if layer == "base" {
            base = brought;
        }
    }
    finish_base(&work.join("base"))?;
    finish_nginx(&work.join("nginx"))?;
    // Debian would choose by alternatives; the base's `nc` is busybox's, which has no UDP.
    fs::create_dir_all(work.join("tools/bin"))?;
    symlink("nc.openbsd", work.join("tools/bin/nc"))?;
    step.now("images: write");
    program(work, "pause", &pause(work)?)?;
    let bin = crate::cache::kubernetes().join("bin");
    for name in ["agnhost", "coredns"] {
        program(work, name, &bin.join(name))?;
    }
    let fresh = work.join("storage");
    let mut layers: std::collections::BTreeMap<&str, Blob> = std::collections::BTreeMap::new();
    for image in &IMAGES {
        for name in image.layers {
            if !layers.contains_key(name) {
                layers.insert(name, layer(&fresh, work, name)?);
            }
        }
        let parts: Vec<Blob> = image
            .layers
            .iter()
            .filter_map(|n| layers.get(n))
            .cloned()
            .collect();
        write_image(&fresh, image, &parts)?;
    }
    let target = storage();
    fs::create_dir_all(&target)?;
    fs::rename(fresh.join("docker"), target.join("docker"))
        .with_context(|| format!("cannot write {}", target.display()))
}

/// Fetch the closure of some packages and unpack what is not in `base` into `work/<layer>`; says what that was.
fn unpack(
    work: &Path,
    layer: &str,
    packages: &[&str],
    base: &BTreeSet<String>,
) -> Result<BTreeSet<String>> {
    let status = work.join("status");
    fs::write(&status, "")?;
    // With an empty list of installed packages, apt's simulation names the whole closure; its caches stay as they are.
    let options = [
        format!("-oDir::State::status={}", status.display()),
        "-oDir::Cache::pkgcache=".into(),
        "-oDir::Cache::srcpkgcache=".into(),
        "-oAPT::Install-Recommends=false".into(),
        "-oAPT::Install-Suggests=false".into(),
        "-oAPT::Sandbox::User=root".into(),
    ];
    let plan = capture(
        Command::new("apt-get")
            .args(&options)
            .args(["-s", "-qq", "install"])
            .args(packages),
    )
    .context("apt cannot resolve the packages of the images; run `apt-get update` once")?;
    let closure: BTreeSet<String> = plan
        .lines()
        .filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next())
        // Maintainer scripts do not run here, so what only they use is left out.
        .filter(|name| !matches!(*name, "debconf" | "dpkg" | "tar" | "mawk"))
        .filter(|name| !base.contains(*name))
        .map(str::to_owned)
        .collect();
    let debs = work.join("debs").join(layer);
    fs::create_dir_all(&debs)?;
    capture(
        Command::new("apt-get")
            .args(&options)
            .args(["-q", "download"])
            .args(&closure)
            .current_dir(&debs),
    )
    .context("cannot fetch the packages of the images")?;
    let root = work.join(layer);
    fs::create_dir_all(&root)?;
    for deb in fs::read_dir(&debs)?.flatten() {
        capture(
            Command::new("dpkg-deb")
                .arg("-x")
                .arg(deb.path())
                .arg(&root),
        )?;
    }
    for waste in [
        "usr/share/doc",
        "usr/share/man",
        "usr/share/locale",
        "usr/share/info",
        "usr/share/lintian",
        "usr/share/bug",
        "etc/init.d",
        "lib/systemd",
    ] {
        let _ = fs::remove_dir_all(root.join(waste));
    }
    Ok(closure)
}

/// What maintainer scripts would have done for the base: users, resolver order, the links of busybox and sh.
fn finish_base(root: &Path) -> Result<()> {
    for folder in [
        "tmp", "run", "etc", "bin", "root", "var/log", "proc", "sys", "dev",
    ] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/false\nnobody:x:65534:65534::/:/bin/false\n",
    )?;
    fs::write(
        root.join("etc/group"),
        "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n",
    )?;
    fs::write(
        root.join("etc/nsswitch.conf"),
        "hosts: files dns\npasswd: files\ngroup: files\n",
    )?;
    let busybox = ["bin/busybox", "usr/bin/busybox"]
        .iter()
        .map(|p| root.join(p))
        .find(|p| p.exists())
        .context("Debian's busybox package has no busybox")?;
    let applets = capture(Command::new(&busybox).arg("--list"))?;
    let inside = Path::new("/").join(busybox.strip_prefix(root)?);
    for applet in applets.lines() {
        let there = ["bin", "usr/bin", "sbin", "usr/sbin"]
            .iter()
            .any(|folder| root.join(folder).join(applet).symlink_metadata().is_ok());
        if !there {
            symlink(&inside, root.join("bin").join(applet))?;
        }
    }
    Ok(())
}

fn finish_nginx(root: &Path) -> Result<()> {
    for folder in [
        "var/log/nginx",
        "var/lib/nginx",
        "usr/share/nginx/html",
        "etc/nginx/conf.d",
        "run",
    ] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::write(
        root.join("usr/share/nginx/html/index.html"),
        "<!DOCTYPE html>\n<title>Welcome to nginx!</title>\n<h1>Welcome to nginx!</h1>\n",
    )?;
    // The site links are made by a maintainer script; conf.d is read without one.
    fs::write(
        root.join("etc/nginx/conf.d/default.conf"),
        "server { listen 80 default_server; listen [::]:80 default_server; root /usr/share/nginx/html; }\n",
    )?;
    // One worker is plenty, and ninety pods of it must fit into a small machine.
    let file = root.join("etc/nginx/nginx.conf");
    let conf = fs::read_to_string(&file)?;
    fs::write(
        &file,
        conf.replace("worker_processes auto;", "worker_processes 1;"),
    )?;
    Ok(())
}

/// The program that holds a pod's namespaces, as small as it gets.
fn pause(work: &Path) -> Result<PathBuf> {
    let source = work.join("pause.c");
    fs::write(&source, PAUSE_SOURCE)?;
    let out = work.join("pause.bin");
    capture(
        Command::new("gcc")
            .args(["-Os", "-static", "-s", "-o"])
            .arg(&out)
            .arg(&source),
    )?;
    Ok(out)
}

/// A layer with one program at its root.
fn program(work: &Path, name: &str, from: &Path) -> Result<()> {
    let root = work.join(name);
    fs::create_dir_all(&root)?;
    fs::copy(from, root.join(name)).with_context(|| format!("cannot copy {}", from.display()))?;
    fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o755))?;
    Ok(())
}

#[derive(Clone)]
struct Blob {
    digest: String,
    size: u64,
}

/// Write a blob where the registry looks for it.
fn blob(storage: &Path, bytes: &[u8]) -> Result<Blob> {
    let digest = hex(&Sha256::digest(bytes));
    let folder = storage
        .join("docker/registry/v2/blobs/sha256")
        .join(&digest[..2])
        .join(&digest);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("data"), bytes)?;
    Ok(Blob {
        digest,
        size: bytes.len() as u64,
    })
}

/// Pack a folder as a layer; the same folder gives the same bytes.
fn layer(storage: &Path, work: &Path, name: &str) -> Result<Blob> {
    let root = work.join(name);
    let file = work.join(format!("{name}.tar"));
    let mut tar = tar::Builder::new(File::create(&file)?);
    pack(&mut tar, &root, &root)?;
    tar.into_inner()?.flush()?;
    let mut bytes = Vec::new();
    File::open(&file)?.read_to_end(&mut bytes)?;
    blob(storage, &bytes)
}

fn pack(tar: &mut tar::Builder<File>, root: &Path, folder: &Path) -> Result<()> {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)?.flatten().map(|e| e.path()).collect();
    entries.sort();
    for path in entries {
        let meta = fs::symlink_metadata(&path)?;
        let name = path.strip_prefix(root)?;
        let mut header = tar::Header::new_gnu();
        header.set_metadata(&meta);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        if meta.is_symlink() {
            header.set_size(0);
            tar.append_link(&mut header, name, fs::read_link(&path)?)?;
        } else if meta.is_dir() {
            header.set_size(0);
            tar.append_data(&mut header, name, std::io::empty())?;
            pack(tar, root, &path)?;
        } else if meta.is_file() {
            tar.append_data(&mut header, name, File::open(&path)?)?;
        } else {
            bail!("{} is neither file, folder nor link", path.display());
        }
    }
    Ok(())
}

fn write_image(storage: &Path, image: &Image, layers: &[Blob]) -> Result<()> {
    let digests: Vec<String> = layers
        .iter()
        .map(|l| format!("sha256:{}", l.digest))
        .collect();
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Entrypoint": image.entrypoint,
            "Cmd": image.command,
            "WorkingDir": "/",
        },
        // Uncompressed layers have one digest for both purposes.
        "rootfs": {"type": "layers", "diff_ids": digests},
    });
    let config = blob(storage, config.to_string().as_bytes())?;
    let kind = "application/vnd.oci.image";
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": format!("{kind}.manifest.v1+json"),
        "config": {
            "mediaType": format!("{kind}.config.v1+json"),
            "digest": format!("sha256:{}", config.digest),
            "size": config.size,
        },
        "layers": layers.iter().map(|l| json!({
            "mediaType": format!("{kind}.layer.v1.tar"),
            "digest": format!("sha256:{}", l.digest),
            "size": l.size,
        })).collect::<Vec<_>>(),
    });
    let manifest = blob(storage, manifest.to_string().as_bytes())?;
    for (repository, tag) in image.names {
        let root = storage
            .join("docker/registry/v2/repositories")
            .join(repository);
        for part in layers.iter().chain([&config]) {
            link(
                &root.join("_layers/sha256").join(&part.digest),
                &part.digest,
            )?;
        }
        link(
            &root
                .join("_manifests/revisions/sha256")
                .join(&manifest.digest),
            &manifest.digest,
        )?;
        let tag = root.join("_manifests/tags").join(tag);
        link(&tag.join("current"), &manifest.digest)?;
        link(
            &tag.join("index/sha256").join(&manifest.digest),
            &manifest.digest,
        )?;
    }
    Ok(())
}

fn link(folder: &Path, digest: &str) -> Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("link"), format!("sha256:{digest}"))?;
    Ok(())
}

/// Serve the images to the nodes, from the host outside.
pub fn serve(lab: &Lab) -> Result<()> {
    let file = lab.dir.join("registry.yaml");
    fs::write(
        &file,
        format!(
            "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: true}}}}\n\
             storage:\n  filesystem: {{rootdirectory: {}}}\n  maintenance: {{readonly: {{enabled: true}}}}\n\
             http: {{addr: \"{REGISTRY}\"}}\n",
            storage().display()
        ),
    )?;
    lab.ensure(&Launch {
        component: "registry",
        node: None,
        place: Place::Net(crate::network::EXT),
        program: "docker-registry",
        args: vec!["serve".into(), file.display().to_string()],
        env: Vec::new(),
        watch_program: false,
    })?;
    Ok(())
}
