//! Tables of text that fit a width: ids of keys lose their end, times their fraction, optional columns are left out, and long cells lose their middle.
//! What fits is shown whole. A shortened id is a beginning that every command takes back.

use std::{collections::HashSet, fmt::Write as _, io::IsTerminal as _};

use crate::domain::{KeyId, Timestamp};

/// The width of an output that is no terminal, in characters.
const WIDTH: usize = 80;
/// Characters between two columns.
const GAP: usize = 2;
/// The smallest width to which a column is cut.
const SMALLEST: usize = 8;
/// Characters of a shortened id: what all ids of its kind share, and 8 hex digits. It is longer if two ids of the same rows share them.
const SHORT_ID: usize = 12;

/// Characters of the longest id of a key.
const LONGEST_ID: usize = 68;

/// A column: the field that it shows, and whether it is left out of a table that does not fit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    /// The name of the field.
    pub(super) name: &'static str,
    optional: bool,
}

/// A column that every table has.
pub(super) const fn column(name: &'static str) -> Column {
    Column { name, optional: false }
}

/// A column that a table has only if it fits. The last one is left out first.
pub(super) const fn optional(name: &'static str) -> Column {
    Column { name, optional: true }
}

/// The characters in a line of standard output: those of the terminal, or 80 elsewhere. No limit with `wide`.
pub(super) fn room(wide: bool) -> usize {
    let stdout = std::io::stdout();
    if wide {
        return usize::MAX;
    }
    let columns = stdout.is_terminal().then(|| rustix::termios::tcgetwinsize(&stdout).ok()).flatten().map(|size| usize::from(size.ws_col));
    // A terminal that does not know its size says 0.
    columns.filter(|columns| *columns > 0).unwrap_or(WIDTH)
}

/// The layout of a table. The first rows decide which columns it has and whether cells are shortened; later rows may widen its columns.
pub(super) struct Table {
    columns: Vec<Column>,
    room: usize,
    fitted: bool,
    shown: Vec<Shown>,
}

/// A column of the table as it is shown.
#[derive(Debug, Clone, Copy)]
struct Shown {
    index: usize,
    width: usize,
    /// Whether a cell may be cut. An id, a number or a time would be useless.
    may_cut: bool,
}

impl Table {
    /// A table whose lines have at most `room` characters.
    pub(super) fn new(columns: &[Column], room: usize) -> Self {
        Self { columns: columns.to_vec(), room, fitted: false, shown: Vec::new() }
    }

    /// The lines of the next rows: a header before the first ones.
    pub(super) fn lines(&mut self, mut rows: Vec<Vec<String>>) -> Vec<String> {
        let first = self.shown.is_empty();
        if rows.is_empty() {
            return Vec::new();
        }
        if first {
            let shown = |(index, column): (usize, &Column)| Shown { index, width: column.name.chars().count(), may_cut: true };
            self.shown = self.columns.iter().enumerate().map(shown).collect();
        }
        self.widen(&rows);
        if self.fitted || self.width() > self.room {
            let length = distinct_length(&rows);
            rows.iter_mut().flatten().for_each(|cell| shorten(cell, length));
            self.fit(&rows, first);
        }
        let head = first.then(|| self.columns.iter().map(|column| column.name.to_uppercase()).collect());
        head.iter().chain(&rows).map(|row| self.line(row)).collect()
    }

    fn width(&self) -> usize {
        self.shown.iter().map(|column| column.width).sum::<usize>() + GAP * self.shown.len().saturating_sub(1)
    }

    fn widen(&mut self, rows: &[Vec<String>]) {
        for column in &mut self.shown {
            let cells = rows.iter().filter_map(|row| row.get(column.index));
            column.width = cells.map(|cell| cell.chars().count()).max().unwrap_or_default().max(column.width);
        }
    }

    /// Makes the table fit as far as it can. Columns that a header has named stay.
    fn fit(&mut self, rows: &[Vec<String>], first: bool) {
        self.fitted = true;
        let names = self.columns.iter().map(|column| column.name.chars().count());
        let names: Vec<usize> = names.collect();
        for column in &mut self.shown {
            let cells = || rows.iter().filter_map(|row| row.get(column.index));
            let longest = cells().map(|cell| cell.chars().count()).max().unwrap_or_default();
            column.width = longest.max(names.get(column.index).copied().unwrap_or_default());
            column.may_cut = !cells().all(|cell| is_whole(cell));
        }
        while first && self.width() > self.room {
            let optional = |shown: &Shown| self.columns.get(shown.index).is_some_and(|column| column.optional);
            let Some(last) = self.shown.iter().rposition(optional) else { break };
            self.shown.remove(last);
        }
        while self.width() > self.room {
            let smallest = |shown: &Shown| names.get(shown.index).copied().unwrap_or_default().max(SMALLEST);
            let cuttable = self.shown.iter_mut().filter(|shown| shown.may_cut && shown.width > smallest(shown));
            let Some(widest) = cuttable.max_by_key(|shown| shown.width) else { break };
            widest.width -= 1;
        }
    }

    fn line(&self, cells: &[String]) -> String {
        let mut line = String::new();
        for Shown { index, width, .. } in &self.shown {
            let cell = cells.get(*index).map(String::as_str).unwrap_or_default();
            let cell = if self.fitted { cut(cell, *width) } else { cell.to_owned() };
            // Writing to a text cannot fail.
            let _ = write!(line, "{cell:width$}", width = width + GAP);
        }
        line.truncate(line.trim_end().len());
        line
    }
}

/// Whether a cell must be shown whole: a number, a time, an id or a request id of a KMS.
fn is_whole(cell: &str) -> bool {
    let digits = ["sym-", "wk-", "job-"].iter().find_map(|kind| cell.strip_prefix(kind)).unwrap_or(cell);
    let is_id = digits.len() >= SMALLEST && digits.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    cell == "-" || is_id || cell.parse::<u64>().is_ok() || Timestamp::parse(cell).is_some()
}

/// The length at which the beginnings of all ids of keys in these rows differ.
fn distinct_length(rows: &[Vec<String>]) -> usize {
    let ids: HashSet<&str> = rows.iter().flatten().map(String::as_str).filter(|cell| cell.parse::<KeyId>().is_ok()).collect();
    let differ = |length: &usize| ids.iter().filter_map(|id| id.get(..*length)).collect::<HashSet<_>>().len() == ids.len();
    (SHORT_ID..).step_by(4).take_while(|length| *length <= LONGEST_ID).find(differ).unwrap_or(LONGEST_ID)
}

/// Shortens the id of a key to its first `length` characters, and a time to seconds.
fn shorten(cell: &mut String, length: usize) {
    if cell.parse::<KeyId>().is_ok() {
        cell.truncate(length);
    } else if let Some(time) = Timestamp::parse(cell) {
        *cell = Timestamp::from_micros(time.seconds().saturating_mul(1_000_000)).to_string();
    }
}

/// The cell with an ellipsis if it is longer than `width`: in its middle, because the end of a name tells as much as its beginning; of a principal at its start.
fn cut(cell: &str, width: usize) -> String {
    let length = cell.chars().count();
    if length <= width {
        return cell.to_owned();
    }
    let kept = width.saturating_sub(1);
    let tail = if cell.starts_with("spiffe://") { kept } else { kept / 2 };
    let head = kept.saturating_sub(tail);
    cell.chars().take(head).chain(['…']).chain(cell.chars().skip(length - tail)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "1220a63d079ae76ffba43d4a4be873afeb6ee14eaa2bb01b26a072a07d0cecadd809";
    const COLUMNS: [Column; 4] = [column("id"), column("name"), optional("at"), optional("class")];

    fn lines(room: usize, rows: &[[&str; 4]]) -> Vec<String> {
        Table::new(&COLUMNS, room).lines(rows.iter().map(|row| row.map(str::to_owned).to_vec()).collect())
    }

    #[test]
    fn what_fits_is_shown_whole() {
        let row = [ID, "orders", "2026-01-31T12:00:00.123456Z", "long-term"];
        assert_eq!(lines(usize::MAX, &[row])[1], row.join("  "));
        assert_eq!(lines(116, &[row]), lines(usize::MAX, &[row]));
    }

    #[test]
    fn what_does_not_fit_is_shortened_left_out_and_cut_in_this_order() {
        let long = "participant1-namespace-of-the-first-synchronizer-in-the-north-of-europe";
        let row = |name| [ID, name, "2026-01-31T12:00:00.123456Z", "long-term"];
        let short = "1220a63d079a  orders  2026-01-31T12:00:00Z  long-term";
        assert_eq!(lines(80, &[row("orders")])[1], short);
        assert_eq!(lines(42, &[row("orders")])[1], "1220a63d079a  orders  2026-01-31T12:00:00Z");
        assert_eq!(lines(41, &[row("orders")])[1], "1220a63d079a  orders");
        assert_eq!(lines(36, &[row(long)])[1], "1220a63d079a  participant…-of-europe");
        // Nothing is left to cut.
        assert_eq!(lines(9, &[row(long)])[1], "1220a63d079a  part…ope");
    }

    #[test]
    fn shortened_ids_differ_and_the_end_of_a_principal_stays() {
        let other = format!("{}0{}", &ID[..15], &ID[16..]);
        let page = [[ID, "a", "-", "-"], [&other, "b", "-", "-"]];
        let ids: Vec<String> = lines(30, &page)[1..].iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
        assert_eq!(ids, [&ID[..16], &other[..16]]);
        assert_eq!(cut("spiffe://example.org/participant1", 13), "…participant1");
    }

    #[test]
    fn no_line_is_longer_than_the_room_over_several_pages() {
        let mut table = Table::new(&COLUMNS, 60);
        let page = |name: &str| vec![vec![ID.to_owned(), name.to_owned(), "-".to_owned(), "permanent".to_owned()]];
        let all = [table.lines(page(&"a".repeat(40))), table.lines(page(&"é".repeat(90))), table.lines(page("b"))].concat();
        assert!(all.iter().all(|line| line.chars().count() <= 60), "{all:#?}");
        assert_eq!((all.len(), all[0].split_whitespace().collect::<Vec<_>>()), (4, vec!["ID", "NAME", "AT"]));
    }
}
