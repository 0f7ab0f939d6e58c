//! kube-ovn-lab: a multi-node cluster on one machine.

use std::io::IsTerminal as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use lab::lab::{Cni, Lab, Place};
use lab::preflight::{self, Purpose};
use lab::progress::Progress;
use lab::up::Wish;
use lab::{cache, demo, down, holder, ovn, relay, scenario, scenarios, status, table, up};
use owo_colors::{OwoColorize as _, Stream};

/// A multi-node Kubernetes with Kube-OVN on one machine: network namespaces as nodes, everything in them real.
#[derive(Parser)]
#[command(name = "kube-ovn-lab", version, about, max_term_width = 100)]
struct Cli {
    /// Which lab; several can be up at the same time.
    #[arg(long, global = true, default_value = "lab", env = "KUBE_OVN_LAB")]
    name: String,
    #[command(subcommand)]
    command: Verb,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Tables and lines.
    Text,
    /// One JSON document on standard output.
    Json,
}

#[derive(Args)]
struct UpArgs {
    /// Number of nodes: 192.168.1.41, .42, ...
    #[arg(long, default_value_t = 3)]
    nodes: u8,
    /// IPv4 and IPv6.
    #[arg(long)]
    dual_stack: bool,
    /// OVN databases as a RAFT cluster on three nodes.
    #[arg(long)]
    ovn_ha: bool,
    /// OVS and OVN of another version, unpacked by tools/ovn-prefix.
    #[arg(long, value_name = "DIR")]
    ovn_prefix: Option<PathBuf>,
    /// Leave kube-proxy out.
    #[arg(long)]
    no_kube_proxy: bool,
    /// Leave CoreDNS out.
    #[arg(long)]
    no_dns: bool,
    /// Use the Kubernetes programs of this folder.
    #[arg(long, value_name = "DIR")]
    kubernetes_bin: Option<PathBuf>,
    /// IPv4 addresses of the default subnet [default: 10.16.0.0/16].
    #[arg(long, value_name = "CIDR")]
    pod_cidr: Option<net::Cidr>,
    /// The network plugin; `bridge` is a baseline without the fabric.
    #[arg(long, value_enum, default_value = "kube-ovn", hide = true)]
    cni: Cni,
}

impl UpArgs {
    fn wish(&self) -> Wish {
        Wish {
            nodes: self.nodes,
            dual_stack: self.dual_stack,
            ovn_ha: self.ovn_ha,
            ovn_prefix: self.ovn_prefix.clone(),
            kube_proxy: !self.no_kube_proxy,
            dns: !self.no_dns,
            kubernetes_bin: self.kubernetes_bin.clone(),
            pods: self.pod_cidr,
            cni: self.cni,
        }
    }
}

#[derive(Subcommand)]
enum Verb {
    /// Check the machine, build Kubernetes and put the images together (once; kept outside the checkout).
    Prepare {
        /// Only check.
        #[arg(long)]
        check: bool,
        /// Use the Kubernetes programs of this folder.
        #[arg(long, value_name = "DIR")]
        kubernetes_bin: Option<PathBuf>,
    },
    /// Bring a lab up, repair it, or give it more nodes.
    Up {
        #[command(flatten)]
        args: UpArgs,
        /// Output of the result.
        #[arg(short, long, value_enum, default_value = "text")]
        output: Format,
    },
    /// Bring a lab up and walk through the first steps; the lab stays up.
    Demo {
        #[command(flatten)]
        args: UpArgs,
    },
    /// Components, nodes, pods, health, versions. Exit status 1 if something is not well.
    Status {
        /// Output format.
        #[arg(short, long, value_enum, default_value = "text")]
        output: Format,
    },
    /// Print what a shell needs: `eval "$(kube-ovn-lab env)"`.
    Env,
    /// kubectl against the lab.
    Kubectl(Rest),
    /// ovn-nbctl against the lab's databases.
    Nbctl(Rest),
    /// ovn-sbctl against the lab's databases.
    Sbctl(Rest),
    /// ovs-vsctl of a node.
    Vsctl {
        /// The node: 192.168.1.42, n2 or 2.
        node: String,
        #[command(flatten)]
        rest: Rest,
    },
    /// Run a program of the host in a pod's network namespace.
    Exec {
        /// NAMESPACE/POD, or POD of the namespace `default`.
        pod: String,
        #[command(flatten)]
        rest: Rest,
    },
    /// Run a program in a node.
    Node {
        /// The node: 192.168.1.42, n2 or 2; `ext` is the host outside.
        node: String,
        #[command(flatten)]
        rest: Rest,
    },
    /// Run scenarios on a lab; exit status 1 if one did not hold.
    Scenario {
        /// List what there is.
        #[arg(long)]
        list: bool,
        /// Run all that fit this lab.
        #[arg(long)]
        all: bool,
        /// Which ones.
        names: Vec<String>,
        /// Output format.
        #[arg(short, long, value_enum, default_value = "text")]
        output: Format,
    },
    /// Run Kubernetes' own network tests on a lab.
    E2e {
        /// Only those whose name matches (a regular expression).
        #[arg(
            long,
            default_value = r"Networking Granular Checks: Pods|\[sig-network\] DNS should provide DNS for (services|the cluster)"
        )]
        focus: String,
        /// Not those.
        #[arg(long, default_value = r"\[Slow\]|\[Disruptive\]|\[Serial\]|\[Feature:")]
        skip: String,
    },
    /// Print (and follow) the output of a component.
    Logs {
        /// COMPONENT or COMPONENT@NODE, as `status` shows them; without a node, all of that name.
        component: String,
        /// Keep printing.
        #[arg(short, long)]
        follow: bool,
    },
    /// End a lab and remove everything that it made.
    Down {
        /// All labs of this machine.
        #[arg(long)]
        all: bool,
    },
    #[command(hide = true)]
    Relay {
        dir: PathBuf,
        node: i32,
        api: std::net::SocketAddr,
        ext: i32,
    },
    #[command(hide = true)]
    Holder {
        dir: PathBuf,
        ready: PathBuf,
        kind: String,
        node: Option<String>,
    },
}

#[derive(Args)]
struct Rest {
    /// What to run; options of it come after `--`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
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

fn run(cli: &Cli) -> Result<ExitCode> {
    let name = &cli.name;
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
            let progress = Progress::new(*output == Format::Json);
            let lab = up::up(name, &args.wish(), &progress)?;
            show(&lab, *output)?;
            progress.say(&format!(
                "lab {name} is up after {:.1} s",
                progress.elapsed().as_secs_f64()
            ));
        }
        Verb::Demo { args } => {
            let progress = Progress::new(false);
            let lab = up::up(name, &args.wish(), &progress)?;
            demo::walk(&lab, &progress, &invocation())?;
        }
        Verb::Status { output } => {
            let healthy = show(&Lab::open(name)?, *output)?;
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
        Verb::Exec { pod, rest } => {
            let lab = Lab::open(name)?;
            let pod = scenario::find_pod(&lab, pod)?;
            let (program, args) = split(&rest.args)?;
            return become_program(scenario::in_pod(&lab, &pod, program)?.args(args));
        }
        Verb::Node { node, rest } => {
            let lab = Lab::open(name)?;
            let (program, args) = split(&rest.args)?;
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
        } => return scenario_verb(name, *list, *all, names, *output),
        Verb::E2e { focus, skip } => return e2e(&Lab::open(name)?, focus, skip),
        Verb::Logs { component, follow } => return logs(&Lab::open(name)?, component, *follow),
        Verb::Down { all } => {
            let gone = if *all {
                down::all()?
            } else if down::down(name)? {
                vec![name.clone()]
            } else {
                Vec::new()
            };
            match gone.as_slice() {
                [] => eprintln!("no lab is up"),
                names => eprintln!("down: {}", names.join(", ")),
            }
        }
        Verb::Relay {
            dir,
            node,
            api,
            ext,
        } => relay::main(dir, *node, *api, *ext)?,
        Verb::Holder {
            dir,
            ready,
            kind,
            node,
        } => {
            holder::main(dir, ready, node.as_deref().filter(|_| kind == "node"))?;
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

/// How the user called this program, for hints that can be copied.
fn invocation() -> String {
    std::env::args()
        .next()
        .unwrap_or_else(|| "kube-ovn-lab".into())
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
        eprintln!(
            "# use it with: eval \"$({} --name {} env)\"",
            invocation(),
            lab.name
        );
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
            format!("there is no scenario `{wanted}`; `kube-ovn-lab scenario --list` shows them")
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
        let known: Vec<_> = lab
            .records()
            .iter()
            .map(lab::process::Record::key)
            .collect();
        bail!("no component `{component}`; there are {}", known.join(", "));
    }
    let mut tail = Command::new("tail");
    tail.arg("-n").arg(if follow { "20" } else { "+1" });
    if follow {
        tail.arg("-F");
    }
    become_program(tail.args(records.iter().map(|r| &r.log)))
}
