//! The processes under load: the vault in `dev`, and this program as a floor.

use std::{
    io::{BufRead as _, BufReader, Read as _, Seek as _},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

/// The vault as it is shipped.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_canton-keyvault");

/// A running server, ready for load.
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) url: String,
    /// The key to sign with.
    pub(crate) key: String,
    /// From the start of the process to its first signature.
    pub(crate) started_in: Duration,
    process: Child,
}

impl Server {
    /// The vault, with all it needs made under `folder`. It signs once by itself.
    pub(crate) fn dev(folder: &Path) -> anyhow::Result<Self> {
        let (api, ops) = (free()?, free()?);
        let mut command = Command::new(PROGRAM);
        command.arg("dev").arg("--dir").arg(folder).args(["--listen", &api, "--ops-listen", &ops]);
        Self::start("vault", format!("https://{api}"), command, |line| {
            // Its page shows the first signature: `  key       1220…`
            line.trim().strip_prefix("key ").map(|id| id.trim().to_owned())
        })
    }

    /// A floor with the certificates of the vault under `folder`.
    pub(crate) fn floor(folder: &Path, verify: bool) -> anyhow::Result<Self> {
        let api = free()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--floor").arg(folder).args(verify.then_some("--verify")).env("FLOOR_LISTEN", &api);
        let name = if verify { "floor that verifies" } else { "floor" };
        Self::start(name, format!("https://{api}"), command, |line| line.strip_prefix("ready ").map(str::to_owned))
    }

    fn start(name: &'static str, url: String, mut command: Command, key: impl Fn(&str) -> Option<String>) -> anyhow::Result<Self> {
        let began = Instant::now();
        let mut errors = tempfile::tempfile()?;
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors.try_clone()?).spawn()?;
        let stdout = process.stdout.take().context("no standard output")?;
        for line in BufReader::new(stdout).lines() {
            if let Some(key) = key(&line?) {
                return Ok(Self { name, url, key, started_in: began.elapsed(), process });
            }
        }
        let status = process.wait()?;
        let mut said = String::new();
        errors.rewind()?;
        errors.read_to_string(&mut said)?;
        anyhow::bail!("{name} ended at once: {status}: {said}")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Resident memory, in MiB.
    pub(crate) fn resident(&self) -> anyhow::Result<f64> {
        resident(self.pid())
    }

    /// Ends it in good order.
    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        let pid = Pid::from_child(&self.process);
        kill_process(pid, Signal::TERM)?;
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Resident memory of a process, in MiB.
pub(crate) fn resident(pid: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

/// An address on loopback without a listener.
fn free() -> anyhow::Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}
