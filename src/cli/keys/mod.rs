//! `keys …`: commands about keys.

mod create;
mod crypto_ops;
pub(super) mod export;
mod import;
mod lifecycle;
mod list;
mod reseal;
mod sign_batch;
mod verify;

use clap::Subcommand;

use super::{Failure, connection::Remote, reference::KeyArg};

/// Commands about keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Create a key
    Create(create::CreateKeyArgs),
    /// Import a key from a file
    Import(import::ImportArgs),
    /// List keys, oldest first
    List(list::ListKeysArgs),
    /// Show a key
    Show(list::ShowArgs),
    /// Sign a message
    Sign(crypto_ops::SignArgs),
    /// Sign many messages, 64 in each call
    SignBatch(sign_batch::SignBatchArgs),
    /// Decrypt a ciphertext
    Decrypt(crypto_ops::DecryptArgs),
    /// Encrypt under a symmetric key
    Encrypt(crypto_ops::EncryptArgs),
    /// Export an exportable key to a new file that only its owner can read
    Export(export::ExportArgs),
    /// Enable a disabled or quarantined key
    Enable(KeyArg),
    /// Disable a key: every use is refused until `enable`
    Disable(KeyArg),
    /// Create the linked successor of a long-term key. The old key stays active until `supersede`
    Rotate(KeyArg),
    /// End the signing of a key that has a successor, permanently
    Supersede(lifecycle::SupersedeArgs),
    /// Limit a signing key to topology transactions, or remove this limit
    RestrictSigning(lifecycle::RestrictArgs),
    /// Schedule the deletion of a key: use is refused at once, and the key is destroyed after the waiting time
    Delete(lifecycle::DeleteArgs),
    /// Withdraw an imported key that was never used, also a permanent one: use is refused at once, and the key is destroyed after the waiting time
    Withdraw(lifecycle::DeleteArgs),
    /// Cancel a scheduled deletion or withdrawal
    CancelDeletion(KeyArg),
    /// Give a key another name, or none. Its usages stay
    Rename(lifecycle::RenameArgs),
    /// Verify that keys open, and that each is the key that its id names
    Verify(verify::VerifyArgs),
    /// Re-seal one key under a new data key, if its data key may be compromised. The key itself stays the same
    Reseal(KeyArg),
    /// Start, show, list and abort jobs that re-seal all keys
    #[command(subcommand)]
    ResealJob(reseal::ResealJobCommand),
}

/// Runs the command.
pub(super) async fn run(command: KeysCommand, remote: Remote) -> Result<(), Failure> {
    match command {
        KeysCommand::Create(args) => create::run(&args, &remote).await,
        KeysCommand::Import(args) => import::run(&args, &remote).await,
        KeysCommand::List(args) => list::run(&args, &remote).await,
        KeysCommand::Show(args) => list::show(&args, &remote).await,
        KeysCommand::Sign(args) => crypto_ops::sign(&args, &remote).await,
        KeysCommand::SignBatch(args) => sign_batch::run(&args, &remote).await,
        KeysCommand::Decrypt(args) => crypto_ops::decrypt(&args, &remote).await,
        KeysCommand::Encrypt(args) => crypto_ops::encrypt(&args, &remote).await,
        KeysCommand::Export(args) => export::run(&args, &remote).await,
        KeysCommand::Enable(args) => lifecycle::transition(&args, "enable", &remote).await,
        KeysCommand::Disable(args) => lifecycle::transition(&args, "disable", &remote).await,
        KeysCommand::Rotate(args) => lifecycle::rotate(&args, &remote).await,
        KeysCommand::Supersede(args) => lifecycle::supersede(&args, &remote).await,
        KeysCommand::RestrictSigning(args) => lifecycle::restrict(&args, &remote).await,
        KeysCommand::Delete(args) => lifecycle::delete(&args, &remote).await,
        KeysCommand::Withdraw(args) => lifecycle::withdraw(&args, &remote).await,
        KeysCommand::CancelDeletion(args) => lifecycle::transition(&args, "cancel-deletion", &remote).await,
        KeysCommand::Rename(args) => lifecycle::rename(&args, &remote).await,
        KeysCommand::Verify(args) => verify::run(&args, &remote).await,
        KeysCommand::Reseal(args) => reseal::reseal(&args, &remote).await,
        KeysCommand::ResealJob(command) => reseal::job(command, &remote).await,
    }
}
