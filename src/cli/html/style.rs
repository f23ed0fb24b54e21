//! The style sheet of a report: dark text on white, for the screen and for A4 paper. Without `<` and `&`, so that it is valid inside XML.

/// The rules.
pub(super) const STYLE: &str = r#"
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 2rem 2rem 4rem; background: #fff; color: #1a1f26;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .6rem; padding-bottom: .25rem; border-bottom: 2px solid #1f3a5f; color: #1f3a5f; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p, ul { margin: .5rem 0; max-width: 50rem; }
ul { padding-left: 1.3rem; }
li { margin: .2rem 0; }
.lead { color: #4a5563; margin: 0 0 1.2rem; }
.note { color: #4a5563; font-size: .9rem; }
.verdict { border: 2px solid #2c6e49; border-left-width: .6rem; background: #f1f8f4; padding: .7rem 1rem; margin: 1rem 0; }
.verdict strong { color: #1f5136; }
.alarm { border: 3px solid #a4161a; border-left-width: .8rem; background: #fdf0f0; padding: .8rem 1rem; margin: 1rem 0; font-size: 1.05rem; }
.alarm strong { color: #a4161a; }
nav { margin: 1.2rem 0; }
nav ol { columns: 2; margin: .3rem 0; padding-left: 1.5rem; max-width: 44rem; }
nav a { color: #1f3a5f; }
.numbers { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.6rem, 1fr)); gap: .6rem; margin: .8rem 0 1rem; padding: 0; list-style: none; max-width: none; }
.numbers li { border: 1px solid #c5ccd5; border-radius: 4px; padding: .45rem .8rem; margin: 0; }
.numbers b { display: block; font-size: 1.45rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.numbers span { color: #4a5563; font-size: .85rem; }
table { border-collapse: collapse; width: 100%; margin: .6rem 0 .3rem; font-size: .86rem; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; caption-side: top; }
th, td { text-align: left; vertical-align: top; padding: .32rem .5rem; border-bottom: 1px solid #d5dae1; overflow-wrap: anywhere; min-width: 5.6rem; }
thead th { background: #eef1f5; border-bottom: 2px solid #9aa5b4; white-space: nowrap; overflow-wrap: normal; }
tbody th { font-weight: 400; }
tbody tr:nth-child(even) { background: #f9fafb; }
td.n, th.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; min-width: 0; }
.w { overflow-wrap: normal; min-width: 0; }
.t { font-variant-numeric: tabular-nums; overflow-wrap: normal; }
code, .c { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .92em; overflow-wrap: anywhere; }
td.c, th.c { font-size: .8rem; min-width: 9.5rem; }
.facts th { width: 13rem; font-weight: 600; background: #eef1f5; }
figure { margin: .8rem 0 1rem; }
figcaption { font-size: .86rem; color: #4a5563; }
svg { display: block; width: 100%; height: auto; }
svg text { font-family: system-ui, Arial, "DejaVu Sans", sans-serif; }
footer { margin-top: 3rem; padding-top: .6rem; border-top: 1px solid #c5ccd5; color: #4a5563; font-size: .85rem; }
@media screen { .table { overflow-x: auto; } }
@media screen and (max-width: 62rem) {
  body { padding: 1rem 1rem 3rem; }
  table { font-size: .78rem; }
  th, td { padding: .3rem .35rem; min-width: 4.9rem; }
  td.c, th.c { font-size: .74rem; min-width: 7.5rem; }
}
@page { size: A4; margin: 16mm 14mm 18mm; }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; -webkit-print-color-adjust: exact; print-color-adjust: exact; }
  h2, h3, caption { break-after: avoid; }
  tr, figure, .verdict, .alarm, .numbers { break-inside: avoid; }
  thead { display: table-header-group; break-after: avoid; }
  table.short { break-inside: avoid; }
  table { font-size: 8pt; }
  th, td { padding: .25rem .3rem; min-width: 4.4rem; }
  td.c, th.c { font-size: 7.2pt; min-width: 7rem; }
  h2 { margin-top: 1.6rem; }
  nav a { text-decoration: none; color: inherit; }
}
"#;

/// The rules of the legend of a chart.
pub(in crate::cli) const LEGEND: &str = r"
.legend { display: flex; gap: 1.2rem; list-style: none; padding: 0; margin: .2rem 0; font-size: .86rem; }
.legend span { display: inline-block; width: .9rem; height: .9rem; margin-right: .35rem; border: 1px solid #1a1f26; vertical-align: -.1rem; }
.legend .succeeded { background: #9ec5e3; }
.legend .denied { background: #d96c0b; }
.legend .failed { background: #4a144f; }
";
