//! The scope of a report, its numbers, and what its words mean.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use maud::{Markup, html};

use crate::{
    audit::{
        report::{Bucket, PeriodCount, Topic},
        verify::LogName,
    },
    cli::{
        audit::verified_log::ReadLog,
        html::{Cell, facts, grouped, list},
    },
    domain::{Operation, Timestamp},
};

/// Of what the report is.
pub(super) fn scope(log: &ReadLog, count: &PeriodCount, now: Timestamp) -> Markup {
    let origin = log.origin.as_deref().unwrap_or_default();
    let name = LogName::of(origin).map(|(name, _)| name);
    let checkpoint = log.result.as_ref().map_or_else(
        |_| "none: the log was not verified".to_owned(),
        |verified| format!("{} entries, root {}", grouped(verified.covered), BASE64_STANDARD.encode(verified.root)),
    );
    let [before, inside, after] = count.entries;
    let sequences = count.sequences.map_or_else(String::new, |(first, last)| format!("{} to {}", grouped(first), grouped(last)));
    facts(
        "What this report covers",
        &[
            ("Vault", Cell::text(name.as_ref().map_or("", |name| &name.vault))),
            ("Instance", Cell::text(name.as_ref().map_or("", |name| &name.instance))),
            ("Origin of the log", Cell::code(origin)),
            ("Period from", Cell::Time(Some(count.period.from))),
            ("Period to (exclusive)", Cell::Time(Some(count.period.to))),
            ("Time of the report", Cell::Time(Some(now))),
            ("Read from", Cell::text(&log.source)),
            ("Checkpoint", Cell::code(checkpoint)),
            ("Entries in the period", Cell::Count(inside)),
            ("Their numbers", Cell::text(sequences)),
            ("Entries before and after it", Cell::text(format!("{} and {}", grouped(before), grouped(after)))),
            ("Programs that wrote them", Cell::text(count.programs.iter().cloned().collect::<Vec<_>>().join("; "))),
        ],
    )
}

/// The numbers that matter first, and sentences about what needs attention.
pub(super) fn numbers(count: &PeriodCount) -> Markup {
    let PeriodCount { usage, refusals, changes, anomalies, own_work, .. } = count;
    let calls = usage.all.calls;
    let of_keys = usage.by_operation.iter().filter(|(operation, _)| operation.uses_key());
    let uses = of_keys.fold(0_u64, |sum, (_, used)| sum.saturating_add(used.calls.ok));
    let keys = usage.by_key.largest(|used| used.used.calls.ok).iter().filter(|(_, used)| used.used.calls.ok > 0).count();
    let refused =
        refusals.clients.largest(|used| used.calls.denied).iter().fold(0_u64, |sum, (_, used)| sum.saturating_add(used.calls.denied));
    let found = [anomalies.first_uses.total(), anomalies.unusual_hours.total(), anomalies.bursts.total()];
    let tiles = [
        ("calls", "Calls of clients", calls.total()),
        ("denied", "Denied calls", calls.denied),
        ("failed", "Failed calls", calls.failed),
        ("uses", "Uses of keys that succeeded", uses),
        ("keys-used", if usage.by_key.others > 0 { "Keys used, at least" } else { "Keys used" }, size(keys)),
        (
            "principals-seen",
            if usage.by_principal.others > 0 { "Principals, at least" } else { "Principals" },
            size(usage.by_principal.len()),
        ),
        ("refused-certificates", "Attempts with refused certificates", refused),
        ("changes", "Changes of keys", changes.of(Topic::Keys).total()),
        ("exported", "Exports of keys", changes.of(Topic::Exports).total()),
        ("policies", "Changes of grants", changes.policy_changes),
        ("own-work", "Entries of the vault's own work", own_work.total()),
        ("anomalies-found", "Anomalies", found.iter().fold(0, |sum, number| sum.saturating_add(*number))),
    ];
    html! {
        ul class="numbers" {
            @for (id, name, number) in tiles { li id={ "number-" (id) } { b { (grouped(number)) } span { (name) } } }
        }
        (list(&attention(count, found)))
    }
}

fn size(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

fn attention(count: &PeriodCount, [first_uses, unusual_hours, bursts]: [u64; 3]) -> Vec<String> {
    let changes = &count.changes;
    let log = changes.of(Topic::Log);
    let of_the_log = |operation| size(log.items.iter().filter(|change| change.operation == operation).count());
    [
        (count.usage.all.calls.denied, "calls were denied. The section Denied calls says whose and why."),
        (changes.of(Topic::Exports).total(), "keys left the vault by an export."),
        (changes.policy_changes, "times another policy came into force: the grants changed."),
        (changes.of(Topic::Freeze).total(), "times the vault was frozen or unfrozen."),
        (of_the_log(Operation::AcceptRollback), "times an operator accepted an older or changed store."),
        (of_the_log(Operation::RotateCheckpointKey), "entries are about a rotation of the key that signs checkpoints."),
        (of_the_log(Operation::SkipEntries), "times entries were not sent to an audit sink."),
        (first_uses, "certificates were used for the first time."),
        (unusual_hours, "hours with use outside the usual hours of a certificate."),
        (bursts, "bursts of calls."),
    ]
    .into_iter()
    .filter(|(number, _)| *number > 0)
    .map(|(number, text)| format!("{} {text}", grouped(number)))
    .collect()
}

/// What the words of the report mean.
pub(super) fn definitions(count: &PeriodCount) -> Markup {
    let bucket = match count.usage.bucket {
        Bucket::Hour => "an hour, because the period is shorter than three days",
        Bucket::Day => "a day",
        Bucket::Week => "a week, because the period is longer than 92 days",
        Bucket::FourWeeks => "four weeks, because the period is longer than two years",
    };
    let items = [
        "Call: a request of a client that the vault admitted. Entries of the vault's own work (principal system) and refused certificates are counted apart. A repeated refusal that the vault wrote as one entry counts with its number.".to_owned(),
        "Denied: the policy does not permit the call. Failed: the policy permits it, and it could not be done; the reason is the problem code of docs/errors.md.".to_owned(),
        "Use of a key: keys.sign, keys.sign-topology, keys.decrypt, keys.encrypt and keys.export.".to_owned(),
        format!("Use over time: a bar is {bucket}. The chart begins with the log, if the log is younger than the period. All times are UTC."),
        "First use: no earlier entry of the whole log is of this certificate.".to_owned(),
        "Usual hours of a certificate: the hours of the day in which it made calls in the 28 days before the hour of the call. They are known if it made at least 50 calls then.".to_owned(),
        "Burst: an hour in which a principal made at least 100 calls, and more than 10 times the median of its hours with calls in the 28 days before.".to_owned(),
        "Policy: the nodes and grants of the configuration. The entry of each start and reload has the SHA-256 digest of the policy in force; canton-keyvault audit who shows the grants for a key at a time.".to_owned(),
        "Tables show a limited number of rows, and say how many are left out. canton-keyvault audit query lists every entry.".to_owned(),
    ];
    list(&items)
}
