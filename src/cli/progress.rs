//! Progress of long work, on standard error only: on a terminal one line that is redrawn, elsewhere a line at an interval, and none for
//! work that ends soon.

use std::{
    io::{IsTerminal as _, Stderr, Write},
    time::{Duration, Instant},
};

/// Without a terminal: at most one line in this time.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// The shortest time between two draws on a terminal.
const DRAW_EVERY: Duration = Duration::from_millis(100);
/// The shortest time over which a rate is shown. Over less, it would vary too much.
const RATE_AFTER: Duration = Duration::from_secs(1);
/// Characters of the bar.
const WIDTH: u64 = 24;

/// The progress of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    /// The number that succeeded.
    pub(super) done: u64,
    /// The number that failed.
    pub(super) failed: u64,
    /// The total, which may grow.
    pub(super) total: u64,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// Pieces of work, such as keys.
    Items,
    /// MiB.
    Mebibytes,
    /// Seconds of a time that is known beforehand. They have no rate.
    Seconds,
}

/// Shows the progress of one piece of work.
pub(super) struct Progress<W: Write = Stderr> {
    out: W,
    terminal: bool,
    label: String,
    unit: Unit,
    began: Option<(Instant, u64)>,
    shown: Option<Instant>,
    open_line: bool,
}

impl Progress {
    /// On standard error.
    pub(super) fn new(label: impl Into<String>) -> Self {
        Self::of(Unit::Items, label)
    }

    /// On standard error, of work that is counted in this unit.
    pub(super) fn of(unit: Unit, label: impl Into<String>) -> Self {
        let out = std::io::stderr();
        let terminal = out.is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let mut progress = Self::on(out, terminal, label.into());
        progress.unit = unit;
        progress
    }
}

impl<W: Write> Progress<W> {
    const fn on(out: W, terminal: bool, label: String) -> Self {
        Self { out, terminal, label, unit: Unit::Items, began: None, shown: None, open_line: false }
    }

    /// Shows the progress at `now`, unless it was shown just before and more follows, or the total is not known yet. The rate counts from
    /// the first call.
    pub(super) fn show(&mut self, counts: Counts, now: Instant) {
        if counts.total == 0 {
            return;
        }
        let (began, before) = *self.began.get_or_insert((now, counts.tried()));
        let every = if self.terminal { DRAW_EVERY } else { LINE_EVERY };
        let last = self.shown.or((!self.terminal).then_some(began));
        let too_soon = last.is_some_and(|last| now.saturating_duration_since(last) < every);
        if too_soon && !(self.terminal && counts.left() == 0) {
            return;
        }
        self.shown = Some(now);
        let text = figures(counts, self.unit, rate(counts.tried().saturating_sub(before), now.saturating_duration_since(began)));
        // The work continues if the terminal closes.
        let _ = if self.terminal {
            self.open_line = true;
            // Without the automatic line break (DECAWM), a line that is too long for the terminal is cut, and can be redrawn.
            write!(self.out, "\r\x1b[K\x1b[?7l{} [{}] {text}\x1b[?7h", self.label, bar(counts))
        } else {
            writeln!(self.out, "{}: {text}", self.label)
        };
        let _ = self.out.flush();
    }

    /// Prints text on its own line.
    pub(super) fn note(&mut self, text: &str) {
        let clear = if self.open_line { "\r\x1b[K" } else { "" };
        self.open_line = false;
        let _ = writeln!(self.out, "{clear}{}: {}", self.label, crate::cli::output::printable(text));
    }

    fn end(&mut self) {
        if self.open_line {
            self.open_line = false;
            let _ = writeln!(self.out);
        }
    }
}

impl<W: Write> Drop for Progress<W> {
    /// Keeps the last line, and moves the cursor below it.
    fn drop(&mut self) {
        self.end();
    }
}

impl Counts {
    const fn tried(self) -> u64 {
        self.done.saturating_add(self.failed)
    }

    const fn left(self) -> u64 {
        self.total.saturating_sub(self.tried())
    }
}

/// The rate per second. `None` if too little time has passed.
fn rate(tried: u64, elapsed: Duration) -> Option<f64> {
    let tried = u32::try_from(tried).unwrap_or(u32::MAX);
    (tried > 0 && elapsed >= RATE_AFTER).then(|| f64::from(tried) / elapsed.as_secs_f64())
}

/// `5120/10000, 51 %, 2 failed, 812/s, 6s left`
fn figures(counts: Counts, unit: Unit, rate: Option<f64>) -> String {
    let Counts { done, failed, total } = counts;
    let left = rate.and_then(|rate| time_left(counts, rate));
    let (unit, has_rate) = match unit {
        Unit::Items => ("", true),
        Unit::Mebibytes => (" MiB", true),
        Unit::Seconds => (" s", false),
    };
    [
        Some(format!("{done}/{total}{unit}, {} %", part(counts, 100))),
        (failed > 0).then(|| format!("{failed} failed")),
        rate.filter(|_| has_rate).map(|rate| if rate < 10.0 { format!("{rate:.1}{unit}/s") } else { format!("{rate:.0}{unit}/s") }),
        left.map(|left| format!("{} left", humantime::format_duration(left))),
    ]
    .into_iter()
    .flatten()
    .collect::<Vec<_>>()
    .join(", ")
}

/// Whole seconds, rounded up; `None` if nothing is left.
fn time_left(counts: Counts, rate: f64) -> Option<Duration> {
    let left = u32::try_from(counts.left()).unwrap_or(u32::MAX);
    Duration::try_from_secs_f64((f64::from(left) / rate).ceil()).ok().filter(|left| !left.is_zero())
}

/// `############------------`
fn bar(counts: Counts) -> String {
    let full = part(counts, WIDTH);
    (0..WIDTH).map(|place| if place < full { '#' } else { '-' }).collect()
}

/// The processed part of `whole`, rounded down: full only when nothing is left.
fn part(counts: Counts, whole: u64) -> u64 {
    let part = u128::from(counts.tried()) * u128::from(whole) / u128::from(counts.total.max(1));
    u64::try_from(part).unwrap_or(whole).min(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn counts(done: u64, failed: u64, total: u64) -> Counts {
        Counts { done, failed, total }
    }

    #[test]
    fn figures_say_what_is_known() {
        for (counts, rate, expected) in [
            (counts(0, 0, 0), None, "0/0, 0 %"),
            (counts(0, 0, 10_000), None, "0/10000, 0 %"),
            (counts(5120, 0, 10_000), Some(812.4), "5120/10000, 51 %, 812/s, 7s left"),
            (counts(9998, 1, 10_000), Some(2.5), "9998/10000, 99 %, 1 failed, 2.5/s, 1s left"),
            (counts(10, 0, 7210), Some(1.0), "10/7210, 0 %, 1.0/s, 2h left"),
            (counts(9998, 2, 10_000), Some(812.4), "9998/10000, 100 %, 2 failed, 812/s"),
            // Keys were deleted meanwhile.
            (counts(11, 0, 10), Some(5.0), "11/10, 100 %, 5.0/s"),
            (
                counts(u64::MAX, u64::MAX, u64::MAX),
                Some(1.0),
                "18446744073709551615/18446744073709551615, 100 %, 18446744073709551615 failed, 1.0/s",
            ),
        ] {
            assert_eq!(figures(counts, Unit::Items, rate), expected);
        }
        assert_eq!(figures(counts(512, 0, 1024), Unit::Mebibytes, Some(64.0)), "512/1024 MiB, 50 %, 64 MiB/s, 8s left");
        assert_eq!(figures(counts(3, 0, 12), Unit::Seconds, Some(1.0)), "3/12 s, 25 %, 9s left");
    }

    #[test]
    fn a_bar_is_full_only_at_the_end() {
        for (counts, full) in [
            (counts(0, 0, 0), 0),
            (counts(1, 0, 1000), 0),
            (counts(40, 10, 100), 12),
            (counts(999, 0, 1000), 23),
            (counts(999, 1, 1000), 24),
        ] {
            let bar = bar(counts);
            assert_eq!((bar.len(), bar.matches('#').count()), (24, full), "{counts:?}");
        }
    }

    #[test]
    fn a_rate_needs_time_and_progress() {
        assert_eq!(rate(0, Duration::from_secs(9)), None);
        assert_eq!(rate(100, Duration::from_millis(999)), None);
        assert_eq!(rate(100, Duration::from_secs(4)), Some(25.0));
    }

    fn shown(terminal: bool, steps: &[(u64, Counts)], note: Option<&str>) -> String {
        let (mut out, start) = (Vec::new(), Instant::now());
        let mut progress = Progress::on(&mut out, terminal, "rotation".into());
        for (milliseconds, counts) in steps {
            progress.show(*counts, start + Duration::from_millis(*milliseconds));
        }
        if let Some(note) = note {
            progress.note(note);
        }
        drop(progress);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn elsewhere_a_line_comes_every_ten_seconds() {
        let steps = [(0, counts(0, 0, 0)), (0, counts(5, 0, 100)), (9_999, counts(50, 0, 100)), (10_000, counts(55, 0, 100))];
        assert_eq!(shown(false, &steps[..3], None), "");
        assert_eq!(shown(false, &steps, None), "rotation: 55/100, 55 %, 5.0/s, 9s left\n");
        let later = [steps.as_slice(), &[(19_999, counts(90, 0, 100)), (20_000, counts(95, 0, 100))]].concat();
        assert_eq!(
            shown(false, &later, Some("a\x1bb")).lines().skip(1).collect::<Vec<_>>(),
            ["rotation: 95/100, 95 %, 4.5/s, 2s left", "rotation: a\u{fffd}b"]
        );
    }

    #[test]
    fn on_a_terminal_one_line_is_redrawn_and_left_at_the_end() {
        let steps = [(0, counts(0, 0, 4)), (50, counts(1, 0, 4)), (1000, counts(2, 0, 4)), (1050, counts(4, 0, 4))];
        let (line, end) = ("\r\x1b[K\x1b[?7lrotation [", "\x1b[?7h");
        let expected = [
            format!("{line}{}] 0/4, 0 %{end}", "-".repeat(24)),
            format!("{line}{}{}] 2/4, 50 %, 2.0/s, 1s left{end}", "#".repeat(12), "-".repeat(12)),
            format!("{line}{}] 4/4, 100 %, 3.8/s{end}", "#".repeat(24)),
        ];
        assert_eq!(shown(true, &steps, None), expected.concat() + "\n");
        assert_eq!(shown(true, &steps[..1], Some("away")), format!("{}\r\x1b[Krotation: away\n", expected[0]));
    }
}
