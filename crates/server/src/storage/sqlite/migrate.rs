//! Brings a file's schema to this version's, step by step.
//!
//! Invariant: a step that was applied is recorded with its checksum in the same transaction, and is
//! never applied again; a step's text never changes once it is out. Limit: forwards only.

use rusqlite::{Connection, Transaction, TransactionBehavior};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// Why the schema can't be brought to this version's; the file is as it was.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MigrationError {
    /// The file was written by a newer version.
    #[error("the schema has version {found}, this program knows up to {known}")]
    Newer {
        /// The file's version.
        found: i64,
        /// This program's version.
        known: i64,
    },
    /// A step was applied with another text than this program has.
    #[error("step {version} of the schema was applied as another text than {name:?} has here")]
    Changed {
        /// The step's number.
        version: i64,
        /// The step's file.
        name: &'static str,
    },
    /// The database refused.
    #[error("the schema can't be brought up to date: {reason}")]
    Failed {
        /// What the database said.
        reason: String,
    },
}

impl From<rusqlite::Error> for MigrationError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed { reason: error.to_string() }
    }
}

/// One step: its number is its place in [`STEPS`], from 1.
struct Step {
    name: &'static str,
    sql: &'static str,
}

/// Applies the steps that are missing, all or none.
pub(super) fn migrate(connection: &Connection) -> Result<(), MigrationError> {
    // Immediate, so that of two servers that start on one file one waits for the other.
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    transaction.execute_batch(
        "CREATE TABLE IF NOT EXISTS schema_migrations (
             version    INTEGER PRIMARY KEY,
             name       TEXT NOT NULL,
             checksum   TEXT NOT NULL,
             applied_at TEXT NOT NULL
         ) STRICT",
    )?;
    let found: i64 = transaction.query_row(
        "SELECT coalesce(max(version), 0) FROM schema_migrations",
        [],
        |row| row.get(0),
    )?;
    let known = i64::try_from(STEPS.len()).expect("the steps are few");
    if found > known {
        return Err(MigrationError::Newer { found, known });
    }
    for (version, step) in (1..).zip(&STEPS) {
        let checksum = checksum(step.sql);
        if version > found {
            transaction.execute_batch(step.sql)?;
            transaction.execute(
                "INSERT INTO schema_migrations VALUES
                     (?1, ?2, ?3, strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))",
                (version, step.name, &checksum),
            )?;
            continue;
        }
        let applied: String = transaction.query_row(
            "SELECT coalesce(max(checksum), '') FROM schema_migrations WHERE version = ?1",
            [version],
            |row| row.get(0),
        )?;
        if applied != checksum {
            return Err(MigrationError::Changed { version, name: step.name });
        }
    }
    transaction.commit()?;
    Ok(())
}

fn checksum(sql: &str) -> String {
    use std::fmt::Write as _;

    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(sql) {
        write!(text, "{byte:02x}").expect("writing to a String doesn't fail");
    }
    text
}

const STEPS: [Step; 1] = [Step {
    name: "001_events.sql",
    sql: include_str!("../../../migrations/sqlite/001_events.sql"),
}];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_applied_once() {
        let connection = Connection::open_in_memory().unwrap();
        migrate(&connection).unwrap();
        migrate(&connection).unwrap();
        let count: i64 = connection
            .query_row("SELECT count(*) FROM schema_migrations", [], |row| row.get(0))
            .unwrap();
        assert_eq!(count, 1);
    }

    #[test]
    fn a_newer_schema_is_refused_and_left_alone() {
        let connection = Connection::open_in_memory().unwrap();
        migrate(&connection).unwrap();
        connection
            .execute("INSERT INTO schema_migrations VALUES (7, '007.sql', 'x', 'now')", [])
            .unwrap();
        let error = migrate(&connection).unwrap_err();
        assert_eq!(error, MigrationError::Newer { found: 7, known: 1 });
        assert_eq!(error.to_string(), "the schema has version 7, this program knows up to 1");
        assert!(connection.is_autocommit());
    }

    #[test]
    fn a_step_applied_with_another_text_is_refused() {
        let connection = Connection::open_in_memory().unwrap();
        migrate(&connection).unwrap();
        connection.execute("UPDATE schema_migrations SET checksum = 'x'", []).unwrap();
        let error = migrate(&connection).unwrap_err();
        assert_eq!(error, MigrationError::Changed { version: 1, name: "001_events.sql" });
    }
}
