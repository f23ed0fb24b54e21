//! Exports of small logs: sound ones are verified, and each kind of change is found at its first bad entry.

use super::*;
use crate::audit::{
    merkle::{HashReader, TILE, inclusion_proof},
    verify::{
        Place,
        log::testing::{ORIGIN, Signer, checkpoint, entries},
    },
};

/// The number of entries, and after which ones a checkpoint stands.
const SIZE: usize = 20;
const CHECKPOINTS: [usize; 2] = [6, 13];

fn control(value: &serde_json::Value) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}

fn header(note: &str, after: u64, roots: &[Hash]) -> Vec<u8> {
    let frontier: Vec<_> = roots.iter().map(|root| BASE64_STANDARD.encode(root)).collect();
    control(&serde_json::json!({ "export": 1, "origin": ORIGIN, "checkpoint": note, "after": after, "frontier": frontier }))
}

fn last_line(last: u64, entries: u64) -> Vec<u8> {
    control(&serde_json::json!({ "end": { "last": last, "entries": entries } }))
}

/// The lines of an export of these entries, with the checkpoints of the signer.
fn export_of(all: &[Vec<u8>], signer: &Signer) -> Vec<Vec<u8>> {
    let mut lines = vec![header(&checkpoint(all, signer), 0, &[])];
    for (number, entry) in (1..).zip(all) {
        lines.push(entry.clone());
        if CHECKPOINTS.contains(&number) {
            lines.push(control(&serde_json::json!({ "checkpoint": checkpoint(&all[..number], signer) })));
        }
    }
    lines.push(last_line(all.len() as u64, all.len() as u64));
    lines
}

fn trusted(signer: &Signer) -> TrustedKeys {
    TrustedKeys::new([signer.verifier(ORIGIN)]).unwrap()
}

fn verify_known(lines: &[Vec<u8>], signer: &Signer, known: &[String]) -> Result<Verified, Finding> {
    let known = known.iter().map(|note| read_checkpoint(note).unwrap().1).collect();
    let mut export = ExportVerifier::new(trusted(signer), known, Depth::Full);
    lines.iter().try_for_each(|line| export.line(line))?;
    export.finish()
}

fn verify(lines: &[Vec<u8>], signer: &Signer) -> Result<Verified, Finding> {
    verify_known(lines, signer, &[])
}

/// The line of the entry with this number.
fn line_of(lines: &[Vec<u8>], sequence: usize) -> usize {
    let start = format!("{{\"v\":4,\"sequence\":{sequence},");
    lines.iter().position(|line| line.starts_with(start.as_bytes())).unwrap()
}

fn replaced(line: &[u8], from: &str, to: &str) -> Vec<u8> {
    let text = std::str::from_utf8(line).unwrap();
    assert!(text.contains(from), "{text}");
    text.replacen(from, to, 1).into_bytes()
}

#[test]
fn a_sound_export_is_verified() {
    let signer = Signer::new(1);
    let verified = verify(&export_of(&entries(SIZE as u64), &signer), &signer).unwrap();
    assert_eq!((verified.entries, verified.first, verified.last, verified.covered), (20, 1, 20, 20));
    assert_eq!((verified.checkpoints, verified.complete, verified.state_revision), (3, true, Some(7)));
    assert_eq!(verified.first_at.as_deref(), Some("2026-01-01T00:00:00.000001Z"));
    let none = verify(&export_of(&[], &signer), &signer).unwrap();
    assert_eq!((none.entries, none.first, none.last, none.last_at), (0, 0, 0, None));
}

/// A change of the lines, the first bad place, and the code of the reason.
type Case = (&'static str, fn(&mut Vec<Vec<u8>>), Place, &'static str);

const CASES: &[Case] = &[
    (
        "an edited use",
        |l| edit(l, 8, "\"policy_revision\":\"p\"", "\"policy_revision\":\"q\""),
        Place::Between { first: 7, last: 13 },
        "changed_entries",
    ),
    (
        "an edited use at the end",
        |l| edit(l, 20, "\"outcome\":\"ok\"", "\"outcome\":\"denied\""),
        Place::Between { first: 14, last: 20 },
        "changed_entries",
    ),
    ("an edited state change", |l| edit(l, 9, "\"outcome\":\"ok\"", "\"outcome\":\"denied\""), Place::Entry(9), "broken_state_chain"),
    (
        "an edited newest state change",
        |l| edit(l, 18, "\"outcome\":\"ok\"", "\"outcome\":\"denied\""),
        Place::Between { first: 14, last: 20 },
        "changed_entries",
    ),
    ("an edited link", |l| edit(l, 12, "\"previous\":\"", "\"previous\":\"0"), Place::Entry(12), "broken_state_chain"),
    (
        "an edited number of a state change",
        |l| edit(l, 9, "\"state_revision\":4", "\"state_revision\":5"),
        Place::Entry(9),
        "broken_state_chain",
    ),
    ("an edited number of a use", |l| edit(l, 8, "\"state_revision\":3", "\"state_revision\":2"), Place::Entry(8), "broken_state_chain"),
    ("bytes that are no JSON", |l| edit(l, 8, "{\"v\"", "{v"), Place::Entry(8), "not_an_entry"),
    ("an unknown field", |l| edit(l, 8, "\"outcome\"", "\"outcame\""), Place::Entry(8), "not_an_entry"),
    ("white space", |l| edit(l, 8, "\"outcome\":", "\"outcome\": "), Place::Entry(8), "not_canonical"),
    ("another vault", |l| edit(l, 8, "\"vault\":\"v\"", "\"vault\":\"w\""), Place::Entry(8), "other_log"),
    ("a deleted entry", |l| drop(remove(l, 8)), Place::Entry(8), "missing_entry"),
    ("a deleted entry, and the others renumbered", |l| renumber_after_removing(l, 8), Place::Entry(8), "broken_state_chain"),
    ("the first entry deleted", |l| drop(remove(l, 1)), Place::Entry(1), "missing_entry"),
    (
        "two entries exchanged",
        |l| {
            let at = line_of(l, 8);
            l.swap(at, at + 1);
        },
        Place::Entry(8),
        "moved_entry",
    ),
    (
        "an entry twice",
        |l| {
            let at = line_of(l, 8);
            let line = l[at].clone();
            l.insert(at, line);
        },
        Place::Entry(8),
        "duplicate_entry",
    ),
    (
        "an entry again, later",
        |l| {
            let line = l[line_of(l, 8)].clone();
            let at = line_of(l, 11);
            l.insert(at, line);
        },
        Place::Entry(8),
        "duplicate_entry",
    ),
    (
        "an inserted entry",
        |l| {
            let at = line_of(l, 8);
            let line = replaced(&l[at], "\"outcome\":\"ok\"", "\"outcome\":\"denied\"");
            l.insert(at + 1, line);
        },
        Place::Entry(8),
        "inserted_entry",
    ),
    ("no last line", |l| drop(l.pop()), Place::Log, "incomplete_export"),
    ("cut off", |l| l.truncate(line_of(l, 15)), Place::Entry(15), "incomplete_export"),
    (
        "cut off, with a last line",
        |l| {
            l.truncate(line_of(l, 15));
            l.push(last_line(14, 14));
        },
        Place::Entry(15),
        "truncated",
    ),
    (
        "an added entry",
        |l| {
            let line = replaced(&l[line_of(l, 20)], "\"sequence\":20", "\"sequence\":21");
            let at = l.len() - 1;
            l.insert(at, line);
        },
        Place::Entry(21),
        "not_covered",
    ),
    (
        "a wrong number in the last line",
        |l| {
            l.pop();
            l.push(last_line(20, 19));
        },
        Place::Log,
        "other_count",
    ),
    ("no checkpoint", |l| l[0] = control(&serde_json::json!({ "export": 1, "origin": ORIGIN, "after": 0 })), Place::Log, "no_checkpoint"),
    (
        "an older checkpoint",
        |l| {
            let old = checkpoint(&entries(13), &Signer::new(1));
            l[0] = header(&old, 0, &[]);
        },
        Place::Entry(14),
        "not_covered",
    ),
    (
        "a checkpoint of another key",
        |l| {
            let other = checkpoint(&entries(20), &Signer::new(2));
            l[0] = header(&other, 0, &[]);
        },
        Place::Log,
        "unknown_key",
    ),
    (
        "a checkpoint of another history",
        |l| {
            let fork = checkpoint(&fork(20), &Signer::new(1));
            l[0] = header(&fork, 0, &[]);
        },
        Place::Between { first: 14, last: 20 },
        "changed_entries",
    ),
    ("an edited checkpoint", |l| l[0] = replaced(&l[0], "\\n20\\n", "\\n19\\n"), Place::Entry(20), "not_covered"),
    (
        "an edited checkpoint between entries",
        |l| {
            let at = line_of(l, 7) - 1;
            l[at] = replaced(&l[at], "state-chain 3", "state-chain 2");
        },
        Place::Log,
        "wrong_signature",
    ),
    (
        "exchanged checkpoints",
        |l| {
            let (a, b) = (line_of(l, 7) - 1, line_of(l, 14) - 1);
            l.swap(a, b);
        },
        Place::Log,
        "malformed_checkpoint",
    ),
    ("a header of another log", |l| l[0] = replaced(&l[0], "\"origin\":\"v/main/1\"", "\"origin\":\"v/other/1\""), Place::Log, "other_log"),
    (
        "a later incarnation",
        |l| {
            let at = l.len() - 1;
            let note = Signer::note(&checkpoint_text(20, "v/main/2"), "v/main/2", &[&Signer::new(1)]);
            l[0] = control(&serde_json::json!({ "export": 1, "origin": "v/main/2", "checkpoint": note }));
            let _ = at;
        },
        Place::Log,
        "other_incarnation",
    ),
    ("an unknown line", |l| l.insert(1, b"{\"x\":1}".to_vec()), Place::Log, "unreadable_line"),
    ("an empty file", Vec::clear, Place::Log, "unreadable_line"),
];

fn edit(lines: &mut [Vec<u8>], sequence: usize, from: &str, to: &str) {
    let at = line_of(lines, sequence);
    lines[at] = replaced(&lines[at], from, to);
}

fn remove(lines: &mut Vec<Vec<u8>>, sequence: usize) -> Vec<u8> {
    lines.remove(line_of(lines, sequence))
}

/// Removes a state change, and gives the entries after it the numbers that follow.
fn renumber_after_removing(lines: &mut Vec<Vec<u8>>, sequence: usize) {
    remove(lines, sequence + 1);
    remove(lines, sequence);
    for later in sequence + 2..=SIZE {
        let at = line_of(lines, later);
        lines[at] = replaced(&lines[at], &format!("\"sequence\":{later},"), &format!("\"sequence\":{},", later - 2));
    }
}

/// Another log with the same beginning.
fn fork(number: u64) -> Vec<Vec<u8>> {
    let mut all = entries(number);
    let last = all.last_mut().unwrap();
    *last = replaced(last, "\"outcome\":\"ok\"", "\"outcome\":\"denied\"");
    all
}

fn checkpoint_text(number: u64, origin: &str) -> String {
    let (_, stated) = read_checkpoint(&checkpoint(&entries(number), &Signer::new(1))).unwrap();
    Checkpoint { origin: origin.into(), ..stated }.text()
}

#[test]
fn each_change_is_found_at_its_first_bad_entry() {
    let signer = Signer::new(1);
    for (what, change, place, code) in CASES {
        let mut lines = export_of(&entries(SIZE as u64), &signer);
        change(&mut lines);
        let finding = verify(&lines, &signer).unwrap_err();
        assert_eq!((finding.place, finding.reason.code()), (*place, *code), "{what}: {finding}");
    }
}

#[test]
fn a_rewritten_log_with_new_checkpoints_is_found_by_one_that_was_seen_before() {
    let signer = Signer::new(1);
    let seen = [checkpoint(&entries(13), &signer)];
    assert!(verify_known(&export_of(&entries(20), &signer), &signer, &seen).is_ok());
    assert!(verify_known(&export_of(&entries(13), &signer), &signer, &seen).is_ok());
    // The key was used to sign another history.
    let mut forked = fork(13);
    forked.extend(entries(20).into_iter().skip(13));
    let finding = verify_known(&export_of(&forked, &signer), &signer, &seen).unwrap_err();
    assert_eq!((finding.place, finding.reason), (Place::Between { first: 7, last: 13 }, Reason::Forked(13)));
    let finding = verify_known(&export_of(&entries(8), &signer), &signer, &seen).unwrap_err();
    assert_eq!((finding.place, finding.reason), (Place::Entry(9), Reason::RolledBack(13)));
}

#[test]
fn an_export_is_resumed_with_and_without_a_last_line() {
    let (signer, all) = (Signer::new(1), entries(20));
    let mut before = Frontier::default();
    all[..11].iter().for_each(|entry| before.append(leaf_hash(entry), |_| {}));
    for with_last_line in [true, false] {
        // An export that was interrupted is of a checkpoint that it does not reach.
        let size = if with_last_line { 11 } else { 15 };
        let mut lines = vec![header(&checkpoint(&all[..size], &signer), 0, &[])];
        lines.extend(all[..11].iter().cloned());
        if with_last_line {
            lines.push(last_line(11, 11));
        }
        let second = lines.len();
        lines.push(header(&checkpoint(&all, &signer), 11, before.roots()));
        lines.extend(all[11..].iter().cloned());
        lines.push(last_line(20, 9));
        assert_eq!(verify(&lines, &signer).unwrap().entries, 20);
        // The second part alone.
        let part = verify(&lines[second..], &signer).unwrap();
        assert_eq!((part.entries, part.first, part.last), (9, 12, 20));
        let mut other = before.roots().to_vec();
        other[0] = [7; 32];
        let mut changed = lines.clone();
        changed[second] = header(&checkpoint(&all, &signer), 11, &other);
        assert_eq!(verify(&changed, &signer).unwrap_err().reason, Reason::Frontier);
        assert_eq!(verify(&changed[second..], &signer).unwrap_err().reason, Reason::Changed(20));
        let mut gap = lines.clone();
        gap.remove(second - 1 - usize::from(with_last_line));
        let finding = verify(&gap, &signer).unwrap_err();
        assert_eq!(finding.place, Place::Entry(11), "{finding}");
    }
}

/// The leaves of a small tree.
struct Leaves(Vec<Hash>);

impl HashReader for Leaves {
    type Error = std::convert::Infallible;

    fn hashes(&self, level: u32, from: u64, count: u64) -> Result<Vec<Hash>, Self::Error> {
        assert!(level == 0 && count <= TILE);
        Ok(self.0[from as usize..(from + count) as usize].to_vec())
    }
}

#[test]
fn a_filtered_export_shows_that_its_entries_are_in_the_log() {
    let (signer, all) = (Signer::new(1), entries(20));
    let leaves = Leaves(all.iter().map(|entry| leaf_hash(entry)).collect());
    let note = checkpoint(&all, &signer);
    let mut lines =
        vec![control(&serde_json::json!({ "export": 1, "origin": ORIGIN, "checkpoint": note, "after": 0, "filter": { "node": "n" } }))];
    for sequence in [3_u64, 8, 20] {
        let proof = inclusion_proof(&leaves, sequence - 1, 20).unwrap();
        lines.push(all[sequence as usize - 1].clone());
        lines.push(control(&serde_json::json!({ "proof": proof.iter().map(|hash| BASE64_STANDARD.encode(hash)).collect::<Vec<_>>() })));
    }
    lines.push(last_line(20, 3));
    let verified = verify(&lines, &signer).unwrap();
    assert_eq!((verified.entries, verified.first, verified.last, verified.complete), (3, 3, 20, false));

    let changed = |change: fn(&mut Vec<Vec<u8>>)| {
        let mut lines = lines.clone();
        change(&mut lines);
        let finding = verify(&lines, &signer).unwrap_err();
        (finding.place, finding.reason.code())
    };
    assert_eq!(changed(|l| edit(l, 8, "\"outcome\":\"ok\"", "\"outcome\":\"denied\"")), (Place::Entry(8), "wrong_proof"));
    assert_eq!(changed(|l| l.swap(2, 4)), (Place::Entry(3), "wrong_proof"));
    assert_eq!(changed(|l| drop(l.remove(4))), (Place::Entry(8), "wrong_proof"));
    assert_eq!(
        changed(|l| {
            l.swap(1, 3);
            l.swap(2, 4);
        }),
        (Place::Entry(3), "moved_entry")
    );
    assert_eq!(
        changed(|l| {
            l.remove(3);
            l.remove(3);
        }),
        (Place::Log, "other_count")
    );
    assert_eq!(changed(|l| drop(l.pop())), (Place::Log, "incomplete_export"));
}

#[test]
fn what_an_operator_accepted_is_reported_and_does_not_fail() {
    let signer = Signer::new(1);
    let mut all = entries(10);
    all[4] = b"{\"v\":nonsense".to_vec();
    // The operator accepted the log: the next entry begins a new chain and a new incarnation.
    let accepted = |v: &str| {
        format!(
            "{{\"v\":{v},\"sequence\":11,\"at\":\"2026-01-01T00:00:00Z\",\"vault\":\"v\",\"instance\":\"main\",\"version\":\"1\",\
             \"principal\":\"vault\",\"operation\":\"vault.restate-state\",\"outcome\":\"ok\",\"policy_revision\":\"-\",\"state_revision\":9,\
             \"previous\":\"{}\",\"incarnation\":2}}",
            "0".repeat(64)
        )
        .into_bytes()
    };
    all.push(accepted("4"));
    let (origin, text) = ("v/main/2", |all: &[Vec<u8>]| {
        let (_, stated) = read_checkpoint(&checkpoint(all, &Signer::new(1))).unwrap();
        Checkpoint { origin: "v/main/2".into(), ..stated }.text()
    });
    let note = Signer::note(&text(&all), origin, &[&signer]);
    let mut lines = vec![control(&serde_json::json!({ "export": 1, "origin": origin, "checkpoint": note }))];
    lines.extend(all.iter().cloned());
    lines.push(last_line(11, 11));
    let verified = verify(&lines, &signer).unwrap();
    assert_eq!(verified.incarnations, [(11, 2)]);
    assert_eq!(verified.accepted.iter().map(|finding| finding.place).collect::<Vec<_>>(), [Place::Entry(5)]);
    // A checkpoint of the first incarnation, over a history that was replaced.
    let seen = [checkpoint(&entries(11), &signer)];
    let finding = verify_known(&lines, &signer, &seen).unwrap_err();
    assert_eq!((finding.place, finding.reason), (Place::Entry(11), Reason::Replaced(11)));
}
