//! A database in memory, a difference, and the way between them.

use ovn::{Database, Diff, Fragment, Identity, Options, Plan, nb};
use ovsdb::wire::Operation;
use uuid::Uuid;

use super::Memory;

pub const CLUSTER: Uuid = Uuid::from_u128(0xc1);

pub struct Fixture {
    pub memory: Memory,
    pub diff: Diff<&'static str>,
}

impl Fixture {
    pub fn new() -> Self {
        Self::release("25.03")
    }

    pub fn release(release: &str) -> Self {
        let memory = Memory::northbound(release);
        let mut diff = Diff::new(Database::Northbound, Identity::new(CLUSTER));
        diff.support(&memory.schema);
        Self { memory, diff }
    }

    /// A switch `s`, a group `g`, a router `r`.
    pub fn with_basics() -> Self {
        let mut fixture = Self::new();
        fixture.diff.set("basics", basics());
        fixture.flush();
        fixture
    }

    pub fn plan(&mut self) -> Plan<&'static str> {
        self.diff.plan(&Options::default())
    }

    pub fn commit(&mut self, ops: &[Operation]) {
        let deltas = self.memory.run(ops).unwrap();
        self.diff.apply(&deltas);
    }

    pub fn flush(&mut self) -> String {
        let plan = self.plan();
        for batch in &plan.batches {
            self.commit(&batch.ops);
        }
        plan.to_string()
    }

    pub fn uuid(&self, table: &str, name: &str) -> Uuid {
        self.memory.find(table, "name", name).unwrap().0
    }
}

pub fn basics() -> Fragment {
    let mut f = Fragment::new("Subnet/s");
    f.row(nb::LogicalSwitch {
        name: "s".into(),
        ..Default::default()
    });
    f.row(nb::PortGroup {
        name: "g".into(),
        ..Default::default()
    });
    f.row(nb::LogicalRouter {
        name: "r".into(),
        ..Default::default()
    });
    f
}

pub fn port(name: &str, switch: &str, address: &str) -> Fragment {
    let mut f = Fragment::new(format!("Pod/ns/{name}"));
    let port = f.rule("port").child(
        &nb::LogicalSwitch::named(switch),
        nb::LogicalSwitch::PORTS,
        nb::LogicalSwitchPort {
            name: name.into(),
            addresses: ovn::set([address]),
            ..Default::default()
        },
    );
    f.member(&nb::PortGroup::named("g"), nb::PortGroup::PORTS, &port);
    f
}
