//! `/jobs`: the rotations of the wrapper key and the re-seals, with their progress.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use maud::{Markup, html};
use serde_json::Value;

use crate::{
    cli::{
        html::grouped,
        job::{RESEALS, ROTATIONS},
        ui::{
            actions::{self, Target},
            fields::{Kind, Shown, facts, field, field_text, items, list as table},
            form::Values,
            layout::{Html, Page, message},
            link,
            part::{part, subsection},
            server::App,
        },
    },
    client::{Call, percent_encoded},
};

/// Jobs of each kind on the page.
const MOST_JOBS: &str = "100";

/// Seconds between two loads of a page that follows a job. Each load adds an entry to the audit log.
const FOLLOW: u32 = 5;

/// A kind of job, and how it is shown.
struct Kinds {
    /// The part of the address of these pages.
    place: &'static str,
    /// The name in the plural.
    title: &'static str,
    /// The path in the API.
    path: &'static str,
    target: Target,
    listed: &'static [Shown],
}

const KINDS: &[Kinds] = &[
    Kinds { place: "rotations", title: "Rotations", path: ROTATIONS.path, target: Target::Rotation, listed: ROTATION_FIELDS },
    Kinds { place: "reseals", title: "Re-seals", path: RESEALS.path, target: Target::Reseal, listed: RESEAL_FIELDS },
];

const ROTATION_FIELDS: &[Shown] = &[
    field("Id", "id", Kind::Link(link::rotation)),
    field("State", "state", Kind::Word),
    field("From", "from", Kind::Link(link::wrapper_key)),
    field("To", "to", Kind::Link(link::wrapper_key)),
    field("Keys", "total", Kind::Count),
    field("Done", "done", Kind::Count),
    field("Failed", "failed", Kind::Count),
    field("Started", "started_at", Kind::Time),
    field("Finished", "finished_at", Kind::Time),
];

const RESEAL_FIELDS: &[Shown] = &[
    field("Id", "id", Kind::Link(link::reseal)),
    field("State", "state", Kind::Word),
    field("Keys", "total", Kind::Count),
    field("Done", "done", Kind::Count),
    field("Failed", "failed", Kind::Count),
    field("Started", "started_at", Kind::Time),
    field("Finished", "finished_at", Kind::Time),
];

const ERRORS: &[Shown] =
    &[field("Key", "key_id", Kind::Link(link::key)), field("Code", "code", Kind::Word), field("Why", "detail", Kind::Text)];

/// The list of both kinds, newest first.
pub(in crate::cli::ui) async fn list(State(app): State<Arc<App>>, Query(values): Query<Values>) -> Html {
    let mut body = actions::outcome(&values);
    for Kinds { place, title, path, listed, .. } in KINDS {
        let found = app.client.json(Call::get(path).query("limit", MOST_JOBS)).await;
        let more = part(place, title, found, |page| {
            let mut jobs = items(page, "items").to_vec();
            jobs.reverse();
            html! {
                @for job in jobs.iter().filter(|job| field_text(job, "state") == "running") { (progress(job)) }
                (table("Newest first", listed, &jobs, "There was none."))
                @if page.get("next_cursor").is_some_and(|next| !next.is_null()) {
                    p class="note" { "These are the oldest " (MOST_JOBS) ". The command line lists all." }
                }
            }
        });
        body = html! { (body) (more) };
    }
    Page { place: "/jobs", title: "Rotations and re-seals", reload: None, body }.render(&app)
}

/// One job.
pub(in crate::cli::ui) async fn show(
    State(app): State<Arc<App>>,
    Path((kind, id)): Path<(String, String)>,
    Query(values): Query<Values>,
) -> Html {
    let Some(kind) = KINDS.iter().find(|known| known.place == kind) else {
        return message("No such page", "There is no such kind of job.");
    };
    let found = app.client.get(&format!("{}/{}", kind.path, percent_encoded(&id))).await;
    let runs = found.as_ref().is_ok_and(|job| field_text(job, "state") == "running");
    let reload = (runs && values.get("follow").is_some()).then_some(FOLLOW);
    let here = format!("/jobs/{}/{}", kind.place, percent_encoded(&id));
    let body = html! {
        (actions::outcome(&values))
        (part("job", "Progress", found, |job| one(&app, kind, &id, job)))
        @if runs {
            @if reload.is_some() {
                p { "This page loads again every " (FOLLOW) " seconds, until the job ends. Each time adds an entry to the audit log. " a href=(here) { "Stop" } }
            } @else {
                p { a href=(here) { "Load again" } " · " a href=(link::with_query(&here, [("follow", "yes")])) { "Follow: load again every " (FOLLOW) " seconds" } }
            }
        }
    };
    Page { place: "/jobs", title: "Job", reload, body }.render(&app)
}

fn one(app: &App, kind: &Kinds, id: &str, job: &Value) -> Markup {
    html! {
        (progress(job))
        (facts("The job", kind.listed, job))
        (subsection("errors", "Keys that failed", &table("At most 20. A running job tries them again", ERRORS, items(job, "errors"), "None.")))
        (subsection("more", "More about this job", &html! {
            ul { li { a href=(link::with_query("/audit", [("job", id)])) { "Its entries in the audit log" } } }
        }))
        (actions::links(app, kind.target, id, job))
    }
}

/// A bar with the numbers of a job.
fn progress(job: &Value) -> Markup {
    let number = |name: &str| job.get(name).and_then(Value::as_u64).unwrap_or_default();
    let (id, done, total) = (field_text(job, "id"), number("done"), number("total"));
    html! {
        p class="job" {
            label for={ "progress-" (id) } { code { (id) } " " (field_text(job, "state")) ": " (grouped(done)) " of " (grouped(total)) " keys done" }
            progress id={ "progress-" (id) } max=(total.max(1)) value=(if total == 0 { 1 } else { done.min(total) }) { (done) " of " (total) }
        }
    }
}
