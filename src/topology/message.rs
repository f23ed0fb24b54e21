//! Decodes bytes by the tables in `schema` into a tree of named values. Nothing in the bytes is skipped, and nothing is read twice.

use serde_json::{Map, Value as Json};

use super::{
    TopologyError, TopologyFault,
    schema::{DURATION, Field, Kind, MessageType, Occurs},
    wire::{WireReader, WireValue},
};
use crate::domain::Hex;

/// A decoded message: its fields in the order of the bytes.
pub(super) struct Message {
    of: &'static MessageType,
    fields: Vec<(&'static Field, Value)>,
}

/// The value of a field.
enum Value {
    Text(String),
    Bytes(Vec<u8>),
    Flag(bool),
    Number(i128),
    Enumeration(i64, &'static str),
    Message(Message),
}

impl Message {
    /// Decodes a message of this type.
    pub(super) fn decode(of: &'static MessageType, bytes: &[u8]) -> Result<Self, TopologyError> {
        let unnamed = |fault| TopologyError::new("", fault);
        let mut fields: Vec<(&'static Field, Value)> = Vec::new();
        let mut wire = WireReader::new(bytes);
        while let Some(found) = wire.next().map_err(unnamed)? {
            let field = of.fields.iter().find(|field| field.number == found.number);
            let field = field.ok_or_else(|| unnamed(TopologyFault::UnknownField(found.number)))?;
            let named = |fault| TopologyError::new(field.name, fault);
            match field.occurs {
                Occurs::Once if fields.iter().any(|(earlier, _)| earlier.number == field.number) => {
                    return Err(named(TopologyFault::Repeated));
                }
                Occurs::OneOf(group) if fields.iter().any(|(earlier, _)| earlier.occurs == field.occurs) => {
                    return Err(named(TopologyFault::SecondOneOf(group)));
                }
                _ => {}
            }
            match (found.value, field.kind) {
                // Numbers that occur often can stand packed in one field.
                (WireValue::Bytes(packed), kind @ Kind::Enumeration(_)) if field.occurs == Occurs::Often => {
                    let mut numbers = WireReader::new(packed);
                    while !numbers.is_empty() {
                        let number = numbers.number().map_err(named)?;
                        fields.push((field, value(kind, WireValue::Number(number)).map_err(|error| error.within(field.name))?));
                    }
                }
                (found, kind) => fields.push((field, value(kind, found).map_err(|error| error.within(field.name))?)),
            }
        }
        Ok(Self { of, fields })
    }

    /// A text. Empty if absent.
    pub(super) fn text(&self, name: &'static str) -> &str {
        self.values(name).find_map(|value| if let Value::Text(text) = value { Some(text.as_str()) } else { None }).unwrap_or_default()
    }

    /// Texts in their order.
    pub(super) fn texts(&self, name: &'static str) -> impl Iterator<Item = &str> {
        self.values(name).filter_map(|value| if let Value::Text(text) = value { Some(text.as_str()) } else { None })
    }

    /// Bytes, if the field is present.
    pub(super) fn bytes(&self, name: &'static str) -> Option<&[u8]> {
        self.values(name).find_map(|value| if let Value::Bytes(bytes) = value { Some(bytes.as_slice()) } else { None })
    }

    /// A flag. `false` if absent.
    pub(super) fn flag(&self, name: &'static str) -> bool {
        self.values(name).any(|value| matches!(value, Value::Flag(true)))
    }

    /// A number, if the field is present. Every number of a 32-bit or signed 64-bit field fits.
    pub(super) fn number(&self, name: &'static str) -> Option<i64> {
        self.values(name).find_map(|value| if let Value::Number(number) = value { i64::try_from(*number).ok() } else { None })
    }

    /// The number of an enumeration. 0 if absent.
    pub(super) fn enumeration(&self, name: &'static str) -> i64 {
        self.enumerations(name).next().unwrap_or(0)
    }

    /// The numbers of an enumeration in their order.
    pub(super) fn enumerations(&self, name: &'static str) -> impl Iterator<Item = i64> {
        self.values(name).filter_map(|value| if let Value::Enumeration(number, _) = value { Some(*number) } else { None })
    }

    /// A message, if the field is present.
    pub(super) fn message(&self, name: &'static str) -> Option<&Self> {
        self.values(name).find_map(|value| if let Value::Message(message) = value { Some(message) } else { None })
    }

    /// Messages in their order.
    pub(super) fn messages(&self, name: &'static str) -> impl Iterator<Item = &Self> {
        self.values(name).filter_map(|value| if let Value::Message(message) = value { Some(message) } else { None })
    }

    /// The one message of a oneof, with its name.
    pub(super) fn only(&self) -> Option<(&'static str, &Self)> {
        self.fields.iter().find_map(|(field, value)| if let Value::Message(message) = value { Some((field.name, message)) } else { None })
    }

    /// Every field by name, bytes in hex, enumerations by name. Default values are omitted.
    pub(super) fn to_json(&self) -> Json {
        let mut all = Map::new();
        for (field, value) in &self.fields {
            let json = match value {
                Value::Text(text) => Json::from(text.as_str()),
                Value::Bytes(bytes) => Json::from(Hex(bytes).to_string()),
                Value::Flag(flag) => Json::from(*flag),
                Value::Number(number) => {
                    i64::try_from(*number).map(Json::from).or_else(|_| u64::try_from(*number).map(Json::from)).unwrap_or_default()
                }
                Value::Enumeration(_, name) => Json::from(*name),
                Value::Message(message) => message.to_json(),
            };
            let is_default = match value {
                Value::Text(text) => text.is_empty(),
                Value::Flag(flag) => !flag,
                Value::Number(number) => *number == 0,
                Value::Enumeration(number, _) => *number == 0,
                Value::Bytes(_) | Value::Message(_) => false,
            };
            if field.occurs == Occurs::Often {
                if let Json::Array(items) = all.entry(field.name).or_insert_with(|| Json::Array(Vec::new())) {
                    items.push(json);
                }
            } else if !is_default {
                all.insert(field.name.to_owned(), json);
            }
        }
        Json::Object(all)
    }

    /// As [`Self::to_json`], but complete, for a reader: an absent number, flag or text has its default value, an absent message is "none",
    /// and a `google.protobuf.Duration` is a text in seconds.
    pub(super) fn to_complete_json(&self) -> Json {
        let mut all = self.to_json();
        let Json::Object(all_fields) = &mut all else { return all };
        for field in self.of.fields.iter().filter(|field| field.occurs != Occurs::Often) {
            let json = match (field.kind, self.message(field.name)) {
                (Kind::Message(of), Some(duration)) if std::ptr::eq(of, &raw const DURATION) => Json::from(duration.seconds()),
                (Kind::Message(_), Some(message)) => message.to_complete_json(),
                (Kind::Message(_), None) => Json::from("none"),
                (Kind::Flag, _) => Json::from(self.flag(field.name)),
                (Kind::Text, _) => Json::from(self.text(field.name)),
                (Kind::Bytes, _) => Json::from(Hex(self.bytes(field.name).unwrap_or_default()).to_string()),
                (Kind::Enumeration(known), _) => {
                    let number = self.enumeration(field.name);
                    Json::from(known.iter().find(|(value, _)| *value == number).map_or("none", |(_, name)| *name))
                }
                _ => Json::from(self.number(field.name).unwrap_or(0)),
            };
            all_fields.insert(field.name.to_owned(), json);
        }
        all
    }

    /// A duration that is not negative, in seconds: `30 s`, `0.0015 s`.
    fn seconds(&self) -> String {
        let (seconds, nanos) = (self.number("seconds").unwrap_or(0), self.number("nanos").unwrap_or(0));
        let exact = format!("{seconds}.{nanos:09}");
        format!("{} s", exact.trim_end_matches('0').trim_end_matches('.'))
    }

    fn values(&self, name: &'static str) -> impl Iterator<Item = &Value> {
        self.fields.iter().filter(move |(field, _)| field.name == name).map(|(_, value)| value)
    }
}

/// The value of a field of this kind.
fn value(kind: Kind, found: WireValue<'_>) -> Result<Value, TopologyError> {
    let fault = |fault| TopologyError::new("", fault);
    let number = |found| match found {
        WireValue::Number(number) => Ok(number),
        WireValue::Bytes(_) => Err(fault(TopologyFault::WrongWireType)),
    };
    let bytes = |found| match found {
        WireValue::Bytes(bytes) => Ok(bytes),
        WireValue::Number(_) => Err(fault(TopologyFault::WrongWireType)),
    };
    Ok(match kind {
        Kind::Text => Value::Text(str::from_utf8(bytes(found)?).map_err(|_| fault(TopologyFault::NotUtf8))?.to_owned()),
        Kind::Bytes => Value::Bytes(bytes(found)?.to_vec()),
        Kind::Flag => match number(found)? {
            0 => Value::Flag(false),
            1 => Value::Flag(true),
            _ => return Err(fault(TopologyFault::Number)),
        },
        Kind::Unsigned32 => {
            // Canton reads it as a signed number and refuses negative ones.
            let number = number(found)?;
            Value::Number(i32::try_from(number).map_err(|_| fault(TopologyFault::Number))?.into())
        }
        Kind::Unsigned64 => Value::Number(i64::try_from(number(found)?).map_err(|_| fault(TopologyFault::Number))?.into()),
        Kind::Signed64 => Value::Number(number(found)?.cast_signed().into()),
        Kind::Signed32 => {
            // A negative number is extended to 64 bits.
            let number = number(found)?.cast_signed();
            Value::Number(i32::try_from(number).map_err(|_| fault(TopologyFault::Number))?.into())
        }
        Kind::Enumeration(known) => {
            let number = number(found)?.cast_signed();
            let name = known.iter().find(|(value, _)| *value == number).map(|(_, name)| *name);
            Value::Enumeration(number, name.ok_or_else(|| fault(TopologyFault::UnknownValue(number)))?)
        }
        Kind::Message(of) => Value::Message(Message::decode(of, bytes(found)?)?),
    })
}
