//! Changes of an export.

use super::{Facts, at_change, at_use, between_checkpoints, whole};

/// A change of the lines, and the first and the last entry that can be the first bad one, with the code of the reason.
type Case = (&'static str, fn(&mut Vec<Vec<u8>>, &Facts), fn(&Facts) -> (Option<u64>, Option<u64>), &'static str);

pub(super) const CASES: &[Case] = &[
    ("an edited use", |l, f| edit(l, f.used, "\"outcome\":\"ok\"", "\"outcome\":\"denied\""), between_checkpoints, "changed_entries"),
    ("an edited state change", |l, f| edit(l, f.changed, "\"outcome\":\"ok\"", "\"outcome\":\"denied\""), at_change, "broken_state_chain"),
    ("an unknown field", |l, f| edit(l, f.used, "\"outcome\"", "\"outcame\""), at_use, "not_an_entry"),
    ("white space", |l, f| edit(l, f.used, "\"outcome\":", "\"outcome\": "), at_use, "not_canonical"),
    ("a deleted entry", |l, f| drop(l.remove(line(l, f.used))), at_use, "missing_entry"),
    (
        "an inserted entry",
        |l, f| {
            let at = line(l, f.used);
            let copy = replaced(&l[at], "\"outcome\":\"ok\"", "\"outcome\":\"denied\"");
            l.insert(at + 1, copy);
        },
        at_use,
        "inserted_entry",
    ),
    (
        "exchanged entries",
        |l, f| {
            let at = line(l, f.used);
            l.swap(at, at + 1);
        },
        at_use,
        "moved_entry",
    ),
    (
        "a duplicate",
        |l, f| {
            let at = line(l, f.used);
            let copy = l[at].clone();
            l.insert(at, copy);
        },
        at_use,
        "duplicate_entry",
    ),
    ("a truncated export", |l, f| l.truncate(line(l, f.used)), at_use, "incomplete_export"),
    (
        "a truncated export with a last line",
        |l, f| {
            let last = f.used - 1;
            l.truncate(line(l, f.used));
            l.push(format!("{{\"end\":{{\"last\":{last},\"entries\":{last}}}}}\n").into());
        },
        at_use,
        "truncated",
    ),
    (
        "exchanged checkpoints",
        |l, f| {
            let (one, other) = (line(l, f.first) + 1, line(l, f.second) + 1);
            l.swap(one, other);
        },
        whole,
        "malformed_checkpoint",
    ),
    ("no checkpoint", |l, _| l[0] = replaced(&l[0], "\"checkpoint\":", "\"ignored\":"), whole, "no_checkpoint"),
    ("another log", |l, _| l[0] = replaced(&l[0], "\"origin\":\"dev/main/1\"", "\"origin\":\"dev/other/1\""), whole, "other_log"),
];

fn line(lines: &[Vec<u8>], sequence: u64) -> usize {
    let start = format!("\"sequence\":{sequence},");
    lines.iter().position(|line| String::from_utf8_lossy(line).contains(&start)).unwrap()
}

fn replaced(line: &[u8], from: &str, to: &str) -> Vec<u8> {
    let text = std::str::from_utf8(line).unwrap();
    assert!(text.contains(from), "{text}");
    text.replacen(from, to, 1).into_bytes()
}

fn edit(lines: &mut [Vec<u8>], sequence: u64, from: &str, to: &str) {
    let at = line(lines, sequence);
    lines[at] = replaced(&lines[at], from, to);
}
