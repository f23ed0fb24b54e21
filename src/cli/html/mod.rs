//! Reports as one HTML file: no script, no external resource, every text from outside escaped, and well-formed as XML. It prints on A4.
//!
//! | file | guarantees |
//! |---|---|
//! | `page` | the document: its policy forbids scripts and requests |
//! | `table` | tables with headers for readers of the screen, and a line about what was left out |
//! | `chart` | charts as SVG with a title, colours that differ in grey |
//! | `style` | the style sheet |

mod chart;
mod page;
mod style;
mod table;

pub(super) use self::chart::{Bars, stacked_columns, stacked_rows};
pub(super) use self::page::{Section, list, page, paragraph};
pub(super) use self::style::LEGEND;
pub(super) use self::table::{Cell, Column, Table, facts, grouped, render_table, seconds, shown};
