//! What the verification of the log showed, in plain words: what was verified, with which key, up to which checkpoint, and what it does not prove.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use maud::{Markup, html};

use crate::{
    audit::verify::Verified,
    cli::{
        audit::verified_log::ReadLog,
        html::{Cell, facts, grouped, list, paragraph, shown},
    },
};

/// The result in one box.
pub(in crate::cli) fn verdict(log: &ReadLog) -> Markup {
    match &log.result {
        Err(finding) => html! {
            div class="alarm" role="alert" id="verdict" {
                strong { "NOT VERIFIED. The log is not the one that the vault signed." }
                p { (shown(&finding.to_string())) }
                p { "The numbers in this report are those of the entries as they were read. Do not rely on them. Keep the export and this report as evidence." }
            }
        },
        Ok(verified) => html! {
            div class="verdict" id="verdict" {
                strong { "Verified. " }
                (grouped(verified.entries))
                @if verified.complete { " entries: all entries of the log from " } @else { " entries, each of which is in the log, between " }
                (verified.first) @if verified.complete { " to " } @else { " and " } (verified.last)
                ", up to the checkpoint over " (grouped(verified.covered)) " entries. "
                (with_which_key(log))
            }
        },
    }
}

const fn with_which_key(log: &ReadLog) -> &'static str {
    if log.trust.pinned {
        "Verified with the key that the reviewer gave."
    } else {
        "Verified with the key that the vault itself published."
    }
}

/// The details of the verification, and what it does not show.
pub(in crate::cli) fn explained(log: &ReadLog) -> Markup {
    let mut limits = vec![
        "That the vault wrote an entry for everything that it did. Whoever controls the running vault or its signing key can sign what they like.".to_owned(),
        "That times and names are true outside the vault: times are of its clock, and the client program names itself.".to_owned(),
        "Anything about calls after the checkpoint.".to_owned(),
    ];
    if !log.trust.pinned {
        limits.push("That the key is the right one. Whoever can replace the answers of the vault can replace the key that it publishes: repeat the report with --verifier-key and the key that was noted when the vault was set up.".to_owned());
    }
    if log.trust.checkpoints == 0 {
        limits.push("That the log was not rolled back as a whole, together with its checkpoints. A checkpoint that was kept elsewhere (--checkpoint), or witnesses, show that.".to_owned());
    }
    if log.before > 0 {
        limits.push(format!("Anything about the entries 1 to {}, which were not read. What is the first use, what is usual, and which keys there are, is said of the later entries only.", grouped(log.before)));
    }
    if log.filtered {
        limits.push("That no entry was left out: the log was read with a filter, or by an auditor who sees some nodes only. Entries that are left out are in no number here.".to_owned());
    }
    html! {
        @match &log.result {
            Ok(verified) => { (proven(log, verified)) }
            Err(finding) => {
                (facts("The verification failed", &[
                    ("Result", Cell::text("NOT VERIFIED")),
                    ("First finding", Cell::text(finding)),
                    ("Code", Cell::code(finding.reason.code())),
                    ("Entries that were read", Cell::Count(log.entries)),
                    ("Lines that are no entry", Cell::Count(log.unreadable)),
                ]))
                (paragraph("The meaning of the code is in docs/audit-verification.md. The command canton-keyvault audit verify names the first bad entry of an export."))
            }
        }
        h3 { "What a verification does not show" }
        (list(&limits))
    }
}

fn proven(log: &ReadLog, verified: &Verified) -> Markup {
    let Verified { entries, covered, root, signer, checkpoints, complete, incarnations, accepted, instances, .. } = verified;
    let mut shows = vec![
        if *complete {
            format!(
                "All {} entries are those that the vault signed, in their order. None was changed, removed or added.",
                grouped(*entries)
            )
        } else {
            format!("Each of the {} entries is in the signed log, unchanged.", grouped(*entries))
        },
        format!("The vault signed the checkpoint over {} entries with the key below. {}", grouped(*covered), with_which_key(log)),
    ];
    if log.trust.checkpoints > 0 {
        shows.push(format!("The log continues {} checkpoints that were seen before.", log.trust.checkpoints));
    }
    let mut notes: Vec<String> = incarnations
        .iter()
        .map(|(sequence, number)| {
            format!("Entry {sequence}: an operator accepted an older or changed store, and incarnation {number} of the log began.")
        })
        .collect();
    notes.extend(accepted.iter().map(|finding| format!("Accepted by an operator: {finding}")));
    html! {
        (list(&shows))
        (facts("The checkpoint", &[
            ("Origin", Cell::code(log.origin.as_deref().unwrap_or_default())),
            ("Size", Cell::Count(*covered)),
            ("Root", Cell::code(BASE64_STANDARD.encode(root))),
            ("Signed by", Cell::code(signer)),
            ("Valid checkpoints in the log", Cell::Count(*checkpoints)),
            ("Instances that wrote entries", Cell::text(instances.join(", "))),
        ]))
        @if !notes.is_empty() { h3 { "What operators accepted" } (list(&notes)) }
    }
}
