//! Follows the entries of one log in their order: numbers, state chain, tree, checkpoints. The memory does not grow with the log.

use crate::{
    audit::{
        Checkpoint, Entry, KeyRotation, SignedNote, VerifierKey, leaf_hash,
        merkle::{Frontier, Hash, TileHash},
    },
    domain::Operation,
};

use super::{
    Finding, Place, Reason, TrustedKeys,
    chain::{Broken, Chain},
    head::EntryHead,
};

/// The most incarnations, instances and accepted findings that a report lists.
const MAX_LISTED: usize = 100;

/// The name of a log without its incarnation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogName {
    /// The id of the vault.
    pub vault: String,
    /// The instance.
    pub instance: String,
}

impl LogName {
    /// The name and the incarnation in an origin, `<vault>/<instance>/<incarnation>`.
    pub fn of(origin: &str) -> Option<(Self, u64)> {
        let mut parts = origin.split('/');
        let (vault, instance, incarnation) = (parts.next()?, parts.next()?, parts.next()?.parse().ok()?);
        let is_whole = parts.next().is_none() && !vault.is_empty() && !instance.is_empty();
        is_whole.then(|| (Self { vault: vault.to_owned(), instance: instance.to_owned() }, incarnation))
    }
}

impl std::fmt::Display for LogName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.vault, self.instance)
    }
}

/// How much of each entry is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// What the checkpoints do not already show.
    Fast,
    /// Also that each entry has the form that a vault writes: this can name a changed entry where the tree only shows that there is one.
    Full,
}

/// The result of a verification without findings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The log.
    pub log: LogName,
    /// The number of verified entries.
    pub entries: u64,
    /// The sequence number of the first one. 0 if there is none.
    pub first: u64,
    /// The sequence number of the last one.
    pub last: u64,
    /// The time of the first entry, as it is written there.
    pub first_at: Option<String>,
    /// The time of the last entry.
    pub last_at: Option<String>,
    /// The number of entries that the newest checkpoint covers.
    pub covered: u64,
    /// The root of the tree of the entries that it covers.
    pub root: Hash,
    /// The key that signed it.
    pub signer: VerifierKey,
    /// The number of valid checkpoints.
    pub checkpoints: u64,
    /// The number of entries that the newest checkpoint covers that all demanded witnesses cosigned. `None` if none is demanded.
    pub cosigned: Option<u64>,
    /// Whether these are all entries from the first to the last. A filtered export does not show that.
    pub complete: bool,
    /// The state changes of the store up to the last entry.
    pub state_revision: Option<u64>,
    /// Entries that began a new incarnation, because an operator accepted an older or changed store, with its number. At most 100.
    pub incarnations: Vec<(u64, u64)>,
    /// The names of the instances that wrote the entries. At most 100.
    pub instances: Vec<String>,
    /// Findings before an incarnation: what the operator accepted. At most 100.
    pub accepted: Vec<Finding>,
    /// The last entry of which only the hash is left, because it was archived and removed. 0 if there is none.
    pub removed_through: u64,
}

/// A log while it is verified.
#[derive(Debug)]
pub struct LogCheck {
    name: LogName,
    trust: TrustedKeys,
    depth: Depth,
    after: u64,
    frontier: Frontier,
    last_leaf: Option<Hash>,
    chain: Chain,
    /// The number that should have come, and the one that came.
    gap: Option<(u64, u64)>,
    /// The first finding that no operator accepted.
    fault: Option<Finding>,
    /// The first gap in the numbers of the state changes that no checkpoint covers yet. Without a fault it is one of a log beside others.
    chain_gap: Option<Finding>,
    /// Two state changes that do not belong together. The next one shows which of them was changed.
    link: Option<(u64, u64)>,
    /// Checkpoints that were seen before, the smallest last.
    known: Vec<Checkpoint>,
    /// The newest valid checkpoint and its key.
    newest: Option<(Checkpoint, VerifierKey)>,
    checkpoints: u64,
    /// The size of the newest checkpoint that all demanded witnesses cosigned.
    cosigned: Option<u64>,
    /// A demanded witness that did not cosign the newest checkpoint.
    missing_witness: Option<String>,
    incarnation: Option<u64>,
    incarnations: Vec<(u64, u64)>,
    instances: Vec<String>,
    accepted: Vec<Finding>,
    first_at: Option<String>,
    last_at: String,
    /// Entries without bytes: the first and the last of each run.
    removed: Vec<(u64, u64)>,
    /// The entries up to this one may have none.
    removed_through: u64,
}

impl LogCheck {
    /// Begins after the entries of `before`. `known` are checkpoints that were seen before.
    ///
    /// # Errors
    /// If a known checkpoint cannot be compared, or is already another one.
    pub fn begin(name: LogName, before: Frontier, trust: TrustedKeys, known: Vec<Checkpoint>, depth: Depth) -> Result<Self, Finding> {
        let after = before.size();
        let mut check = Self {
            name,
            trust,
            depth,
            after,
            frontier: before,
            last_leaf: None,
            chain: Chain::new(after == 0),
            gap: None,
            fault: None,
            chain_gap: None,
            link: None,
            known: Vec::new(),
            newest: None,
            checkpoints: 0,
            cosigned: None,
            missing_witness: None,
            incarnation: (after == 0).then_some(1),
            incarnations: Vec::new(),
            instances: Vec::new(),
            accepted: Vec::new(),
            first_at: None,
            last_at: String::new(),
            removed: Vec::new(),
            removed_through: 0,
        };
        for checkpoint in known.into_iter().filter(|checkpoint| checkpoint.size > 0) {
            check.expect(checkpoint)?;
        }
        check.compare_known()?;
        Ok(check)
    }

    /// Expects that the log has the history of a checkpoint.
    ///
    /// # Errors
    /// [`Reason::NotCompared`] if the log is already behind it.
    pub(super) fn expect(&mut self, checkpoint: Checkpoint) -> Result<(), Finding> {
        if checkpoint.size < self.size() {
            return Err(Finding::of_log(Reason::NotCompared(checkpoint.size)));
        }
        self.known.push(checkpoint);
        self.known.sort_by_key(|checkpoint| std::cmp::Reverse(checkpoint.size));
        Ok(())
    }

    /// The number of entries, with those before the first one that was read.
    pub const fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// The right edge of the tree.
    pub const fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// The keys that are trusted by now.
    pub const fn trust(&self) -> &TrustedKeys {
        &self.trust
    }

    /// The number of entries that the newest valid checkpoint covers. These are the entries that were signed.
    pub fn covered(&self) -> u64 {
        self.newest.as_ref().map_or(self.after, |(checkpoint, _)| checkpoint.size)
    }

    /// The next entry. `completed` gets the hashes of the tree that it completes.
    ///
    /// # Errors
    /// A finding after which the log cannot be followed. Others are kept, because an operator may have accepted them in a later entry.
    pub fn entry(&mut self, bytes: &[u8], completed: impl FnMut(TileHash)) -> Result<(), Finding> {
        let (leaf, expected) = (leaf_hash(bytes), self.size() + 1);
        let head = EntryHead::read(bytes);
        if let Some((missing, found)) = self.gap {
            let moved = head.is_ok_and(|head| head.sequence == missing);
            return Err(self.first_of(Finding::at(missing, if moved { Reason::Moved(found) } else { Reason::Missing(found) })));
        }
        match head {
            Ok(head) if head.sequence > expected => {
                self.gap = Some((expected, head.sequence));
                return Ok(());
            }
            Ok(head) if head.sequence < expected => {
                let is_copy = head.sequence + 1 < expected || self.last_leaf.is_none_or(|before| before == leaf);
                let reason = if is_copy { Reason::Duplicate } else { Reason::Inserted };
                return Err(self.first_of(Finding::at(head.sequence, reason)));
            }
            Ok(head) => self.follow(&head, bytes, leaf),
            Err(why) => self.fault(Finding::at(expected, Reason::NotAnEntry(why))),
        }
        self.frontier.append(leaf, completed);
        self.last_leaf = Some(leaf);
        self.compare_known()
    }

    /// The place of an entry of which only the hash is left. A later state change must state its removal.
    ///
    /// # Errors
    /// As [`Self::entry`].
    pub fn removed(&mut self, sequence: u64, leaf: Hash, completed: impl FnMut(TileHash)) -> Result<(), Finding> {
        let expected = self.size() + 1;
        if let Some((missing, found)) = self.gap {
            return Err(self.first_of(Finding::at(missing, Reason::Missing(found))));
        }
        if sequence > expected {
            self.gap = Some((expected, sequence));
            return Ok(());
        }
        match self.removed.last_mut() {
            Some((_, last)) if *last + 1 == sequence => *last = sequence,
            _ => self.removed.push((sequence, sequence)),
        }
        self.frontier.append(leaf, completed);
        self.last_leaf = Some(leaf);
        self.compare_known()
    }

    fn follow(&mut self, head: &EntryHead<'_>, bytes: &[u8], leaf: Hash) {
        let sequence = head.sequence;
        if head.vault != self.name.vault {
            let (found, expected) = (head.vault.to_owned(), self.name.vault.clone());
            self.fault(Finding::at(sequence, Reason::OtherLog { found, expected }));
        }
        let followed = self.chain.follow(head, leaf);
        if head.previous.is_some() {
            self.narrow(!matches!(followed, Err(Broken::Link { .. })));
        }
        match followed {
            Ok(()) => {}
            Err(Broken::Gap(why)) => drop(self.chain_gap.get_or_insert(Finding::at(sequence, Reason::StateChain(why)))),
            Err(Broken::Here(why)) => self.fault(Finding::at(sequence, Reason::StateChain(why))),
            Err(Broken::Link { before }) => {
                self.link = self.fault.is_none().then_some((before, sequence));
                let reason = Reason::StateChain(format!("the entries {before} and {sequence} do not belong together"));
                self.fault(Finding { place: Place::Between { first: before, last: sequence }, reason });
            }
        }
        if head.previous.is_some() || head.incarnation.is_some() || self.depth == Depth::Full {
            self.decode(sequence, bytes);
        }
        if let Some(incarnation) = head.incarnation {
            if self.incarnation.is_some_and(|before| incarnation <= before) {
                let why = format!("it begins the incarnation {incarnation} again");
                self.fault(Finding::at(sequence, Reason::StateChain(why)));
            } else {
                self.incarnation = Some(incarnation);
                list(&mut self.incarnations, (sequence, incarnation));
                if let Some(fault) = self.fault.take() {
                    list(&mut self.accepted, fault);
                }
            }
        }
        if self.instances.last().is_none_or(|instance| instance != head.instance)
            && !self.instances.iter().any(|instance| instance == head.instance)
        {
            list(&mut self.instances, head.instance.to_owned());
        }
        if self.first_at.is_none() {
            self.first_at = Some(head.at.to_owned());
        }
        self.last_at.clear();
        self.last_at.push_str(head.at);
    }

    /// Names the one of two state changes that was changed: the first one, if the second one is as it was written.
    fn narrow(&mut self, second_is_good: bool) {
        if let (Some((first, second)), Some(fault)) = (self.link.take(), &mut self.fault) {
            fault.place = Place::Entry(if second_is_good { first } else { second });
        }
    }

    fn decode(&mut self, sequence: u64, bytes: &[u8]) {
        let entry = match Entry::decode(bytes) {
            Ok(entry) => entry,
            Err(error) => return self.fault(Finding::at(sequence, Reason::NotAnEntry(error.to_string()))),
        };
        if self.depth == Depth::Full && entry.encode().ok().as_deref() != Some(bytes) {
            self.fault(Finding::at(sequence, Reason::NotCanonical));
        }
        // What a removal states can only be before it.
        if let Some(through) = entry.removed_through.filter(|through| *through < sequence) {
            self.removed_through = self.removed_through.max(through);
        }
        if let Some(note) = entry.note.filter(|_| entry.operation == Operation::RotateCheckpointKey) {
            match KeyRotation::verify(&note) {
                // A rotation from a key that is not trusted may be one before the trusted key was made.
                Ok(rotation) => drop(self.trust.extend(&rotation)),
                Err(error) => self.fault(Finding::at(sequence, Reason::NotAnEntry(error.to_string()))),
            }
        }
    }

    /// A stored checkpoint over the entries so far. If it is not valid, that is kept as a finding.
    pub fn stored_checkpoint(&mut self, note: &str) {
        if self.gap.is_some() {
            return;
        }
        let size = self.size();
        if let Err(reason) = self.check_stored(note) {
            let place = match reason {
                Reason::Changed(_) | Reason::OtherState(_) => Place::Between { first: self.covered() + 1, last: size },
                _ => Place::Log,
            };
            self.fault(Finding { place, reason });
        }
    }

    fn check_stored(&mut self, note: &str) -> Result<(), Reason> {
        let (note, checkpoint) = read_checkpoint(note)?;
        if LogName::of(&checkpoint.origin).is_none_or(|(name, _)| name.vault != self.name.vault) {
            return Err(Reason::OtherLog { found: checkpoint.origin, expected: self.name.to_string() });
        }
        if checkpoint.size != self.size() {
            let why = format!("it is over {} entries and stands after entry {}", checkpoint.size, self.size());
            return Err(Reason::MalformedCheckpoint(why));
        }
        let signer = self.trust.signer(&note, &checkpoint.origin, checkpoint.size)?;
        self.narrow_by(&checkpoint);
        self.compare(&checkpoint)?;
        self.is_valid(&note, checkpoint, signer);
        Ok(())
    }

    fn is_valid(&mut self, note: &SignedNote, checkpoint: Checkpoint, signer: VerifierKey) {
        self.checkpoints += 1;
        // The tree is the one that was signed, with this gap.
        self.chain_gap = None;
        self.missing_witness = self.trust.missing_witness(note).map(str::to_owned);
        if self.missing_witness.is_none() {
            self.cosigned = Some(checkpoint.size);
        }
        self.newest = Some((checkpoint, signer));
    }

    /// The checkpoint that the log as a whole is verified against.
    ///
    /// # Errors
    /// The first finding.
    pub(super) fn conclude(&mut self, note: &SignedNote, checkpoint: &Checkpoint) -> Result<(), Finding> {
        if let Some((missing, found)) = self.gap {
            return Err(self.first_of(Finding::at(missing, Reason::Missing(found))));
        }
        if self.size() < checkpoint.size {
            let truncated = Finding::at(self.size() + 1, Reason::Truncated(checkpoint.size));
            return Err(self.first_of(truncated));
        }
        let signer = self.trust.signer(note, &checkpoint.origin, checkpoint.size);
        let signer = signer.map_err(|reason| self.first_of(Finding::of_log(reason)))?;
        self.narrow_by(checkpoint);
        if let Err(reason) = self.compare(checkpoint) {
            let place = Place::Between { first: self.covered() + 1, last: checkpoint.size };
            return Err(self.first_of(Finding { place, reason }));
        }
        let stated = LogName::of(&checkpoint.origin).map_or(0, |(_, incarnation)| incarnation);
        if let Some(found) = self.incarnation.filter(|found| *found != stated) {
            return Err(self.first_of(Finding::of_log(Reason::OtherIncarnation { signed: stated, found })));
        }
        self.is_valid(note, checkpoint.clone(), signer);
        Ok(())
    }

    fn narrow_by(&mut self, checkpoint: &Checkpoint) {
        let is_newest = self.chain.is_at(checkpoint.state_revision, &checkpoint.state_head);
        self.narrow(is_newest);
    }

    /// Whether the entries so far are those of the checkpoint.
    fn compare(&self, checkpoint: &Checkpoint) -> Result<(), Reason> {
        if self.frontier.root() != checkpoint.root {
            return Err(Reason::Changed(checkpoint.size));
        }
        if self.chain.is_at(checkpoint.state_revision, &checkpoint.state_head) { Ok(()) } else { Err(Reason::OtherState(checkpoint.size)) }
    }

    fn compare_known(&mut self) -> Result<(), Finding> {
        while let Some(known) = self.known.pop_if(|known| known.size == self.frontier.size()) {
            if self.frontier.root() != known.root {
                return Err(self.other_history(&known));
            }
        }
        Ok(())
    }

    fn other_history(&mut self, known: &Checkpoint) -> Finding {
        let of_known = LogName::of(&known.origin).map_or(0, |(_, incarnation)| incarnation);
        let accepted = self.incarnations.iter().find(|(_, incarnation)| *incarnation > of_known);
        let finding = match accepted {
            Some((sequence, _)) => Finding::at(*sequence, Reason::Replaced(known.size)),
            None => Finding { place: Place::Between { first: self.covered() + 1, last: known.size }, reason: Reason::Forked(known.size) },
        };
        self.first_of(finding)
    }

    /// Keeps a finding that an operator may have accepted in a later entry. The first one counts.
    pub fn fault(&mut self, finding: Finding) {
        let earlier = self.chain_gap.take();
        self.fault.get_or_insert(earlier.unwrap_or(finding));
    }

    /// The finding that is returned: one that was kept before is the first.
    fn first_of(&mut self, finding: Finding) -> Finding {
        self.fault.take().or(self.chain_gap.take()).unwrap_or(finding)
    }

    /// The finding `reason` at an entry, unless there was one before.
    pub(super) fn fail_at(&mut self, sequence: u64, reason: Reason) -> Finding {
        self.first_of(Finding::at(sequence, reason))
    }

    /// The result, after the last entry and its checkpoint.
    ///
    /// # Errors
    /// The first finding.
    pub fn finish(mut self) -> Result<Verified, Finding> {
        if let Some((missing, found)) = self.gap {
            return Err(self.first_of(Finding::at(missing, Reason::Missing(found))));
        }
        if let Some(known) = self.known.first() {
            let finding = Finding::at(self.size() + 1, Reason::RolledBack(known.size));
            return Err(self.first_of(finding));
        }
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        if let Some((first, _)) = self.removed.iter().find(|(_, last)| *last > self.removed_through) {
            return Err(Finding::at((*first).max(self.removed_through + 1), Reason::Removed));
        }
        let Some((checkpoint, signer)) = self.newest else { return Err(Finding::of_log(Reason::NoCheckpoint)) };
        if let (None, Some(witness)) = (self.cosigned, self.missing_witness) {
            return Err(Finding::of_log(Reason::NotCosigned { size: checkpoint.size, witness }));
        }
        let (entries, size) = (self.frontier.size() - self.after, self.frontier.size());
        Ok(Verified {
            log: self.name,
            entries,
            first: if entries == 0 { 0 } else { self.after + 1 },
            last: size,
            first_at: self.first_at,
            last_at: (entries > 0).then_some(self.last_at),
            covered: checkpoint.size,
            root: checkpoint.root,
            signer,
            checkpoints: self.checkpoints,
            cosigned: self.cosigned.filter(|_| self.trust.demands_witnesses()),
            complete: true,
            state_revision: Some(checkpoint.state_revision),
            incarnations: self.incarnations,
            instances: self.instances,
            accepted: self.accepted,
            removed_through: self.removed.last().map_or(0, |(_, last)| *last),
        })
    }
}

/// Reads a checkpoint. Its signatures are not verified.
///
/// # Errors
/// [`Reason::MalformedCheckpoint`].
pub(super) fn read_checkpoint(note: &str) -> Result<(SignedNote, Checkpoint), Reason> {
    let malformed = |error: &dyn std::fmt::Display| Reason::MalformedCheckpoint(error.to_string());
    let note = SignedNote::parse(note.as_bytes()).map_err(|error| malformed(&error))?;
    let checkpoint = Checkpoint::parse(note.text()).map_err(|error| malformed(&error))?;
    Ok((note, checkpoint))
}

fn list<T>(all: &mut Vec<T>, item: T) {
    if all.len() < MAX_LISTED {
        all.push(item);
    }
}

#[cfg(test)]
pub(super) mod testing {
    //! Logs and keys for the tests of this folder.

    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};

    use super::*;
    use crate::{
        audit::{Source, StatePosition},
        domain::{AuditEvent, Principal, Timestamp},
    };

    /// A key that signs checkpoints.
    pub(in crate::audit::verify) struct Signer(Ed25519KeyPair);

    impl Signer {
        pub(in crate::audit::verify) fn new(seed: u8) -> Self {
            Self(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap())
        }

        pub(in crate::audit::verify) fn verifier(&self, origin: &str) -> VerifierKey {
            VerifierKey::log(origin, self.0.public_key().as_ref().try_into().unwrap()).unwrap()
        }

        pub(in crate::audit::verify) fn witness(&self, name: &str) -> VerifierKey {
            VerifierKey::witness(name, self.0.public_key().as_ref().try_into().unwrap()).unwrap()
        }

        /// Cosigns as a witness of this name. Returns its verifier key.
        pub(in crate::audit::verify) fn cosign(&self, note: &mut SignedNote, name: &str) -> VerifierKey {
            let (key, time) = (self.witness(name), 1_700_000_000_u64);
            let message = format!("cosignature/v1\ntime {time}\n{}", note.text());
            let signature = [time.to_be_bytes().as_slice(), self.0.sign(message.as_bytes()).as_ref()].concat();
            note.add_signature(&key, signature);
            key
        }

        pub(in crate::audit::verify) fn note(text: &str, origin: &str, signers: &[&Self]) -> String {
            let mut note = SignedNote::new(text.to_owned()).unwrap();
            for signer in signers {
                note.add_signature(&signer.verifier(origin), signer.0.sign(text.as_bytes()).as_ref().to_vec());
            }
            note.to_string()
        }
    }

    pub(in crate::audit::verify) const ORIGIN: &str = "v/main/1";

    /// The entries of a log: each third one is a state change.
    pub(in crate::audit::verify) fn entries(number: u64) -> Vec<Vec<u8>> {
        let source = Source { vault: "v".into(), instance: "main".into(), version: "1".into() };
        let (mut revision, mut newest) = (1, [0; 32]);
        let entry = |sequence: u64| {
            let at = Timestamp::from_micros(1_767_225_600_000_000 + i64::try_from(sequence).unwrap());
            let event = AuditEvent::new(at, Principal::system(), Operation::EnableKey, "p".into());
            let changes = sequence.is_multiple_of(3);
            let position = if changes { StatePosition::change(revision + 1, newest) } else { StatePosition::unchanged(revision) };
            let bytes = Entry::new(sequence, &source, &event, position).encode().unwrap();
            if changes {
                (revision, newest) = (revision + 1, leaf_hash(&bytes));
            }
            bytes
        };
        (1..=number).map(entry).collect()
    }

    /// The checkpoint over entries, signed.
    pub(in crate::audit::verify) fn checkpoint(entries: &[Vec<u8>], signer: &Signer) -> String {
        let mut frontier = Frontier::default();
        let (mut state_revision, mut state_head) = (1, [0; 32]);
        for bytes in entries {
            let leaf = leaf_hash(bytes);
            frontier.append(leaf, |_| {});
            if let Ok(entry) = Entry::decode(bytes)
                && entry.changes_state()
            {
                (state_revision, state_head) = (entry.state_revision.unwrap(), leaf);
            }
        }
        let (origin, size, root) = (ORIGIN.to_owned(), frontier.size(), frontier.root());
        Signer::note(&Checkpoint { origin, size, root, state_revision, state_head }.text(), ORIGIN, &[signer])
    }
}
