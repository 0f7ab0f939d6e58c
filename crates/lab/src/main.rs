//! kube-ovn-lab: a multi-node cluster on one machine.

mod cli;

use std::collections::BTreeSet;
use std::io::IsTerminal as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::Parser as _;
use lab::command::hint;
use lab::lab::{Lab, Place};
use lab::preflight::{self, Purpose};
use lab::progress::Progress;
use lab::{cache, demo, down, holder, ovn, relay, scenario, scenarios, status, table, up};
use owo_colors::{OwoColorize as _, Stream};

use crate::cli::{Cli, Format, Part, Verb};

fn main() -> ExitCode {
    end_with_the_reader();
    let result = match Part::called() {
        Some(part) => be(&part).map(|()| ExitCode::SUCCESS),
        None => run(&Cli::parse()),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            let sign = "error:"
                .if_supports_color(Stream::Stderr, |s| s.red())
                .to_string();
            eprintln!("{sign} {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The life of a process that belongs to a lab.
fn be(part: &Part) -> Result<()> {
    match part {
        Part::Relay {
            dir,
            node,
            api,
            ext,
        } => relay::main(dir, *node, *api, *ext),
        Part::Holder {
            dir,
            ready,
            kind,
            node,
        } => holder::main(dir, ready, node.as_deref().filter(|_| kind == "node")),
    }
}

/// `... status | head -1`: whoever reads has seen enough, and that is no failure of ours.
fn end_with_the_reader() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let said = info.payload_as_str().unwrap_or_default();
        if said.contains("failed printing to stdout") && said.contains("Broken pipe") {
            std::process::exit(0);
        }
        usual(info);
    }));
}

fn run(cli: &Cli) -> Result<ExitCode> {
    let name = &cli.name;
    if let Some(verb) = cli.command.needs_root() {
        preflight::root(name, verb)?;
    }
    match &cli.command {
        Verb::Prepare {
            check,
            kubernetes_bin,
        } => {
            let progress = Progress::new(false);
            preflight::check(Purpose::Build, None)?;
            if *check {
                println!("this machine has everything that a lab needs");
            } else {
                let folder = up::prepare(&progress, kubernetes_bin.as_deref())?;
                println!("Kubernetes' programs: {}", folder.display());
                println!("images:               {}", lab::images::storage().display());
            }
        }
        Verb::Up { args, output } => {
            let progress = Progress::new(output.output == Format::Json);
            let lab = up::up(name, &args.wish(), &progress)?;
            show(&lab, output.output)?;
            progress.say(&format!(
                "lab {name} is up after {:.1} s",
                progress.elapsed().as_secs_f64()
            ));
        }
        Verb::Demo { args } => {
            let progress = Progress::new(false);
            let lab = up::up(name, &args.wish(), &progress)?;
            demo::walk(&lab, &progress)?;
        }
        Verb::Status { output } => {
            let healthy = show(&Lab::open(name)?, output.output)?;
            return Ok(if healthy {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            });
        }
        Verb::Env => env(&Lab::open(name)?)?,
        Verb::Kubectl(rest) => return become_program(Lab::open(name)?.kubectl()?.args(&rest.args)),
        Verb::Nbctl(rest) => {
            return become_program(ovn::ctl_command(&Lab::open(name)?, "nb")?.args(&rest.args));
        }
        Verb::Sbctl(rest) => {
            return become_program(ovn::ctl_command(&Lab::open(name)?, "sb")?.args(&rest.args));
        }
        Verb::Vsctl { node, rest } => {
            let lab = Lab::open(name)?;
            let node = lab.node(node)?;
            return become_program(
                lab.command(Place::Node(&node.name), "ovs-vsctl")?
                    .args(&rest.args),
            );
        }
        Verb::Exec { pod, program } => {
            let lab = Lab::open(name)?;
            let pod = pod_to_enter(&lab, pod)?;
            let (program, args) = split(&program.words)?;
            return become_program(scenario::in_pod(&lab, &pod, program)?.args(args));
        }
        Verb::Node { node, program } => {
            let lab = Lab::open(name)?;
            let (program, args) = split(&program.words)?;
            let place = if node == lab::network::EXT {
                Place::Net(lab::network::EXT)
            } else {
                Place::Node(&lab.node(node)?.name)
            };
            return become_program(lab.command(place, program)?.args(args));
        }
        Verb::Scenario {
            list,
            all,
            names,
            output,
        } => return scenario_verb(name, *list, *all, names, output.output),
        Verb::E2e { focus, skip } => return e2e(&Lab::open(name)?, focus, skip),
        Verb::Logs { component, follow } => return logs(&Lab::open(name)?, component, *follow),
        Verb::Down { all } => {
            let progress = Progress::new(false);
            let gone = if *all {
                down::all(&progress)?
            } else if down::down_showing(name, &progress)? {
                vec![name.clone()]
            } else {
                Vec::new()
            };
            match gone.as_slice() {
                [] if *all => eprintln!("no lab is up"),
                [] => eprintln!("no lab `{name}` is up"),
                names => eprintln!("down: {}", names.join(", ")),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(lab: &Lab, format: Format) -> Result<bool> {
    let status = status::gather(lab)?;
    match format {
        Format::Text => status::print(&status),
        Format::Json => println!("{}", serde_json::to_string_pretty(&status)?),
    }
    Ok(status.healthy)
}

/// Replace this process, so that signals, terminal and exit status are the program's own.
fn become_program(command: &mut Command) -> Result<ExitCode> {
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start `{}`", lab::command::shown(command)))
}

fn split(args: &[String]) -> Result<(&str, &[String])> {
    match args {
        [] => bail!("say what to run: ... -- ping -c 3 192.168.1.41"),
        [program, args @ ..] => Ok((program, args)),
    }
}

/// The pod that `exec` names; one line if it is not there or does not run yet.
fn pod_to_enter(lab: &Lab, name: &str) -> Result<scenario::Pod> {
    let pod = scenario::find_pod(lab, name).map_err(|error| {
        if format!("{error:#}").contains("(NotFound)") {
            let (namespace, pod) = name.split_once('/').unwrap_or(("default", name));
            anyhow::anyhow!(
                "there is no pod `{pod}` in the namespace `{namespace}`; see: {}",
                hint(&lab.name, "kubectl -- get pods -A")
            )
        } else {
            error
        }
    })?;
    if pod.node.is_empty() {
        bail!(
            "pod {}/{} has no node yet; see: {}",
            pod.namespace,
            pod.name,
            hint(
                &lab.name,
                &format!("kubectl -- describe pod -n {} {}", pod.namespace, pod.name)
            )
        );
    }
    Ok(pod)
}

fn env(lab: &Lab) -> Result<()> {
    let own = std::env::current_exe()?;
    let folder = lab.dir.join("bin");
    std::fs::create_dir_all(&folder)?;
    for (wrapper, verb) in [
        ("kubectl", "kubectl"),
        ("ovn-nbctl", "nbctl"),
        ("ovn-sbctl", "sbctl"),
    ] {
        let file = folder.join(wrapper);
        lab::lab::write_atomic(
            &file,
            &format!(
                "#!/bin/sh\nexec {} --name {} {verb} -- \"$@\"\n",
                own.display(),
                lab.name
            ),
        )?;
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    }
    println!("export KUBE_OVN_LAB={}", lab.name);
    println!("export KUBECONFIG={}", relay::kubeconfig(lab).display());
    println!("export PATH={}:$PATH", folder.display());
    if std::io::stdout().is_terminal() {
        eprintln!("# use it with: eval \"$({})\"", hint(&lab.name, "env"));
    }
    Ok(())
}

fn scenario_verb(
    name: &str,
    list: bool,
    all: bool,
    names: &[String],
    format: Format,
) -> Result<ExitCode> {
    if list || (!all && names.is_empty()) {
        match format {
            Format::Text => println!(
                "{}",
                table::plain(
                    &["SCENARIO", "WHAT HOLDS"],
                    scenarios::ALL
                        .iter()
                        .map(|s| vec![s.name.to_owned(), s.about.to_owned()])
                )
            ),
            Format::Json => {
                let list: Vec<_> = scenarios::ALL
                    .iter()
                    .map(|s| serde_json::json!({"name": s.name, "about": s.about}))
                    .collect();
                println!("{}", serde_json::to_string_pretty(&list)?);
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut chosen = Vec::new();
    for wanted in names {
        chosen.push(scenarios::find(wanted).with_context(|| {
            format!(
                "there is no scenario `{wanted}`; see: {}",
                hint(name, "scenario --list")
            )
        })?);
    }
    if all {
        chosen = scenarios::usual();
    }
    let lab = Lab::open(name)?;
    let progress = Progress::new(format == Format::Json);
    let outcomes = scenario::run(&lab, &chosen, &progress);
    match format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&outcomes)?),
        Format::Text => println!(
            "{}",
            table::plain(
                &["SCENARIO", "RESULT", "SECONDS", "REASON"],
                outcomes.iter().map(|o| {
                    vec![
                        o.name.to_owned(),
                        o.result.to_owned(),
                        format!("{:.1}", o.seconds),
                        o.reason.clone().unwrap_or_default(),
                    ]
                })
            )
        ),
    }
    let failed = outcomes
        .iter()
        .any(|o| o.result == "failed" || (!all && o.result == "unfit"));
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn e2e(lab: &Lab, focus: &str, skip: &str) -> Result<ExitCode> {
    let progress = Progress::new(false);
    let runner = progress.run("Kubernetes' network tests", |step| {
        let runner = cache::build_e2e(step)?;
        step.now("Kubernetes' network tests built");
        Ok(runner)
    })?;
    let mut command = lab.command(Place::Node(&lab.first()?.name), &runner.to_string_lossy())?;
    command
        .arg("-test.run=TestE2E")
        .args([
            "-test.timeout=0",
            "--provider=skeleton",
            "--num-nodes=-1",
            "--allowed-not-ready-nodes=0",
        ])
        .arg(format!(
            "--kubeconfig={}",
            lab.pki("admin.kubeconfig").display()
        ))
        .arg(format!("--ginkgo.focus={focus}"))
        .arg(format!("--ginkgo.skip={skip}"))
        .args(["--ginkgo.no-color", "--ginkgo.succinct"]);
    become_program(&mut command)
}

fn logs(lab: &Lab, component: &str, follow: bool) -> Result<ExitCode> {
    let records: Vec<_> = lab
        .records()
        .into_iter()
        .filter(|r| r.component == component || r.key() == component)
        .collect();
    if records.is_empty() {
        let known: BTreeSet<String> = lab.records().into_iter().map(|r| r.component).collect();
        let known: Vec<String> = known.into_iter().collect();
        bail!(
            "lab `{}` has no component `{component}`; it has {} (one node's: NAME@NODE)",
            lab.name,
            known.join(", ")
        );
    }
    let mut tail = Command::new("tail");
    tail.arg("-n").arg(if follow { "20" } else { "+1" });
    if follow {
        tail.arg("-F");
    }
    become_program(tail.args(records.iter().map(|r| &r.log)))
}
