//! The two databases of OVN, in the engine's words.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use engine::{CommitOutcome, EffectId, Event, ReplicaEvent};
use ovsdb::client::{self, Client, ClientConfig, Handle, Remote, TableSelection, TlsConfig};
use ovsdb::{TransactError, TransactResult};

use crate::flags::Flags;

/// Connects to the northbound database; every table that the planner knows is followed.
pub fn northbound(flags: &Flags) -> anyhow::Result<(Handle, client::Events)> {
    let remotes = flags.northbound()?;
    let mut config = config(flags, &remotes, "OVN_Northbound").context("--ovn-nb-addr")?;
    for table in ovn::Database::Northbound.tables() {
        let columns = table.columns().map(ovn::Column::name);
        config = config.monitor(table.name(), TableSelection::columns(columns));
    }
    Ok(Client::connect(config)?)
}

/// Connects to the southbound database; of it, only chassis are followed.
pub fn southbound(flags: &Flags) -> anyhow::Result<(Handle, client::Events)> {
    let remotes = flags.southbound()?;
    let config = config(flags, &remotes, "OVN_Southbound").context("--ovn-sb-addr")?;
    let chassis = TableSelection::columns(["name", "hostname", "external_ids", "other_config"]);
    let private = TableSelection::columns(["name"]);
    Ok(Client::connect(
        config
            .monitor("Chassis", chassis)
            .monitor("Chassis_Private", private),
    )?)
}

fn config(flags: &Flags, remotes: &str, database: &str) -> anyhow::Result<ClientConfig> {
    let mut config = ClientConfig::new(Remote::parse_list(remotes)?, database);
    config.inactivity = Duration::from_secs(flags.ovsdb_inactivity_timeout.max(1));
    if remotes.contains("ssl:") {
        config.tls = Some(TlsConfig {
            private_key: flags.tls_key.clone(),
            certificate: flags.tls_cert.clone(),
            ca_cert: flags.tls_ca.clone(),
            server_name: None,
        });
    }
    Ok(config)
}

/// What a client says, as the engine understands it.
pub fn event(event: client::ReplicaEvent, wrap: fn(ReplicaEvent) -> Event) -> Event {
    match event {
        client::ReplicaEvent::Connected(connected) => {
            wrap(ReplicaEvent::Connected(Some(Arc::clone(&connected.schema))))
        }
        client::ReplicaEvent::Update(deltas) => wrap(ReplicaEvent::Deltas(deltas)),
        client::ReplicaEvent::Synced => wrap(ReplicaEvent::Synced),
        client::ReplicaEvent::Disconnected(why) => wrap(ReplicaEvent::Disconnected(why)),
        client::ReplicaEvent::Outcome { token, result } => Event::Committed {
            id: EffectId(token),
            outcome: outcome(&result),
        },
    }
}

/// How a transaction ended.
pub fn outcome(result: &TransactResult) -> CommitOutcome {
    match result {
        Ok(_) => CommitOutcome::Committed,
        Err(error) if error.is_timed_out() => {
            let op = match error {
                TransactError::Refused { index, .. } => index.unwrap_or_default(),
                _ => 0,
            };
            CommitOutcome::WaitFailed { op }
        }
        Err(TransactError::Refused { index, error }) => CommitOutcome::Refused {
            op: *index,
            error: error.to_string(),
        },
        // No server could read it, now or later: it ends like one that was refused.
        Err(error @ TransactError::Encoding(_)) => CommitOutcome::Refused {
            op: None,
            error: error.to_string(),
        },
        Err(error) if error.is_unknown() => CommitOutcome::Unknown(error.to_string()),
        Err(error) => CommitOutcome::Retry(error.to_string()),
    }
}
