//! Kubernetes' programs: found on the machine, or built once per version and kept outside the checkout.
//!
//! The Go modules of `lab/kubernetes` are part of this program, so that the cache depends on nothing but the program
//! itself: a build's folder is named after the Kubernetes version and a digest of all sources.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::preflight::which;
use crate::process::hex;
use crate::progress::Step;

/// The Kubernetes release that `lab/kubernetes/go.mod` pins.
pub const KUBERNETES: &str = "1.35.4";

/// The programs of a lab, all of them in one file (`kubebox`).
pub const PROGRAMS: [&str; 7] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
];

macro_rules! source {
    ($path:literal) => {
        (
            $path,
            include_str!(concat!("../../../lab/kubernetes/", $path)),
        )
    };
}

const SOURCES: [(&str, &str); 7] = [
    source!("go.mod"),
    source!("go.sum"),
    source!("kubebox/main.go"),
    source!("e2e/e2e_test.go"),
    source!("coredns/go.mod"),
    source!("coredns/go.sum"),
    source!("coredns/main.go"),
];

/// Everything that is built once lives here.
pub fn root() -> PathBuf {
    std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|p| p.is_absolute())
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
        .unwrap_or_else(|| "/var/cache".into())
        .join("kube-ovn-lab")
}

/// The folder of the Kubernetes build that belongs to this program.
pub fn kubernetes() -> PathBuf {
    let mut hash = Sha256::new();
    for (path, text) in SOURCES {
        hash.update(path);
        hash.update(text);
    }
    hash.update(flags());
    root().join(format!(
        "kubernetes-{KUBERNETES}-{}",
        &hex(&hash.finalize())[..12]
    ))
}

/// Where the programs come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A folder that has all of them.
    Folder(PathBuf),
    /// Our own build, which may have to be made first.
    Built(PathBuf),
}

/// The programs to use: `--kubernetes-bin`, `KUBEBUILDER_ASSETS`, PATH, our own build; the first that has all seven.
///
/// A mixture would put a kubelet beside an API server of another release, which Kubernetes supports in one direction
/// only; so a folder counts only if it is complete.
pub fn find(wanted: Option<&Path>) -> Result<Source> {
    if let Some(folder) = wanted {
        let lacking = lacking(folder);
        if !lacking.is_empty() {
            bail!("{} has no {}", folder.display(), lacking.join(", "));
        }
        return Ok(Source::Folder(fs::canonicalize(folder)?));
    }
    if let Some(folder) = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from)
        && lacking(&folder).is_empty()
    {
        return Ok(Source::Folder(fs::canonicalize(folder)?));
    }
    if let Some(folder) =
        which("kube-apiserver").and_then(|file| file.parent().map(Path::to_path_buf))
        && lacking(&folder).is_empty()
    {
        return Ok(Source::Folder(folder));
    }
    Ok(Source::Built(kubernetes().join("bin")))
}

fn lacking(folder: &Path) -> Vec<&'static str> {
    PROGRAMS
        .into_iter()
        .filter(|name| !folder.join(name).exists())
        .collect()
}

/// Are all programs of our own build there?
pub fn built() -> bool {
    let folder = kubernetes().join("bin");
    lacking(&folder).is_empty()
        && folder.join("agnhost").exists()
        && folder.join("coredns").exists()
}

/// Link flags: stripped, with the version that `kubectl version` and node objects show.
fn flags() -> String {
    let minor = KUBERNETES.split('.').nth(1).unwrap_or_default();
    let mut flags = "-s -w".to_owned();
    for package in [
        "k8s.io/component-base/version",
        "k8s.io/client-go/pkg/version",
    ] {
        for (name, value) in [
            ("gitVersion", format!("v{KUBERNETES}")),
            ("gitMajor", "1".to_owned()),
            ("gitMinor", minor.to_owned()),
            ("gitTreeState", "clean".to_owned()),
            (
                "gitCommit",
                "0000000000000000000000000000000000000000".to_owned(),
            ),
            ("buildDate", "2026-01-01T00:00:00Z".to_owned()),
        ] {
            let _ = write!(flags, " -X {package}.{name}={value}");
        }
    }
    flags
}

/// Build what is missing. Five to eight minutes on two cores with cold caches, a second when nothing changed.
pub fn build(step: &Step) -> Result<()> {
    if built() {
        return Ok(());
    }
    let folder = kubernetes();
    let source = unpack(&folder)?;
    let bin = folder.join("bin");
    fs::create_dir_all(&bin)?;
    go(
        step,
        "Kubernetes",
        &source,
        &["build"],
        "./kubebox",
        &bin.join("kubebox"),
        &flags(),
    )?;
    go(
        step,
        "agnhost",
        &source,
        &["build"],
        "k8s.io/kubernetes/test/images/agnhost",
        &bin.join("agnhost"),
        &flags(),
    )?;
    // A module of its own: with the others it would raise their version of grpc.
    go(
        step,
        "CoreDNS",
        &source.join("coredns"),
        &["build"],
        ".",
        &bin.join("coredns"),
        "-s -w",
    )?;
    for name in PROGRAMS {
        let link = bin.join(name);
        if !link.exists() {
            std::os::unix::fs::symlink("kubebox", link)?;
        }
    }
    Ok(())
}

/// Build Kubernetes' own test runner with the network suites; returns its path.
pub fn build_e2e(step: &Step) -> Result<PathBuf> {
    let folder = kubernetes();
    let runner = folder.join("bin/e2e-network.test");
    if !runner.exists() {
        let source = unpack(&folder)?;
        fs::create_dir_all(folder.join("bin"))?;
        go(
            step,
            "Kubernetes' network tests",
            &source,
            &["test", "-c", "-vet=off"],
            "./e2e",
            &runner,
            &flags(),
        )?;
    }
    Ok(runner)
}

fn unpack(folder: &Path) -> Result<PathBuf> {
    let source = folder.join("source");
    for (path, text) in SOURCES {
        let file = source.join(path);
        if let Some(parent) = file.parent() {
            fs::create_dir_all(parent)?;
        }
        if fs::read_to_string(&file).ok().as_deref() != Some(text) {
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        }
    }
    Ok(source)
}

fn go(
    step: &Step,
    what: &str,
    module: &Path,
    verb: &[&str],
    package: &str,
    out: &Path,
    flags: &str,
) -> Result<()> {
    if out.exists() {
        return Ok(());
    }
    let words = format!("build {what} (Go; minutes with cold caches)");
    step.now(&words);
    let fresh = out.with_extension("new");
    let program = which("go").context("Go is not installed")?;
    let mut child = Command::new(program)
        .args(verb)
        // -v prints each package as it is compiled: the progress.
        .args(["-v", "-trimpath", "-ldflags", flags, "-o"])
        .arg(&fresh)
        .arg(package)
        .current_dir(module)
        .env("CGO_ENABLED", "0")
        .env("GOWORK", "off")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start go")?;
    let mut said = Vec::new();
    let mut compiled = 0;
    if let Some(stream) = child.stderr.take() {
        for line in BufReader::new(stream).lines() {
            let line = line?;
            if line.starts_with("go: downloading") {
                step.now(format!("{words}: {}", line.trim_start_matches("go: ")));
            } else if !line.contains(' ') && line.contains('/') {
                compiled += 1;
                step.now(format!("{words}: {compiled} packages"));
            }
            said.push(line);
        }
    }
    let status = child.wait()?;
    if !status.success() {
        let end = said[said.len().saturating_sub(12)..].join("\n");
        bail!("cannot build {what} ({status}):\n{end}");
    }
    fs::rename(&fresh, out)?;
    Ok(())
}

/// Remove what older versions of this program built. Does nothing while a lab is up: it may use them.
pub fn prune() -> Result<()> {
    if !crate::lab::names().is_empty() {
        return Ok(());
    }
    let current = [kubernetes(), crate::images::storage()];
    for entry in fs::read_dir(root()).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let ours = name.starts_with("kubernetes-") || name.starts_with("images-");
        if ours && !current.contains(&path) {
            fs::remove_dir_all(&path)
                .with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// How long a build may be expected to take; for the message before it.
pub fn expected() -> Duration {
    Duration::from_mins(6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_one_of_the_module() {
        let module = SOURCES[0].1;
        assert!(module.contains(&format!("k8s.io/kubernetes v{KUBERNETES}\n")));
    }

    #[test]
    fn an_incomplete_folder_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("etcd"), "").unwrap();
        let error = find(Some(folder.path())).unwrap_err().to_string();
        assert!(error.contains("has no kube-apiserver"), "{error}");
    }
}
