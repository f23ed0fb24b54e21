//! `keys …`: create, import, look at, use, govern, re-seal and export keys.

mod create;
mod crypto_ops;
mod export;
mod import;
mod lifecycle;
mod list;
mod reseal;

use clap::Subcommand;

use super::{
    Failure,
    connection::Remote,
    job::{AbortArgs, RESEALS, StatusArgs},
};

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
    Sign(crypto_ops::SignArgs),
    /// Decrypt a ciphertext
    Decrypt(crypto_ops::DecryptArgs),
    /// Encrypt under a symmetric key
    Encrypt(crypto_ops::EncryptArgs),
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
    /// Seal a key, or all, anew under fresh data keys: for when a data key may be known. The keys stay the same
    Reseal(reseal::ResealArgs),
    /// Show how far a re-sealing of all keys is
    ResealStatus(StatusArgs),
    /// Stop a re-sealing of all keys; the ones that are done stay so
    ResealAbort(AbortArgs),
}

/// Does it.
pub(super) async fn run(command: KeysCommand, remote: Remote) -> Result<(), Failure> {
    match command {
        KeysCommand::Create(args) => create::run(&args, &remote).await,
        KeysCommand::Import(args) => import::run(&args, &remote).await,
        KeysCommand::List(args) => list::run(&args, &remote).await,
        KeysCommand::Show(args) => list::show(&args, &remote).await,
        KeysCommand::Sign(args) => crypto_ops::sign(&args, &remote).await,
        KeysCommand::Decrypt(args) => crypto_ops::decrypt(&args, &remote).await,
        KeysCommand::Encrypt(args) => crypto_ops::encrypt(&args, &remote).await,
        KeysCommand::Export(args) => export::run(&args, &remote).await,
        KeysCommand::Enable(args) => lifecycle::step(&args, "enable", &remote).await,
        KeysCommand::Disable(args) => lifecycle::step(&args, "disable", &remote).await,
        KeysCommand::Rotate(args) => lifecycle::rotate(&args, &remote).await,
        KeysCommand::Supersede(args) => lifecycle::step(&args, "supersede", &remote).await,
        KeysCommand::Delete(args) => lifecycle::delete(&args, &remote).await,
        KeysCommand::CancelDeletion(args) => lifecycle::step(&args, "cancel-deletion", &remote).await,
        KeysCommand::Reseal(args) => reseal::run(&args, &remote).await,
        KeysCommand::ResealStatus(args) => RESEALS.status(&args, &remote).await,
        KeysCommand::ResealAbort(args) => RESEALS.abort(&args, &remote).await,
    }
}
