//! Pages of keys. All given filters must match.

use std::{
    collections::HashSet,
    sync::{PoisonError, RwLock},
};

use rusqlite::{Connection, params_from_iter, types::Value};

use super::{
    KeyFilter, PageRequest, Positioned, StoreError, VerifiedState,
    error::signed,
    read::{self, Snapshot},
    rows::{self, KEY_COLUMNS, unsigned},
};
use crate::domain::{Class, KeyId, KeyName, KeyRecord, KeyState, NodeName, NodeScope, Purpose};

/// Keys in the order of their creation. A key whose lifecycle cannot be read is shown as quarantined. A key whose bound attributes cannot
/// be read is omitted and logged, so that it does not hide others.
pub(super) fn keys(db: &Connection, filter: &KeyFilter, page: PageRequest) -> Result<Vec<Positioned<KeyRecord>>, StoreError> {
    let mut conditions = Conditions::after("position", page.after)?;
    conditions.keys(filter);
    let sql = format!("SELECT {KEY_COLUMNS} FROM keys {conditions} ORDER BY position");
    let mut sql = db.prepare(&sql)?;
    let mut rows = sql.query(params_from_iter(conditions.values))?;
    let mut keys = Vec::new();
    // No LIMIT, because an omitted row must not make the page look like the last one.
    while keys.len() < page.limit as usize {
        let Some(row) = rows.next()? else { break };
        match rows::key_for_list(db, row) {
            Ok(item) => keys.push(Positioned { position: unsigned(row.get("position")?)?, item }),
            Err(error @ StoreError::Corrupt { .. }) => tracing::error!(%error, "a list skips a key, because its row cannot be read"),
            Err(error) => return Err(error),
        }
    }
    Ok(keys)
}

/// The ids of keys with this name, or whose id begins with this text.
pub(super) fn find_keys(db: &Connection, text: &str, nodes: &NodeScope, limit: u32) -> Result<Vec<KeyId>, StoreError> {
    let mut conditions = Conditions::after("position", 0)?;
    conditions.keys(&KeyFilter { nodes: nodes.clone(), key: Some(text.to_owned()), ..KeyFilter::all() });
    let sql = format!("SELECT id FROM keys {conditions} ORDER BY position LIMIT {limit}");
    let mut sql = db.prepare(&sql)?;
    let rows = sql.query_map(params_from_iter(conditions.values), |row| row.get::<_, String>(0))?;
    let ids = rows.collect::<Result<Vec<_>, _>>()?;
    Ok(ids.iter().filter_map(|id| id.parse().ok()).collect())
}

/// The ids of all rows of keys, and of the keys that have no row.
#[derive(Debug, Default)]
pub struct KeyRows {
    /// The ids, in the order of the creation. Other columns may be damaged.
    pub ids: Vec<KeyId>,
    /// What is wrong with each row whose id cannot be read.
    pub unreadable: Vec<String>,
    /// The keys that the log knows and that have no row.
    pub missing: Vec<KeyId>,
}

/// Every row of a key, without a limit, compared with the log.
pub(super) fn key_rows(db: &Connection, state: &RwLock<VerifiedState>) -> Result<Snapshot<KeyRows>, StoreError> {
    let mut sql = db.prepare("SELECT position, id FROM keys ORDER BY position")?;
    let mut rows = sql.query([])?;
    let mut found = KeyRows::default();
    while let Some(row) = rows.next()? {
        let position: i64 = row.get("position")?;
        let id = row.get::<_, String>("id").map_err(|error| error.to_string());
        match id.and_then(|id| id.parse::<KeyId>().map_err(|error| error.to_string())) {
            Ok(id) => found.ids.push(id),
            Err(why) => found.unreadable.push(format!("row {position} of the table keys has no readable id: {why}")),
        }
    }
    let state = state.read().unwrap_or_else(PoisonError::into_inner);
    let with_row: HashSet<KeyId> = found.ids.iter().copied().collect();
    found.missing = state.keys().filter(|id| !with_row.contains(id)).collect();
    found.missing.sort_unstable_by_key(KeyId::to_string);
    Ok(read::snapshot_revision(db, &state)?.map(|_| found))
}

/// The number of keys.
pub(super) fn count_keys(db: &Connection, filter: &KeyFilter) -> Result<u64, StoreError> {
    let mut conditions = Conditions::after("position", 0)?;
    conditions.keys(filter);
    let sql = format!("SELECT count(*) FROM keys {conditions}");
    unsigned(db.query_row(&sql, params_from_iter(conditions.values), |row| row.get(0))?)
}

/// A WHERE clause that is built step by step. The texts are constants, and the values are bound.
struct Conditions {
    texts: Vec<String>,
    values: Vec<Value>,
}

impl Conditions {
    /// Only rows after the cursor.
    fn after(cursor: &str, position: u64) -> Result<Self, StoreError> {
        Ok(Self { texts: vec![format!("{cursor} > ?")], values: vec![signed(position)?.into()] })
    }

    fn keys(&mut self, filter: &KeyFilter) {
        let KeyFilter { nodes, node, purpose, state, class, name, key, created_since, created_before } = filter;
        self.nodes(nodes);
        self.equal("node", node.as_ref().map(NodeName::as_str));
        if node.is_none() {
            // The keys of the vault itself are in no list of keys of nodes.
            self.push("node IS NOT ?", [Value::Text(NodeName::vault().to_string())]);
        }
        self.equal("purpose", purpose.map(Purpose::as_str));
        match state {
            // Also the rows whose state is not a valid text.
            Some(KeyState::Quarantined) => {
                let others = KeyState::ALL.iter().filter(|state| **state != KeyState::Quarantined);
                self.is_in("state", "NOT IN", others.map(|state| state.as_str()));
            }
            state => self.equal("state", state.map(KeyState::as_str)),
        }
        self.equal("class", class.map(Class::as_str));
        self.equal("name", name.as_ref().map(KeyName::as_str));
        if let Some(text) = key {
            self.push("(name = ? OR substr(id, 1, length(?)) = ?)", [text; 3].map(|text| Value::Text(text.clone())));
        }
        if let Some(since) = created_since {
            self.push("created_at >= ?", [Value::from(since.micros())]);
        }
        if let Some(before) = created_before {
            self.push("created_at < ?", [Value::from(before.micros())]);
        }
    }

    fn push(&mut self, text: impl Into<String>, values: impl IntoIterator<Item = Value>) {
        self.texts.push(text.into());
        self.values.extend(values);
    }

    fn equal(&mut self, column: &str, value: Option<impl Into<String>>) {
        if let Some(value) = value {
            self.push(format!("{column} = ?"), [Value::Text(value.into())]);
        }
    }

    fn is_in<'a>(&mut self, column: &str, operator: &str, words: impl Iterator<Item = &'a str>) {
        let words: Vec<Value> = words.map(|word| Value::Text(word.to_owned())).collect();
        self.push(format!("{column} {operator} ({})", vec!["?"; words.len()].join(", ")), words);
    }

    /// Rows without a node are in no list of nodes. The plus prevents that SQLite walks node by node, which would have to be sorted again.
    fn nodes(&mut self, scope: &NodeScope) {
        if let NodeScope::Only(nodes) = scope {
            self.is_in("+node", "IN", nodes.iter().map(NodeName::as_str));
        }
    }
}

impl std::fmt::Display for Conditions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WHERE {}", self.texts.join(" AND "))
    }
}
