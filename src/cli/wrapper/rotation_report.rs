//! `wrapper rotation report`: one HTML file about a rotation of the wrapper key. It joins what the vault says now with what the verified log shows.

use clap::Args;
use maud::{Markup, html};
use serde::Deserialize;

use crate::{
    audit::{
        Entry,
        report::{Evidence, Listed, RotationCount},
    },
    cli::{
        Failure,
        audit::{ReadLog, TrustArgs, not_verified, verification},
        connection::Remote,
        html::{Cell, Column, Section, Table, facts, grouped, list, page, paragraph, seconds},
        input::{NewFile, Place},
    },
    client::Call,
    domain::{JobError, JobId, JobState, Timestamp, WrapperKeyId},
    server::run::clock,
};

/// Keys of the table of evidence. Keys without evidence come first.
const MOST_KEYS: usize = 1_000;

/// Which rotation.
#[derive(Debug, Args)]
pub struct RotationReportArgs {
    /// Id of the job, job-…
    job: JobId,
    /// The HTML file to write, which must not exist; - for standard output
    #[arg(long, value_name = "FILE|-", default_value = "-")]
    out: Place,
    #[command(flatten)]
    trust: TrustArgs,
}

/// The rotation as the vault shows it.
#[derive(Debug, Deserialize)]
struct Job {
    id: JobId,
    from: WrapperKeyId,
    to: WrapperKeyId,
    state: JobState,
    total: u64,
    done: u64,
    failed: u64,
    #[serde(default)]
    errors: Vec<JobError>,
    started_at: Timestamp,
    #[serde(default)]
    finished_at: Option<Timestamp>,
}

/// A wrapper key as the vault shows it.
#[derive(Debug, Deserialize)]
struct WrapperKey {
    provider: String,
    identity: String,
    state: String,
    keys: u64,
    #[serde(default)]
    left: Option<u64>,
    #[serde(default)]
    last_used_at: Option<Timestamp>,
}

/// Runs the command. A report about a log that is not the one that was signed is written all the same, says so, and is a failure.
pub(super) async fn run(args: &RotationReportArgs, remote: &Remote) -> Result<(), Failure> {
    let out = NewFile::create(&args.out)?;
    let job: Job = remote.client.success(Call::get(&format!("/v1/wrapper-keys/rotations/{}", args.job))).await?.parse()?;
    let wrapper_key = async |id: WrapperKeyId| -> Result<WrapperKey, Failure> {
        Ok(remote.client.success(Call::get(&format!("/v1/wrapper-keys/{id}"))).await?.parse()?)
    };
    let (from, to) = (wrapper_key(job.from).await?, wrapper_key(job.to).await?);
    let mut count = RotationCount::new(job.id, job.from, job.to);
    let log = args.trust.read_vault(remote, |entry| count.add(entry)).await?;
    let report = Report { job: &job, from: &from, to: &to, count: &count, log: &log, now: clock()() };
    if let Some(path) = out.finish(report.document().as_bytes())? {
        eprintln!("the report is in {}", path.display());
    }
    log.result.map(drop).map_err(|finding| not_verified(&finding, ""))
}

/// What the report is made of.
struct Report<'a> {
    job: &'a Job,
    from: &'a WrapperKey,
    to: &'a WrapperKey,
    count: &'a RotationCount,
    log: &'a ReadLog,
    now: Timestamp,
}

impl Report<'_> {
    fn document(&self) -> String {
        let Self { job: Job { id, from, to, .. }, log, now, .. } = self;
        let origin = log.origin.as_deref().unwrap_or("an unknown log");
        let lead = format!(
            "Job {id}: from {from} to {to}. Log {origin}. Made at {} by canton-keyvault {}.",
            seconds(*now),
            env!("CARGO_PKG_VERSION")
        );
        let section = |id, title, body| Section { id, title, body };
        let sections = [
            section("job", "The job", self.facts()),
            section("coverage", "Does every key have a verified wrap?", self.coverage()),
            section("failures", "Failures", self.failures()),
            section("retirement", "Retirement of the old wrapper key", self.retirement()),
            section("rewraps", "Re-wraps and KMS request ids", self.rewraps()),
            section("evidence", "Evidence for each key", self.evidence()),
            section("verification", "Verification of the log", verification::explained(log)),
        ];
        let title = "Rotation of the wrapper key";
        page(title, &lead, &verification::verdict(log), &sections, "Times are UTC, by the clock of the vault.")
    }

    /// Who, when, what.
    fn facts(&self) -> Markup {
        let Self { job, from, to, count, now, .. } = self;
        let by = |entry: Option<&Entry>| entry.map_or_else(|| "no entry names the job".to_owned(), |entry| entry.principal.clone());
        let certificate = count.start.as_ref().and_then(|start| start.certificate.clone()).unwrap_or_default();
        let requests = count.start.as_ref().map(|start| start.kms_request_ids.join(", ")).unwrap_or_default();
        let number = |entry: Option<&Entry>| Cell::text(entry.map_or_else(|| "none".to_owned(), |entry| grouped(entry.sequence)));
        let duration = job.finished_at.map(|end| humantime::format_duration(whole_seconds(end.since(job.started_at))).to_string());
        let key = |id: &WrapperKeyId, key: &WrapperKey| Cell::code(format!("{id}: {} {}", key.provider, key.identity));
        html! {
            (facts("The rotation", &[
                ("Job", Cell::code(job.id)),
                ("State", Cell::text(job.state)),
                ("From wrapper key", key(&job.from, from)),
                ("To wrapper key", key(&job.to, to)),
                ("Started by", Cell::code(by(count.start.as_ref()))),
                ("With the certificate", Cell::code(certificate)),
                ("Started at", Cell::Time(Some(job.started_at))),
                ("Ended at", Cell::Time(job.finished_at)),
                ("Duration", Cell::text(duration.unwrap_or_else(|| "it still runs".into()))),
                ("Ended by", Cell::code(by(count.end.as_ref()))),
                ("Entry of the start", number(count.start.as_ref())),
                ("Entry of the end", number(count.end.as_ref())),
                ("KMS requests of the start", Cell::code(requests)),
                ("Time of the report", Cell::Time(Some(*now))),
            ]))
        }
    }

    fn coverage(&self) -> Markup {
        let Self { job, to, count, log, .. } = self;
        let (followed, missing) = count.followed();
        let size = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        let tiles = [
            ("total", "Keys to process", job.total),
            ("done", "Keys done", job.done),
            ("failed", "Keys that failed", job.failed),
            ("re-encrypted", "Re-encrypted inside the KMS", count.re_encrypted),
            ("unwrapped", "Unwrapped and wrapped", count.unwrapped),
            ("evidence", "Keys with evidence in the log", size(followed - missing)),
            ("missing", "Keys without evidence", size(missing).saturating_add(count.not_followed)),
        ];
        let covered = log.result.as_ref().map_or(0, |verified| verified.covered);
        let mut says = vec![match to.left {
            Some(0) => format!("The vault says now: every key has a verified wrap under {}, the active wrapper key.", job.to),
            Some(left) => {
                format!("The vault says now: {} keys have no verified wrap under {}, the active wrapper key.", grouped(left), job.to)
            }
            None => format!(
                "The wrapper key {} is {} now, so that the vault does not count the keys without a wrap under it.",
                job.to, to.state
            ),
        }];
        says.push(format!("{} keys have a wrap under {} now.", grouped(to.keys), job.to));
        says.push(if missing == 0 && count.not_followed == 0 {
            format!(
                "The log shows it for each of the {} keys that are not destroyed. The checkpoint over {} entries covers these entries.",
                grouped(size(followed)),
                grouped(covered)
            )
        } else {
            format!(
                "The log shows no wrap under it for {} keys that are not destroyed. The section Evidence for each key lists them first.",
                grouped(size(missing).saturating_add(count.not_followed))
            )
        });
        if count.quarantined.total() > 0 {
            says.push(format!(
                "Since the start, the vault quarantined keys or wraps {} times. The section Failures lists them.",
                grouped(count.quarantined.total())
            ));
        }
        html! {
            ul class="numbers" { @for (id, name, number) in tiles { li id={ "number-" (id) } { b { (grouped(number)) } span { (name) } } } }
            (list(&says))
            (paragraph("Re-encrypted inside the KMS: the KMS itself took the data key from the old to the new wrapper key. Unwrapped and wrapped: the vault unwrapped the data key and wrapped it again, because the two wrapper keys are not in one KMS that can re-encrypt. In both cases the vault opened the new wrap once, to verify it, before it wrote the entry. The private key stayed sealed. Keys that are done without an entry of the job got their wrap before, while the wrapper key was on standby. The key that signs checkpoints of the log is a key too."))
        }
    }

    fn failures(&self) -> Markup {
        let Self { job, count, .. } = self;
        let row = |JobError { key_id, code, detail }: &JobError| vec![Cell::code(key_id), Cell::text(code), Cell::text(detail)];
        let unnamed = job.failed.saturating_sub(u64::try_from(job.errors.len()).unwrap_or(u64::MAX));
        let errors = Table {
            caption: "Keys that could not be done".into(),
            columns: &[Column::Text("Key"), Column::Text("Code"), Column::Text("Why")],
            rows: job.errors.iter().map(row).collect(),
            left_out: if unnamed > 0 { format!("And {} more, which the vault counted only.", grouped(unnamed)) } else { String::new() },
            empty: "No key failed.",
        };
        html! {
            (errors.render())
            @if count.quarantined.total() > 0 { (entries(&count.quarantined, "Keys and wraps that the vault quarantined since the start", "")) }
        }
    }

    fn retirement(&self) -> Markup {
        let Self { job, from, count, .. } = self;
        let used = from.last_used_at.map_or_else(|| "never".to_owned(), seconds);
        html! {
            (paragraph(&format!("The wrapper key {} is {} now. {} keys have a wrap under it. It was last used: {used}.", job.from, from.state, grouped(from.keys))))
            (entries(&count.retirement, "Entries about its retirement", "It was not retired since the rotation started: the wraps under it still open the keys, and a rotation back is possible."))
        }
    }

    fn rewraps(&self) -> Markup {
        let rewraps = &self.count.rewraps;
        let rows = rewraps.items.iter().map(|rewrap| {
            let method = if rewrap.re_encrypted { "re-encrypted inside the KMS" } else { "unwrapped and wrapped" };
            vec![
                Cell::Count(rewrap.sequence),
                Cell::Time(Some(rewrap.at)),
                Cell::code(rewrap.key.map_or_else(String::new, |key| key.to_string())),
                Cell::text(rewrap.node.as_ref().map_or_else(String::new, ToString::to_string)),
                Cell::text(method),
                Cell::code(rewrap.kms_request_ids.join(", ")),
            ]
        });
        Table {
            caption: "Keys that the job gave a further wrap".into(),
            columns: &[
                Column::Count("Entry"),
                Column::Text("Time"),
                Column::Text("Key"),
                Column::Text("Node"),
                Column::Text("Method"),
                Column::Text("KMS request ids"),
            ],
            rows: rows.collect(),
            left_out: if rewraps.left_out > 0 {
                format!("And {} more: canton-keyvault audit query --job {} lists them.", grouped(rewraps.left_out), self.job.id)
            } else {
                String::new()
            },
            empty: "No entry of a re-wrap names the job. Every key had a wrap under the new wrapper key before, or an earlier version of the vault wrote the entries.",
        }
        .render()
    }

    fn evidence(&self) -> Markup {
        let count = self.count;
        let mut keys: Vec<_> = count.keys.iter().collect();
        keys.sort_by_key(|(_, evidence)| **evidence != Evidence::Missing);
        let rows = keys.iter().take(MOST_KEYS).map(|(key, evidence)| {
            let (entry, why) = match evidence {
                Evidence::Job(entry) => (Some(entry), "re-wrapped by this job, and verified"),
                Evidence::Elsewhere(entry) => (Some(entry), "re-wrapped outside this job, and verified"),
                Evidence::Sealed(entry) => (Some(entry), "created, imported or re-sealed under it"),
                Evidence::Missing => (None, "NONE in the log"),
            };
            vec![Cell::code(key), entry.map_or_else(|| Cell::text(""), |entry| Cell::Count(*entry)), Cell::text(why)]
        });
        let more = keys.len().saturating_sub(MOST_KEYS);
        let covered = self.log.result.as_ref().map_or(0, |verified| verified.covered);
        Table {
            caption: format!("Keys that are not destroyed, and the entry that shows the wrap under {}", count.to),
            columns: &[Column::Text("Key"), Column::Count("Entry"), Column::Text("Evidence")],
            rows: rows.collect(),
            left_out: format!(
                "{}The checkpoint over {} entries covers all entries that are named here.",
                if more > 0 {
                    format!("And {} more keys with evidence or without. ", grouped(u64::try_from(more).unwrap_or(u64::MAX)))
                } else {
                    String::new()
                },
                grouped(covered)
            ),
            empty: "The vault has no keys.",
        }
        .render()
    }
}

fn whole_seconds(duration: std::time::Duration) -> std::time::Duration {
    if duration.as_secs() > 0 {
        std::time::Duration::from_secs(duration.as_secs())
    } else {
        std::time::Duration::from_millis(duration.subsec_millis().into())
    }
}

/// Entries with their principal and what they say.
fn entries(listed: &Listed<Entry>, caption: &str, empty: &'static str) -> Markup {
    let row = |entry: &Entry| {
        vec![
            Cell::Count(entry.sequence),
            Cell::Time(Some(entry.at)),
            Cell::code(&entry.principal),
            Cell::word(entry.operation),
            Cell::text([&entry.subject, &entry.reason].into_iter().flatten().cloned().collect::<Vec<_>>().join("; ")),
        ]
    };
    Table {
        caption: caption.into(),
        columns: &[
            Column::Count("Entry"),
            Column::Text("Time"),
            Column::Text("Principal"),
            Column::Text("Operation"),
            Column::Text("Details"),
        ],
        rows: listed.items.iter().map(row).collect(),
        left_out: if listed.left_out > 0 { format!("And {} more.", grouped(listed.left_out)) } else { String::new() },
        empty,
    }
    .render()
}
