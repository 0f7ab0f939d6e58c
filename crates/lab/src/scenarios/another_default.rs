//! The default subnet by flag: another CIDR, and pods and DNS live in it.

use anyhow::{Result, ensure};

use crate::down;
use crate::lab::{Lab, Spec};
use crate::progress::Progress;
use crate::scenario::{Scenario, Stage, any};
use crate::up;

pub const SCENARIO: Scenario = Scenario {
    name: "another-default",
    about: "a lab beside this one whose default subnet was set by flag: its pods live in 10.32.0.0/16 and resolve names",
    unfit: any,
    run,
};

fn run(stage: &Stage<'_>) -> Result<()> {
    let name = format!("{:.17}-y", stage.lab.name);
    let quiet = Progress::new(true);
    let spec = Spec {
        dual_stack: false,
        ovn_ha: false,
        dns: true,
        kube_proxy: true,
        pods: Some("10.32.0.0/16".parse()?),
        ..stage.lab.spec.clone()
    };
    let lab = Lab::plan(&name, spec, 1)?;
    let told = (|| {
        {
            let _lock = lab.lock()?;
            lab.save()?;
            up::bring_up(&lab, &quiet)?;
        }
        let there = Stage::new(&lab, &quiet);
        let pod = there.server("default", "pod", there.node(0)?)?;
        // Cluster DNS has two of the first addresses after the gateway.
        ensure!(pod.address()?.to_string().starts_with("10.32.0."), "the pod has {}", pod.address()?);
        let answer = there.exec(&pod, &["dig", "+short", "kubernetes.default.svc.cluster.local"])?;
        ensure!(answer.contains("10.68.0.1"), "DNS answers {answer:?}");
        there.keep();
        Ok(())
    })();
    down::down(&name)?;
    told
}
