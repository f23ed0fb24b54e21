//! The document of a report. Its content security policy permits its own style sheet and nothing else.

use maud::{Markup, PreEscaped, html};

use super::{
    shown,
    style::{LEGEND, STYLE},
};

/// A part with a headline.
pub(in crate::cli) struct Section {
    /// The name for links.
    pub(in crate::cli) id: &'static str,
    /// The headline.
    pub(in crate::cli) title: &'static str,
    /// The content.
    pub(in crate::cli) body: Markup,
}

/// What a browser may load: nothing.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// The document: a title, an introduction, links to the parts, the parts, and a last line.
pub(in crate::cli) fn page(title: &str, lead: &str, before: &Markup, sections: &[Section], footer: &str) -> String {
    // The template engine writes void elements without a slash, which is no XML.
    let head = format!(
        "<meta charset=\"utf-8\"/><meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\"/>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/><meta name=\"referrer\" content=\"no-referrer\"/>"
    );
    let document = html! {
        html lang="en" xmlns="http://www.w3.org/1999/xhtml" {
            head {
                (PreEscaped(head))
                title { (shown(title)) }
                style { (PreEscaped(STYLE)) (PreEscaped(LEGEND)) }
            }
            body {
                header {
                    h1 { (shown(title)) }
                    p class="lead" { (shown(lead)) }
                }
                main {
                    (before)
                    nav aria-label="Contents" {
                        ol { @for section in sections { li { a href={ "#" (section.id) } { (section.title) } } } }
                    }
                    @for Section { id, title, body } in sections {
                        section id=(id) aria-labelledby={ (id) "-title" } {
                            h2 id={ (id) "-title" } { (title) }
                            (body)
                        }
                    }
                }
                footer { (shown(footer)) }
            }
        }
    };
    format!("<!DOCTYPE html>\n{}\n", document.into_string())
}

/// A paragraph.
pub(in crate::cli) fn paragraph(text: &str) -> Markup {
    html! { p { (shown(text)) } }
}

/// A list of sentences.
pub(in crate::cli) fn list<T: AsRef<str>>(items: &[T]) -> Markup {
    html! { @if !items.is_empty() { ul { @for item in items { li { (shown(item.as_ref())) } } } } }
}
