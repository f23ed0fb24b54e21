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
use crate::cli::{Failure, connection::Remote, input::Place};

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
    match (out, resume) {
        (Place::Standard, false) => {
            let entries = copy(*format, None, filters, remote, &mut BufWriter::new(std::io::stdout())).await?;
            eprintln!("{entries} entries");
            Ok(())
        }
        (Place::File(path), false) => {
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
            let file = file.map_err(|error| Failure::Usage(format!("--out {}: {error}", path.display())))?;
            let mut writer = BufWriter::new(file);
            match copy(*format, None, filters, remote, &mut writer).await {
                Ok(entries) => finish(writer, path, entries),
                // An incomplete table looks like a complete one.
                Err(failure) if *format != ExportFormat::Ndjson => {
                    drop(std::fs::remove_file(path));
                    Err(failure)
                }
                Err(failure) => {
                    // What arrived is kept for --resume.
                    writer.flush()?;
                    Err(failure)
                }
            }
        }
        (Place::File(path), true) if *format == ExportFormat::Ndjson => {
            if filters.after.is_some() {
                return Err(Failure::Usage("--after: the file says where --resume continues".into()));
            }
            let part = resume::read(path)?;
            let mut writer = BufWriter::new(resume::open(path)?);
            match copy(*format, Some(&part), filters, remote, &mut writer).await {
                Ok(entries) => finish(writer, path, entries),
                Err(failure) => {
                    writer.flush()?;
                    Err(failure)
                }
            }
        }
        _ => Err(Failure::Usage("--resume: needs --out FILE of an export in --format ndjson".into())),
    }
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
