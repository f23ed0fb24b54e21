//! `audit export`: the log as a file, in one call and with one entry in the log. Only NDJSON has what `audit verify` needs.

use std::{
    fs::{File, OpenOptions},
    io::{BufWriter, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use clap::{Args, ValueEnum};

use super::{
    csv,
    export_stream::{ExportStream, Header, Line},
    filters::FilterArgs,
    ocsf,
    resume::{self, Part},
};
use crate::audit::Entry;
use crate::cli::{Failure, connection::Remote, input::Place, output::printable};
use crate::client::ClientError;

/// The form of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ExportFormat {
    /// As the vault sends it: the stored bytes of each entry, with a checkpoint. The only form that can be verified and resumed
    Ndjson,
    /// A table for spreadsheets
    Csv,
    /// OCSF events of the class API Activity (6003), one on each line
    Ocsf,
}

/// The filters, and where to write.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The form
    #[arg(long, value_enum, default_value = "ndjson")]
    format: ExportFormat,
    /// The file to write, which must not exist; - for standard output
    #[arg(long, value_name = "FILE|-", default_value = "-")]
    out: Place,
    /// Continue the NDJSON file of an earlier export after its last complete entry
    #[arg(long, requires = "out")]
    resume: bool,
    #[command(flatten)]
    filters: FilterArgs,
}

/// Runs the command.
pub(super) async fn run(args: &ExportArgs, remote: &Remote) -> Result<(), Failure> {
    let ExportArgs { format, out, resume, filters } = args;
    let filters = &filters.resolved(&remote.client).await?;
    match (out, resume) {
        (Place::Standard, false) => {
            let entries = copy(*format, None, filters, remote, &mut BufWriter::new(std::io::stdout())).await?;
            eprintln!("{entries} entries");
            Ok(())
        }
        (Place::File(path), resume) if *format == ExportFormat::Ndjson => log_file(path, *resume, filters, remote).await,
        (Place::File(path), false) => {
            let mut writer = BufWriter::new(new_file(path)?);
            match copy(*format, None, filters, remote, &mut writer).await {
                Ok(entries) => finish(writer, path, entries),
                // An incomplete table looks like a complete one.
                Err(failure) => {
                    drop(std::fs::remove_file(path));
                    Err(failure)
                }
            }
        }
        _ => Err(Failure::Usage("--resume: needs --out FILE of an export in --format ndjson".into())),
    }
}

/// Exports to a file in NDJSON. An export that breaks off continues at another URL after its last complete entry. After a failure, what arrived
/// is kept for --resume.
async fn log_file(path: &Path, resume: bool, filters: &FilterArgs, remote: &Remote) -> Result<(), Failure> {
    if resume && filters.after.is_some() {
        return Err(Failure::Usage("--after: the file says where --resume continues".into()));
    }
    let (mut part, mut file) = if resume { (Some(resume::read(path)?), resume::open(path)?) } else { (None, new_file(path)?) };
    let before = part.as_ref().map_or(0, |part| part.entries);
    loop {
        let mut writer = BufWriter::new(file);
        let failure = match copy(ExportFormat::Ndjson, part.as_ref(), filters, remote, &mut writer).await {
            Ok(entries) => return finish(writer, path, part.map_or(0, |part| part.entries) + entries - before),
            Err(failure) => failure,
        };
        writer.flush()?;
        let Some(next) = resume::read(path).ok().filter(|next| another_url_may_continue(&failure, remote, part.as_ref(), next)) else {
            return Err(failure);
        };
        eprintln!("warning: {}; the export continues after entry {}", printable(&failure.to_string()), next.last);
        (part, file) = (Some(next), resume::open(path)?);
    }
}

/// Whether there is another URL, the failure is one of the connection, and entries arrived since the last attempt, so that this ends.
fn another_url_may_continue(failure: &Failure, remote: &Remote, before: Option<&Part>, now: &Part) -> bool {
    remote.client.endpoints().are_several()
        && matches!(failure, Failure::Client(ClientError::NoAnswer { .. }))
        && before.is_none_or(|before| now.last > before.last)
}

fn new_file(path: &Path) -> Result<File, Failure> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.map_err(|error| Failure::Usage(format!("--out {}: {error}", path.display())))
}

fn finish(writer: BufWriter<File>, path: &Path, entries: u64) -> Result<(), Failure> {
    let file = writer.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    file.sync_all()?;
    eprintln!("{entries} entries in {}", path.display());
    Ok(())
}

/// Copies the stream to `out` in this form. Returns the number of entries.
async fn copy<W: Write + resume::Truncate>(
    format: ExportFormat,
    resumed: Option<&Part>,
    filters: &FilterArgs,
    remote: &Remote,
    out: &mut W,
) -> Result<u64, Failure> {
    let after = resumed.map_or(filters.after, |part| Some(part.last));
    let mut export = ExportStream::begin(remote, filters, after).await?;
    let mut entries = 0;
    if format == ExportFormat::Csv {
        out.write_all(csv::HEAD.as_bytes())?;
    }
    while let Some((line, bytes)) = export.next().await? {
        if let (Line::Header(header), Some(part)) = (&line, resumed) {
            continues(header, part)?;
            // Only now, when the new part fits the file.
            out.truncate_to(part.complete)?;
        }
        entries += u64::from(matches!(line, Line::Entry(_)));
        match (format, line) {
            (ExportFormat::Ndjson, _) => {
                out.write_all(bytes)?;
                out.write_all(b"\n")?;
            }
            (ExportFormat::Csv, Line::Entry(_)) => out.write_all(csv::row(&decoded(bytes)?, bytes).as_bytes())?,
            (ExportFormat::Ocsf, Line::Entry(_)) => out.write_all(ocsf::event(&decoded(bytes)?, bytes)?.as_bytes())?,
            _ => {}
        }
    }
    out.flush()?;
    Ok(entries)
}

fn decoded(bytes: &[u8]) -> Result<Entry, Failure> {
    Entry::decode(bytes).map_err(|error| Failure::Unexpected(format!("the vault sent an entry that cannot be read: {error}")))
}

/// Whether the new part is of the same log and leaves out the same entries.
fn continues(header: &Header, part: &Part) -> Result<(), Failure> {
    let wrong = |what: &str| Err(Failure::Usage(format!("--resume: {what}. Export to another file")));
    if header.origin != part.header.origin {
        return wrong(&format!("the file is of the log {}, and the vault has {}", part.header.origin, header.origin));
    }
    if header.filter != part.header.filter {
        return wrong(
            "the file was made with other filters, or by a principal that sees other nodes (--since changes with time: use --from)",
        );
    }
    Ok(())
}
