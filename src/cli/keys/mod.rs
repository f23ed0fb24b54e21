//! `keys …`: create, import, look at, use, govern and export keys.

mod create;
mod export;
mod import;
mod lifecycle;
mod list;
mod using;

use clap::Subcommand;

use super::{Failure, connection::Remote};

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make a key in the vault
    Create(create::CreateArgs),
    /// Bring a key in from outside
    Import(import::ImportArgs),
    /// List keys, oldest first
    List(list::ListKeysArgs),
    /// Show a key
    Show(list::ShowArgs),
    /// Sign a message
    Sign(using::SignArgs),
    /// Decrypt a ciphertext
    Decrypt(using::DecryptArgs),
    /// Encrypt under a symmetric key
    Encrypt(using::EncryptArgs),
    /// Take an exportable key out of the vault, into a new private file
    Export(export::ExportArgs),
    /// Lift `disabled` and `quarantined`
    Enable(lifecycle::KeyArgs),
    /// Refuse every use until `enable`
    Disable(lifecycle::KeyArgs),
    /// Make the linked successor of a long-term key; the old key goes on signing until `supersede`
    Rotate(lifecycle::KeyArgs),
    /// End the signing of a key that has a successor; this is final
    Supersede(lifecycle::KeyArgs),
    /// Refuse use at once, and destroy the key after the waiting time
    Delete(lifecycle::DeleteArgs),
    /// Undo `delete` while the waiting time runs
    CancelDeletion(lifecycle::KeyArgs),
}

/// Does it.
pub(super) async fn run(command: KeysCommand, remote: Remote) -> Result<(), Failure> {
    match command {
        KeysCommand::Create(args) => create::run(&args, &remote).await,
        KeysCommand::Import(args) => import::run(&args, &remote).await,
        KeysCommand::List(args) => list::run(&args, &remote).await,
        KeysCommand::Show(args) => list::show(&args, &remote).await,
        KeysCommand::Sign(args) => using::sign(&args, &remote).await,
        KeysCommand::Decrypt(args) => using::decrypt(&args, &remote).await,
        KeysCommand::Encrypt(args) => using::encrypt(&args, &remote).await,
        KeysCommand::Export(args) => export::run(&args, &remote).await,
        KeysCommand::Enable(args) => lifecycle::step(&args, "enable", &remote).await,
        KeysCommand::Disable(args) => lifecycle::step(&args, "disable", &remote).await,
        KeysCommand::Rotate(args) => lifecycle::rotate(&args, &remote).await,
        KeysCommand::Supersede(args) => lifecycle::step(&args, "supersede", &remote).await,
        KeysCommand::Delete(args) => lifecycle::delete(&args, &remote).await,
        KeysCommand::CancelDeletion(args) => lifecycle::step(&args, "cancel-deletion", &remote).await,
    }
}
