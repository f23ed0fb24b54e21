//! Fields of forms: a table describes each field once, for the form, for the request to the vault and for the links to the next page.

use std::collections::BTreeMap;

use maud::{Markup, html};
use serde::Deserialize;

use crate::{
    cli::{html::shown, ui::link},
    client::Call,
};

/// A field of a form. Its name is that of the parameter of the API.
pub(super) struct Field {
    /// The name.
    pub(super) name: &'static str,
    /// The label.
    pub(super) label: &'static str,
    /// What can be written.
    pub(super) kind: Kind,
}

/// What a field takes.
pub(super) enum Kind {
    /// Text, with an example.
    Text(&'static str),
    /// Text that must not be empty, with an example.
    Required(&'static str),
    /// One of these values, or none.
    Choice(fn() -> Vec<&'static str>),
    /// One of these values.
    OneOf(fn() -> Vec<&'static str>),
}

/// The values that a browser sent, by name. An empty value is none.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(super) struct Values(BTreeMap<String, String>);

impl Values {
    /// A value without spaces around it.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// The values of some fields.
    pub(super) fn of<'v>(&'v self, fields: &'v [Field]) -> impl Iterator<Item = (&'v str, &'v str)> {
        fields.iter().filter_map(|field| Some((field.name, self.get(field.name)?)))
    }

    /// A call with the values of these fields in its query.
    pub(super) fn add_to(&self, call: Call, fields: &[Field]) -> Call {
        self.of(fields).fold(call, |call, (name, value)| call.query(name, value))
    }
}

/// A form that opens `path` with the values in its query.
pub(super) fn filters(path: &str, legend: &str, button: &str, fields: &[Field], values: &Values) -> Markup {
    html! {
        form class="filters" method="get" action=(path) {
            fieldset {
                legend { (legend) }
                div class="fields" { @for field in fields { (input(field, values)) } }
                p class="buttons" {
                    button type="submit" { (button) }
                    a href=(path) { "Clear" }
                }
            }
        }
    }
}

/// A labelled field.
pub(super) fn input(Field { name, label, kind }: &Field, values: &Values) -> Markup {
    let value = values.get(name).unwrap_or_default();
    let id = format!("field-{name}");
    let (choices, empty) = match kind {
        Kind::Text(_) | Kind::Required(_) => (Vec::new(), false),
        Kind::Choice(all) => (all(), true),
        Kind::OneOf(all) => (all(), false),
    };
    html! {
        div {
            label for=(id) { (label) }
            @match kind {
                Kind::Text(example) => { input type="text" id=(id) name=(name) value=(shown(value)) placeholder=(example) maxlength="2048" autocomplete="off"; }
                Kind::Required(example) => { input type="text" id=(id) name=(name) value=(shown(value)) placeholder=(example) maxlength="2048" autocomplete="off" required; }
                Kind::Choice(_) | Kind::OneOf(_) => {
                    select id=(id) name=(name) {
                        @if empty { option value="" { "any" } }
                        @for choice in choices { option value=(choice) selected[choice == value] { (choice) } }
                    }
                }
            }
        }
    }
}

/// Links to the first and the next page of a list.
pub(super) fn paging(path: &str, fields: &[Field], values: &Values, next: Option<&str>) -> Markup {
    let first = link::with_query(path, values.of(fields));
    html! {
        nav class="paging" aria-label="Pages of the list" {
            @if values.get("cursor").is_some() { a href=(first) { "First page" } }
            @if let Some(next) = next { a href=(link::with_query(&first, [("cursor", next)])) rel="next" { "Next page" } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: &[Field] = &[Field { name: "node", label: "Node", kind: Kind::Text("participant1") }];

    fn values(pairs: &[(&str, &str)]) -> Values {
        Values(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn a_hostile_value_stays_a_value() {
        let values = values(&[("node", "\"><script>x</script>"), ("other", "1")]);
        let text = filters("/keys", "Filter", "Show", FIELDS, &values).into_string();
        assert!(text.contains("value=\"&quot;&gt;&lt;script&gt;x&lt;/script&gt;\"") && !text.contains("<script"), "{text}");
        let text = paging("/keys", FIELDS, &values, Some("a\"b")).into_string();
        assert!(text.contains("/keys?node=%22%3E%3Cscript%3Ex%3C%2Fscript%3E&amp;cursor=a%22b"), "{text}");
    }

    #[test]
    fn empty_values_are_none_and_spaces_around_are_dropped() {
        let values = values(&[("node", "  "), ("key", " orders ")]);
        assert_eq!((values.get("node"), values.get("key"), values.get("x")), (None, Some("orders"), None));
    }
}
