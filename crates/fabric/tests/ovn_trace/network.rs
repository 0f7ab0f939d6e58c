//! A cluster whose network is compiled, written to a real northbound database and translated by a real `ovn-northd`.
//!
//! ```text
//! objects ─> support::Cluster ─> fragments ─> ovn::Diff ─> ovsdb client ─> NB ─> ovn-northd ─> SB <─ ovn-trace
//! ```

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use fabric::{Config, Unit, World, compile};
use net::Mac;
use ovn::{Column, Database, Diff, Identity, Options, Plan};
use ovsdb::client::{Client, ClientConfig, Events, Handle, Remote, ReplicaEvent, TableSelection};
use ovsdb::wire::{DatabaseSchema, Operation};
use serde_json::{Value, json};
use testkit::ovn::{Northd, Schema, Server};
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::programs::{dump, nbctl, sbctl, schema};
use crate::support::{Cluster, change_of};

/// UID of `kube-system` in these tests.
pub const CLUSTER: Uuid = Uuid::from_u128(0x6b75_6265_2d6f_766e);

/// Plans and commits, as the engine does.
pub struct Writer {
    runtime: Runtime,
    handle: Handle,
    events: Events,
    pub diff: Diff<Unit>,
    pub schema: Option<Arc<DatabaseSchema>>,
    /// Transactions so far.
    pub commits: usize,
}

impl Writer {
    /// Connects to a northbound database and waits until the replica is complete.
    pub fn connect(remote: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let remotes = Remote::parse_list(remote).expect("a remote");
        let mut config = ClientConfig::new(remotes, Database::Northbound.name());
        // Between its calls a test keeps the client waiting.
        config.inactivity = std::time::Duration::from_hours(1);
        for table in Database::Northbound.tables() {
            let columns = table.columns().map(Column::name);
            config = config.monitor(table.name(), TableSelection::columns(columns));
        }
        let (handle, events) = {
            let _guard = runtime.enter();
            Client::connect(config).expect("a configuration")
        };
        let mut writer = Self {
            runtime,
            handle,
            events,
            diff: Diff::new(Database::Northbound, Identity::new(CLUSTER)),
            schema: None,
            commits: 0,
        };
        loop {
            let event = writer.runtime.block_on(writer.events.recv());
            let event = event.expect("the client runs");
            let synced = event == ReplicaEvent::Synced;
            writer.take(event);
            if synced {
                return writer;
            }
        }
    }

    fn take(&mut self, event: ReplicaEvent) {
        match event {
            ReplicaEvent::Connected(connected) => {
                self.diff.support(&connected.schema);
                self.schema = Some(connected.schema);
            }
            ReplicaEvent::Update(deltas) => self.diff.apply(&deltas),
            ReplicaEvent::Disconnected(reason) => panic!("disconnected: {reason}"),
            ReplicaEvent::Synced | ReplicaEvent::Outcome { .. } => {}
        }
    }

    pub fn set(&mut self, cluster: &Cluster, units: impl IntoIterator<Item = Unit>) {
        for unit in units {
            let fragment = cluster
                .compiled
                .get(&unit)
                .map(|compiled| compiled.fragment.clone())
                .unwrap_or_default();
            self.diff.set(unit, fragment);
        }
    }

    /// What would be sent. Nothing may be held back.
    pub fn plan(&mut self) -> Plan<Unit> {
        let plan = self.diff.plan(&Options::default());
        assert_eq!(plan.held, [], "held back:\n{plan}");
        assert_eq!(self.diff.conflicts(), []);
        plan
    }

    /// Takes in what others have changed up to now.
    pub fn catch_up(&mut self) {
        // The answer comes after everything that was committed before.
        self.commit(vec![Operation::comment("catching up")]);
    }

    /// Commits one transaction and takes in its effects.
    pub fn commit(&mut self, operations: Vec<Operation>) {
        let outcome = self.runtime.block_on(self.handle.transact(operations));
        outcome.unwrap_or_else(|error| panic!("{error}"));
        while let Some(event) = self.events.try_recv() {
            self.take(event);
        }
    }

    /// Keys and UUIDs of the rows in tables that we write.
    pub fn rows(&self) -> Vec<(String, Uuid)> {
        let rows = self.diff.rows().into_iter();
        rows.map(|(key, uuid, _)| (key.to_string(), uuid)).collect()
    }

    /// Commits until nothing is left to do, and returns what was sent, in words.
    pub fn flush(&mut self) -> String {
        let mut sent = String::new();
        for _ in 0..50 {
            let plan = self.plan();
            let Some(batch) = plan.batches.first() else {
                assert!(self.diff.is_empty(), "nothing planned, yet not done");
                assert_eq!(self.diff.audit(), Vec::<String>::new());
                return sent;
            };
            sent += &plan.to_string();
            self.commit(batch.ops.clone());
            self.commits += 1;
        }
        panic!("the plans have no end; the last ones:\n{sent}");
    }
}

pub struct Network {
    pub cluster: Cluster,
    pub writer: Writer,
    pub northd: Northd,
    pub nb: Server,
    pub sb: Server,
}

impl Network {
    /// Empty databases, a controller and the objects.
    pub fn start(config: Config, objects: impl IntoIterator<Item = Value>) -> Self {
        let nb = Server::start(schema(Schema::Northbound));
        Self::on(nb, Cluster::new(config), objects)
    }

    /// On a northbound database that may hold something already.
    pub fn on(nb: Server, cluster: Cluster, objects: impl IntoIterator<Item = Value>) -> Self {
        let sb = Server::start(schema(Schema::Southbound));
        // As ovn-ctl does: the global rows are there before anybody needs them.
        nbctl(&nb.remote(), &["init"]);
        sbctl(&sb.remote(), &["init"]);
        let northd = Northd::start(&nb.remote(), &sb.remote());
        let mut network = Self {
            cluster,
            writer: Writer::connect(&nb.remote()),
            northd,
            nb,
            sb,
        };
        network.apply(objects);
        network
    }

    /// `kubectl apply`, and the controller's work until nothing is left to do. Returns the transactions, in words.
    pub fn apply(&mut self, objects: impl IntoIterator<Item = Value>) -> String {
        let items: Vec<Value> = objects.into_iter().map(as_applied).collect();
        self.step(&json!({ "kind": "List", "items": items }))
    }

    /// `kubectl delete` of objects such as `Pod/default/web`.
    pub fn delete(&mut self, objects: &[&str]) -> String {
        self.step(&json!({ "delete": objects }))
    }

    /// What a document for [`Cluster::step`] says, and the controller's work. Returns the transactions, in words.
    pub fn step(&mut self, document: &Value) -> String {
        // JSON is YAML.
        let dirty = self.cluster.step(&document.to_string());
        self.writer.set(&self.cluster, dirty);
        let sent = self.writer.flush();
        self.translate();
        sent
    }

    /// Waits until ovn-northd has translated everything.
    pub fn translate(&self) {
        nbctl(&self.nb.remote(), &["--wait=sb", "sync"]);
    }

    /// A controller that starts anew: everything that it knows, it has from Kubernetes and the databases.
    pub fn restarted(&self) -> Writer {
        self.restarted_on(&self.nb.remote())
    }

    /// The same, with another northbound database.
    pub fn restarted_on(&self, remote: &str) -> Writer {
        let mut world = World::new(self.cluster.world.config().clone());
        world.apply_all(self.cluster.objects.values().filter_map(change_of));
        let leases = self.cluster.world.leases();
        world.apply_all(
            leases.map(|(port, lease)| fabric::Change::Lease(port.clone(), Some(lease.clone()))),
        );
        world.settle();
        let mut writer = Writer::connect(remote);
        for unit in world.units() {
            let fragment = compile(&unit, &world).fragment;
            writer.diff.set(unit, fragment);
        }
        writer
    }

    /// Everything of ours in the northbound database, UUIDs included. Columns that OVN's own programs write are left out.
    pub fn contents(&self) -> String {
        self.contents_of(&self.nb.remote())
    }

    pub fn contents_of(&self, remote: &str) -> String {
        let schema = self.writer.schema.as_ref().expect("a connection");
        let mut text = String::new();
        for table in Database::Northbound.tables() {
            let Some(there) = schema.tables.get(table.name()) else {
                continue;
            };
            if table.is_singleton() || !table.is_written() {
                continue;
            }
            let columns = table
                .columns()
                .filter(|column| column.mode() != ovn::model::Mode::Ignored)
                .map(Column::name)
                .filter(|column| there.columns.contains_key(*column));
            let args: Vec<&str> = [table.name(), "_uuid"].into_iter().chain(columns).collect();
            let rows = dump(remote, Database::Northbound.name(), &args);
            let rows: BTreeSet<&str> = rows.lines().skip(2).collect();
            for row in rows {
                text.extend([table.name(), ": ", row, "\n"]);
            }
        }
        text
    }

    pub fn address(&self, port: &str, family: net::Family) -> IpAddr {
        let lease = self.cluster.world.lease(port);
        let lease = lease.unwrap_or_else(|| panic!("{port} has no addresses"));
        *lease
            .addresses
            .get(family)
            .unwrap_or_else(|| panic!("{port} has no {family} address"))
    }

    pub fn v4(&self, port: &str) -> IpAddr {
        self.address(port, net::Family::V4)
    }

    pub fn v6(&self, port: &str) -> IpAddr {
        self.address(port, net::Family::V6)
    }

    pub fn mac(&self, port: &str) -> Mac {
        let lease = self.cluster.world.lease(port);
        lease.unwrap_or_else(|| panic!("{port} has no MAC")).mac
    }

    /// The logical switch that a port is on.
    pub fn switch(&self, port: &str) -> &str {
        let lease = self.cluster.world.lease(port);
        &lease.unwrap_or_else(|| panic!("no port {port}")).subnet
    }

    pub fn gateway_mac(&self, switch: &str) -> Mac {
        let mac = self.cluster.world.gateway_mac(switch);
        mac.unwrap_or_else(|| panic!("{switch} has no gateway"))
    }

    /// Fails if northd complained about something.
    pub fn assert_northd_is_content(&self) {
        let log = self.northd.process().log();
        let complaints = crate::programs::complaints(&log, HARMLESS);
        assert!(complaints.is_empty(), "ovn-northd: {complaints:#?}");
    }
}

/// What ovn-northd says on any network.
const HARMLESS: &[&str] = &[];

/// The test's API server keeps the owners of fields itself, as the real one does.
fn as_applied(mut object: Value) -> Value {
    if let Some(meta) = object["metadata"].as_object_mut() {
        meta.remove("managedFields");
    }
    object
}

impl Network {
    /// The logical flows that northd made, as `ovn-sbctl lflow-list` prints them.
    pub fn logical_flows(&self) -> String {
        sbctl(&self.sb.remote(), &["lflow-list"])
    }

    /// Columns of the ports that northd made of ours, one port a line.
    pub fn port_bindings(&self, columns: &[&str]) -> BTreeSet<String> {
        let columns = format!("--columns={}", columns.join(","));
        let args = [
            "--format=csv",
            "--no-headings",
            "--data=bare",
            &columns,
            "list",
            "Port_Binding",
        ];
        let text = sbctl(&self.sb.remote(), &args);
        text.lines().map(str::to_owned).collect()
    }
}

impl Network {
    /// Rows of the southbound `Chassis` table: UUIDs by name.
    pub fn chassis(&self) -> std::collections::BTreeMap<String, String> {
        let args = [
            "--format=csv",
            "--no-headings",
            "--data=bare",
            "--columns=name,_uuid",
            "list",
            "Chassis",
        ];
        let text = sbctl(&self.sb.remote(), &args);
        let pairs = text.lines().filter_map(|line| line.split_once(','));
        pairs
            .map(|(name, uuid)| (name.to_owned(), uuid.to_owned()))
            .collect()
    }
}
