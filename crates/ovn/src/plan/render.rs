//! Plans as text, for people: what the controller's `/brakes` shows line by line, and what tests compare.

use std::fmt;

use uuid::Uuid;

use super::{Batch, Held, Plan, Step};
use crate::diff::{Change, Edit};
use crate::model::{Atom, RowKey};

impl<U: fmt::Display + Ord + Clone> fmt::Display for Plan<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.batches.is_empty() && self.held.is_empty() {
            return writeln!(f, "nothing to do");
        }
        for (i, batch) in self.batches.iter().enumerate() {
            writeln!(
                f,
                "transaction {} of {}: {} operations",
                i + 1,
                self.batches.len(),
                batch.ops.len()
            )?;
            batch.fmt(f)?;
        }
        if !self.held.is_empty() {
            writeln!(f, "held back:")?;
            for held in &self.held {
                writeln!(f, "  ! {held}")?;
            }
        }
        Ok(())
    }
}

impl<U> fmt::Display for Batch<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "  {step}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Insert { key, row } => write!(f, "+ {key}: {row}"),
            Self::Update {
                key,
                changes,
                adopts,
            } => {
                write!(f, "~ {key}:")?;
                if *adopts {
                    f.write_str(" (adopted)")?;
                }
                changes.iter().try_for_each(|change| write!(f, " {change}"))
            }
            Self::Add {
                key,
                column,
                element,
                value,
            } => {
                write!(f, "+ {key}: {} {}", column.name(), Element(element))?;
                value.iter().try_for_each(|value| write!(f, "={value:?}"))
            }
            Self::Remove {
                key,
                column,
                element,
            } => match key {
                Some(key) => write!(f, "- {key}: {} {element}", column.name()),
                None => write!(f, "- {column} {element}"),
            },
            Self::Delete { table, key, uuid } => match key {
                Some(key) => write!(f, "- {key}"),
                None => write!(f, "- {table} {uuid}"),
            },
        }
    }
}

/// An element without quotes where it is the name of a row.
struct Element<'a>(&'a Atom);

impl fmt::Display for Element<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Atom::Row(key) => f.write_str(&key.name),
            other => write!(f, "{other:?}"),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.column.name();
        match &self.edit {
            Edit::Set { old, new } => write!(f, "{name}={old}->{new}"),
            Edit::Elements { insert, delete } => {
                write!(f, "{name}")?;
                delete.iter().try_for_each(|atom| write!(f, " -{atom:?}"))?;
                insert.iter().try_for_each(|atom| write!(f, " +{atom:?}"))
            }
            Edit::Entries { insert, delete, .. } => {
                write!(f, "{name}")?;
                delete.iter().try_for_each(|key| write!(f, " -{key}"))?;
                let mut entries = insert.iter();
                entries.try_for_each(|(key, value)| write!(f, " +{key}={value:?}"))
            }
        }
    }
}

impl<U: fmt::Display> fmt::Display for Held<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign { key, uuid, unit } => write!(
                f,
                "{key} of {unit}: another row has this name ({uuid}); remove or rename it"
            ),
            Self::Lost { key, unit, to } => {
                write!(f, "{key} of {unit}: {to} wants it too and has it")
            }
            Self::Orphan { key, unit } => {
                write!(f, "{key} of {unit}: the row it belongs into is not there")
            }
            Self::Absent {
                parent,
                column,
                element,
                unit,
            } => write!(
                f,
                "{parent} {}: {element} of {unit}: one of the two rows is not there, or not ours",
                column.name()
            ),
            Self::Dangling { key, target, unit } => {
                write!(
                    f,
                    "{key} of {unit}: it refers to {target}, which is not there"
                )
            }
            Self::NoTable { table, rows } => write!(
                f,
                "{rows} rows of {table}: this version of {} has no such table",
                table.database()
            ),
            Self::NoColumn { key, column, unit } => write!(
                f,
                "{key} of {unit}: this version of {} has no {column}, without which it would mean something else",
                column.table().database()
            ),
            Self::Brake {
                table,
                deletes,
                owned,
                example,
            } => {
                write!(
                    f,
                    "{deletes} of {owned} rows of {table} would be deleted at once"
                )?;
                if let Some(key) = example {
                    write!(f, " (the first is {})", key.name)?;
                }
                f.write_str("; this needs consent")
            }
            Self::ElementBrake {
                column,
                removes,
                owned,
                example,
            } => {
                write!(
                    f,
                    "{removes} of {owned} elements of {column} would be removed at once"
                )?;
                if let Some(key) = example {
                    write!(f, " (the first from {})", key.name)?;
                }
                f.write_str("; this needs consent")
            }
            Self::Barrier { rows, elements } => write!(
                f,
                "{rows} rows and {elements} elements that nobody wants: nothing is removed before everything is known"
            ),
            Self::Inhabited {
                key,
                uuid,
                inhabitants,
            } => {
                unwanted(f, key.as_ref(), *uuid)?;
                f.write_str(" contains rows that are to stay:")?;
                inhabitants.iter().try_for_each(|uuid| write!(f, " {uuid}"))
            }
            Self::Referenced {
                key,
                uuid,
                by,
                column,
            } => {
                unwanted(f, key.as_ref(), *uuid)?;
                write!(f, " is referred to by {column} of {by}")
            }
            Self::Last {
                key,
                uuid,
                parent,
                column,
            } => {
                unwanted(f, key.as_ref(), *uuid)?;
                write!(
                    f,
                    " is the last in {column} of {parent}, which must not be empty"
                )
            }
            Self::Parked { unit } => write!(f, "{unit}: parked after an error"),
        }
    }
}

fn unwanted(f: &mut fmt::Formatter<'_>, key: Option<&RowKey>, uuid: Uuid) -> fmt::Result {
    match key {
        Some(key) => write!(f, "{key}")?,
        None => write!(f, "row {uuid}")?,
    }
    f.write_str(" is not wanted any more, but")
}
