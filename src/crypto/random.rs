//! Randomness as a parameter, so that known answers can be tested.

use aws_lc_rs::rand::SecureRandom;

/// The operating system provided no randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system's random generator failed")]
pub struct RandomFailed;

/// A cryptographically secure source of random bytes.
pub trait Random: Send + Sync {
    /// Fills `bytes`.
    ///
    /// # Errors
    /// [`RandomFailed`] if the source gives nothing; nothing may be used then.
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomFailed>;
}

/// The random generator of aws-lc, seeded by the operating system.
#[derive(Default)]
pub struct SystemRandom(aws_lc_rs::rand::SystemRandom);

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomFailed> {
        self.0.fill(bytes).map_err(|_| RandomFailed)
    }
}
