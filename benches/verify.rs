//! How fast an export is verified: entries a second on one core, as `audit verify` reads them. `cargo bench --bench verify`
//!
//! Prints, and asserts nothing but that the export is valid. `KEYVAULT_ENTRIES` is the number of entries (default 1,000,000), `TMPDIR` the disk. Ten million
//! entries take about 7 GB.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, BufWriter, Seek as _, SeekFrom, Write as _},
    time::Instant,
};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use canton_keyvault::{
    audit::{
        Checkpoint, Entry, SignedNote, Source, StatePosition, VerifierKey, leaf_hash,
        merkle::Frontier,
        verify::{Depth, ExportVerifier, TrustedKeys},
    },
    domain::{Algorithm, AuditEvent, KeyId, Operation, Principal, Timestamp},
};

const ORIGIN: &str = "bench/main/1";
/// Bytes for the header, which is written when the root is known.
const HEADER: usize = 4096;
/// One of so many entries is a state change.
const CHANGES: u64 = 1000;

fn main() -> anyhow::Result<()> {
    let entries = std::env::var("KEYVAULT_ENTRIES").map_or(Ok(1_000_000), |number| number.parse())?;
    let path = std::env::temp_dir().join(format!("verify-bench-{}.ndjson", std::process::id()));
    let trust = write(&path, entries)?;
    let bytes = std::fs::metadata(&path)?.len();
    println!("{entries} entries, {} bytes each", bytes / entries.max(1));
    for depth in [Depth::Fast, Depth::Full] {
        let (began, mut lines) = (Instant::now(), BufReader::with_capacity(1 << 20, File::open(&path)?));
        let (mut export, mut line) = (ExportVerifier::new(trust.clone(), Vec::new(), depth), Vec::new());
        while lines.read_until(b'\n', &mut line)? > 0 {
            line.pop();
            export.line(&line).map_err(|finding| anyhow::anyhow!("{finding}"))?;
            line.clear();
        }
        let verified = export.finish().map_err(|finding| anyhow::anyhow!("{finding}"))?;
        anyhow::ensure!(verified.entries == entries, "{} entries", verified.entries);
        let seconds = began.elapsed().as_secs_f64();
        println!("{depth:?}: {seconds:.2} s, {:.0} entries a second", f64::from(u32::try_from(entries)?) / seconds);
    }
    std::fs::remove_file(&path)?;
    Ok(())
}

/// Writes an export of signatures with some state changes between them. Returns the key that verifies it.
fn write(path: &std::path::Path, entries: u64) -> anyhow::Result<TrustedKeys> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    out.seek(SeekFrom::Start(HEADER as u64))?;
    let source = Source { vault: "bench".into(), instance: "main".into(), version: env!("CARGO_PKG_VERSION").into() };
    let principal = Principal { name: "spiffe://bench.keyvault/participant1".into(), certificate: Some([0xab; 32]) };
    let (mut frontier, mut revision, mut head) = (Frontier::default(), 1, [0; 32]);
    for sequence in 1..=entries {
        let at = Timestamp::from_micros(1_767_225_600_000_000 + i64::try_from(sequence)?);
        let event = AuditEvent {
            key: Some(KeyId::Symmetric([1; 16])),
            node: Some("participant1".parse()?),
            algorithm: Some(Algorithm::Ed25519),
            digest: Some([0xcd; 32]),
            client: Some("canton-keyvault-driver/0.1.0".into()),
            request_id: Some(format!("{sequence:032x}").into()),
            ..AuditEvent::new(at, principal.clone(), Operation::Sign, "bench-1".into())
        };
        let changes = sequence % CHANGES == 0;
        let position = if changes { StatePosition::change(revision + 1, head) } else { StatePosition::unchanged(revision) };
        let bytes = Entry::new(sequence, &source, &event, position).encode()?;
        let leaf = leaf_hash(&bytes);
        if changes {
            (revision, head) = (revision + 1, leaf);
        }
        frontier.append(leaf, |_| {});
        out.write_all(&bytes)?;
        out.write_all(b"\n")?;
    }
    writeln!(out, "{}", serde_json::json!({ "end": { "last": entries, "entries": entries } }))?;
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).map_err(|_| anyhow::anyhow!("no key"))?;
    let key = VerifierKey::log(ORIGIN, pair.public_key().as_ref().try_into()?)?;
    let (origin, size, root) = (ORIGIN.to_owned(), frontier.size(), frontier.root());
    let mut note = SignedNote::new(Checkpoint { origin, size, root, state_revision: revision, state_head: head }.text())?;
    let signature = pair.sign(note.text().as_bytes()).as_ref().to_vec();
    note.add_signature(&key, signature);
    let header =
        serde_json::json!({ "export": 1, "origin": ORIGIN, "checkpoint": note.to_string(), "after": 0, "frontier": [] }).to_string();
    out.seek(SeekFrom::Start(0))?;
    // JSON may end with spaces, which fill the place that was kept.
    let spaces = (HEADER - 1).checked_sub(header.len()).ok_or_else(|| anyhow::anyhow!("the header is too long"))?;
    writeln!(out, "{header}{:spaces$}", "")?;
    out.flush()?;
    TrustedKeys::new([key]).ok_or_else(|| anyhow::anyhow!("no key"))
}
