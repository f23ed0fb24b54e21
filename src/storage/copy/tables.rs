//! Every table of a store: what a copy has of it, column by column, and what it makes again. A test fails if a table or column is missing here.

/// A table whose rows are copied as they are, with the same columns in both databases.
#[derive(Debug)]
pub(in crate::storage) struct Table {
    /// Its name.
    pub(in crate::storage) name: &'static str,
    /// Of a table of logs: the table of the logs of other instances in SQLite. In PostgreSQL, its rows have the number of their instance.
    pub(in crate::storage) other: Option<&'static str>,
    /// The first columns that order its rows.
    pub(in crate::storage) order: usize,
    /// The columns that are copied.
    pub(in crate::storage) columns: &'static [Column],
}

/// A column that is copied.
#[derive(Debug)]
pub(in crate::storage) struct Column {
    /// Its name.
    pub(in crate::storage) name: &'static str,
    /// Its type.
    pub(in crate::storage) kind: Kind,
}

/// The type of a column. SQLite has signed integers of 64 bits, texts and bytes only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::storage) enum Kind {
    /// A signed integer of 64 bits.
    Integer,
    /// A signed integer of 32 bits in PostgreSQL.
    Small,
    /// A truth value in PostgreSQL, 0 or 1 in SQLite.
    Flag,
    /// A text.
    Text,
    /// Bytes.
    Bytes,
}

const fn integer(name: &'static str) -> Column {
    Column { name, kind: Kind::Integer }
}

const fn flag(name: &'static str) -> Column {
    Column { name, kind: Kind::Flag }
}

const fn text(name: &'static str) -> Column {
    Column { name, kind: Kind::Text }
}

const fn bytes(name: &'static str) -> Column {
    Column { name, kind: Kind::Bytes }
}

/// The tables, so that a row follows the rows that it refers to, and a digest follows its entries.
pub(in crate::storage) const TABLES: &[Table] = &[
    Table {
        name: "wrapper_keys",
        other: None,
        order: 1,
        columns: &[
            integer("position"),
            text("id"),
            text("provider"),
            text("identity"),
            text("reference"),
            bytes("canary"),
            integer("created_at"),
            text("regions"),
            text("state"),
            integer("last_used_at"),
        ],
    },
    Table {
        name: "keys",
        other: None,
        order: 1,
        columns: &[
            integer("position"),
            text("id"),
            text("node"),
            text("purpose"),
            text("spec"),
            text("usages"),
            text("class"),
            text("origin"),
            flag("exportable"),
            text("name"),
            bytes("public_key"),
            text("predecessor"),
            integer("created_at"),
            text("lifecycle"),
            integer("revision"),
            text("successor"),
            integer("delete_at"),
            bytes("row_tag"),
            integer("generation"),
            bytes("sealed"),
            integer("sealed_at"),
        ],
    },
    Table {
        name: "wraps",
        other: None,
        order: 1,
        columns: &[
            integer("position"),
            text("key"),
            text("wrapper_key"),
            integer("generation"),
            bytes("wrapped"),
            integer("created_at"),
            integer("verified_at"),
            flag("quarantined"),
        ],
    },
    Table {
        name: "jobs",
        other: None,
        order: 1,
        columns: &[
            integer("position"),
            text("id"),
            text("kind"),
            text("from_key"),
            text("to_key"),
            integer("started_at"),
            text("state"),
            integer("total"),
            integer("done"),
            integer("failed"),
            text("errors"),
            integer("finished_at"),
        ],
    },
    Table { name: "policies", other: None, order: 1, columns: &[text("digest"), text("text")] },
    Table {
        name: "idempotency",
        other: None,
        order: 3,
        columns: &[text("principal"), text("route"), text("key"), bytes("body_hash"), bytes("answer"), integer("expires_at")],
    },
    Table {
        name: ENTRIES,
        other: Some("other_entries"),
        order: 1,
        columns: &[integer("sequence"), bytes("entry"), bytes("leaf"), integer("state_revision")],
    },
    Table {
        name: TREE,
        other: Some("other_tree"),
        order: 2,
        columns: &[Column { name: "level", kind: Kind::Small }, integer("position"), bytes("hash")],
    },
    Table { name: "audit_checkpoints", other: None, order: 2, columns: &[text("origin"), integer("size"), bytes("note"), integer("at")] },
    Table {
        name: "audit_sinks",
        other: Some("other_sinks"),
        order: 1,
        columns: &[text("name"), integer("sequence"), bytes("leaf"), integer("at")],
    },
    Table { name: DIGESTS, other: Some("other_digests"), order: 1, columns: &[integer("block"), bytes("filter")] },
    Table {
        name: "audit_totals",
        other: Some("other_totals"),
        order: 7,
        columns: &[
            integer("day"),
            text("principal"),
            text("certificate"),
            text("node"),
            text("key_id"),
            text("operation"),
            text("outcome"),
            integer("entries"),
            integer("calls"),
            integer("first_at"),
            integer("last_at"),
        ],
    },
];

/// The state changes of all logs, in the order of their chain. It is read, and not copied.
pub(in crate::storage) static CHAIN: Table =
    Table { name: ENTRIES, other: None, order: 1, columns: &[integer("state_revision"), bytes("entry"), bytes("leaf")] };

/// The table of the log.
pub(in crate::storage) const ENTRIES: &str = "audit_entries";
/// The table of the hashes of complete subtrees.
pub(in crate::storage) const TREE: &str = "audit_tree";
/// The table of the digests of complete blocks.
pub(in crate::storage) const DIGESTS: &str = "audit_digests";

/// Columns that are not copied one by one, and why.
const OTHER_COLUMNS: &[(&str, &[&str], &str)] = &[
    ("meta", &["only_row", "vault", "mode", "hash_key", "created_at", "store_revision", "frozen", "removal_position"], "copied as one row"),
    ("meta", &["oldest_schema"], "made by the migrations"),
    ("instances", &["number", "name", "removal_position"], "the logs that are copied"),
    ("instances", &["version", "seen_at"], "of running processes"),
    ("other_logs", &["name", "removal_position"], "the logs that are copied"),
    ("keys", &["state"], "computed by the database"),
    ("audit_entries", &["at", "principal", "operation", "key_id", "node", "outcome", "key_revision", "changed_key"], "made from the entry"),
    ("audit_digests", &["principals", "operations", "nodes", "outcomes", "first_at", "last_at"], "made from the entries of the block"),
];

/// Tables whose rows are not copied, and why.
const NOT_COPIED: &[(&str, &str)] = &[
    ("leases", "of running processes"),
    ("audit_blocks", "made from the entries of each block with a digest"),
    ("audit_keys", "made from the entries of each block with a digest"),
    ("audit_key_parts", "made from the entries of each block with a digest"),
    ("refinery_schema_history", "made by the migrations"),
];

/// Whether a copy has a column of a table, or makes it again.
pub fn copies_column(table: &str, column: &str) -> bool {
    let known = TABLES.iter().find(|known| known.name == table || known.other == Some(table));
    let copied = known.is_some_and(|known| known.columns.iter().any(|known| known.name == column));
    let of_instance = column == "instance" && known.is_some_and(|known| known.other.is_some());
    let name = known.map_or(table, |known| known.name);
    let other = OTHER_COLUMNS.iter().any(|(known, columns, _)| *known == name && columns.contains(&column));
    copied || of_instance || other || NOT_COPIED.iter().any(|(known, _)| *known == table)
}

impl Table {
    /// The names of the columns, for SQL.
    pub(in crate::storage) fn column_list(&self) -> String {
        self.columns.iter().map(|column| column.name).collect::<Vec<_>>().join(", ")
    }

    /// The columns that order the rows.
    pub(in crate::storage) fn order_columns(&self) -> &'static [Column] {
        self.columns.get(..self.order).unwrap_or_default()
    }
}
