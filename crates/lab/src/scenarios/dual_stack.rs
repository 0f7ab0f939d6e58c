//! Both families at once: pods, nodes and DNS; and a subnet of IPv6 alone.

use anyhow::{Result, ensure};

use crate::scenario::{Scenario, Stage};

pub const SCENARIO: Scenario = Scenario {
    name: "dual-stack",
    about: "every pod has both families and uses both across nodes; a subnet of IPv6 alone works too",
    unfit: crate::scenario::dual_stack,
    run,
};

const NAMESPACES: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: both}\n---\n\
    apiVersion: v1\nkind: Namespace\nmetadata:\n  name: six\n  annotations:\n    \
    ovn.kubernetes.io/logical_switch: six\n    ovn.kubernetes.io/cidr: fd00:10:26::/112\n    \
    ovn.kubernetes.io/gateway: fd00:10:26::1\n";

fn run(stage: &Stage<'_>) -> Result<()> {
    stage.apply(NAMESPACES)?;
    let (first, second) = (stage.node(0)?, stage.node(1)?);
    let here = stage.server("both", "here", first)?;
    let there = stage.server("both", "there", second)?;
    ensure!(
        there.addresses.len() == 2 && there.addresses[0].is_ipv4() && there.addresses[1].is_ipv6(),
        "the pod has {:?}",
        there.addresses
    );
    for address in &there.addresses {
        stage.pings(&here, *address)?;
        let host = if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
        let page = stage.fetches(&here, &format!("http://{host}:8080/hostname"))?;
        ensure!(page == "there", "{address} answered {page:?}");
    }
    let six = [stage.server("six", "a", first)?, stage.server("six", "b", second)?];
    ensure!(
        six.iter().all(|p| p.addresses.len() == 1 && p.addresses[0].is_ipv6()),
        "pods of the IPv6 subnet have {:?}",
        six.iter().map(|p| &p.addresses).collect::<Vec<_>>()
    );
    stage.pings(&six[0], six[1].address()?)?;
    let page = stage.fetches(&six[0], &format!("http://[{}]:8080/hostname", six[1].address()?))?;
    ensure!(page == "b", "answer {page:?}");
    stage.pings(&here, six[1].address()?)?;
    Ok(())
}
