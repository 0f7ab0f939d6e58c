//! What an older or newer OVN lacks.

use std::collections::BTreeSet;
use std::fmt;

use ovsdb::wire;
use smol_str::SmolStr;

use crate::model::{Column, Database, Mode, Table};

/// A table or column that the server does not have. Prints as one line for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    pub version: SmolStr,
    pub what: MissingWhat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingWhat {
    Table(Table),
    Column(Column),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (database, since, until) = match self.what {
            MissingWhat::Table(table) => (table.database(), table.def().since, None),
            MissingWhat::Column(column) => {
                let def = column.def();
                (column.table().database(), def.since, def.until)
            }
        };
        write!(f, "{database} {} has no ", self.version)?;
        match self.what {
            MissingWhat::Table(table) => write!(f, "table {table}")?,
            MissingWhat::Column(column) => write!(f, "column {column}")?,
        }
        match (since, until) {
            (_, Some(until)) => write!(f, " (gone in {until})")?,
            (Some(since), None) => write!(f, " (since {since})")?,
            (None, None) => {}
        }
        match self.what {
            MissingWhat::Table(_) => f.write_str(": its rows are not written"),
            MissingWhat::Column(column) if column.def().essential => {
                f.write_str(": rows that need it are not written")
            }
            MissingWhat::Column(_) => f.write_str(": rows are written without it"),
        }
    }
}

/// The written tables and columns that a server lacks. What the server has beyond the model is left alone.
pub(crate) fn missing(
    database: Database,
    schema: &wire::DatabaseSchema,
) -> (BTreeSet<Table>, BTreeSet<Column>, Vec<Missing>) {
    let mut tables = BTreeSet::new();
    let mut columns = BTreeSet::new();
    let mut report = Vec::new();
    for table in database.tables().filter(|table| table.is_written()) {
        let Some(known) = schema.tables.get(table.name()) else {
            tables.insert(table);
            report.push(MissingWhat::Table(table));
            continue;
        };
        for column in table.columns().filter(|c| c.mode() != Mode::Ignored) {
            if !known.columns.contains_key(column.name()) {
                columns.insert(column);
                report.push(MissingWhat::Column(column));
            }
        }
    }
    let report = report
        .into_iter()
        .map(|what| Missing {
            version: schema.version.clone(),
            what,
        })
        .collect();
    (tables, columns, report)
}
