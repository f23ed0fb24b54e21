//! Bytes that are wiped on drop: no `Debug`, no `Clone`, no `Serialize`, and one method that exposes them.

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Secret bytes on the heap, zeroed on drop.
///
/// ```compile_fail
/// let secret = canton_keyvault::crypto::SecretBytes::from(vec![1]);
/// println!("{secret:?}");
/// ```
/// ```compile_fail
/// let secret = canton_keyvault::crypto::SecretBytes::from(vec![1]);
/// let copy = secret.clone();
/// ```
/// ```compile_fail
/// let secret = canton_keyvault::crypto::SecretBytes::from(vec![1]);
/// let stored = canton_keyvault::domain::SealedKey::from_stored(secret);
/// ```
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// `length` zero bytes, to be filled in place. Passing an array by value would leave copies on the stack.
    pub fn zeroed(length: usize) -> Self {
        Self(Zeroizing::new(vec![0; length]))
    }

    /// A copy of a secret whose owner wipes the original.
    pub fn copy_of(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(bytes.to_vec()))
    }

    /// The concatenation of the parts, in one allocation.
    pub fn concat(parts: &[&[u8]]) -> Self {
        Self(Zeroizing::new(parts.concat()))
    }

    /// Truncates to `length` bytes. The allocation stays, so that the truncated bytes are wiped on drop too.
    pub fn truncate(&mut self, length: usize) {
        self.0.truncate(length);
    }

    /// The bytes, for a primitive, a provider or an encoder. Never pass them to a log, an error or a store.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Whether both contain the same bytes, in constant time for equal lengths.
    pub fn same(&self, other: &Self) -> bool {
        self.expose().ct_eq(other.expose()).into()
    }

    /// The bytes, to be filled in place.
    pub fn expose_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// Takes ownership of a vector without a copy. The spare capacity is wiped too.
impl From<Vec<u8>> for SecretBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl From<Zeroizing<Vec<u8>>> for SecretBytes {
    fn from(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }
}
