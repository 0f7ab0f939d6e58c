//! `demo`: a walk-through for someone who sees the system for the first time. The lab stays up.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::command::hint;
use crate::lab::{Lab, plural};
use crate::progress::Progress;
use crate::scenario::Stage;
use crate::scenarios::walk_through::{self, Cast, STEPS, TEST_NS};
use crate::status;
use crate::table::heading;

/// The namespace of the walk-through in a lab of two families.
const TEST_NS_DUAL: &str = r#"apiVersion: v1
kind: Namespace
metadata:
  annotations:
    ovn.kubernetes.io/cidr: 10.17.0.0/24,fd00:10:17::/112
    ovn.kubernetes.io/gateway: 10.17.0.1,fd00:10:17::1
    ovn.kubernetes.io/logical_switch: test-ns-subnet
    ovn.kubernetes.io/exclude_ips: "10.17.0.1..10.17.0.10,fd00:10:17::1..fd00:10:17::a"
  name: test-ns
"#;

/// Walk through the first steps on a lab that is up. Repeating it is fine.
pub fn walk(lab: &Lab, progress: &Progress) -> Result<()> {
    println!("\n{}", heading("The cluster after installation"));
    println!("{}\n", status::overview(&status::gather(lab)?));

    println!(
        "{}",
        heading(
            "A namespace with a subnet of its own, two web servers in it, a client outside of it"
        )
    );
    let stage = Stage::new(lab, progress);
    let cast = progress.run("pods of the walk-through", |step| {
        let cast = act(&stage, |line| {
            progress.say(&indented(line));
            step.now(line.lines().next().unwrap_or_default());
        })?;
        step.now("two nginx pods in test-ns and busy in default run");
        Ok(cast)
    })?;
    let pairs = progress.run(
        "every pod pings every other and fetches a page from every nginx",
        |_| walk_through::all_talk(&stage, &cast),
    )?;
    stage.keep();

    println!("\n{}", heading("The cluster now"));
    println!("{}\n", status::overview(&status::gather(lab)?));
    println!("{}\n", result(pairs, &cast));
    println!("{}", heading("Three things to try next"));
    let target = cast.nginx[0].address()?;
    for verb in [
        &format!("exec default/busy -- ping -c 3 {target}"),
        "nbctl -- show",
        "kubectl -- get subnets",
    ] {
        println!("  {}", hint(&lab.name, verb));
    }
    println!("\nEnd it with: {}", hint(&lab.name, "down"));
    Ok(())
}

/// The steps, said as a reader could type them. What an earlier demo made is taken as it is.
fn act(stage: &Stage<'_>, mut say: impl FnMut(&str)) -> Result<Cast> {
    let namespace = if stage.lab.spec.dual_stack {
        TEST_NS_DUAL
    } else {
        TEST_NS
    };
    say(&format!("kubectl apply -f test-ns.yaml\n{namespace}"));
    stage.apply(namespace)?;
    for step in STEPS {
        say(&format!("kubectl {}", step.join(" ")));
        match stage.kubectl(step) {
            Err(error) if format!("{error:#}").contains("already exists") => (),
            other => drop(other?),
        }
    }
    Ok(Cast {
        nginx: stage.pods("test-ns", "app=nginx", 2)?,
        busy: stage.pod("default", "busy")?,
    })
}

/// A command as a prompt shows it; what follows its first line is the file that it names.
fn indented(command: &str) -> String {
    let mut text = String::new();
    for (number, line) in command.lines().enumerate() {
        let prompt = if number == 0 { "  $ " } else { "\n      " };
        text.push_str(prompt);
        text.push_str(line);
    }
    text
}

fn result(pairs: usize, cast: &Cast) -> String {
    let everyone = || cast.nginx.iter().chain([&cast.busy]);
    let nodes: BTreeSet<&str> = everyone().map(|pod| pod.node.as_str()).collect();
    let place = match nodes.len() {
        1 => "on one node".to_owned(),
        many => format!("across {}", plural(many, "node")),
    };
    let families = if everyone().all(|pod| pod.addresses.len() > 1) {
        ", over IPv4 and over IPv6"
    } else {
        ""
    };
    format!(
        "All {pairs} pairs of pods talk to each other, {place} and across two subnets{families}."
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Pod;

    fn pod(node: &str, addresses: &[&str]) -> Pod {
        Pod {
            namespace: "test-ns".into(),
            name: "x".into(),
            uid: "x".into(),
            node: node.into(),
            addresses: addresses.iter().filter_map(|a| a.parse().ok()).collect(),
        }
    }

    #[test]
    fn the_result_says_no_more_than_was_seen() {
        let one = Cast {
            nginx: vec![pod("a", &["10.17.0.11"]), pod("a", &["10.17.0.12"])],
            busy: pod("a", &["10.16.0.13"]),
        };
        assert_eq!(
            result(6, &one),
            "All 6 pairs of pods talk to each other, on one node and across two subnets."
        );
        let two = Cast {
            nginx: vec![
                pod("a", &["10.17.0.11", "fd00::b"]),
                pod("b", &["10.17.0.12", "fd00::c"]),
            ],
            busy: pod("a", &["10.16.0.13", "fd00:1::d"]),
        };
        assert_eq!(
            result(6, &two),
            "All 6 pairs of pods talk to each other, across 2 nodes and across two subnets, over IPv4 and over IPv6."
        );
    }

    #[test]
    fn what_is_applied_is_shown() {
        assert_eq!(
            indented("kubectl apply -f x.yaml\nkind: X\n"),
            "  $ kubectl apply -f x.yaml\n      kind: X"
        );
    }
}
