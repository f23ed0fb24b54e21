//! Job commands: which job is selected, which outages the waiting survives, the output, the exit codes.

use std::{
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    JOB, SYMMETRIC, assert_done,
    fake::{FakeVault, Reply, Seen},
    problem, text,
};

const ROTATE: &str = "wrapper rotation start --to wk-001122334455";

/// A rotation of four keys.
pub(super) fn job(state: &str, done: u64) -> Value {
    json!({"id": JOB, "kind": "rotation", "from": "wk-ffffffffffff", "to": "wk-001122334455", "state": state, "total": 4, "done": done,
        "failed": 0, "errors": [], "started_at": "2026-01-31T12:00:00Z", "finished_at": (state != "running").then_some("2026-01-31T12:01:00Z")})
}

/// A fake that accepts a job and then gives these answers to looks at it, one after the other and the last for ever.
fn answering(looks: Vec<Reply>) -> FakeVault {
    let looks = Mutex::new(looks.into_iter());
    FakeVault::start(move |seen| match seen.method.as_str() {
        "POST" => Reply::Json(202, job("running", 0)),
        _ => looks.lock().unwrap().next().expect("no look after the end"),
    })
}

fn looks(seen: &[Seen]) -> usize {
    seen.iter().filter(|seen| seen.method == "GET").count()
}

#[test]
fn waiting_outlasts_an_outage_and_ends_with_the_job() {
    let looks_of = || {
        vec![
            Reply::Json(200, job("running", 1)),
            Reply::Json(200, job("running", 2)),
            problem(503, "storage_unavailable", true),
            Reply::CloseConnection,
            Reply::Json(200, job("succeeded", 4)),
        ]
    };
    for line in [ROTATE, "keys reseal-job start"] {
        let vault = answering(looks_of());
        let output = vault.run(&format!("{line} --wait --output json"));
        assert_done(line, &output);
        let seen = vault.take_seen();
        assert_eq!((seen[0].method.as_str(), looks(&seen)), ("POST", 5), "{line}");
        assert!(seen[1..].iter().all(|look| look.target == format!("{}/{JOB}", seen[0].target)), "{line}: {seen:?}");
        assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap(), job("succeeded", 4), "{line}");
        // If every step takes long, progress is printed too.
        let told: Vec<&str> = text(&output.stderr).lines().filter(|line| !line.contains(" %, ")).collect();
        let name = if line == ROTATE { "rotation" } else { "re-seal" };
        let expected = [
            format!("{name}: still waiting, although the vault does not answer: storage_unavailable: because"),
            format!("{name}: the vault answers again"),
        ];
        assert_eq!(told, expected, "{line}");
    }
}

#[test]
fn without_waiting_the_started_job_is_printed() {
    let vault = answering(vec![]);
    let output = vault.run(ROTATE);
    assert_done(ROTATE, &output);
    assert!(text(&output.stdout).starts_with(&format!("id:          {JOB}\nstate:       running\nkind:        rotation\n")), "{output:?}");
    assert_eq!((text(&output.stderr), vault.take_seen().len()), ("", 1));
}

#[test]
fn a_job_that_did_not_succeed_is_shown_and_is_a_failure() {
    let mut failed = job("failed", 3);
    failed["failed"] = json!(1);
    failed["errors"] = json!([{"key_id": SYMMETRIC, "code": "wrapper_denied", "detail": "the KMS said no"}]);
    for (last, code, told) in [
        (
            failed,
            "job_failed",
            format!("the rotation {JOB} failed: 1 of 4 keys could not be done\n  {SYMMETRIC}: wrapper_denied: the KMS said no\n"),
        ),
        (job("aborted", 3), "job_aborted", format!("the rotation {JOB} was aborted: 3 of 4 keys are done, and stay so\n")),
    ] {
        let output = answering(vec![Reply::Json(200, last.clone())]).run(&format!("{ROTATE} --wait"));
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).ends_with(&format!("error: {told}")), "{}", text(&output.stderr));
        assert!(text(&output.stdout).starts_with(&format!("id:          {JOB}\n")), "{}", text(&output.stdout));

        let output = answering(vec![Reply::Json(200, last.clone())]).run(&format!("{ROTATE} --wait --output json"));
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap(), last);
        let error: Value = serde_json::from_str(text(&output.stderr).lines().last().unwrap()).unwrap();
        assert_eq!((&error["code"], &error["retryable"]), (&json!(code), &json!(false)));

        // Looking without waiting is no failure.
        assert_done("status", &answering(vec![Reply::Json(200, last)]).run(&format!("wrapper rotation show {JOB}")));
    }
}

#[test]
fn each_reason_that_delays_a_job_is_printed_once() {
    let with = |state: &str, codes: &[&str]| {
        let mut job = job(state, 2);
        job["errors"] = codes.iter().map(|code| json!({"key_id": SYMMETRIC, "code": code, "detail": "why"})).collect();
        Reply::Json(200, job)
    };
    let (away, denied) = ("wrapper_unavailable", "wrapper_denied");
    let vault = answering(vec![with("running", &[away, away]), with("running", &[away, denied]), with("succeeded", &[])]);
    let output = vault.run(&format!("{ROTATE} --wait"));
    assert_done(ROTATE, &output);
    let told: Vec<&str> = text(&output.stderr).lines().filter(|line| line.contains("cannot")).collect();
    let expected = [away, denied].map(|code| format!("rotation: cannot do {SYMMETRIC} as yet: {code}: why"));
    assert_eq!(told, expected);
}

#[test]
fn a_permanent_error_ends_the_waiting() {
    let vault = answering(vec![problem(404, "not_found", false)]);
    let output = vault.run(&format!("{ROTATE} --wait"));
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), ""));
    assert!(text(&output.stderr).contains("error: not_found: because (HTTP 404)"), "{}", text(&output.stderr));

    let vault = FakeVault::start(|_| problem(409, "job_running", false));
    let output = vault.run(&format!("{ROTATE} --wait"));
    assert_eq!((output.status.code(), vault.take_seen().len()), (Some(1), 1));
    assert!(text(&output.stderr).starts_with("error: job_running"), "{}", text(&output.stderr));
}

#[test]
fn without_an_id_the_running_job_is_meant_or_else_the_newest() {
    let with = |id: &str, state: &str, day: u32| {
        let mut job = job(state, 2);
        job["id"] = json!(id);
        job["started_at"] = json!(format!("2026-01-{day:02}T12:00:00.5Z"));
        job
    };
    let (old, mid, new) = ("job-aaaaaaaaaaaa", "job-bbbbbbbbbbbb", "job-cccccccccccc");
    // Three jobs on two pages in any order, which is shown, and which is aborted.
    for (jobs, shown, aborted) in [
        ([with(old, "succeeded", 1), with(mid, "running", 2), with(new, "aborted", 3)], mid, Some(mid)),
        ([with(new, "failed", 3), with(old, "succeeded", 1), with(mid, "succeeded", 2)], new, None),
        ([with(mid, "succeeded", 2), with(old, "succeeded", 1), with(new, "failed", 3)], new, None),
    ] {
        let listed = jobs.clone();
        let vault = FakeVault::start(move |seen| match (seen.method.as_str(), seen.target.contains("cursor=2")) {
            ("POST", _) => Reply::Json(200, json!({"id": seen.target})),
            (_, false) => Reply::Json(200, json!({"items": listed[..2], "next_cursor": "2"})),
            (_, true) => Reply::Json(200, json!({"items": listed[2..], "next_cursor": null})),
        });
        for (status, abort, path) in [
            ("wrapper rotation show", "wrapper rotation abort", "/v1/wrapper-keys/rotations"),
            ("keys reseal-job show", "keys reseal-job abort", "/v1/keys/reseals"),
        ] {
            let output = vault.run(&format!("{status} --output json"));
            assert_done(status, &output);
            assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap()["id"], shown);

            vault.take_seen();
            let output = vault.run(abort);
            let posted: Vec<String> = vault.take_seen().into_iter().filter(|seen| seen.method == "POST").map(|seen| seen.target).collect();
            assert_eq!(posted, Vec::from_iter(aborted.map(|id| format!("{path}/{id}/abort"))));
            if aborted.is_none() {
                assert_eq!(output.status.code(), Some(1));
                assert!(text(&output.stderr).contains("is running"), "{}", text(&output.stderr));
            }
        }
    }

    let vault = FakeVault::start(|_| Reply::Json(200, json!({"items": [], "next_cursor": null})));
    for (line, told) in
        [("wrapper rotation show", "error: no rotation was ever started\n"), ("keys reseal-job abort", "error: no re-seal is running\n")]
    {
        let output = vault.run(line);
        assert_eq!((output.status.code(), text(&output.stdout), text(&output.stderr)), (Some(1), "", told), "{line}");
    }
}

#[test]
fn a_job_can_be_waited_for_later() {
    let running = Arc::new(AtomicBool::new(true));
    let seen_running = Arc::clone(&running);
    let vault = FakeVault::start(move |seen| {
        let state = if seen_running.swap(false, Ordering::SeqCst) { job("running", 3) } else { job("succeeded", 4) };
        Reply::Json(200, if seen.target.ends_with("rotations") { json!({"items": [state], "next_cursor": null}) } else { state })
    });
    for line in ["wrapper rotation show --wait".to_owned(), format!("wrapper rotation show {JOB} --wait")] {
        running.store(true, Ordering::SeqCst);
        let output = vault.run(&format!("{line} --output json"));
        assert_done(&line, &output);
        assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap(), job("succeeded", 4));
    }
    // A vault that was never there is not waited for.
    let output = vault.run(&format!("wrapper rotation show {JOB} --wait --url https://localhost:1"));
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn ctrl_c_ends_the_waiting_and_prints_how_to_show_the_job() {
    let vault = FakeVault::start(|_| Reply::Json(200, job("running", 1)));
    for (line, again) in [
        (ROTATE, format!("canton-keyvault wrapper rotation show {JOB} --wait; to stop it: canton-keyvault wrapper rotation abort {JOB}")),
        (
            "keys reseal-job start",
            format!("canton-keyvault keys reseal-job show {JOB} --wait; to stop it: canton-keyvault keys reseal-job abort {JOB}"),
        ),
    ] {
        vault.take_seen();
        let mut command = vault.command(line.split_whitespace());
        let child = command.arg("--wait").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut seen = Vec::new();
        // A look is asked for within the waiting, so that the signal is heard.
        while looks(&seen) == 0 {
            std::thread::sleep(Duration::from_millis(5));
            seen.extend(vault.take_seen());
        }
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(130), ""), "{line}");
        assert!(text(&output.stderr).ends_with(&format!("{again}\n")), "{}", text(&output.stderr));
        seen.extend(vault.take_seen());
        assert!(seen.iter().all(|seen| !seen.target.contains("abort")), "the job goes on");
    }
}
