//! The pages of `ui`, from outside over HTTP: who gets in, what each page shows, that nothing changes without `--allow-actions`, a token and a confirmation,
//! and that hostile text stays text.

use std::{
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use canton_keyvault::client::connector::connect;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, body::Bytes};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{
    api::{Caller, Reply, enroll},
    jobs::{active, ended, new_wrapper_key, rotated, wrapper_key},
    vault::TestVault,
};

const HOSTILE: &str = "\"><script>alert(1)</script>&<img src='https://evil.example/x' onerror=alert(2)>";

/// Headers, or the fields of a form.
type Pairs<'a> = &'a [(&'a str, &'a str)];

/// The command, and the session of one browser. Killed when dropped.
struct Ui {
    child: Child,
    address: String,
    first: String,
    cookie: String,
}

impl Ui {
    /// The command as one of `dev`'s principals, and a browser that opened the first URL.
    async fn start(vault: &TestVault, principal: &str, options: &[&str]) -> Self {
        let mut ui = Self::without_session(vault, principal, options);
        let first = ui.send("GET", &ui.first, &[], "").await;
        assert_eq!((first.status, first.headers["location"].to_str().unwrap()), (303, "/"), "{first:?}");
        let cookie = first.headers["set-cookie"].to_str().unwrap();
        let (pair, attributes) = cookie.split_once("; ").unwrap();
        assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Strict");
        pair.clone_into(&mut ui.cookie);
        ui
    }

    fn without_session(vault: &TestVault, principal: &str, options: &[&str]) -> Self {
        let pki = |file: &str| vault.path(&format!("pki/{file}"));
        let mut command = vault.command(&["ui", "--listen", "127.0.0.1:0", "--output", "json"]);
        command
            .args(options)
            .env("KEYVAULT_URL", vault.url())
            .env("KEYVAULT_CA", pki("ca.pem"))
            .env("KEYVAULT_CERT", pki(&format!("{principal}.pem")))
            .env("KEYVAULT_KEY", pki(&format!("{principal}.key")))
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let told: Value = serde_json::Deserializer::from_reader(child.stdout.take().unwrap()).into_iter().next().unwrap().unwrap();
        let url = told["url"].as_str().unwrap().strip_prefix("http://").unwrap();
        let (address, path) = url.split_at(url.find('/').unwrap());
        Self { child, address: address.to_owned(), first: path.to_owned(), cookie: String::new() }
    }

    /// A request with these headers only.
    async fn send(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let (host, port) = self.address.split_once(':').unwrap();
        let mut connection = connect(host, port.parse().unwrap(), None).await.unwrap();
        let mut request = Request::builder().method(method).uri(target);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", &self.address);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = connection.send_request(request.body(Full::new(Bytes::from(body.to_owned()))).unwrap()).await.unwrap();
        let (head, body) = answer.into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        Reply { status: head.status.as_u16(), headers: head.headers, text }
    }

    /// A page as the browser with the session gets it.
    async fn page(&self, target: &str) -> String {
        let reply = self.send("GET", target, &[("cookie", &self.cookie)], "").await;
        assert_eq!(reply.status, 200, "{target}: {}", reply.text);
        reply.text
    }

    /// A form as the browser sends it from a page of this server.
    async fn submit(&self, target: &str, fields: &[(&str, &str)]) -> Reply {
        let origin = format!("http://{}", self.address);
        self.post(target, &[("cookie", &self.cookie), ("origin", &origin)], fields).await
    }

    async fn post(&self, target: &str, headers: &[(&str, &str)], fields: &[(&str, &str)]) -> Reply {
        let body: Vec<String> =
            fields.iter().map(|(name, value)| format!("{name}={}", canton_keyvault::client::percent_encoded(value))).collect();
        let headers: Vec<_> = headers.iter().copied().chain([("content-type", "application/x-www-form-urlencoded")]).collect();
        self.send("POST", target, &headers, &body.join("&")).await
    }

    /// The page before a change, its form token, and the change with the confirmation.
    async fn change(&self, name: &str, fields: &[(&str, &str)]) -> Reply {
        let query: Vec<String> =
            fields.iter().map(|(name, value)| format!("{name}={}", canton_keyvault::client::percent_encoded(value))).collect();
        let token = form_token(&self.page(&format!("/actions/{name}?{}", query.join("&"))).await);
        let fields: Vec<_> = fields.iter().copied().chain([("form_token", token.as_str()), ("confirmation", "yes")]).collect();
        self.submit(&format!("/actions/{name}"), &fields).await
    }
}

impl Drop for Ui {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn form_token(page: &str) -> String {
    let (_, rest) = page.split_once("name=\"form_token\" value=\"").unwrap_or_else(|| panic!("no form: {page}"));
    rest.split('"').next().unwrap().to_owned()
}

fn contains(page: &str, parts: &[&str]) {
    for part in parts {
        assert!(page.contains(part), "{part}: {page}");
    }
}

/// Nothing but known elements, no inline style, no handler, no address elsewhere. Text has no `<`, and values of attributes have no `>`.
fn is_harmless(page: &str) {
    const FORBIDDEN: &[&str] = &["script", "img", "image", "iframe", "object", "embed", "base", "use", "style", "foreignObject"];
    for tag in page.split('<').skip(1).map(|rest| rest.split('>').next().unwrap()) {
        let parts: Vec<&str> = tag.split('"').collect();
        assert!(parts.len() % 2 == 1, "a value leaves its quotes: {tag}");
        let name = parts[0].split_whitespace().next().unwrap_or_default();
        assert!(!FORBIDDEN.contains(&name), "{tag}");
        for (attribute, value) in parts.chunks_exact(2).map(|pair| (pair[0].rsplit(' ').next().unwrap(), pair[1])) {
            assert!(!attribute.starts_with("on") && !["style=", "src=", "formaction="].contains(&attribute), "{tag}");
            let here = value.starts_with('/') && !value.starts_with("//") || value.starts_with('#');
            assert!(!["href=", "action="].contains(&attribute) || here, "{tag}");
        }
        let unquoted: String = parts.iter().step_by(2).copied().collect();
        assert!(!unquoted.contains(" on") && !unquoted.contains('\''), "{tag}");
    }
}

#[test]
fn a_page_that_is_not_harmless_is_seen() {
    is_harmless("<a href=\"/x\" title=\"on the left\">onerror=alert</a>");
    for page in [
        "<script>",
        "<a href=\"javascript:x\">",
        "<a href=\"//evil\">",
        "<p onclick=\"x\">",
        "<p style=\"x\">",
        "<p title=\"\"x\">",
        "<img src=x>",
    ] {
        assert!(std::panic::catch_unwind(|| is_harmless(page)).is_err(), "{page}");
    }
}

#[tokio::test]
async fn nothing_is_shown_without_the_session_of_the_first_url() {
    let vault = TestVault::start();
    let ui = Ui::without_session(&vault, "auditor", &[]);
    let principal = "spiffe://dev.keyvault/auditor";
    for target in ["/", "/keys", "/audit", "/audit/1", "/docs", "/openapi.json", "/nothing", "/login", "/login?token=", "/login?token=00"] {
        let refused = ui.send("GET", target, &[], "").await;
        assert_eq!(refused.status, 403, "{target}");
        assert!(!refused.text.contains(principal) && !refused.text.contains(vault.url()) && refused.headers.get("set-cookie").is_none());
    }
    // The name of another server: DNS of an attacker points to this machine.
    let refused = ui.send("GET", &ui.first, &[("host", "evil.example")], "").await;
    assert_eq!((refused.status, refused.headers.get("set-cookie")), (403, None));
    // The token works once.
    let cookie = ui.send("GET", &ui.first, &[], "").await.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    assert_eq!(ui.send("GET", &ui.first, &[], "").await.status, 403);
    assert_eq!(ui.send("GET", &ui.first, &[("cookie", &cookie)], "").await.status, 303);
    let port = ui.address.split_once(':').unwrap().1;
    for (host, status) in [(ui.address.as_str(), 200), (&format!("localhost:{port}"), 200), (&format!("evil.example:{port}"), 403)] {
        let reply = ui.send("GET", "/", &[("cookie", &cookie), ("host", host)], "").await;
        assert_eq!((reply.status, reply.text.contains(principal)), (status, status == 200), "{host}");
    }
    let wrong = format!("{}0", &cookie[..cookie.len() - 1]);
    assert!(wrong == cookie || ui.send("GET", "/", &[("cookie", &wrong)], "").await.status == 403);
    let page = ui.send("GET", "/", &[("cookie", &cookie)], "").await;
    for (name, value) in [
        (
            "content-security-policy",
            "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; script-src 'none'",
        ),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "same-origin"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(page.headers[name], value);
    }
}

#[test]
fn it_listens_on_loopback_only() {
    let vault = TestVault::prepare(|config| config);
    let pki = |file: &str| vault.path(&format!("pki/{file}")).into_os_string();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:8444"] {
        let mut command = vault.command(&["ui", "--listen", address]);
        let output = command
            .env("KEYVAULT_CA", pki("ca.pem"))
            .env("KEYVAULT_CERT", pki("auditor.pem"))
            .env("KEYVAULT_KEY", pki("auditor.key"))
            .output()
            .unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && told.contains("loopback only"), "{address}: {told}");
    }
}

#[tokio::test]
async fn every_page_shows_what_the_vault_answers_and_hostile_text_stays_text() {
    let vault = TestVault::start();
    let caller = |name: &str| Caller::new(&vault, name);
    let (node, admin) = (caller("participant1"), caller("key-admin"));
    let key = node.signing_key("participant1").await;
    admin.post(&format!("/v1/keys/{key}/name"), &json!({ "name": HOSTILE })).await.success();
    for _ in 0..3 {
        node.sign(&key).await.success();
    }
    caller("participant2").sign(&key).await.refused(404, "not_found");
    let from = active(&vault).await;
    let to = new_wrapper_key(&vault).await;
    let job = rotated(&vault, &to).await["id"].as_str().unwrap().to_owned();

    let ui = Ui::start(&vault, "auditor", &[]).await;
    let escaped = "&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&amp;&lt;img src='https://evil.example/x' onerror=alert(2)&gt;";
    let encoded = canton_keyvault::client::percent_encoded(HOSTILE);
    let pages: Vec<(String, Vec<&str>)> = vec![
        ("/".into(), vec!["The vault is ready.", "spiffe://dev.keyvault/auditor", "auditor", "No faults.", "read only"]),
        ("/keys".into(), vec![escaped, &key, "participant1", "ec-curve25519", "active"]),
        ("/keys?state=disabled".into(), vec!["No key fits", "<option value=\"disabled\" selected>"]),
        (format!("/keys?node={encoded}"), vec!["invalid_request", "a node name matches"]),
        (format!("/keys/{key}"), vec![escaped, "Wraps of its data key", &from, &to, "generated"]),
        ("/keys/1220".into(), vec!["a key id is 1220"]),
        ("/wrapper-keys".into(), vec![&from, &to, "draining", "active"]),
        (format!("/wrapper-keys/{to}"), vec!["local:", "Keys with a wrap under it"]),
        ("/jobs".into(), vec![&job, "succeeded", &from, &to, "Re-seals", "There was none."]),
        (format!("/jobs/rotations/{job}"), vec![&job, "<progress", "1 of 1 keys done", "None."]),
        ("/audit".into(), vec!["keys.sign", "keys.rename", "denied", "spiffe://dev.keyvault/participant1"]),
        (format!("/audit?operation=keys.sign&key={key}"), vec![&key, "keys.sign"]),
        ("/audit/1".into(), vec!["sequence", "policy_revision", "leaf", "Entry 1"]),
        ("/audit/charts".into(), vec!["<svg role=\"img\"", "Calls per day by outcome", "Calls by principal", "The numbers", "keys.sign"]),
        ("/access".into(), vec!["May a principal do it, and why?", "Who was allowed to use a key?"]),
        (
            format!("/access?operation=keys.sign&key_id={key}&principal=spiffe%3A%2F%2Fdev.keyvault%2Fparticipant1"),
            vec!["Yes: the grants below permit it.", "node", "participant1"],
        ),
        (
            format!("/access?operation=keys.sign&key_id={key}&principal=spiffe%3A%2F%2Fdev.keyvault%2Fparticipant2"),
            vec!["No: the policy does not permit it.", "The grants of the principal", "participant2"],
        ),
        (format!("/access?operation=keys.sign&principal={encoded}"), vec![escaped, "Role node is required"]),
        (format!("/access?key={key}&at=2999-01-01"), vec!["Who was allowed to use it", "keys.sign", "spiffe://dev.keyvault/participant1"]),
    ];
    for (target, parts) in &pages {
        let page = ui.page(target).await;
        contains(&page, parts);
        is_harmless(&page);
        // One headline, the navigation, and nothing that changes the vault.
        assert_eq!(page.matches("<h1>").count(), 1, "{target}");
        assert!(!page.contains("/actions/") && !page.contains("method=\"post\"") && page.contains("aria-label=\"Pages\""), "{target}");
    }
    contains(&ui.page("/style.css").await, &["prefers-color-scheme: dark", ".legend .denied"]);
    contains(&ui.page("/docs?q=sign-batch").await, &["/v1/keys/{id}/sign-batch", "src=\"/docs/search.js\""]);
    // Lists come in pages.
    for _ in 0..50 {
        node.signing_key("participant1").await;
    }
    let first = ui.page("/keys").await;
    let next = first.split("href=\"").map(|rest| rest.split('"').next().unwrap()).find(|href| href.starts_with("/keys?cursor=")).unwrap();
    let second = ui.page(&next.replace("&amp;", "&")).await;
    assert!(first.matches("/keys/1220").count() == 50 && second.matches("/keys/1220").count() == 1 && second.contains("First page"));
}

#[tokio::test]
async fn a_part_that_the_certificate_may_not_see_says_so_and_the_others_stay() {
    let vault = TestVault::start();
    enroll(&vault, "nobody");
    let ui = Ui::start(&vault, "nobody", &[]).await;
    contains(&ui.page("/").await, &["The vault is ready.", "No grant"]);
    contains(&ui.page("/audit").await, &["forbidden", "To do:", "Request id:"]);
    let mut vault = vault;
    vault.kill();
    contains(&ui.page("/").await, &["Your identity", "role=\"alert\"", "cannot connect to https://127.0.0.1"]);
}

#[tokio::test]
async fn without_the_option_nothing_can_be_changed() {
    let vault = TestVault::start();
    let ui = Ui::start(&vault, "key-admin", &[]).await;
    for target in ["/actions/freeze", "/actions/create-key", "/"] {
        let reply = ui.submit(target, &[("confirmation", "yes")]).await;
        assert!(matches!(reply.status, 404 | 405), "{target}: {reply:?}");
    }
    assert_eq!(ui.send("GET", "/actions/freeze", &[("cookie", &ui.cookie)], "").await.status, 404);
    let status = vault.client("auditor").get("/v1/status").await.unwrap();
    assert_eq!((status["ready"].as_bool(), status["reasons"].as_array().unwrap().len()), (Some(true), 0));
}

#[tokio::test]
async fn a_change_needs_session_origin_token_and_confirmation() {
    let vault = TestVault::start();
    let ui = Ui::start(&vault, "key-admin", &["--allow-actions"]).await;
    contains(&ui.page("/").await, &["changes allowed", "/actions/freeze"]);
    let confirmation = ui.page("/actions/freeze").await;
    contains(&confirmation, &["Freeze the vault?", "wipes every open key", "Back, without a change"]);
    let (token, origin) = (form_token(&confirmation), format!("http://{}", ui.address));
    let good = [("form_token", token.as_str()), ("confirmation", "yes")];
    let cookie = ("cookie", ui.cookie.as_str());
    let cases: &[(Pairs<'_>, Pairs<'_>, u16)] = &[
        (&[("origin", &origin)], &good, 403),
        (&[cookie], &good, 403),
        (&[cookie, ("origin", "null")], &good, 403),
        (&[cookie, ("origin", "http://evil.example")], &good, 403),
        (&[cookie, ("origin", &origin.replace("http", "https"))], &good, 403),
        (&[cookie, ("origin", &origin), ("origin", "http://evil.example")], &good, 403),
        (&[cookie, ("origin", &origin), ("host", "evil.example")], &good, 403),
        (&[cookie, ("origin", &origin)], &[("confirmation", "yes")], 403),
        (&[cookie, ("origin", &origin)], &[("form_token", &token[1..]), ("confirmation", "yes")], 403),
        (&[cookie, ("origin", &origin)], &[("form_token", &token)], 400),
        (&[cookie, ("origin", &origin)], &[("form_token", &token), ("confirmation", "no")], 400),
    ];
    for (headers, fields, status) in cases {
        assert_eq!(ui.post("/actions/freeze", headers, fields).await.status, *status, "{headers:?} {fields:?}");
    }
    let long = "x".repeat(20_000);
    assert!(ui.submit("/actions/freeze", &[("form_token", &token), ("confirmation", "yes"), ("more", &long)]).await.status >= 400);
    // A request that only reads changes nothing.
    ui.page(&format!("/actions/freeze?form_token={token}&confirmation=yes")).await;
    assert_eq!(vault.client("auditor").get("/v1/status").await.unwrap()["ready"], true);

    let done = ui.submit("/actions/freeze", &good).await;
    assert_eq!((done.status, done.headers["location"].to_str().unwrap()), (303, "/?done=freeze"), "{}", done.text);
    contains(&ui.page("/?done=freeze").await, &["The vault is frozen.", "frozen", "/actions/unfreeze"]);
    assert_eq!(vault.client("auditor").get("/v1/status").await.unwrap()["reasons"][0]["code"], "frozen");
    // Only a wrapper-admin unfreezes: the page says so and has no form.
    let refused = ui.page("/actions/unfreeze").await;
    assert!(refused.contains("The vault would refuse this with forbidden") && !refused.contains("form_token"), "{refused}");
    let refused = ui.submit("/actions/unfreeze", &good).await;
    assert_eq!(refused.status, 403);
    contains(&refused.text, &["forbidden", "The vault did not do it"]);
}

#[tokio::test]
async fn keys_and_wrapper_keys_are_changed_with_the_questions_of_the_command_line() {
    let vault = TestVault::start();
    let ui = Ui::start(&vault, "key-admin", &["--allow-actions"]).await;
    contains(&ui.page("/keys").await, &["/actions/create-key"]);
    contains(&ui.page("/actions/create-key").await, &["<select id=\"field-spec\"", "ec-curve25519", "Nothing is changed yet"]);
    let new = [("node", "participant1"), ("purpose", "signing"), ("spec", "ec-curve25519"), ("name", HOSTILE)];
    let created = ui.change("create-key", &new).await;
    assert_eq!(created.status, 303, "{}", created.text);
    let place = created.headers["location"].to_str().unwrap().to_owned();
    let id = place.strip_prefix("/keys/").unwrap().strip_suffix("?done=create-key").unwrap().to_owned();
    let page = ui.page(&place).await;
    contains(&page, &["The key was created.", "/actions/disable-key"]);
    is_harmless(&page);
    let client = vault.client("key-admin");
    let key = async |id: &str| client.get(&format!("/v1/keys/{id}")).await.unwrap();
    assert_eq!(key(&id).await["name"], HOSTILE);

    for (name, state) in [("disable-key", "disabled"), ("enable-key", "active")] {
        let done = ui.change(name, &[("id", &id)]).await;
        assert_eq!((done.status, key(&id).await["state"].as_str().unwrap()), (303, state), "{}", done.text);
    }
    let renamed = ui.change("rename-key", &[("id", &id), ("name", "orders")]).await;
    assert_eq!((renamed.status, key(&id).await["name"].as_str().unwrap()), (303, "orders"));

    // The same words as on the command line, and the answer is written.
    let asked = vault
        .command(&["keys", "delete", &id, "--days", "9"])
        .env("KEYVAULT_URL", vault.url())
        .env("KEYVAULT_CA", vault.path("pki/ca.pem"))
        .env("KEYVAULT_CERT", vault.path("pki/key-admin.pem"))
        .env("KEYVAULT_KEY", vault.path("pki/key-admin.key"))
        .output()
        .unwrap();
    let told = String::from_utf8(asked.stderr).unwrap();
    let question = told.strip_prefix("error: ").unwrap().split(" There is no terminal").next().unwrap();
    assert_eq!(question, format!("Delete the key {id} in 9 days?"));
    let page = ui.page(&format!("/actions/delete-key?id={id}&days=9")).await;
    contains(&page, &[question, "Write yes:", "destroys it in 9 days", "Afterwards only a backup has it.", "orders"]);
    let token = form_token(&page);
    let unwritten = ui.submit("/actions/delete-key", &[("id", &id), ("days", "9"), ("form_token", &token), ("confirmation", "")]).await;
    assert_eq!((unwritten.status, key(&id).await["state"].as_str().unwrap()), (400, "active"));
    let refused = ui.change("delete-key", &[("id", &id), ("days", "3")]).await;
    assert_eq!(refused.status, 400);
    contains(&refused.text, &["invalid_request", "7"]);
    assert_eq!(ui.change("delete-key", &[("id", &id), ("days", "9")]).await.status, 303);
    assert_eq!(key(&id).await["state"], "pending-deletion");
    assert_eq!(ui.change("cancel-deletion", &[("id", &id)]).await.status, 303);

    let wrapper = Ui::start(&vault, "wrapper-admin", &["--allow-actions"]).await;
    let to = new_wrapper_key(&vault).await;
    let page = format!("/wrapper-keys/{to}");
    contains(&wrapper.page(&page).await, &["/actions/rename-wrapper-key"]);
    let question = wrapper.page(&format!("/actions/rename-wrapper-key?id={to}&name=central-2026")).await;
    contains(&question, &["As it is now", &format!("Give the wrapper key {to} the name central-2026?"), "Nothing else depends on it."]);
    let named = wrapper.change("rename-wrapper-key", &[("id", &to), ("name", "central-2026")]).await;
    assert_eq!((named.status, named.headers["location"].to_str().unwrap()), (303, &*format!("{page}?done=rename-wrapper-key")));
    assert_eq!(wrapper_key(&vault, &to).await["name"], "central-2026");
    contains(&wrapper.page(&format!("{page}?done=rename-wrapper-key")).await, &["The name was changed.", "central-2026"]);
    let refused = wrapper.change("rename-wrapper-key", &[("id", &to), ("name", HOSTILE)]).await;
    assert_eq!((refused.status, wrapper_key(&vault, &to).await["name"].as_str()), (400, Some("central-2026")));
    is_harmless(&refused.text);
    // An empty name removes it, and the page says so before.
    let question = wrapper.page(&format!("/actions/rename-wrapper-key?id={to}&chosen=yes&name=")).await;
    contains(&question, &[&format!("Remove the name of the wrapper key {to}?")]);
    assert_eq!(wrapper.change("rename-wrapper-key", &[("id", &to), ("chosen", "yes")]).await.status, 303);
    assert!(wrapper_key(&vault, &to).await.get("name").is_none());
    // A key-admin may not, and the page has no form for it.
    let refused = ui.page(&format!("/actions/rename-wrapper-key?id={to}&name=x")).await;
    assert!(refused.contains("The vault would refuse this with forbidden") && !refused.contains("form_token"), "{refused}");

    let started = wrapper.change("start-rotation", &[("id", &to)]).await;
    let place = started.headers["location"].to_str().unwrap();
    assert!(started.status == 303 && place.starts_with("/jobs/rotations/job-"), "{place}");
    let job = &place["/jobs/rotations/".len()..place.find('?').unwrap()];
    ended(&vault, &json!({ "id": job, "kind": "rotation" })).await;
    contains(&wrapper.page(&format!("/jobs/rotations/{job}?follow=yes")).await, &["succeeded"]);

    // Ids of another form never get into a path.
    for id in ["..%2F..%2Ffreeze", "1220%2Fsupersede", ""] {
        assert_eq!(ui.send("GET", &format!("/actions/disable-key?id={id}"), &[("cookie", &ui.cookie)], "").await.status, 400, "{id}");
    }
}

#[tokio::test]
async fn the_pages_of_the_api_have_a_strict_policy_and_a_search_that_needs_no_script() {
    let vault = TestVault::start();
    let caller = Caller::new(&vault, "participant1");
    for (target, kind) in [
        ("/docs", "text/html; charset=utf-8"),
        ("/docs/errors", "text/html; charset=utf-8"),
        ("/docs/style.css", "text/css; charset=utf-8"),
        ("/docs/search.js", "text/javascript; charset=utf-8"),
    ] {
        let page = caller.get(target).await;
        assert_eq!((page.status, page.headers["content-type"].to_str().unwrap()), (200, kind), "{target}");
        assert_eq!(page.headers["x-content-type-options"], "nosniff");
        if kind.starts_with("text/html") {
            let policy = page.headers["content-security-policy"].to_str().unwrap();
            assert!(
                policy.starts_with("default-src 'none'; style-src 'self'; script-src 'self';") && !policy.contains("unsafe"),
                "{policy}"
            );
        }
    }
    assert!(caller.get("/docs?q=POST+id%7D%2Fretire").await.text.contains(">1 found<"));
    assert_eq!(caller.get("/docs?q=%FF&x").await.status, 200);
}

/// Whether the server closes a connection without an answer. It may reset one of which it did not read everything.
async fn closed(stream: &mut TcpStream) -> bool {
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(Duration::from_mins(1), stream.read_to_end(&mut answer)).await;
    ended.is_ok() && answer.is_empty()
}

#[tokio::test]
async fn silent_and_slow_clients_hold_no_connection_and_exclude_no_browser() {
    let vault = TestVault::start();
    let ui = Ui::start(&vault, "auditor", &[]).await;
    let connect = || async { TcpStream::connect(&ui.address).await.unwrap() };
    let (mut oldest, mut slow) = (connect().await, connect().await);
    slow.write_all(b"GET / HTTP/1.1\r\nHost: half").await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..64 {
        silent.push(connect().await);
    }
    let began = Instant::now();
    assert!(closed(&mut oldest).await, "the oldest made place");
    assert!(began.elapsed() < Duration::from_secs(4), "before its time was over");
    ui.page("/").await;
    let mut newest = silent.pop().unwrap();
    assert!(closed(&mut newest).await && closed(&mut slow).await, "neither silence nor half a header holds a connection");
    ui.page("/").await;
}
