//! Running the programs of the host: one place that turns a failure into a sentence.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// What a command line looks like to a reader (for messages only, never for a shell).
pub fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .map(|word| {
            if word.is_empty() || word.contains(|c: char| c.is_whitespace() || c == '\'') {
                format!("'{}'", word.replace('\'', "'\\''"))
            } else {
                word.into_owned()
            }
        })
        .collect::<Vec<_>>()
        .join(" ")
}

/// A command of this program that the reader can copy: called as this one was called, for the lab of that name.
pub fn hint(lab: &str, verb: &str) -> String {
    let program = std::env::args()
        .next()
        .unwrap_or_else(|| "kube-ovn-lab".into());
    let other = std::env::var("KUBE_OVN_LAB").ok();
    called(&program, other.as_deref(), lab, verb)
}

/// `named` is what the environment says, which a new command would follow if it named no lab.
fn called(program: &str, named: Option<&str>, lab: &str, verb: &str) -> String {
    if lab == named.unwrap_or(crate::lab::DEFAULT) && lab == crate::lab::DEFAULT {
        format!("{program} {verb}")
    } else {
        format!("{program} --name {lab} {verb}")
    }
}

/// The command line of this process for root. `sudo` passes neither the environment nor the reader's PATH on, so the lab
/// is named and the program is a path.
pub fn with_sudo(lab: &str) -> String {
    let mut words = std::env::args();
    let called = words.next().unwrap_or_default();
    let program = if called.contains('/') {
        called
    } else {
        std::env::current_exe().map_or(called, |path| path.display().to_string())
    };
    sudo(&program, lab, words)
}

fn sudo(program: &str, lab: &str, words: impl Iterator<Item = String>) -> String {
    let mut command = Command::new("sudo");
    command.arg(program);
    if lab != crate::lab::DEFAULT {
        command.args(["--name", lab]);
    }
    let mut words = words.peekable();
    while let Some(word) = words.next_if(|word| word != "--") {
        if word == "--name" {
            words.next();
        } else if !word.starts_with("--name=") {
            command.arg(word);
        }
    }
    shown(command.args(words))
}

/// Run to the end and return standard output; a non-zero exit is an error that carries standard error.
pub fn capture(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if !output.status.success() {
        bail!("{}", failure(command, &output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Like [`capture`], with `input` on standard input.
pub fn capture_with_input(command: &mut Command, input: &str) -> Result<String> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start `{}`", shown(command)))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends before it has read everything says why on standard error.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child
        .wait_with_output()
        .with_context(|| format!("cannot wait for `{}`", shown(command)))?;
    if !output.status.success() {
        bail!("{}", failure(command, &output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Run to the end with both streams captured, whatever the exit status.
pub fn output(command: &mut Command) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{}`", shown(command)))
}

fn failure(command: &Command, output: &Output) -> String {
    let mut said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if said.is_empty() {
        String::from_utf8_lossy(&output.stdout)
            .trim()
            .clone_into(&mut said);
    }
    format!("`{}` failed ({}): {said}", inner(command), output.status)
}

/// The command line without the way into a namespace: that is not what failed.
fn inner(command: &Command) -> String {
    if command.get_program() != "nsenter" {
        return shown(command);
    }
    let mut words = command.get_args().skip_while(|word| *word != "--").skip(1);
    words.next().map_or_else(
        || shown(command),
        |program| {
            let name = Path::new(program).file_name();
            let mut own = Command::new(name.unwrap_or(program));
            own.args(words);
            shown(&own)
        },
    )
}

/// Ask again and again until `ready` gives a value; errors of single tries are kept for the final message.
///
/// The pause grows from 10 ms to 200 ms: quick things are noticed quickly, slow ones do not burn the processor.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut ready: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(10);
    loop {
        let trouble = match ready() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if start.elapsed() > limit {
            let waited = format!("waited {} s for {what}", limit.as_secs());
            return match trouble {
                Some(error) => Err(error.context(waited)),
                None => bail!("{waited}"),
            };
        }
        std::thread::sleep(pause);
        pause = (pause * 3 / 2).min(Duration::from_millis(200));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_and_what_it_said() {
        let error = capture(Command::new("sh").args(["-c", "echo no such thing >&2; exit 3"]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("sh -c"), "{error}");
        assert!(error.contains("exit status: 3"), "{error}");
        assert!(error.contains("no such thing"), "{error}");
    }

    #[test]
    fn a_hint_can_be_copied() {
        let path = "target/debug/kube-ovn-lab";
        assert_eq!(called(path, None, "lab", "down"), format!("{path} down"));
        assert_eq!(
            called(path, None, "two", "down"),
            format!("{path} --name two down")
        );
        // The environment could be another one by the time it is pasted.
        assert_eq!(
            called(path, Some("two"), "two", "down"),
            format!("{path} --name two down")
        );
        assert_eq!(
            called(path, Some("two"), "lab", "down"),
            format!("{path} --name lab down")
        );
    }

    #[test]
    fn sudo_is_told_which_lab_is_meant() {
        let line = |lab: &str, words: &[&str]| {
            sudo("./kube-ovn-lab", lab, words.iter().map(|&w| w.to_owned()))
        };
        assert_eq!(line("lab", &["status"]), "sudo ./kube-ovn-lab status");
        assert_eq!(
            line("two", &["exec", "x", "--", "ping", "--name", "y z"]),
            "sudo ./kube-ovn-lab --name two exec x -- ping --name 'y z'"
        );
        assert_eq!(
            line("two", &["up", "--name", "two", "--nodes", "1"]),
            "sudo ./kube-ovn-lab --name two up --nodes 1"
        );
        assert_eq!(
            line("two", &["--name=two", "down"]),
            "sudo ./kube-ovn-lab --name two down"
        );
    }

    #[test]
    fn a_failure_in_a_namespace_shows_what_failed_there() {
        let mut command = Command::new("nsenter");
        command.args(["-t", "1", "-n", "--", "ip", "link", "show", "x y"]);
        assert_eq!(inner(&command), "ip link show 'x y'");
        let mut command = Command::new("nsenter");
        command.args(["-t", "1", "-n", "--", "/some/where/kubectl", "get", "pods"]);
        assert_eq!(inner(&command), "kubectl get pods");
        assert_eq!(inner(Command::new("ip").arg("link")), "ip link");
    }

    #[test]
    fn waiting_ends_with_the_last_trouble() {
        let error = wait_for("the sun", Duration::ZERO, || -> Result<Option<()>> {
            bail!("it is night")
        })
        .unwrap_err();
        assert_eq!(format!("{error:#}"), "waited 0 s for the sun: it is night");
    }
}
