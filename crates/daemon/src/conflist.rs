//! The CNI configuration list. It is what makes the kubelet report the node as ready, so it is written last.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::args::Args;

/// The file may name secrets of other plugins, and upstream's has this mode.
const MODE: u32 = 0o600;

/// Where the configuration list goes and what is in it.
#[derive(Debug, Clone)]
pub struct Conflist {
    path: PathBuf,
    /// What an operator wants to have there, if the file exists.
    template: PathBuf,
    built_in: String,
}

impl Conflist {
    /// `None` if no directory is configured.
    pub fn new(args: &Args) -> Option<Self> {
        if args.cni_conf_dir.as_os_str().is_empty() {
            return None;
        }
        Some(Self {
            path: args.cni_conf_dir.join(&args.cni_conf_name),
            template: args.cni_conf_file.clone(),
            built_in: api::cni::CONFLIST
                .replace(api::cni::SOCKET, &args.bind_socket.to_string_lossy()),
        })
    }

    /// What is to be written. A template that is there but cannot be read is not passed over: it has what the built-in
    /// list lacks.
    fn content(&self) -> io::Result<String> {
        match fs::read_to_string(&self.template) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(self.built_in.clone()),
            Err(error) => {
                let text = format!("--cni-conf-file {}: {error}", self.template.display());
                Err(io::Error::new(error.kind(), text))
            }
            content => content,
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the file unless one is there that leads to our socket (an operator may have put more plugins into it, as
    /// upstream allows); says whether it wrote. A reader sees the old or the new file, never a part.
    pub fn install(&self) -> io::Result<bool> {
        let content = self.content()?;
        let wanted = socket(&content);
        let serves = |have: &str| have == content || (wanted.is_some() && socket(have) == wanted);
        if fs::read_to_string(&self.path).is_ok_and(|have| serves(&have)) {
            let mode = fs::metadata(&self.path)?.permissions().mode() & 0o777;
            if mode == MODE {
                return Ok(false);
            }
            fs::set_permissions(&self.path, Permissions::from_mode(MODE))?;
            return Ok(true);
        }
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(directory)?;
        let mut temporary = self.path.clone().into_os_string();
        // Always the same name, so that one which a killed daemon left is used up by the next.
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        let result = write(&temporary, &content).and_then(|()| {
            fs::rename(&temporary, &self.path)?;
            File::open(directory)?.sync_all()
        });
        if result.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        result.map(|()| true)
    }
}

fn write(path: &Path, content: &str) -> io::Result<()> {
    let _ = fs::remove_file(path);
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(path)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()
}

/// The socket that our plugin is told in a configuration list.
fn socket(conflist: &str) -> Option<String> {
    let list: Value = serde_json::from_str(conflist).ok()?;
    let plugins = list["plugins"].as_array()?;
    let ours = plugins.iter().find(|p| p["type"] == api::cni::PLUGIN)?;
    Some(ours["server_socket"].as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_once_refreshed_when_it_differs() {
        let dir = tempfile::tempdir().unwrap();
        let conflist = Conflist {
            path: dir.path().join("net.d/01-kube-ovn.conflist"),
            template: PathBuf::new(),
            built_in: api::cni::CONFLIST.to_owned(),
        };
        assert!(conflist.install().unwrap());
        assert!(!conflist.install().unwrap());
        let mode = || fs::metadata(conflist.path()).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o600);
        // Broken, cut off, or for a socket of another time.
        let cut = &api::cni::CONFLIST[..60];
        let elsewhere = api::cni::CONFLIST.replace(api::cni::SOCKET, "/run/other.sock");
        for wrong in ["{}", "", cut, &elsewhere] {
            fs::write(conflist.path(), wrong).unwrap();
            assert!(conflist.install().unwrap(), "{wrong}");
        }
        // An operator has added a plugin.
        let added = api::cni::CONFLIST.replace(r#""type":"portmap""#, r#""type":"bandwidth""#);
        fs::write(conflist.path(), &added).unwrap();
        assert!(!conflist.install().unwrap());
        fs::remove_file(conflist.path()).unwrap();
        assert!(conflist.install().unwrap());
        // A daemon before us was killed while it wrote.
        fs::remove_file(conflist.path()).unwrap();
        fs::write(dir.path().join("net.d/01-kube-ovn.conflist.tmp"), cut).unwrap();
        assert!(conflist.install().unwrap());
        fs::set_permissions(conflist.path(), Permissions::from_mode(0o644)).unwrap();
        assert!(conflist.install().unwrap());
        assert_eq!(mode(), 0o600);
        assert_eq!(
            fs::read_to_string(conflist.path()).unwrap(),
            api::cni::CONFLIST
        );
        let left: Vec<_> = fs::read_dir(dir.path().join("net.d")).unwrap().collect();
        assert_eq!(left.len(), 1, "no temporary file stays");
    }

    #[test]
    fn a_template_that_cannot_be_read_is_not_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        // Root may read everything but a directory.
        let template = dir.path().join("template");
        fs::create_dir(&template).unwrap();
        let conflist = Conflist {
            path: dir.path().join("01-kube-ovn.conflist"),
            template: template.clone(),
            built_in: api::cni::CONFLIST.to_owned(),
        };
        let error = conflist.install().unwrap_err().to_string();
        assert!(error.contains("--cni-conf-file"), "{error}");
        assert!(!conflist.path().exists());
        fs::remove_dir(&template).unwrap();
        assert!(conflist.install().unwrap());
    }
}
