//! `demo`: the seed's walk-through for someone who sees the system for the first time. The lab stays up.

use anyhow::Result;

use crate::lab::Lab;
use crate::progress::Progress;
use crate::scenario::Stage;
use crate::scenarios::seed;
use crate::status;
use crate::table::heading;

/// Walk through the seed on a lab that is up. Repeating it is fine.
pub fn walk(lab: &Lab, progress: &Progress, program: &str) -> Result<()> {
    println!("\n{}", heading("The cluster after installation"));
    println!("{}\n", status::seed_table(&status::gather(lab)?));

    println!(
        "{}",
        heading(
            "A namespace with a subnet of its own, two web servers in it, a client outside of it"
        )
    );
    let stage = Stage::new(lab, progress);
    let cast = progress.run("pods of the walk-through", |step| {
        let cast = seed::act(&stage, |line| {
            progress.say(&format!("  $ {line}"));
            step.now(line);
        })?;
        step.now("two nginx pods in test-ns and busy in default run");
        Ok(cast)
    })?;
    let pairs = progress.run(
        "every pod pings every other and fetches a page from every nginx",
        |_| seed::all_talk(&stage, &cast),
    )?;
    stage.keep();

    println!("\n{}", heading("The cluster now"));
    println!("{}\n", status::seed_table(&status::gather(lab)?));
    println!("All {pairs} pairs of pods talk to each other, across nodes and subnets.\n");
    println!("{}", heading("Three things to try next"));
    let program = if lab.name == "lab" {
        program.to_owned()
    } else {
        format!("{program} --name {}", lab.name)
    };
    println!(
        "  {program} exec default/busy -- ping -c 3 {}",
        cast.nginx[0].address()?
    );
    println!("  {program} nbctl -- show");
    println!("  {program} kubectl -- get subnets");
    println!("\nTake it down with: {program} down");
    Ok(())
}
