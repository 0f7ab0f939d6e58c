//! `/proc/sys`. Keys are relative and use `/`; `net/...` is that of the calling thread's network namespace.

use std::fs;
use std::io;
use std::path::PathBuf;

fn path(key: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(key)
}

/// The value without its line end; `None` if the kernel has no such key.
pub fn read(key: &str) -> io::Result<Option<String>> {
    match fs::read_to_string(path(key)) {
        Ok(text) => Ok(Some(text.trim_end().to_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Writes a value if it is another one. A key that does not exist is passed over (IPv6 compiled out), and so is a
/// read-only `/proc/sys` when the value is right already.
pub fn write(key: &str, value: &str) -> io::Result<()> {
    match read(key)? {
        None => Ok(()),
        Some(have) if have == value => Ok(()),
        Some(_) => fs::write(path(key), value),
    }
}
