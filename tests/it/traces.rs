//! Traces of the binary: the spans of a call from its request to the KMS, who decides what is traced, that no secret is in a span, and collectors that
//! hang.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    audit_sinks::receiver::{Behaviour, Receiver},
    support::{
        api::Caller,
        aws_vault::{AwsVault, Setup, ops},
        vault::{TestVault, until},
        wrapper::CENTRAL,
    },
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
const MESSAGE: &str = "the order of a million";

fn section(receiver: &Receiver, more: &str) -> String {
    format!("\n[traces]\nendpoint = \"{}\"\nca = \"{}\"\n{more}", receiver.url(), receiver.file("ca.pem").display())
}

/// The spans that arrived.
fn spans(receiver: &Receiver) -> Vec<Value> {
    let bodies = receiver.received().into_iter().map(|request| serde_json::from_slice::<Value>(&request.body).unwrap());
    bodies.flat_map(|body| body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone()).collect()
}

/// The spans of a trace, once the request is among them: it ends last.
async fn trace(receiver: &Receiver, id: &str) -> Vec<Value> {
    let of_trace = || spans(receiver).into_iter().filter(|span| span["traceId"] == id).collect::<Vec<_>>();
    until("the trace arrives", || async { of_trace().iter().any(|span| span["kind"] == 2) }).await;
    of_trace()
}

/// A trace of background work by the name of its first span, once that is there: it ends last.
async fn work(receiver: &Receiver, name: &str) -> Vec<Value> {
    let first = || spans(receiver).into_iter().find(|span| span["name"] == name && span.get("parentSpanId").is_none());
    until("a trace of background work arrives", || async { first().is_some() }).await;
    let id = first().unwrap()["traceId"].clone();
    spans(receiver).into_iter().filter(|span| span["traceId"] == id).collect()
}

fn only<'a>(spans: &'a [Value], name: &str) -> &'a Value {
    let mut found = spans.iter().filter(|span| span["name"] == name);
    let span = found.next().unwrap_or_else(|| panic!("no {name}: {spans:#?}"));
    assert!(found.next().is_none(), "{name} is there twice: {spans:#?}");
    span
}

/// The text of an attribute, or of a number or truth value.
fn attribute(span: &Value, name: &str) -> Option<String> {
    let found = span["attributes"].as_array().unwrap().iter().find(|attribute| attribute["key"] == name)?;
    let value = found["value"].as_object().unwrap().values().next().unwrap();
    Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

async fn sign(node: &Caller, key: &str, headers: &[(&str, &str)]) -> crate::support::api::Reply {
    let body = json!({ "algorithm": "ed25519", "message": STANDARD.encode(MESSAGE) }).to_string();
    node.send("POST", &format!("/v1/keys/{key}/sign"), headers, body).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signature_with_a_cold_key_is_one_trace_from_the_request_to_the_kms() {
    let receiver = Receiver::start().await;
    receiver.require("Bearer of-the-collector");
    std::fs::write(receiver.file("headers"), "Authorization: Bearer of-the-collector\n").unwrap();
    let sections = section(&receiver, &format!("headers_file = \"{}\"", receiver.file("headers").display()));
    let mut aws = AwsVault::start(Setup { sections, ..Setup::default() }).await;
    let node = Caller::new(&aws.vault, "participant1");
    let (key, refused) = (aws.key().await, aws.key().await);
    let parent = |flags: &str| format!("00-{TRACE}-{PARENT}-{flags}");

    let signed = sign(&node, &key, &[("traceparent", &parent("01"))]).await;
    let signature = signed.success()["signature"].as_str().unwrap().to_owned();
    let spans_of_call = trace(&receiver, TRACE).await;
    let [request, open, unwrap, call, commit] =
        ["POST /v1/keys/{id}/sign", "open key", "unwrap", "kms call", "commit entry"].map(|name| only(&spans_of_call, name));
    assert_eq!(spans_of_call.len(), 5, "{spans_of_call:#?}");
    for (child, parent, kind) in [(open, request, 1), (unwrap, open, 1), (call, unwrap, 3), (commit, request, 1)] {
        assert_eq!((&child["parentSpanId"], &child["kind"]), (&parent["spanId"], &json!(kind)), "{child:#}");
        let time = |span: &Value, name: &str| span[name].as_str().unwrap().parse::<u64>().unwrap();
        assert!(time(child, "startTimeUnixNano") >= time(parent, "startTimeUnixNano"));
        assert!(time(child, "endTimeUnixNano") <= time(parent, "endTimeUnixNano"));
    }
    let entry = aws.entries("keys.sign", Some(&key)).await.pop().unwrap();
    let wrapper = aws.vault.client("wrapper-admin").get("/v1/wrapper-keys").await.unwrap()["items"][0]["id"].as_str().unwrap().to_owned();
    let request_id = signed.headers["x-request-id"].to_str().unwrap();
    assert_eq!((request["parentSpanId"].as_str().unwrap(), &entry["trace_id"]), (PARENT, &json!(TRACE)));
    for (span, name, value) in [
        (request, "http.request.method", "POST"),
        (request, "http.route", "/v1/keys/{id}/sign"),
        (request, "http.response.status_code", "200"),
        (request, "keyvault.operation", "keys.sign"),
        (request, "keyvault.request_id", request_id),
        (request, "keyvault.key_id", &key),
        (unwrap, "keyvault.wrapper_key", &wrapper),
        (unwrap, "keyvault.kms.provider", "aws-kms"),
        (unwrap, "keyvault.kms.request_id", entry["kms_request_ids"][0].as_str().unwrap()),
        (call, "keyvault.kms.operation", "unwrap"),
        (call, "keyvault.kms.region", CENTRAL),
        (call, "keyvault.kms.attempt", "1"),
        (commit, "keyvault.audit.sequence", &entry["sequence"].to_string()),
        (commit, "keyvault.audit.is_change", "false"),
    ] {
        assert_eq!(attribute(span, name).as_deref(), Some(value), "{name}");
    }

    // A key in memory needs neither a KMS nor its span. Without a caller's trace, the id of the request is that of the trace.
    let hot = sign(&node, &key, &[]).await;
    let of_hot = trace(&receiver, hot.headers["x-request-id"].to_str().unwrap()).await;
    assert_eq!(of_hot.len(), 2, "{of_hot:#?}");
    assert!(only(&of_hot, "POST /v1/keys/{id}/sign").get("parentSpanId").is_none());

    // The creation of a key runs in a task of its own.
    let created = spans(&receiver).into_iter().find(|span| span["name"] == "POST /v1/keys").unwrap();
    let of_creation = trace(&receiver, created["traceId"].as_str().unwrap()).await;
    for name in ["wrap", "unwrap", "commit entry"] {
        assert_eq!(only(&of_creation, name)["parentSpanId"], created["spanId"], "{name}");
    }

    // A refusal of the KMS, after a second attempt.
    let other = "0af7651916cd43dd8448eb211c80319c";
    aws.kms.fault(json!({ "mode": "throttle", "key": aws.arn, "only": "Decrypt", "count": 1 })).await;
    let retried = sign(&node, &refused, &[("traceparent", &parent("01").replace(TRACE, other))]).await;
    retried.success();
    let of_retry = trace(&receiver, other).await;
    let calls: Vec<_> = of_retry.iter().filter(|span| span["name"] == "kms call").collect();
    let told = |number: &str| {
        let call = calls.iter().find(|call| attribute(call, "keyvault.kms.attempt").as_deref() == Some(number)).unwrap();
        (attribute(call, "error.type"), call["status"].clone())
    };
    assert_eq!((calls.len(), told("1"), told("2")), (2, (Some("throttled".into()), json!({ "code": 2 })), (None, json!({}))));

    // The caller decides. What a client wrote is in no span.
    sign(&node, &key, &[("traceparent", &parent("00").replace(TRACE, &"c".repeat(32)))]).await.success();
    assert_eq!(
        node.send("BREW", "/of-a-client?x=of-a-client", &[("traceparent", &parent("01").replace(TRACE, &"d".repeat(32)))], "").await.status,
        404
    );
    assert_eq!(attribute(only(&trace(&receiver, &"d".repeat(32)).await, "HTTP"), "http.request.method").as_deref(), Some("_OTHER"));
    background_work_has_traces_of_its_own(&mut aws, &receiver, &[&key, &refused]).await;
    let log = aws.vault.log().iter().map(Value::to_string).collect::<String>();
    aws.vault.terminate();
    let all = receiver.received().into_iter().map(|request| String::from_utf8(request.body).unwrap()).collect::<String>();
    for absent in
        [MESSAGE, &STANDARD.encode(MESSAGE), &signature, "of-the-collector", "spiffe", "BREW", "of-a-client", &"c".repeat(32), "arn:"]
    {
        assert!(!all.contains(absent), "{absent}");
    }
    assert!(!log.contains("of-the-collector") && !log.contains("did not take spans"), "{log}");
    assert!(
        receiver.received().iter().all(|request| request.path == "/v1/traces" && request.headers["content-type"] == "application/json")
    );
}

/// Standby wraps, a job, and the health check of a wrapper key at a start: each with its calls of the KMS below.
async fn background_work_has_traces_of_its_own(aws: &mut AwsVault, receiver: &Receiver, keys: &[&str]) {
    let admin = aws.vault.client("wrapper-admin");
    let first = admin.get("/v1/status").await.unwrap()["active_wrapper"].as_str().unwrap().to_owned();
    let registered = work(receiver, "register first wrapper key").await;
    assert_eq!(only(&registered, "wrap")["parentSpanId"], only(&registered, "register first wrapper key")["spanId"]);
    let arn = aws.kms.create_key(CENTRAL, false).await;
    let standby = admin.create("/v1/wrapper-keys", &json!({ "provider": "aws-kms", "reference": arn })).await.unwrap()["id"].clone();
    let filled = work(receiver, "fill standby").await;
    assert_eq!(attribute(&filled[filled.len() - 1], "keyvault.wrapper_key").as_deref(), standby.as_str());

    let job = aws.vault.client("key-admin").post("/v1/keys/reseals", &json!({})).await.unwrap();
    let of_job = work(receiver, "run reseal").await;
    let run = only(&of_job, "run reseal");
    assert_eq!((attribute(run, "keyvault.job_id").as_deref(), &run["kind"]), (job["id"].as_str(), &json!(1)));
    for key in keys {
        let of_key = of_job.iter().find(|span| attribute(span, "keyvault.key_id").as_deref() == Some(*key)).unwrap();
        assert_eq!((&of_key["name"], &of_key["parentSpanId"]), (&json!("process key"), &run["spanId"]));
        let below = |parent: &Value, name: &str| {
            of_job.iter().filter(|span| span["parentSpanId"] == parent["spanId"] && span["name"] == name).cloned().collect::<Vec<_>>()
        };
        let unwraps = below(of_key, "unwrap");
        assert!(!unwraps.is_empty() && !below(of_key, "wrap").is_empty() && below(of_key, "commit entry").len() == 1, "{of_job:#?}");
        assert_eq!(below(&unwraps[0], "kms call").len(), 1);
    }

    aws.vault.restart();
    let probed = work(receiver, "probe wrapper key").await;
    let probe = only(&probed, "probe wrapper key");
    let wrapper_key = attribute(probe, "keyvault.wrapper_key").unwrap();
    assert!([first.as_str(), standby.as_str().unwrap()].contains(&&*wrapper_key), "{probe:#}");
    let unwrap = only(&probed, "unwrap");
    assert_eq!((&unwrap["parentSpanId"], &only(&probed, "kms call")["parentSpanId"]), (&probe["spanId"], &unwrap["spanId"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_hangs_delays_no_call_and_its_lost_spans_are_counted() {
    let mut receiver = Receiver::start().await;
    receiver.set(Behaviour::Hang);
    let mut vault = TestVault::prepare(|config| config + &section(&receiver, "queue = 16\ntimeout = \"1s\"\n"));
    vault.env("KEYVAULT_INSTANCE", "pod-0");
    vault.serve();
    let node = Caller::new(&vault, "participant1");
    let (other, key) = (Caller::new(&vault, "key-admin"), node.signing_key("participant1").await);
    let count = |outcome: &'static str| {
        let vault = &vault;
        async move {
            let series = format!("keyvault_trace_spans_total{{outcome=\"{outcome}\"}} ");
            let (_, text) = ops(vault, "/metrics").await;
            text.lines().find_map(|line| line.strip_prefix(series.as_str())?.parse::<u64>().ok()).unwrap()
        }
    };
    // If a call waited for the collector or a place in the queue, these would not get their answers. One caller has a quarter of the queue.
    until("spans are dropped", || async {
        for _ in 0..20 {
            sign(&node, &key, &[]).await.success();
        }
        other.get("/v1/keys").await.success();
        count("share_used").await > 0 && count("failed").await > 0
    })
    .await;
    assert_eq!((count("exported").await, count("queue_full").await), (0, 0), "the spans of others find room");
    let warned =
        vault.log().iter().filter(|line| line.to_string().contains("did not take spans; they are lost. Calls are not affected")).count();
    assert_eq!(warned, 1, "one line a minute");

    receiver.set(Behaviour::Accept);
    until("spans arrive again", || async {
        sign(&node, &key, &[]).await.success();
        count("exported").await > 0
    })
    .await;
    // The end of the process sends what is left. Another caller has a share of its own.
    let last = other.send("GET", "/v1/keys", &[("traceparent", &format!("00-{TRACE}-{PARENT}-01"))], "").await;
    last.success();
    drop((node, other));
    vault.terminate();
    only(&spans(&receiver).into_iter().filter(|span| span["traceId"] == TRACE).collect::<Vec<_>>(), "GET /v1/keys");
    let body: Value = serde_json::from_slice(&receiver.received()[0].body).unwrap();
    let resource = body["resourceSpans"][0]["resource"]["attributes"].to_string();
    assert!(resource.contains("\"pod-0\"") && resource.contains("\"dev\""), "{resource}");

    let checked = || {
        let output = vault.command(&["check", "--output", "json", "--config"]).arg(vault.path("keyvault.toml")).output().unwrap();
        let lines: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        let line = lines.iter().find(|line| line["check"] == "trace collector").unwrap();
        (line["status"].as_str().unwrap().to_owned(), line["detail"].as_str().unwrap().to_owned())
    };
    assert_eq!(checked(), ("ok".into(), format!("{} accepts a connection", receiver.url())));
    receiver.stop().await;
    let (status, detail) = checked();
    assert!(status == "warn" && detail.contains(&receiver.url()), "{status}: {detail}");
}
