//! Reads files of AWS CloudTrail: `{"Records":[…]}` as CloudTrail delivers them, the answer of `lookup-events`, a list, or one record after the other, as
//! log services give them. Records of other services and fields that are not known are skipped.

use std::{fmt, io::Read};

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, value::RawValue};

use crate::domain::Timestamp;

use super::{
    call::{ActionKind, KmsCall},
    calls::{CallSet, TooManyCalls},
    wrapper_keys::WrapperKeySet,
};

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CloudTrailError {
    /// It is not JSON, or another document.
    #[error("not a file of CloudTrail: {0}")]
    Malformed(serde_json::Error),
    /// There are too many calls.
    #[error(transparent)]
    TooMany(#[from] TooManyCalls),
}

/// The service in the field `eventSource`.
const SERVICE: &str = "kms.amazonaws.com";

/// Actions that change a key, its policy, its aliases or who may use it.
const CHANGES: &[&str] = &[
    "CancelKeyDeletion",
    "CreateAlias",
    "CreateGrant",
    "CreateKey",
    "DeleteAlias",
    "DeleteExpiredKeyMaterial",
    "DeleteImportedKeyMaterial",
    "DeleteKey",
    "DisableKey",
    "DisableKeyRotation",
    "EnableKey",
    "EnableKeyRotation",
    "ImportKeyMaterial",
    "PutKeyPolicy",
    "ReplicateKey",
    "RetireGrant",
    "RevokeGrant",
    "RotateKey",
    "RotateKeyOnDemand",
    "ScheduleKeyDeletion",
    "SynchronizeMultiRegionKey",
    "TagResource",
    "UntagResource",
    "UpdateAlias",
    "UpdateKeyDescription",
    "UpdatePrimaryRegion",
];

/// Actions that only read attributes of a key.
const READS: &[&str] = &[
    "DescribeKey",
    "GetKeyPolicy",
    "GetKeyRotationStatus",
    "GetParametersForImport",
    "ListAliases",
    "ListGrants",
    "ListKeyPolicies",
    "ListKeyRotations",
    "ListKeys",
    "ListResourceTags",
    "ListRetirableGrants",
];

/// Adds the calls of KMS in a file, already decompressed, to `calls`.
///
/// # Errors
/// [`CloudTrailError`]. The calls before the fault are added then.
pub fn read_cloudtrail(file: impl Read, keys: &WrapperKeySet, calls: &mut CallSet) -> Result<(), CloudTrailError> {
    let mut reader = Reader { keys, calls, failed: None };
    let mut deserializer = serde_json::Deserializer::from_reader(file);
    loop {
        // At the end of a file there is nothing but white space.
        if let Err(error) = deserializer.end() {
            if !error.is_data() && !error.is_syntax() {
                return Err(CloudTrailError::Malformed(error));
            }
        } else {
            return Ok(());
        }
        let read = Document(&mut reader).deserialize(&mut deserializer);
        if let Some(error) = reader.failed {
            return Err(error.into());
        }
        read.map_err(CloudTrailError::Malformed)?;
    }
}

/// Takes records.
struct Reader<'a> {
    keys: &'a WrapperKeySet,
    calls: &'a mut CallSet,
    /// The limit was reached.
    failed: Option<TooManyCalls>,
}

impl Reader<'_> {
    /// A record as it stands in the file. Most are of other services.
    fn raw<E: serde::de::Error>(&mut self, record: &str) -> Result<(), E> {
        if !record.contains(SERVICE) {
            return Ok(());
        }
        match serde_json::from_str(record).map_err(E::custom)? {
            Value::Object(record) => self.record(&record),
            _ => Ok(()),
        }
    }

    fn record<E: serde::de::Error>(&mut self, record: &Map<String, Value>) -> Result<(), E> {
        self.add(record).map_err(|error| {
            self.failed = Some(error);
            E::custom(error)
        })
    }

    fn add(&mut self, record: &Map<String, Value>) -> Result<(), TooManyCalls> {
        let text = |name: &str| record.get(name).and_then(Value::as_str).unwrap_or_default();
        let at = Timestamp::parse(text("eventTime"));
        let (Some(at), true) = (at, text("eventSource").starts_with(SERVICE)) else { return Ok(()) };
        if !self.calls.is_new_event(text("eventID"))? {
            return Ok(());
        }
        self.calls.saw(at);
        let request = Some(text("requestID")).filter(|id| !id.is_empty());
        let keys = named_keys(record);
        if !keys.iter().any(|key| self.keys.is_aws(key)) {
            return self.calls.add_other(request);
        }
        let interner = &mut self.calls.interner;
        let identity = record.get("userIdentity");
        let of_identity = |name: &str| identity.and_then(|identity| identity.get(name)).and_then(Value::as_str);
        let principal = ["arn", "invokedBy", "principalId", "accountId", "type"].into_iter().find_map(of_identity);
        let action = text("eventName");
        let call = KmsCall {
            at,
            action: interner.text(action),
            place: interner.text(text("awsRegion")),
            kind: kind_of(action),
            keys: keys.iter().map(|key| interner.text(key)).collect(),
            principal: interner.text(principal.unwrap_or("unknown")),
            source: interner.text(text("sourceIPAddress")),
            error: Some(text("errorCode")).filter(|code| !code.is_empty()).map(|code| interner.text(code)),
            context: context(record)
                .map(|pairs| interner.context(pairs.iter().filter_map(|(name, value)| Some((&**name, value.as_str()?))))),
        };
        self.calls.add(request, call)
    }
}

fn kind_of(action: &str) -> ActionKind {
    if CHANGES.contains(&action) {
        ActionKind::Change
    } else if READS.contains(&action) {
        ActionKind::Read
    } else {
        ActionKind::Use
    }
}

/// The keys that a record names: the resources, which have ARNs; a refused call may only have what its caller wrote.
fn named_keys(record: &Map<String, Value>) -> Vec<&str> {
    let mut keys: Vec<&str> = Vec::new();
    let resources = record.get("resources").and_then(Value::as_array).into_iter().flatten();
    let arns = resources.filter_map(|resource| resource.get("ARN").or_else(|| resource.get("arn"))?.as_str());
    let parameters = record.get("requestParameters").and_then(Value::as_object);
    let written = ["keyId", "sourceKeyId", "destinationKeyId", "targetKeyId"];
    let written = written.into_iter().filter_map(|name| parameters?.get(name)?.as_str());
    for key in arns.chain(written).take(8) {
        // A key id is contained in its ARN.
        if !keys.iter().any(|known| known.ends_with(key)) {
            keys.push(key);
        }
    }
    keys
}

/// The encryption context; of `ReEncrypt`, that of the result.
fn context(record: &Map<String, Value>) -> Option<&Map<String, Value>> {
    let parameters = record.get("requestParameters")?;
    let names = ["encryptionContext", "destinationEncryptionContext", "sourceEncryptionContext"];
    names.into_iter().find_map(|name| parameters.get(name)?.as_object())
}

/// A whole document.
struct Document<'a, 'b>(&'a mut Reader<'b>);

/// A list of records.
struct Records<'a, 'b>(&'a mut Reader<'b>);

/// The list of `lookup-events`, which has each record as a text.
struct Events<'a, 'b>(&'a mut Reader<'b>);

impl<'de> DeserializeSeed<'de> for Document<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Document<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("records of CloudTrail")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        // A record that stands alone.
        let mut record = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "Records" => map.next_value_seed(Records(self.0))?,
                "Events" => map.next_value_seed(Events(self.0))?,
                _ if record.len() < MAX_FIELDS => {
                    record.insert(name, map.next_value()?);
                }
                _ => map.next_value::<IgnoredAny>().map(drop)?,
            }
        }
        self.0.record(&record)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        Records(self.0).visit_seq(seq)
    }
}

impl<'de> DeserializeSeed<'de> for Records<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Records<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of records of CloudTrail")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(record) = seq.next_element::<Box<RawValue>>()? {
            self.0.raw(record.get())?;
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Events<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Events<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the events of lookup-events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(event) = seq.next_element::<Value>()? {
            if let Some(record) = event.get("CloudTrailEvent").and_then(Value::as_str) {
                self.0.raw(record)?;
            }
        }
        Ok(())
    }
}

/// Fields of a record that stands alone. CloudTrail has about thirty.
const MAX_FIELDS: usize = 100;

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub(in crate::audit::reconcile) const ARN: &str = "arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

    /// From the documentation of AWS: `ct-reencrypt`, `ct-decrypt`, `ct-describekey` and `ct-disablekey`, shortened.
    const REENCRYPT: &str = r#"{"eventVersion":"1.11","userIdentity":{"type":"IAMUser","principalId":"EX_PRINCIPAL_ID","arn":"arn:aws:iam::111122223333:user/Alice","accountId":"111122223333","accessKeyId":"EXAMPLE_KEY_ID","userName":"Alice"},"eventTime":"2025-05-22T19:34:55Z","eventSource":"kms.amazonaws.com","eventName":"ReEncrypt","awsRegion":"us-west-2","sourceIPAddress":"192.0.2.0","userAgent":"AWS Internal","requestParameters":{"sourceEncryptionAlgorithm":"SYMMETRIC_DEFAULT","sourceEncryptionContext":{"Project":"Alpha","Department":"Engineering"},"destinationKeyId":"0987dcba-09fe-87dc-65ba-ab0987654321","destinationEncryptionAlgorithm":"SYMMETRIC_DEFAULT","destinationEncryptionContext":{"Level":"3A"}},"responseElements":null,"requestID":"03769fd4-acf9-4b33-adf3-2ab8ca73aadf","eventID":"542d9e04-0e8d-4e05-bf4b-4bdeb032e6ec","readOnly":true,"resources":[{"accountId":"111122223333","type":"AWS::KMS::Key","ARN":"arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"},{"accountId":"111122223333","type":"AWS::KMS::Key","ARN":"arn:aws:kms:us-west-2:111122223333:key/0987dcba-09fe-87dc-65ba-ab0987654321"}],"eventType":"AwsApiCall","managementEvent":true,"recipientAccountId":"111122223333"}"#;
    const DENIED: &str = r#"{"eventVersion":"1.11","userIdentity":{"type":"AssumedRole","arn":"arn:aws:sts::111122223333:assumed-role/Other/s"},"eventTime":"2025-05-22T20:00:00Z","eventSource":"kms.amazonaws.com","eventName":"Decrypt","awsRegion":"us-west-2","sourceIPAddress":"192.0.2.0","errorCode":"AccessDenied","errorMessage":"User: … is not authorized","requestParameters":{"encryptionContext":{"vault":"dev","key_id":"1220ab"},"keyId":"1234abcd-12ab-34cd-56ef-1234567890ab"},"responseElements":null,"requestID":"d5239dea-63bc-11e1-bc2a-4198b6150d5c","eventID":"954983cf-7da9-4225-9ab3-000000000001","recipientAccountId":"111122223333"}"#;
    const DISABLE: &str = r#"{"userIdentity":{"type":"Root","arn":"arn:aws:iam::111122223333:root"},"eventTime":"2025-05-22T20:01:00Z","eventSource":"kms.amazonaws.com","eventName":"DisableKey","awsRegion":"us-west-2","requestParameters":{"keyId":"1234abcd-12ab-34cd-56ef-1234567890ab"},"responseElements":{"keyId":"arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"},"requestID":"12345126-30d5-4b28-98b9-9153da559963","eventID":"abcde202-ba1a-467c-b4ba-f729d45ae521","resources":[{"ARN":"arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"}]}"#;
    const OTHER_SERVICE: &str =
        r#"{"eventTime":"2025-05-22T20:02:00Z","eventSource":"s3.amazonaws.com","eventName":"GetObject","requestParameters":{"keyId":7}}"#;
    const OTHER_KEY: &str = r#"{"eventTime":"2025-05-22T20:02:00Z","eventSource":"kms.amazonaws.com","eventName":"Decrypt","requestID":"other","eventID":"o","resources":[{"ARN":"arn:aws:kms:us-west-2:111122223333:key/ffff"}]}"#;

    fn read(file: &str) -> Result<CallSet, CloudTrailError> {
        let (mut keys, mut calls) = (WrapperKeySet::default(), CallSet::new(10));
        keys.add(ARN).unwrap();
        read_cloudtrail(file.as_bytes(), &keys, &mut calls).map(|()| calls)
    }

    #[test]
    fn every_form_of_a_file_has_the_same_calls() {
        let all = [REENCRYPT, DENIED, DISABLE, OTHER_SERVICE, OTHER_KEY];
        let lookup = json!({ "Events": all.map(|record| json!({ "EventId": "e", "CloudTrailEvent": record })), "NextToken": null });
        for file in [
            format!("{{\"Records\":[{}]}}", all.join(",")),
            format!(" {{\"Records\":[{}]}}\n{{\"Records\":[{}]}}\n", all[..2].join(","), all[2..].join(",")),
            format!("[{}]", all.join(",")),
            all.join("\n"),
            lookup.to_string(),
        ] {
            let calls = read(&file).unwrap();
            let seen: Vec<_> = calls.slots.iter().map(|slot| (&*slot.call.action, slot.call.kind)).collect();
            assert_eq!(seen, [("ReEncrypt", ActionKind::Use), ("Decrypt", ActionKind::Use), ("DisableKey", ActionKind::Change)], "{file}");
            assert_eq!((calls.other_keys, calls.duplicates), (1, 0), "{file}");
            assert!(calls.has_other("other"));
        }
        assert!(read("").unwrap().is_empty() && read(" \n").unwrap().is_empty() && read("{}").unwrap().is_empty());
    }

    #[test]
    fn a_call_has_what_a_reviewer_needs() {
        let calls = read(&format!("{REENCRYPT}{DENIED}")).unwrap();
        let reencrypt = &calls.slots[calls.places("03769fd4-acf9-4b33-adf3-2ab8ca73aadf")[0]].call;
        assert_eq!(
            (&*reencrypt.principal, &*reencrypt.source, &*reencrypt.place),
            ("arn:aws:iam::111122223333:user/Alice", "192.0.2.0", "us-west-2")
        );
        assert_eq!(
            reencrypt.keys.iter().map(|key| &**key).collect::<Vec<_>>(),
            [ARN, "arn:aws:kms:us-west-2:111122223333:key/0987dcba-09fe-87dc-65ba-ab0987654321"]
        );
        assert_eq!(reencrypt.context_value("Level"), Some("3A"));
        let denied = &calls.slots[calls.places("d5239dea-63bc-11e1-bc2a-4198b6150d5c")[0]].call;
        assert_eq!((denied.error.as_deref(), denied.identity()), (Some("AccessDenied"), "arn:aws:sts::111122223333:assumed-role/Other"));
        assert_eq!(
            calls.times,
            Some((Timestamp::parse("2025-05-22T19:34:55Z").unwrap(), Timestamp::parse("2025-05-22T20:00:00Z").unwrap()))
        );
    }

    #[test]
    fn a_record_that_was_delivered_twice_is_one_call() {
        let calls = read(&format!("{DENIED}\n{DENIED}")).unwrap();
        assert_eq!((calls.len(), calls.duplicates), (1, 1));
        // The trail of another account has the same call with another event id.
        let shared = DENIED.replace("954983cf", "00000000");
        let calls = read(&format!("{DENIED}\n{shared}")).unwrap();
        assert_eq!((calls.len(), calls.duplicates), (1, 1));
    }

    #[test]
    fn what_is_no_file_of_cloudtrail_is_refused() {
        for file in ["7", "\"text\"", "{\"Records\":7}", "{\"Records\":[", "{", "[1,2]x", "\u{1f}\u{8b}", "{}7"] {
            assert!(matches!(read(file), Err(CloudTrailError::Malformed(_))), "{file}");
        }
        let many: String = (0..20).map(|number| OTHER_KEY.replace("\"o\"", &format!("\"{number}\""))).collect();
        assert!(matches!(read(&many), Err(CloudTrailError::TooMany(_))), "the limit");
    }
}
