//! The command line: verbs, options, their words.

use std::path::PathBuf;

use clap::builder::RangedU64ValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use lab::lab::{Cni, Node};
use lab::up::Wish;

/// A multi-node Kubernetes with Kube-OVN on one machine: network namespaces as nodes, everything in them real.
#[derive(Parser)]
#[command(name = "kube-ovn-lab", version, about, max_term_width = 100)]
pub struct Cli {
    /// Which lab; several can be up at the same time
    #[arg(
        long,
        global = true,
        default_value = lab::lab::DEFAULT,
        env = "KUBE_OVN_LAB",
        hide_env_values = true,
        display_order = 900
    )]
    pub name: String,
    #[command(subcommand)]
    pub command: Verb,
}

// The variants have no doc comments: with them, clap would print the help of these verbs in another form.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Text,
    Json,
}

#[derive(Args)]
pub struct UpArgs {
    /// Number of nodes, 1 to 214: 192.168.1.41, .42, ...
    #[arg(long, default_value_t = 3, value_parser = RangedU64ValueParser::<u8>::new().range(1..=u64::from(Node::MOST)))]
    pub nodes: u8,
    /// IPv4 and IPv6
    #[arg(long)]
    pub dual_stack: bool,
    /// OVN databases as a RAFT cluster on three nodes
    #[arg(long)]
    pub ovn_ha: bool,
    /// OVS and OVN of another version, unpacked by tools/ovn-prefix
    #[arg(long, value_name = "DIR")]
    pub ovn_prefix: Option<PathBuf>,
    /// Leave kube-proxy out
    #[arg(long)]
    pub no_kube_proxy: bool,
    /// Leave CoreDNS out
    #[arg(long)]
    pub no_dns: bool,
    /// Use the Kubernetes programs of this folder
    #[arg(long, value_name = "DIR")]
    pub kubernetes_bin: Option<PathBuf>,
    /// IPv4 addresses of the default subnet [default: 10.16.0.0/16]
    #[arg(long, value_name = "CIDR")]
    pub pod_cidr: Option<net::Cidr>,
    /// The network plugin; `bridge` is a baseline without the fabric
    #[arg(long, value_enum, default_value = "kube-ovn", hide = true)]
    pub cni: Cni,
}

impl UpArgs {
    pub fn wish(&self) -> Wish {
        Wish {
            nodes: self.nodes,
            dual_stack: self.dual_stack,
            ovn_ha: self.ovn_ha,
            ovn_prefix: self.ovn_prefix.clone(),
            no_kube_proxy: self.no_kube_proxy,
            no_dns: self.no_dns,
            kubernetes_bin: self.kubernetes_bin.clone(),
            pods: self.pod_cidr,
            cni: self.cni,
        }
    }
}

#[derive(Subcommand)]
pub enum Verb {
    /// Check the machine and build what is built once: Kubernetes and container images
    Prepare {
        /// Check only
        #[arg(long)]
        check: bool,
        /// Use the Kubernetes programs of this folder
        #[arg(long, value_name = "DIR")]
        kubernetes_bin: Option<PathBuf>,
    },
    /// Bring a lab up, repair it, or give it more nodes
    Up {
        #[command(flatten)]
        args: UpArgs,
        #[command(flatten)]
        output: Output,
    },
    /// Bring a lab up and walk through the first steps; the lab stays up
    Demo {
        #[command(flatten)]
        args: UpArgs,
    },
    /// Show components, nodes, pods, health and versions; exit status 1 if something is not well
    Status {
        #[command(flatten)]
        output: Output,
    },
    /// Print what a shell needs to use the lab: eval "$(kube-ovn-lab env)"
    Env,
    /// Run kubectl on the lab
    Kubectl(Rest),
    /// Run ovn-nbctl on the lab's databases
    Nbctl(Rest),
    /// Run ovn-sbctl on the lab's databases
    Sbctl(Rest),
    /// Run ovs-vsctl in a node
    Vsctl {
        /// The node: 192.168.1.42, n2 or 2
        node: String,
        #[command(flatten)]
        rest: Rest,
    },
    /// Run a program of this machine in a pod's network namespace
    Exec {
        /// NAMESPACE/POD, or POD of the namespace `default`
        pod: String,
        #[command(flatten)]
        program: Program,
    },
    /// Run a program of this machine in a node
    Node {
        /// The node: 192.168.1.42, n2 or 2; `ext` is the host outside
        node: String,
        #[command(flatten)]
        program: Program,
    },
    /// Run scenarios on a lab; exit status 1 if one did not hold
    Scenario {
        /// List what there is
        #[arg(long)]
        list: bool,
        /// Run all that fit this lab
        #[arg(long)]
        all: bool,
        /// Which ones
        names: Vec<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Run Kubernetes' own network tests on a lab; by default the short set that CI runs
    E2e {
        /// Only tests whose name matches this regular expression
        #[arg(
            long,
            value_name = "REGEXP",
            hide_default_value = true,
            default_value = r"Networking Granular Checks: Pods|\[sig-network\] DNS should provide DNS for (services|the cluster)"
        )]
        focus: String,
        /// None of those whose name matches this one
        #[arg(
            long,
            value_name = "REGEXP",
            hide_default_value = true,
            default_value = r"\[Slow\]|\[Disruptive\]|\[Serial\]|\[Feature:"
        )]
        skip: String,
    },
    /// Print or follow the output of a component
    Logs {
        /// COMPONENT or COMPONENT@NODE, as `status` shows them; without a node, all of that name
        component: String,
        /// Go on printing as it grows
        #[arg(short, long)]
        follow: bool,
    },
    /// End a lab and remove everything that it made
    Down {
        /// All labs of this machine
        #[arg(long)]
        all: bool,
    },
}

/// Processes of a lab whose program is this one, started by `up`. They have a parser of their own, so that nobody who
/// mistypes a command is offered one of them.
#[derive(Parser)]
#[command(name = "kube-ovn-lab")]
pub enum Part {
    Relay {
        dir: PathBuf,
        node: i32,
        api: std::net::SocketAddr,
        ext: i32,
    },
    Holder {
        dir: PathBuf,
        ready: PathBuf,
        kind: String,
        node: Option<String>,
    },
}

impl Part {
    /// The part that this process was started as, if it is one.
    pub fn called() -> Option<Self> {
        let first = std::env::args_os().nth(1)?;
        (first == "relay" || first == "holder").then(Self::parse)
    }
}

impl Verb {
    /// The verb's name if it cannot do anything useful without root.
    pub fn needs_root(&self) -> Option<&'static str> {
        Some(match self {
            Self::Prepare { .. } => return None, // says by itself what is missing, root among it
            Self::Scenario {
                list, all, names, ..
            } if *list || (!all && names.is_empty()) => return None,
            Self::Up { .. } => "up",
            Self::Demo { .. } => "demo",
            Self::Status { .. } => "status",
            Self::Env => "env",
            Self::Kubectl(_) => "kubectl",
            Self::Nbctl(_) => "nbctl",
            Self::Sbctl(_) => "sbctl",
            Self::Vsctl { .. } => "vsctl",
            Self::Exec { .. } => "exec",
            Self::Node { .. } => "node",
            Self::Scenario { .. } => "scenario",
            Self::E2e { .. } => "e2e",
            Self::Logs { .. } => "logs",
            Self::Down { .. } => "down",
        })
    }
}

#[derive(Args)]
pub struct Output {
    /// Tables for people, or one JSON document on standard output
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: Format,
}

#[derive(Args)]
pub struct Rest {
    /// Its arguments, after `--`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<String>,
}

#[derive(Args)]
pub struct Program {
    /// The program and its arguments, after `--`
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        required = true,
        value_name = "PROGRAM"
    )]
    pub words: Vec<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn refusal(args: &[&str]) -> String {
        match Cli::try_parse_from(args) {
            Ok(_) => panic!("{args:?} was accepted"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        Part::command().debug_assert();
    }

    #[test]
    fn what_only_up_starts_is_not_offered() {
        for word in ["rela", "relay", "holde", "holder"] {
            let error = refusal(&["kube-ovn-lab", word]);
            let offered = error.lines().any(|line| {
                line.contains("'relay'") && line.contains("similar")
                    || line.contains("'holder'") && line.contains("similar")
            });
            assert!(!offered, "{error}");
        }
    }

    #[test]
    fn every_number_of_nodes_out_of_range_gets_the_same_answer() {
        for number in ["0", "215", "300", "70000"] {
            let error = refusal(&["kube-ovn-lab", "up", "--nodes", number]);
            assert!(
                error.contains(&format!("{number} is not in 1..=214")),
                "{error}"
            );
        }
        for number in ["1", "214"] {
            assert!(Cli::try_parse_from(["kube-ovn-lab", "up", "--nodes", number]).is_ok());
        }
    }

    #[test]
    fn all_help_has_one_form() {
        let mut command = Cli::command();
        command.build();
        for verb in command.get_subcommands() {
            let about = verb
                .get_about()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(
                !about.is_empty() && !about.ends_with('.'),
                "{}: {about}",
                verb.get_name()
            );
            let help = verb.clone().render_long_help().to_string();
            for other in ["see a summary", "Possible values:"] {
                assert!(!help.contains(other), "{help}");
            }
        }
    }

    #[test]
    fn lists_need_no_root_and_namespaces_do() {
        let parse = |words: &[&str]| {
            let line = std::iter::once("kube-ovn-lab").chain(words.iter().copied());
            Cli::try_parse_from(line).map(|cli| cli.command.needs_root())
        };
        assert_eq!(parse(&["scenario", "--list"]).unwrap(), None);
        assert_eq!(parse(&["scenario"]).unwrap(), None);
        assert_eq!(parse(&["scenario", "mtu"]).unwrap(), Some("scenario"));
        assert_eq!(parse(&["status"]).unwrap(), Some("status"));
        assert_eq!(
            parse(&["kubectl", "--", "get", "pods"]).unwrap(),
            Some("kubectl")
        );
        assert_eq!(parse(&["down", "--all"]).unwrap(), Some("down"));
    }

    #[test]
    fn a_program_and_its_options_are_taken_as_they_are() {
        let cli = Cli::try_parse_from(["x", "exec", "blue/web", "--", "ping", "-c", "3"]).unwrap();
        let Verb::Exec { pod, program } = cli.command else {
            panic!("another verb")
        };
        assert_eq!(
            (pod.as_str(), program.words.join(" ").as_str()),
            ("blue/web", "ping -c 3")
        );
        assert!(refusal(&["x", "exec", "blue/web"]).contains("PROGRAM"));
    }
}
