//! The commands of the documents, run as they are printed, so that no page promises what is not so.
//!
//! A fenced block of README.md or docs/*.md is run if the word `run` follows its language:
//!
//! | block | what is done with it |
//! |---|---|
//! | `sh run` | its lines are commands, run by one shell in the checkout |
//! | `yaml run` | a manifest, applied with kubectl |
//! | `console run` | what follows `$ ` is run; the lines below it must be in what it prints, in their order |
//!
//! In a `console` block a line `...` stands for any lines, `...` at the end of a line for any words, and in a line for one
//! word; blanks are not compared. What it prints may need a moment to become so.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::command::{capture, capture_with_input, wait_for};
use crate::components::checkout;
use crate::lab::Lab;

/// How long what is printed may take to become true.
const PATIENCE: Duration = Duration::from_secs(30);

/// One thing that a document tells its reader to do.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Commands(String),
    Apply(String),
    Look {
        command: String,
        expected: Vec<String>,
    },
}

/// All documents that may have blocks to run.
pub fn pages() -> Result<Vec<PathBuf>> {
    let mut pages: Vec<PathBuf> = fs::read_dir(checkout().join("docs"))
        .context("no docs in the checkout")?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "md"))
        .collect();
    pages.sort();
    pages.push(checkout().join("README.md"));
    Ok(pages)
}

/// Run what a page says; returns how many blocks there were.
pub fn run(lab: &Lab, page: &Path) -> Result<usize> {
    let name = page.file_name().unwrap_or_default().to_string_lossy();
    let text = fs::read_to_string(page).with_context(|| page.display().to_string())?;
    let steps = steps(&text).with_context(|| name.to_string())?;
    for (line, step) in &steps {
        act(lab, step).with_context(|| format!("{name}, line {line}"))?;
    }
    Ok(steps.len())
}

fn act(lab: &Lab, step: &Step) -> Result<()> {
    match step {
        Step::Commands(text) => capture(shell(lab)?.args(["-ec", text])).map(drop),
        Step::Apply(manifest) => {
            capture_with_input(shell(lab)?.args(["-ec", "kubectl apply -f -"]), manifest).map(drop)
        }
        Step::Look { command, expected } => wait_for("what the page shows", PATIENCE, || {
            let printed = capture(shell(lab)?.args(["-ec", command]))?;
            match differs(expected, &printed) {
                None => Ok(Some(())),
                Some(line) => bail!("`{command}` does not print `{line}` there, but:\n{printed}"),
            }
        }),
    }
}

/// A shell as a reader has it: in the checkout, with this program and what its `env` gives in PATH.
fn shell(lab: &Lab) -> Result<Command> {
    let program = std::env::current_exe().context("cannot find the path of this program")?;
    let folder = program.parent().unwrap_or(Path::new("/"));
    let path = std::env::var("PATH").unwrap_or_default();
    let mut shell = Command::new("sh");
    shell
        .current_dir(checkout())
        .env("KUBE_OVN_LAB", &lab.name)
        .env("KUBECONFIG", crate::relay::kubeconfig(lab))
        .env("KUBECACHEDIR", lab.dir.join("kubectl-cache"))
        .env(
            "PATH",
            format!(
                "{}:{}:{path}",
                folder.display(),
                lab.spec.kubernetes.display()
            ),
        );
    Ok(shell)
}

/// The blocks of a page to run, each with the number of its first line.
fn steps(page: &str) -> Result<Vec<(usize, Step)>> {
    let mut found = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(info) = line.strip_prefix("```") else {
            continue;
        };
        let block: Vec<&str> = lines
            .by_ref()
            .map(|(_, line)| line)
            .take_while(|line| *line != "```")
            .collect();
        let (language, run) = info.split_once(' ').unwrap_or((info, ""));
        if run != "run" {
            continue;
        }
        let number = number + 2;
        match language {
            "sh" => {
                let commands: Vec<String> = block.iter().filter_map(|line| command(line)).collect();
                found.push((number, Step::Commands(commands.join("\n"))));
            }
            "yaml" => found.push((number, Step::Apply(block.join("\n")))),
            "console" => found.extend(looks(number, &block)),
            _ => bail!("line {number}: nobody knows how to run `{language}`"),
        }
    }
    Ok(found)
}

fn looks(number: usize, block: &[&str]) -> Vec<(usize, Step)> {
    let mut found: Vec<(usize, Step)> = Vec::new();
    for (offset, line) in block.iter().enumerate() {
        if let Some(text) = line.strip_prefix("$ ") {
            found.push((
                number + offset,
                Step::Look {
                    command: text.to_owned(),
                    expected: Vec::new(),
                },
            ));
        } else if let Some((_, Step::Look { expected, .. })) = found.last_mut() {
            expected.push((*line).to_owned());
        }
    }
    found
}

/// A line of a tour as it is run here: on this lab, by this program, and without its end, which is the caller's.
fn command(line: &str) -> Option<String> {
    let bare = line.split('#').next().unwrap_or_default().trim();
    match bare {
        "" | "lab down" | "kube-ovn-lab down" => None,
        // Everything is built by now.
        "make demo" => Some("kube-ovn-lab demo".to_owned()),
        _ => Some(bare.replace("target/debug/kube-ovn-lab", "kube-ovn-lab")),
    }
}

/// The first expected line that is not printed, or not after those before it.
fn differs<'a>(expected: &'a [String], printed: &str) -> Option<&'a String> {
    let mut rest = printed.lines();
    expected
        .iter()
        .filter(|line| line.trim() != "...")
        .find(|line| !rest.any(|printed| says(printed, line)))
}

fn says(printed: &str, expected: &str) -> bool {
    let mut printed = printed.split_ascii_whitespace();
    let mut expected = expected.split_ascii_whitespace().peekable();
    while let Some(word) = expected.next() {
        if word == "..." && expected.peek().is_none() {
            return true;
        }
        if printed
            .next()
            .is_none_or(|said| word != "..." && word != said)
        {
            return false;
        }
    }
    printed.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "text\n```\nnot run\n```\n```sh run\nmake demo  # first\nalias lab=target/debug/kube-ovn-lab\n\nlab down\n```\n\
                        ```yaml run\nkind: X\n```\n```console run\n$ kubectl get x\nNAME  A ...\n...\nb     2\n$ true\n```\n";

    #[test]
    fn only_marked_blocks_are_run() {
        let steps = steps(PAGE).unwrap();
        assert_eq!(
            steps,
            [
                (
                    6,
                    Step::Commands("kube-ovn-lab demo\nalias lab=kube-ovn-lab".into())
                ),
                (12, Step::Apply("kind: X".into())),
                (
                    15,
                    Step::Look {
                        command: "kubectl get x".into(),
                        expected: vec!["NAME  A ...".into(), "...".into(), "b     2".into()]
                    }
                ),
                (
                    19,
                    Step::Look {
                        command: "true".into(),
                        expected: Vec::new()
                    }
                ),
            ]
        );
    }

    #[test]
    fn output_is_compared_by_words_and_in_order() {
        let expected: Vec<String> = ["NAME A ...", "...", "b 2"].map(str::to_owned).into();
        assert_eq!(differs(&expected, "NAME   A   B\na 1 1\nb    2\n"), None);
        assert_eq!(differs(&expected, "NAME A\nb 2 3\n"), Some(&expected[2]));
        assert_eq!(differs(&expected, "b 2\nNAME A B\n"), Some(&expected[2]));
        assert!(says("default 3s Warning", "default ... Warning"));
        assert!(!says("default Warning", "default ... Warning"));
        assert!(!says("default 3s 4s Warning", "default ... Warning"));
    }

    #[test]
    fn the_tour_and_the_pages_can_be_read() {
        let counts: Vec<usize> = pages()
            .unwrap()
            .iter()
            .map(|file| steps(&fs::read_to_string(file).unwrap()).unwrap().len())
            .collect();
        assert!(counts.last().is_some_and(|tour| *tour > 0), "{counts:?}");
        assert!(counts.iter().sum::<usize>() > 5, "{counts:?}");
    }
}
