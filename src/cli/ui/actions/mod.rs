//! Changes of the vault from a page: a form for what must be chosen, a confirmation with the words of the command line, and the call. A step for which
//! the command line asks takes the same written answer here.
//!
//! | file | contains |
//! |---|---|
//! | `table` | every change: when it is offered, what it asks, which call it makes |
//! | `confirm` | the page before the change |
//! | `perform` | the change |

mod confirm;
mod perform;
mod table;

use maud::{Markup, html};
use serde_json::Value;

pub(super) use self::{confirm::confirm, perform::perform};

use self::table::ACTIONS;
use super::{
    form::{Field, Values},
    link,
    part::subsection,
    server::App,
};
use crate::{
    cli::steps::Step,
    client::{Call, ClientError},
    domain::{IdError, JobId, KeyId, WrapperKeyId},
};

/// What a change is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// The vault as a whole.
    Vault,
    /// A key that is created.
    NewKey,
    /// A key.
    Key,
    /// A wrapper key.
    WrapperKey,
    /// A rotation.
    Rotation,
    /// A job that re-seals all keys.
    Reseal,
}

impl Target {
    /// Refuses an id of another form, so that an id is safe in a path.
    fn check(self, id: &str) -> Result<(), IdError> {
        match self {
            Self::Vault | Self::NewKey => Ok(()),
            Self::Key => id.parse::<KeyId>().map(drop),
            Self::WrapperKey => id.parse::<WrapperKeyId>().map(drop),
            Self::Rotation | Self::Reseal => id.parse::<JobId>().map(drop),
        }
    }

    /// The page of the object with this id.
    fn page(self, id: &str) -> String {
        match self {
            Self::Vault => "/".into(),
            Self::NewKey => "/keys".into(),
            Self::Key => link::key(id),
            Self::WrapperKey => link::wrapper_key(id),
            Self::Rotation => link::rotation(id),
            Self::Reseal => link::reseal(id),
        }
    }
}

/// One change.
struct Action {
    /// Its part of the address.
    name: &'static str,
    /// The text of its link and its button.
    title: &'static str,
    /// What it is about.
    target: Target,
    /// Whether it fits the state of the object, as the vault answered it.
    fits: fn(&Value) -> bool,
    /// What must be chosen before.
    fields: &'static [Field],
    /// What it would do.
    step: fn(&Asked) -> Result<Step, IdError>,
    /// Whether the confirmation must be written, as on the command line.
    written: bool,
    /// The call.
    call: fn(&Asked) -> Result<Call, ClientError>,
    /// What the answer is about: its page is shown afterwards.
    result: Target,
    /// What is shown there.
    done: &'static str,
}

/// A change with its object and values.
struct Asked {
    /// The id of the object; empty if it has none.
    id: String,
    values: Values,
}

impl Action {
    fn find(name: &str) -> Option<&'static Self> {
        ACTIONS.iter().find(|action| action.name == name)
    }

    /// The values of a request, with a valid id.
    fn ask(&self, values: Values) -> Result<Asked, IdError> {
        let id = values.get("id").unwrap_or_default().to_owned();
        self.target.check(&id)?;
        Ok(Asked { id, values })
    }
}

/// Links to the changes that fit an object. Nothing, unless changes are allowed.
pub(super) fn links(app: &App, target: Target, id: &str, object: &Value) -> Markup {
    let fitting: Vec<_> = ACTIONS.iter().filter(|action| action.target == target && (action.fits)(object)).collect();
    if !app.allow_actions || fitting.is_empty() {
        return html! {};
    }
    let list = html! {
        ul class="actions" {
            @for Action { name, title, .. } in fitting { li { a href=(link::with_query(&format!("/actions/{name}"), [("id", id)])) { (title) "…" } } }
        }
    };
    subsection("actions", "Changes", &list)
}

/// What the last change did, on the page that is shown after it.
pub(super) fn outcome(values: &Values) -> Markup {
    let Some(action) = values.get("done").and_then(Action::find) else { return html! {} };
    html! {
        p class="verdict good" role="status" { strong { (action.done) } }
        @if values.get("unrecorded").is_some() { p class="verdict warn" { "It is in force, but its entry is not in the audit log yet: the log cannot be written now." } }
    }
}
