//! The report of a run: one document with units in its names, as text or JSON.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{BenchArgs, load::Measured, process::Usage};
use crate::cli::{ConnectionArgs, Failure, Format};

/// The whole result.
pub(super) fn document(connection: &ConnectionArgs, args: &BenchArgs, attributes: &Map<String, Value>, measured: &Measured) -> Value {
    let Measured { seen, not_sent, window, server, generator } = measured;
    let seconds = window.as_secs_f64();
    let requests = seen.successes();
    let mut run = json!({
        "url": connection.urls.join(","),
        "operation": args.operation.as_str(),
        "loop": if args.rate.is_some() { "open" } else { "closed" },
        "connections": args.connections,
        "threads": args.threads,
        "rate_per_second": args.rate,
        "message_bytes": args.message_bytes,
        "batch": args.batch,
        "warmup_seconds": args.warmup().as_secs_f64(),
    });
    if let Value::Object(run) = &mut run {
        run.extend(attributes.clone());
    }
    json!({
        "run": run,
        "duration_seconds": rounded(seconds),
        "requests": requests,
        "errors": seen.errors,
        "errors_total": seen.failures(),
        "not_sent": not_sent,
        "throughput_per_second": rounded(per(count(requests), seconds)),
        "results_per_second": rounded(per(count(requests) * f64::from(args.batch), seconds)),
        "latency_microseconds": {
            "mean": rounded(seen.mean()),
            "p50": rounded(seen.percentile(50.0)),
            "p90": rounded(seen.percentile(90.0)),
            "p99": rounded(seen.percentile(99.0)),
            "p99_9": rounded(seen.percentile(99.9)),
            "max": rounded(seen.longest()),
        },
        "server": server.as_ref().map(|(before, after)| {
            let cpu = cpu_between(before, after);
            // Refused requests cost CPU too.
            let answered = count(requests + seen.failures());
            json!({
                "pid": args.server_pid,
                "cpu_seconds": rounded(cpu.as_secs_f64()),
                "cpu_microseconds_per_request": rounded(per(cpu.as_secs_f64() * 1e6, answered)),
                "cpu_microseconds_per_result": rounded(per(cpu.as_secs_f64() * 1e6, answered * f64::from(args.batch))),
                "resident_bytes_before": before.resident_bytes,
                "resident_bytes_after": after.resident_bytes,
            })
        }),
        "generator_cpu_seconds": rounded(cpu_between(&generator.0, &generator.1).as_secs_f64()),
    })
}

/// Prints it.
pub(super) fn print(format: Format, document: &Value) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match format {
        Format::Json => crate::cli::output::print_to(&mut out, format, document),
        Format::Text => Ok(std::io::Write::write_all(&mut out, text(document).as_bytes())?),
    }
}

fn text(document: &Value) -> String {
    let at = |pointer: &str| {
        document.pointer(pointer).map_or_else(|| "-".to_owned(), |value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    };
    let number = |pointer: &str| document.pointer(pointer).and_then(Value::as_f64).unwrap_or_default();
    let milliseconds = |name: &str| format!("{name} {:.3}", number(&format!("/latency_microseconds/{name}")) / 1e3);
    let pace = if at("/run/loop") == "open" { format!("open loop at {}/s", at("/run/rate_per_second")) } else { "closed loop".into() };
    let mut lines = vec![
        format!(
            "{} with {}, {} connections, {pace}, {} s",
            at("/run/operation"),
            at("/run/algorithm"),
            at("/run/connections"),
            at("/duration_seconds")
        ),
        format!("requests     {} ({}/s)", at("/requests"), at("/throughput_per_second")),
        format!("latency, ms  {}", ["p50", "p90", "p99", "p99_9", "max", "mean"].map(milliseconds).join("  ")),
    ];
    if number("/run/batch") > 1.0 {
        lines.push(format!(
            "signatures   {}/s, {} in each request, {} µs CPU of the server each",
            at("/results_per_second"),
            at("/run/batch"),
            at("/server/cpu_microseconds_per_result")
        ));
    }
    if let Some(errors) = document.get("errors").and_then(Value::as_object).filter(|errors| !errors.is_empty()) {
        let each: Vec<String> = errors.iter().map(|(code, count)| format!("{code} {count}")).collect();
        lines.push(format!("errors       {}; their latencies are not counted", each.join(", ")));
    }
    if number("/not_sent") > 0.0 {
        lines.push(format!("not sent     {}: the vault fell behind the rate; the latencies are those of what was sent", at("/not_sent")));
    }
    if document.get("server").is_some_and(Value::is_object) {
        lines.push(format!(
            "server       {} µs CPU a request, {:.1} MiB resident",
            at("/server/cpu_microseconds_per_request"),
            number("/server/resident_bytes_after") / f64::from(1 << 20)
        ));
    }
    if document.pointer("/run/keys_created_on").is_some() {
        lines.push(format!("keys         {} made on {}, with the name bench; they stay", at("/run/keys"), at("/run/keys_created_on")));
    }
    lines.push(format!("generator    {} s CPU\n", at("/generator_cpu_seconds")));
    crate::cli::output::printable(&lines.join("\n")).into_owned()
}

fn cpu_between(before: &Usage, after: &Usage) -> Duration {
    after.cpu.saturating_sub(before.cpu)
}

fn per(amount: f64, number: f64) -> f64 {
    if number > 0.0 { amount / number } else { 0.0 }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn count(requests: u64) -> f64 {
    requests as f64
}

/// Three decimals; the measurement is not more accurate.
fn rounded(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_what_would_mislead() {
        let document = json!({
            "run": {"operation": "sign", "algorithm": "ed25519", "connections": 2, "loop": "open", "rate_per_second": 50.0, "keys": 1,
                "keys_created_on": "p1"},
            "duration_seconds": 1.0, "requests": 40, "errors": {"frozen": 3}, "not_sent": 7, "throughput_per_second": 40.0,
            "latency_microseconds": {"mean": 1500.0, "p50": 1000.0, "p90": 2000.0, "p99": 3000.0, "p99_9": 4000.0, "max": 5000.0},
            "server": {"cpu_microseconds_per_request": 61.5, "resident_bytes_after": 3 << 19},
            "generator_cpu_seconds": 0.25
        });
        assert_eq!(
            text(&document),
            "sign with ed25519, 2 connections, open loop at 50.0/s, 1.0 s\n\
             requests     40 (40.0/s)\n\
             latency, ms  p50 1.000  p90 2.000  p99 3.000  p99_9 4.000  max 5.000  mean 1.500\n\
             errors       frozen 3; their latencies are not counted\n\
             not sent     7: the vault fell behind the rate; the latencies are those of what was sent\n\
             server       61.5 µs CPU a request, 1.5 MiB resident\n\
             keys         1 made on p1, with the name bench; they stay\n\
             generator    0.25 s CPU\n"
        );
    }

    #[test]
    fn nothing_divided_by_nothing_is_nothing() {
        assert!(per(0.0, 0.0).abs() < f64::EPSILON);
    }
}
