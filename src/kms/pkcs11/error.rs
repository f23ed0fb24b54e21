//! Classifies the return values of PKCS#11: a denial is final, an outage may pass, a lost session is opened again.

use cryptoki::error::{Error, RvError};

use crate::kms::{CredentialFault, Denial, Outage, WrapperError};

/// What a failure means, before it is known which key it concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pkcs11Error {
    Denied(Denial),
    /// The key lacks an attribute that permits this.
    NotPermitted(&'static str),
    Invalid,
    /// The session, the login or the handle of an object is lost. A new session may work.
    Lost,
    /// The token does not say whether the ciphertext or the token is the reason.
    Ambiguous,
    Outage(Outage),
    Misconfigured(String),
}

impl Pkcs11Error {
    /// The error about a key. PKCS#11 has no request ids.
    pub(super) fn about(self, reference: &str) -> WrapperError {
        let (reference, request_id) = (reference.to_owned(), None);
        match self {
            Self::Denied(denial) => WrapperError::Denied { reference, denial, permission: None, request_id },
            Self::NotPermitted(permission) => {
                WrapperError::Denied { reference, denial: Denial::AccessDenied, permission: Some(permission), request_id }
            }
            Self::Invalid => WrapperError::Invalid { reference, request_id },
            Self::Lost | Self::Ambiguous => WrapperError::Unavailable { reference, outage: Outage::ServerError, request_id },
            Self::Outage(outage) => WrapperError::Unavailable { reference, outage, request_id },
            Self::Misconfigured(what) => WrapperError::Misconfigured { reference, what },
        }
    }
}

impl From<Error> for Pkcs11Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Pkcs11(value, _) => by_value(value),
            // The library lacks a function, or its answer makes no sense.
            other => Self::Misconfigured(format!("the PKCS#11 library cannot be used: {other}")),
        }
    }
}

/// The return values of the functions that are called here (PKCS#11 2.40, section 5.1).
fn by_value(value: RvError) -> Pkcs11Error {
    match value {
        RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange | RvError::PinExpired => {
            Pkcs11Error::Denied(Denial::Credentials(CredentialFault::PinRefused))
        }
        RvError::PinLocked => Pkcs11Error::Denied(Denial::Credentials(CredentialFault::PinLocked)),
        RvError::UserPinNotInitialized | RvError::UserTypeInvalid => {
            Pkcs11Error::Misconfigured("the token has no PIN for its user: set one (pkcs11-tool --init-pin)".to_owned())
        }
        RvError::SessionHandleInvalid
        | RvError::SessionClosed
        | RvError::UserNotLoggedIn
        | RvError::CryptokiNotInitialized
        | RvError::KeyHandleInvalid
        | RvError::ObjectHandleInvalid
        | RvError::OperationActive
        | RvError::OperationNotInitialized => Pkcs11Error::Lost,
        RvError::TokenNotPresent | RvError::TokenNotRecognized | RvError::DeviceRemoved | RvError::SlotIdInvalid => {
            Pkcs11Error::Outage(Outage::TokenAbsent)
        }
        RvError::SessionCount => Pkcs11Error::Outage(Outage::Throttled),
        RvError::EncryptedDataInvalid => Pkcs11Error::Invalid,
        RvError::KeyTypeInconsistent | RvError::KeySizeRange => Pkcs11Error::Denied(Denial::WrongKind),
        RvError::MechanismInvalid | RvError::MechanismParamInvalid | RvError::FunctionNotSupported => {
            Pkcs11Error::Misconfigured("the token does not encrypt with CKM_AES_GCM, an IV of the caller and a tag of 128 bits".to_owned())
        }
        RvError::KeyFunctionNotPermitted | RvError::ActionProhibited => Pkcs11Error::Denied(Denial::AccessDenied),
        RvError::TokenWriteProtected | RvError::SessionReadOnly => Pkcs11Error::Misconfigured("the token is write-protected".to_owned()),
        // CKR_GENERAL_ERROR, CKR_FUNCTION_FAILED, CKR_DEVICE_ERROR, CKR_DEVICE_MEMORY, CKR_HOST_MEMORY, the values of a vendor.
        _ => Pkcs11Error::Outage(Outage::ServerError),
    }
}

/// What a failed decryption means. Tokens give several values for a ciphertext that does not open; some give those of a failure.
pub(super) fn of_decryption(error: Error) -> Pkcs11Error {
    match error {
        Error::Pkcs11(RvError::EncryptedDataLenRange | RvError::DataInvalid | RvError::DataLenRange | RvError::ArgumentsBad, _) => {
            Pkcs11Error::Ambiguous
        }
        other => match Pkcs11Error::from(other) {
            Pkcs11Error::Outage(Outage::ServerError) => Pkcs11Error::Ambiguous,
            Pkcs11Error::Denied(Denial::AccessDenied) => Pkcs11Error::NotPermitted("CKA_DECRYPT"),
            found => found,
        },
    }
}

/// What a failed encryption means.
pub(super) fn of_encryption(error: Error) -> Pkcs11Error {
    match Pkcs11Error::from(error) {
        Pkcs11Error::Denied(Denial::AccessDenied) => Pkcs11Error::NotPermitted("CKA_ENCRYPT"),
        found => found,
    }
}

#[cfg(test)]
mod tests {
    use cryptoki::context::Function;

    use super::*;

    #[test]
    fn every_value_is_final_or_may_pass() {
        let of = |value| Pkcs11Error::from(Error::Pkcs11(value, Function::Encrypt));
        for (value, expected) in [
            (RvError::PinIncorrect, Pkcs11Error::Denied(Denial::Credentials(CredentialFault::PinRefused))),
            (RvError::PinLocked, Pkcs11Error::Denied(Denial::Credentials(CredentialFault::PinLocked))),
            (RvError::SessionHandleInvalid, Pkcs11Error::Lost),
            (RvError::UserNotLoggedIn, Pkcs11Error::Lost),
            (RvError::TokenNotPresent, Pkcs11Error::Outage(Outage::TokenAbsent)),
            (RvError::DeviceRemoved, Pkcs11Error::Outage(Outage::TokenAbsent)),
            (RvError::SessionCount, Pkcs11Error::Outage(Outage::Throttled)),
            (RvError::GeneralError, Pkcs11Error::Outage(Outage::ServerError)),
            (RvError::DeviceError, Pkcs11Error::Outage(Outage::ServerError)),
            (RvError::KeyTypeInconsistent, Pkcs11Error::Denied(Denial::WrongKind)),
            (RvError::EncryptedDataInvalid, Pkcs11Error::Invalid),
        ] {
            assert_eq!(of(value), expected, "{value:?}");
        }
        assert!(matches!(of(RvError::MechanismInvalid), Pkcs11Error::Misconfigured(what) if what.contains("CKM_AES_GCM")));
    }

    #[test]
    fn a_decryption_that_fails_without_a_reason_is_ambiguous() {
        let of = |value| of_decryption(Error::Pkcs11(value, Function::Decrypt));
        assert_eq!(of(RvError::GeneralError), Pkcs11Error::Ambiguous);
        assert_eq!(of(RvError::EncryptedDataLenRange), Pkcs11Error::Ambiguous);
        assert_eq!(of(RvError::EncryptedDataInvalid), Pkcs11Error::Invalid);
        assert_eq!(of(RvError::KeyFunctionNotPermitted), Pkcs11Error::NotPermitted("CKA_DECRYPT"));
        assert_eq!(of(RvError::DeviceRemoved), Pkcs11Error::Outage(Outage::TokenAbsent));
    }
}
