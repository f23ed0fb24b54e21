//! A vault that serves the store of a configuration, with an address and a log of its own.

use std::{
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;

use crate::server::PROGRAM;

/// A running vault. It ends with this value.
pub(crate) struct Replica {
    pub(crate) url: String,
    /// From the start of the process until it listens.
    pub(crate) started_in: Duration,
    process: Child,
}

impl Replica {
    /// Starts the vault whose configuration `dev` wrote to `folder`, with `storage` as its `[storage]`, and this name.
    pub(crate) fn start(folder: &Path, name: &str, storage: &str) -> anyhow::Result<Self> {
        let free = || Ok::<_, std::io::Error>(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string());
        let (api, ops) = (free()?, free()?);
        let made = std::fs::read_to_string(folder.join("keyvault.toml"))?;
        let lines = made.lines().map(|line| match line.split(" = ").next() {
            Some("id") => format!("{line}\ninstance = \"{name}\""),
            Some("path") => storage.to_owned(),
            Some("api") => format!("api = \"{api}\""),
            Some("ops") => format!("ops = \"{ops}\""),
            _ => line.to_owned(),
        });
        let config = folder.join(format!("{name}.toml"));
        std::fs::write(&config, lines.collect::<Vec<_>>().join("\n"))?;
        let began = Instant::now();
        let mut process =
            Command::new(PROGRAM).arg("serve").arg("--config").arg(&config).stdin(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(process.stderr.take().context("no standard error")?).lines();
        let mut said = Vec::new();
        loop {
            let Some(line) = lines.next().transpose()? else { anyhow::bail!("{name} ended: {}", said.join("\n")) };
            if line.contains("listening") {
                break;
            }
            said.push(line);
        }
        let started_in = began.elapsed();
        // What it says later is read too, so that it never waits for this program.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { url: format!("https://{api}"), started_in, process })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Ends it in good order.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.process), rustix::process::Signal::TERM)?;
        self.process.wait()?;
        Ok(())
    }

    /// Makes an Ed25519 key of the node `participant1`.
    pub(crate) fn create_key(&self, folder: &Path) -> anyhow::Result<String> {
        let pki = |file: &str| folder.join("pki").join(file);
        let mut create = Command::new(PROGRAM);
        create.args(["keys", "create", "--node", "participant1", "--purpose", "signing", "--spec", "ec-curve25519", "--output", "json"]);
        create.args(["--url", &self.url]).arg("--ca").arg(pki("ca.pem"));
        let made = create.arg("--cert").arg(pki("key-admin.pem")).arg("--key").arg(pki("key-admin.key")).output()?;
        anyhow::ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let key: serde_json::Value = serde_json::from_slice(&made.stdout)?;
        Ok(key.get("id").and_then(serde_json::Value::as_str).context("no id")?.to_owned())
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
