//! `audit watch`: follows the log of a vault from checkpoint to checkpoint. It ends with an alarm if the log does not continue the last one, or if checkpoints stop.

mod state;

use std::{fmt::Write as _, io::Write as _, path::PathBuf, time::Duration};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    audit::{
        Checkpoint, KeyRotation, SignedNote,
        merkle::{Hash, verify_consistency},
        verify::{Finding, LogName, Reason, TrustedKeys},
    },
    cli::{Failure, Format, audit::keys::VerifierKeyArgs, connection::Remote, output::printable},
    client::{Call, ClientError, PostTarget},
    domain::{Clock, Operation, Timestamp},
    server::run::clock,
};

use self::state::State;

/// The longest wait for the receiver of an alarm, and the attempts.
const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(10);
const WEBHOOK_ATTEMPTS: u32 = 3;

/// What to follow, and whom to alarm.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// The file that keeps the last checkpoint. Keep it where whoever can write to the vault's machine cannot write
    #[arg(long, value_name = "FILE")]
    state: PathBuf,
    #[command(flatten)]
    keys: VerifierKeyArgs,
    /// How often to ask for the newest checkpoint
    #[arg(long, default_value = "1m", value_name = "DURATION", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// Alarm if there was no new checkpoint for this long
    #[arg(long, default_value = "15m", value_name = "DURATION", value_parser = humantime::parse_duration)]
    max_age: Duration,
    /// Where an alarm is posted as JSON
    #[arg(long, value_name = "URL")]
    webhook: Option<String>,
    /// PEM file of the certificate authorities of an https webhook
    #[arg(long, value_name = "FILE", requires = "webhook")]
    webhook_ca: Option<PathBuf>,
    /// Ask once, and end
    #[arg(long)]
    once: bool,
}

/// Why a look at the vault had no result.
enum Problem {
    /// The log is not the one that was seen before.
    Alarm(Finding),
    /// The vault could not be asked. The next look may succeed.
    Later(ClientError),
}

impl From<ClientError> for Problem {
    fn from(error: ClientError) -> Self {
        Self::Later(error)
    }
}

impl From<Reason> for Problem {
    fn from(reason: Reason) -> Self {
        Self::Alarm(Finding::of_log(reason))
    }
}

/// An alarm, for the webhook and the exit.
struct Alarm {
    code: &'static str,
    detail: String,
}

/// Runs the command.
pub(super) async fn run(args: &WatchArgs, remote: &Remote) -> Result<(), Failure> {
    let (trust, clock) = (args.keys.keys()?, clock());
    let webhook = args.webhook.as_deref().map(|url| PostTarget::new(url, args.webhook_ca.clone())).transpose()?;
    let mut watch = Watch { remote, trust, state: State::read(&args.state)?, began: clock(), clock };
    loop {
        let alarm = match watch.look().await {
            Ok(line) => {
                watch.say(&line)?;
                watch.stopped(args.max_age, None)
            }
            Err(Problem::Alarm(finding)) => Some(Alarm { code: finding.reason.code(), detail: finding.to_string() }),
            Err(Problem::Later(error)) => {
                let alarm = watch.stopped(args.max_age, Some(&error));
                if alarm.is_none() && args.once {
                    return Err(error.into());
                }
                eprintln!("warning: {}", printable(&error.to_string()));
                alarm
            }
        };
        if let Some(Alarm { code, detail }) = alarm {
            if let Some(webhook) = &webhook {
                watch.post(webhook, code, &detail).await;
            }
            return Err(Failure::NotVerified { code, detail });
        }
        if args.once {
            return Ok(());
        }
        tokio::time::sleep(args.interval).await;
    }
}

struct Watch<'a> {
    remote: &'a Remote,
    trust: TrustedKeys,
    state: State,
    began: Timestamp,
    clock: Clock,
}

impl Watch<'_> {
    /// Compares the newest checkpoint with the last one, and keeps it. Returns what to say.
    async fn look(&mut self) -> Result<String, Problem> {
        let answer = match self.remote.client.get("/v1/audit/checkpoint").await {
            Err(ClientError::Problem(problem)) if problem.status == 404 => {
                return match self.state.last() {
                    Some(last) => Err(Reason::RolledBack(last.size).into()),
                    None => Ok("the log has no checkpoint yet".into()),
                };
            }
            answer => answer?,
        };
        let text = answer.get("note").and_then(Value::as_str).unwrap_or_default();
        let (note, newest) = read(text)?;
        let of_trust = LogName::of(self.trust.origin());
        match (LogName::of(&newest.origin), of_trust) {
            (Some((found, _)), Some((expected, _))) if found == expected => {}
            _ => return Err(Reason::OtherLog { found: newest.origin, expected: self.trust.origin().to_owned() }.into()),
        }
        self.is_signed(&note, &newest).await?;
        let line = match self.state.last().cloned() {
            None => format!("{}: {} entries, the first checkpoint that is kept", newest.origin, newest.size),
            Some(last) if last.origin == newest.origin && last.size == newest.size => {
                if last.root != newest.root {
                    return Err(Reason::Forked(last.size).into());
                }
                return Ok(format!("{}: {} entries, unchanged", newest.origin, newest.size));
            }
            Some(last) => {
                self.continues(&last, &newest).await?;
                format!("{}: {} entries, continues the log of {}", newest.origin, newest.size, last.size)
            }
        };
        let kept = self.state.keep(&note, newest, (self.clock)());
        kept.map_err(|error| ClientError::Usage(format!("--state: {error}")))?;
        Ok(line)
    }

    /// Whether a trusted key signed the checkpoint. The entries of rotations are asked for if the key is not known yet.
    async fn is_signed(&mut self, note: &SignedNote, checkpoint: &Checkpoint) -> Result<(), Problem> {
        if self.trust.signer(note, &checkpoint.origin, checkpoint.size).is_ok() {
            return Ok(());
        }
        self.follow_rotations().await?;
        self.trust.signer(note, &checkpoint.origin, checkpoint.size).map(drop).map_err(Problem::from)
    }

    /// Trusts the keys that a trusted key and the new key name together, in the order of the log.
    async fn follow_rotations(&mut self) -> Result<(), Problem> {
        #[derive(Deserialize)]
        struct Page {
            items: Vec<Item>,
            next_cursor: Option<String>,
        }
        #[derive(Deserialize)]
        struct Item {
            note: Option<String>,
        }
        let mut cursor = None;
        loop {
            let call = Call::get("/v1/audit/entries").query("operation", Operation::RotateCheckpointKey.as_str()).query("outcome", "ok");
            let Page { items, next_cursor } = self.remote.client.success(call.query_if("cursor", cursor.as_ref())).await?.parse()?;
            for rotation in items.iter().filter_map(|item| item.note.as_deref()).filter_map(|note| KeyRotation::verify(note).ok()) {
                self.trust.extend(&rotation);
            }
            if next_cursor.is_none() || next_cursor == cursor {
                return Ok(());
            }
            cursor = next_cursor;
        }
    }

    /// Whether the log of the newest checkpoint begins with that of the last one, and is not of another incarnation.
    async fn continues(&self, last: &Checkpoint, newest: &Checkpoint) -> Result<(), Problem> {
        let incarnation = |checkpoint: &Checkpoint| LogName::of(&checkpoint.origin).map_or(0, |(_, incarnation)| incarnation);
        let (before, now) = (incarnation(last), incarnation(newest));
        if now > before {
            return Err(Reason::NewIncarnation { before, now }.into());
        }
        if now < before || newest.size < last.size || newest.state_revision < last.state_revision {
            return Err(Reason::RolledBack(last.size).into());
        }
        let call = Call::get("/v1/audit/proofs/consistency").query_if("from", Some(last.size)).query_if("size", Some(newest.size));
        let proof = match self.remote.client.success(call).await {
            Ok(answer) => answer.parse::<ConsistencyProof>()?.proof,
            // The vault has both checkpoints, and cannot connect them.
            Err(ClientError::Problem(problem)) if !problem.retryable => return Err(Reason::Forked(last.size).into()),
            Err(error) => return Err(error.into()),
        };
        let proof: Option<Vec<Hash>> = proof.iter().map(|hash| BASE64_STANDARD.decode(hash).ok()?.try_into().ok()).collect();
        let is_valid = proof.is_some_and(|proof| verify_consistency(&proof, last.size, &last.root, newest.size, &newest.root));
        if is_valid { Ok(()) } else { Err(Reason::Forked(last.size).into()) }
    }

    /// The alarm if there was no new checkpoint for too long.
    fn stopped(&self, max_age: Duration, because: Option<&ClientError>) -> Option<Alarm> {
        let since = self.state.seen_at().unwrap_or(self.began);
        let age = (self.clock)().since(since);
        (age > max_age).then(|| {
            let mut detail = format!("there was no new checkpoint since {since}");
            if let Some(error) = because {
                let _ = write!(detail, ": {error}");
            }
            Alarm { code: "checkpoints_stopped", detail }
        })
    }

    fn say(&self, line: &str) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        let at = (self.clock)();
        match self.remote.format {
            Format::Text => writeln!(out, "{at} {}", printable(line))?,
            Format::Json => writeln!(out, "{}", json!({ "at": at, "message": line, "size": self.state.last().map(|last| last.size) }))?,
        }
        Ok(out.flush()?)
    }

    /// Posts the alarm. A failure is said and does not hide the alarm.
    async fn post(&self, webhook: &PostTarget, code: &str, detail: &str) {
        let seen =
            self.state.last().map(|last| json!({ "origin": last.origin, "size": last.size, "root": BASE64_STANDARD.encode(last.root) }));
        let document = json!({ "alarm": code, "detail": detail, "vault": self.remote.client.endpoints().urls(), "at": (self.clock)(), "last_checkpoint": seen });
        for attempt in 1..=WEBHOOK_ATTEMPTS {
            let why = match webhook.post("application/json", document.to_string().into_bytes(), WEBHOOK_TIMEOUT).await {
                Ok((status, _)) if status.is_success() => return,
                Ok((status, _)) => format!("{} answered {status}", webhook.url()),
                Err(error) => error.to_string(),
            };
            eprintln!("warning: the alarm was not delivered (attempt {attempt} of {WEBHOOK_ATTEMPTS}): {}", printable(&why));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

fn read(text: &str) -> Result<(SignedNote, Checkpoint), Problem> {
    let malformed = |error: &dyn std::fmt::Display| Problem::from(Reason::MalformedCheckpoint(error.to_string()));
    let note = SignedNote::parse(text.as_bytes()).map_err(|error| malformed(&error))?;
    let checkpoint = Checkpoint::parse(note.text()).map_err(|error| malformed(&error))?;
    Ok((note, checkpoint))
}
/// What the vault sends of a consistency proof.
#[derive(Deserialize)]
struct ConsistencyProof {
    proof: Vec<String>,
}
