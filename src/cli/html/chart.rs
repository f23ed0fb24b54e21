//! Stacked bars as SVG. The drawing has a title and a description, so that a reader of the screen says what it shows; the numbers stand in a table too.

use maud::{Markup, PreEscaped, html};
use plotters::{
    prelude::{
        ChartBuilder, DrawingAreaErrorKind, IntoDrawingArea as _, IntoSegmentedCoord as _, RGBColor, Rectangle, SVGBackend, SegmentValue,
    },
    style::{Color as _, FontTransform, IntoFont as _, ShapeStyle, TextStyle},
};

use super::{grouped, shown};

const WIDTH: u32 = 900;
const TEXT: RGBColor = RGBColor(0x1a, 0x1f, 0x26);
const LINE: RGBColor = RGBColor(0xd5, 0xda, 0xe1);

/// What a colour stands for, from the lightest to the darkest: they differ in grey too. The legend has them from [`super::style::LEGEND`].
const OUTCOMES: [(&str, RGBColor); 3] =
    [("succeeded", RGBColor(0x9e, 0xc5, 0xe3)), ("denied", RGBColor(0xd9, 0x6c, 0x0b)), ("failed", RGBColor(0x4a, 0x14, 0x4f))];

/// Bars: the name and the numbers of each, by outcome (succeeded, denied, failed).
pub(in crate::cli) struct Bars {
    /// The name for links inside the file.
    pub(in crate::cli) id: &'static str,
    /// What the chart shows.
    pub(in crate::cli) title: String,
    /// The groups, each with its name and three numbers.
    pub(in crate::cli) groups: Vec<(String, [u64; 3])>,
}

/// A bar for each part of the time, from left to right.
pub(in crate::cli) fn stacked_columns(bars: &Bars) -> Markup {
    bars.figure(&draw_columns(&bars.groups).unwrap_or_default())
}

/// A bar for each name, from top to bottom.
pub(in crate::cli) fn stacked_rows(bars: &Bars) -> Markup {
    bars.figure(&draw_rows(&bars.groups).unwrap_or_default())
}

type Drawing = Result<String, DrawingAreaErrorKind<std::io::Error>>;

impl Bars {
    fn figure(&self, svg: &str) -> Markup {
        // The chart library writes one element, with a fixed size: the style sheet gives it the width of the page.
        let Some((_, inside)) = svg.split_once("viewBox") else { return html! {} };
        let largest = self.groups.iter().max_by_key(|(_, numbers)| total(numbers));
        let description = largest
            .map(|(name, numbers)| format!("{} bars. The largest is {name} with {} calls.", self.groups.len(), grouped(total(numbers))));
        let inside = inside.split_once('>').map(|(attributes, rest)| {
            let names = html! {
                title id={ (self.id) "-name" } { (shown(&self.title)) }
                desc id={ (self.id) "-text" } { (shown(&description.unwrap_or_default())) }
            };
            let id = self.id;
            format!("<svg role=\"img\" aria-labelledby=\"{id}-name {id}-text\" viewBox{attributes}>{}{rest}", names.into_string())
        });
        html! {
            figure {
                (PreEscaped(inside.unwrap_or_default()))
                ul class="legend" aria-label="Colours" {
                    // The style sheets have the colours, because the pages of `ui` forbid styles in attributes.
                    @for (name, _) in OUTCOMES { li { span class=(name) {} (name) } }
                }
                figcaption { (shown(&self.title)) }
            }
        }
    }
}

fn total(numbers: &[u64; 3]) -> u64 {
    numbers.iter().fold(0, |sum, number| sum.saturating_add(*number))
}

#[expect(clippy::cast_precision_loss, reason = "a drawing needs no precision")]
const fn float(number: u64) -> f64 {
    number as f64
}

/// The next round number that is not smaller: 1, 2 or 5 times a power of ten, at least 5.
fn round_up(most: u64) -> u64 {
    let mut power = 1_u64;
    loop {
        if let Some(step) = [1, 2, 5].into_iter().map(|step| power.saturating_mul(step)).find(|step| *step >= most.max(5)) {
            return step;
        }
        power = power.saturating_mul(10);
    }
}

fn whole(value: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a label of an axis from zero")]
    let number = value.round().max(0.0) as u64;
    if (value - float(number)).abs() < 1e-6 { grouped(number) } else { String::new() }
}

fn label(size: i32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&TEXT)
}

fn outcomes(numbers: &[u64; 3]) -> impl Iterator<Item = (f64, f64, ShapeStyle)> {
    let mut low = 0_u64;
    OUTCOMES.iter().zip(numbers).filter_map(move |((_, color), number)| {
        let begin = low;
        low = low.saturating_add(*number);
        (*number > 0).then(|| (float(begin), float(low), color.filled()))
    })
}

fn draw_columns(bars: &[(String, [u64; 3])]) -> Drawing {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, 300)).into_drawing_area();
        let most = round_up(bars.iter().map(|(_, numbers)| total(numbers)).max().unwrap_or(0));
        let count = bars.len().max(1);
        let width = float(u64::try_from(count).unwrap_or(1));
        let mut chart = ChartBuilder::on(&root)
            .margin(8)
            .margin_right(30)
            .x_label_area_size(34)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..width, 0.0..float(most))?;
        let name = |at: &f64| {
            let text = whole(*at).replace(',', "");
            text.parse::<usize>().ok().and_then(|place| bars.get(place)).map_or_else(String::new, |(name, _)| name.clone())
        };
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(plotters::style::TRANSPARENT)
            .bold_line_style(LINE)
            .axis_style(TEXT)
            .x_labels(count.min(10))
            .x_label_formatter(&name)
            .y_labels(6)
            .y_label_formatter(&|value: &f64| whole(*value))
            .label_style(label(14))
            .draw()?;
        let mut begin = 0.0;
        for (_, numbers) in bars {
            let shapes = outcomes(numbers).map(|(low, high, style)| Rectangle::new([(begin + 0.1, low), (begin + 0.9, high)], style));
            chart.draw_series(shapes)?;
            begin += 1.0;
        }
        root.present()?;
    }
    Ok(svg)
}

fn draw_rows(bars: &[(String, [u64; 3])]) -> Drawing {
    let mut svg = String::new();
    {
        // The scale needs two rows. The first name stands at the top, which is the last row.
        let rows = u32::try_from(bars.len()).unwrap_or(2).max(2);
        let root = SVGBackend::with_string(&mut svg, (WIDTH, 50 + 28 * rows)).into_drawing_area();
        let most = round_up(bars.iter().map(|(_, numbers)| total(numbers)).max().unwrap_or(0));
        let mut chart = ChartBuilder::on(&root)
            .margin(8)
            .margin_right(40)
            .x_label_area_size(30)
            .y_label_area_size(310)
            .build_cartesian_2d(0.0..float(most), (0..rows - 1).into_segmented())?;
        let name = |at: &SegmentValue<u32>| match at {
            SegmentValue::CenterOf(row) if *row < rows => {
                let place = usize::try_from(rows - 1 - *row).unwrap_or(usize::MAX);
                bars.get(place).map_or_else(String::new, |(name, _)| shortened(name))
            }
            _ => String::new(),
        };
        chart
            .configure_mesh()
            .disable_y_mesh()
            .light_line_style(plotters::style::TRANSPARENT)
            .bold_line_style(LINE)
            .axis_style(TEXT)
            .x_labels(6)
            .x_label_formatter(&|value: &f64| whole(*value))
            .y_labels(bars.len().max(2))
            .y_label_formatter(&name)
            .label_style(label(14).transform(FontTransform::None))
            .draw()?;
        for (row, (_, numbers)) in (0..rows).rev().zip(bars) {
            let end = if row + 1 == rows { SegmentValue::Last } else { SegmentValue::Exact(row + 1) };
            let shapes = outcomes(numbers).map(|(low, high, style)| {
                let mut shape = Rectangle::new([(low, SegmentValue::Exact(row)), (high, end.clone())], style);
                shape.set_margin(4, 4, 0, 0);
                shape
            });
            chart.draw_series(shapes)?;
        }
        root.present()?;
    }
    Ok(svg)
}

/// A name that fits beside its bar: the end of a long one.
fn shortened(name: &str) -> String {
    const MOST: usize = 42;
    let name = shown(name);
    let length = name.chars().count();
    if length <= MOST { name.into_owned() } else { format!("…{}", name.chars().skip(length - MOST + 1).collect::<String>()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_is_one_drawing_with_a_title_and_escapes_names() {
        let bars =
            Bars { id: "c", title: "Calls <by> day".into(), groups: vec![("<script>".into(), [3, 1, 0]), ("b & c".into(), [0, 0, 7])] };
        for markup in [stacked_columns(&bars), stacked_rows(&bars)] {
            let text = markup.into_string();
            let document = roxmltree::Document::parse(&text).unwrap();
            let svg = document.descendants().find(|node| node.has_tag_name(("http://www.w3.org/2000/svg", "svg"))).unwrap();
            assert_eq!((svg.attribute("role"), svg.attribute("width")), (Some("img"), None));
            assert!(text.contains("Calls &lt;by&gt; day") && !text.contains("<script"), "{text}");
            assert!(text.contains("The largest is b &amp; c with 7 calls."), "{text}");
        }
    }

    #[test]
    fn the_legend_has_the_colours_of_the_bars() {
        for (name, RGBColor(r, g, b)) in OUTCOMES {
            let rule = format!(".legend .{name} {{ background: #{r:02x}{g:02x}{b:02x}; }}");
            assert!(super::super::style::LEGEND.contains(&rule), "{rule}");
        }
    }

    #[test]
    fn axes_end_at_round_numbers() {
        assert_eq!([0, 5, 6, 10, 11, 21, 51, 1_001].map(round_up), [5, 5, 10, 10, 20, 50, 100, 2_000]);
    }
}
