//! A sink over syslog: RFC 5424 messages with the framing of RFC 5425, over TLS.
//!
//! Syslog has no confirmation. A batch counts as confirmed when it is written to a connection that the server has not closed. What was written to a
//! connection before it was lost is written again to the next one, as far as [`RECENT`] goes. After an orderly end by the server, that is only what was
//! written in the [`LATEST`] seconds.

use std::{collections::VecDeque, io, time::Duration};

use async_trait::async_trait;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Instant,
};
use tokio_rustls::client::TlsStream;

use super::{
    EntrySink, LogSource, SinkEntry, SinkFault, SyslogSinkConfig,
    endpoint::{Server, SyslogAddress},
};
use crate::client::connector::is_tls;

/// How many bytes of messages are kept to be written again after a lost connection. More than the send buffer of a connection.
const RECENT: usize = 4 << 20;
/// How old a message may be that a server had possibly not read when it ended the connection in order.
const LATEST: Duration = Duration::from_secs(10);

/// The sink.
pub(super) struct SyslogSink {
    server: Server,
    header: Header,
    connection: Option<TlsStream<TcpStream>>,
    /// Messages that were written to the current connection, or to the lost one.
    recent: VecDeque<(Instant, Vec<u8>)>,
    recent_bytes: usize,
}

/// What all messages have in common.
struct Header {
    facility: u8,
    hostname: String,
    structured_data: String,
    source: LogSource,
    process: u32,
}

impl SyslogSink {
    /// The sink of a checked configuration. With an address that is none, every batch fails.
    pub(super) fn new(config: &SyslogSinkConfig, source: &LogSource) -> Self {
        let SyslogSinkConfig { address, ca, certificate, key, facility, hostname, structured_data } = config;
        let (host, port) = SyslogAddress::parse(address).map_or_else(Default::default, |SyslogAddress { host, port }| (host, port));
        let header = Header {
            facility: *facility,
            hostname: hostname.clone().unwrap_or_else(|| source.vault.clone()),
            structured_data: structured_data.clone(),
            source: source.clone(),
            process: std::process::id(),
        };
        let tls = Some(Server::files(Some(ca.clone()), certificate.as_ref(), key.as_ref()));
        Self { server: Server { host, port, tls }, header, connection: None, recent: VecDeque::new(), recent_bytes: 0 }
    }

    fn remember(&mut self, message: Vec<u8>) {
        self.recent_bytes += message.len();
        self.recent.push_back((Instant::now(), message));
        while self.recent_bytes > RECENT {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, old)) = self.recent.pop_front() {
            self.recent_bytes -= old.len();
        }
    }

    fn lost(&self, error: &io::Error) -> SinkFault {
        let (address, reason) = (self.server.address(), error.to_string());
        if is_tls(error) { SinkFault::Tls { address, reason } } else { SinkFault::Unreachable { address, reason } }
    }
}

#[async_trait]
impl EntrySink for SyslogSink {
    async fn send(&mut self, batch: &[SinkEntry]) -> Result<(), SinkFault> {
        // Taken, so that an attempt that fails or is dropped leaves no connection with half a message.
        let mut kept = self.connection.take();
        if let Some(connection) = &mut kept {
            match state(connection).await {
                State::Open => {}
                State::Ended => {
                    kept = None;
                    while self.recent.front().is_some_and(|(written, _)| written.elapsed() > LATEST) {
                        self.forget_oldest();
                    }
                }
                State::Broken => kept = None,
            }
        }
        let mut connection = if let Some(connection) = kept {
            connection
        } else {
            let mut connection = self.server.stream().await?;
            for (_, message) in &self.recent {
                connection.write_all(message).await.map_err(|error| self.lost(&error))?;
            }
            connection
        };
        let messages: Vec<Vec<u8>> = batch.iter().map(|entry| framed(&self.header.message(entry))).collect();
        let write = async {
            connection.write_all(&messages.concat()).await?;
            connection.flush().await
        };
        write.await.map_err(|error| self.lost(&error))?;
        // A server that refuses the client certificate says so after the handshake (TLS 1.3).
        if !matches!(state(&mut connection).await, State::Open) {
            let reason = "the server closed the connection; check certificate and key".to_owned();
            return Err(SinkFault::Unreachable { address: self.server.address(), reason });
        }
        self.connection = Some(connection);
        for message in messages {
            self.remember(message);
        }
        Ok(())
    }

    async fn probe(&mut self) -> Result<String, SinkFault> {
        self.server.stream().await?;
        Ok(format!("{} accepts a connection", self.server.address()))
    }
}

/// The state of a connection.
enum State {
    Open,
    /// The server ended it in order (`close_notify`).
    Ended,
    Broken,
}

/// Whether the server closed the connection, as far as that is known now. A syslog server sends nothing.
async fn state(connection: &mut TlsStream<TcpStream>) -> State {
    let mut byte = [0];
    tokio::select! {
        biased;
        read = connection.read(&mut byte) => match read {
            Ok(0) => State::Ended,
            Ok(_) => State::Open,
            Err(_) => State::Broken,
        },
        () = std::future::ready(()) => State::Open,
    }
}

/// RFC 5425 §4.3: the length in bytes, a space, the message.
fn framed(message: &[u8]) -> Vec<u8> {
    let mut frame = format!("{} ", message.len()).into_bytes();
    frame.extend_from_slice(message);
    frame
}

impl Header {
    /// RFC 5424 §6. The message is the stored entry, byte for byte, without a byte order mark.
    fn message(&self, entry: &SinkEntry) -> Vec<u8> {
        let Self { facility, hostname, structured_data, source: LogSource { vault, instance }, process } = self;
        // informational, or warning
        let severity = if entry.ok { 6 } else { 4 };
        let (priority, at, sequence) = (u32::from(*facility) * 8 + severity, entry.at, entry.sequence);
        let (vault, instance) = (escaped(vault), escaped(instance));
        let mut message = format!(
            "<{priority}>1 {at} {hostname} canton-keyvault {process} audit [{structured_data} sequence=\"{sequence}\" vault=\"{vault}\" instance=\"{instance}\"] "
        )
        .into_bytes();
        message.extend_from_slice(&entry.bytes);
        message
    }
}

/// RFC 5424 §6.3.3: `"`, `\` and `]` in a value have a backslash in front.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for c in value.chars() {
        if matches!(c, '"' | '\\' | ']') {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;

    #[test]
    fn a_message_has_the_form_of_rfc_5424_and_5425() {
        let header = Header {
            facility: 13,
            hostname: "host".into(),
            structured_data: "keyvault@32473".into(),
            source: LogSource { vault: "a\"]\\".into(), instance: "main".into() },
            process: 7,
        };
        let entry =
            SinkEntry { sequence: 12, at: Timestamp::from_micros(1_700_000_000_123_456), ok: true, trace_id: None, bytes: b"{}".to_vec() };
        let message = String::from_utf8(header.message(&entry)).unwrap();
        assert_eq!(
            message,
            "<110>1 2023-11-14T22:13:20.123456Z host canton-keyvault 7 audit [keyvault@32473 sequence=\"12\" vault=\"a\\\"\\]\\\\\" instance=\"main\"] {}"
        );
        assert_eq!(framed(b"abc"), b"3 abc");
        let denied = SinkEntry { ok: false, ..entry };
        assert!(header.message(&denied).starts_with(b"<108>1 "));
    }
}
