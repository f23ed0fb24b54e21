//! Nothing that Canton refuses is read, rule by rule (`TopologyMapping.scala`, `SynchronizerParameters.scala`, `Endpoint.scala`, `Member.scala`
//! of Canton 3.5), and every change of every byte is refused or gives another hash. Each case is a transaction of Canton with one field changed.

use std::time::{Duration, Instant};

use canton_keyvault::topology::{TopologyFault, TopologyTransaction, text, warnings};
use sha2::{Digest as _, Sha256};

use crate::{
    canton_made::{items, text as field},
    known_bytes::unbase64,
};

/// The fields that lead to the mapping: `data`, `mapping`.
const MAPPING: [u64; 2] = [1, 3];

fn prepared(name: &str) -> Vec<u8> {
    let item = items("topology").iter().find(|item| field(item, "name").starts_with(name)).unwrap_or_else(|| panic!("{name}"));
    unbase64(field(item, "prep_b64"))
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0x7f {
        bytes.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).unwrap());
    bytes
}

fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn bytes(field: u64, content: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(content.len() as u64), content.to_vec()].concat()
}

fn read_varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// A field: its number, all its bytes, and its content if it has a length.
type Field<'a> = (u64, &'a [u8], Option<&'a [u8]>);

/// The fields of a message. `None` if the bytes are not one.
fn fields(message: &[u8]) -> Option<Vec<Field<'_>>> {
    let (mut found, mut at) = (Vec::new(), 0);
    while at < message.len() {
        let start = at;
        let tag = read_varint(message, &mut at)?;
        let content = match tag & 7 {
            0 => {
                read_varint(message, &mut at)?;
                None
            }
            2 => {
                let length = usize::try_from(read_varint(message, &mut at)?).ok()?;
                let content = message.get(at..at.checked_add(length)?)?;
                at += length;
                Some(content)
            }
            _ => return None,
        };
        found.push((tag >> 3, &message[start..at], content));
    }
    Some(found)
}

/// The message with the fields of this number, in the message at the path, replaced by these bytes.
fn with(message: &[u8], path: &[u64], replaced: u64, new: &[u8]) -> Vec<u8> {
    let all = fields(message).unwrap();
    let Some((step, rest)) = path.split_first() else {
        let kept = all.iter().filter(|(number, ..)| *number != replaced).map(|(_, raw, _)| *raw);
        return kept.chain([new]).collect::<Vec<_>>().concat();
    };
    assert!(all.iter().any(|(number, ..)| number == step), "no field {step}");
    let changed = all.iter().map(|(number, raw, content)| match content {
        Some(content) if number == step => bytes(*number, &with(content, rest, replaced, new)),
        _ => raw.to_vec(),
    });
    changed.collect::<Vec<_>>().concat()
}

/// A transaction with one field of its mapping changed. The path leads from the mapping to the message.
fn changed(name: &str, path: &[u64], replaced: u64, new: &[u8]) -> Vec<u8> {
    with(&prepared(name), &[&MAPPING[..], path].concat(), replaced, new)
}

fn refused_in(prepared: &[u8], place: &str) {
    match TopologyTransaction::decode(prepared) {
        Ok(transaction) => panic!("read, but Canton refuses it because of {place}: {:?}", transaction.mapping),
        Err(error) => assert!(error.field.contains(place), "{error} does not name {place}"),
    }
}

fn read(prepared: &[u8]) -> TopologyTransaction {
    TopologyTransaction::decode(prepared).unwrap_or_else(|error| panic!("Canton reads it: {error}"))
}

/// `google.protobuf.Duration`.
fn duration(seconds: u64, nanos: u64) -> Vec<u8> {
    [number(1, seconds), number(2, nanos)].concat()
}

/// Path from the mapping to the parameters.
const PARAMETERS: [u64; 2] = [11, 2];

fn parameters(replaced: u64, new: &[u8]) -> Vec<u8> {
    changed("synchronizer-parameters/", &PARAMETERS, replaced, new)
}

#[test]
fn a_field_can_be_replaced_without_another_change() {
    let whole = parameters(8, &number(8, 10_485_760));
    assert_eq!(read(&whole).fields(), read(&prepared("synchronizer-parameters/")).fields());
}

#[test]
fn requests_are_deduplicated_for_twice_the_tolerance() {
    // The tolerance is 86,400 seconds.
    read(&parameters(7, &bytes(7, &duration(172_800, 0))));
    refused_in(&parameters(7, &bytes(7, &duration(172_799, 999_999_999))), "mediator_deduplication_timeout");
    refused_in(&parameters(18, &bytes(18, &duration(86_400, 1))), "mediator_deduplication_timeout");
    // Twice the tolerance does not fit into a duration.
    let high = i64::MAX.cast_unsigned();
    let both = with(&parameters(7, &bytes(7, &duration(high, 0))), &[1, 3, 11, 2], 18, &bytes(18, &duration(high, 0)));
    refused_in(&both, "tolerance");
}

#[test]
fn the_reconciliation_interval_has_whole_seconds() {
    read(&parameters(6, &bytes(6, &duration(1, 0))));
    for interval in [duration(60, 1), duration(0, 1), duration(0, 500_000_000), duration(0, 0), duration(u64::MAX, 0)] {
        refused_in(&parameters(6, &bytes(6, &interval)), "reconciliation_interval");
    }
}

#[test]
fn catch_up_has_more_than_one_interval_and_does_not_overflow() {
    let catch_up = |skip, trigger| parameters(17, &bytes(17, &[number(1, skip), number(2, trigger)].concat()));
    // 1 and the maximum: catch-up is disabled.
    for (skip, trigger) in [(1, 2), (2, 1), (1, 0x7fff_ffff), (46_340, 46_340)] {
        read(&catch_up(skip, trigger));
    }
    for (skip, trigger) in [(1, 1), (0, 2), (2, 0), (46_341, 46_341), (2, 0x7fff_ffff)] {
        refused_in(&catch_up(skip, trigger), "acs_commitments_catchup");
    }
}

#[test]
fn parameters_are_complete() {
    for (required, name) in [
        (1, "confirmation_response_timeout"),
        (2, "mediator_reaction_timeout"),
        (3, "assignment_exclusivity_timeout"),
        (5, "ledger_time_record_time_tolerance"),
        (6, "reconciliation_interval"),
        (7, "mediator_deduplication_timeout"),
        (9, "onboarding_restriction"),
        (13, "participant_synchronizer_limits"),
        (15, "sequencer_aggregate_submission_timeout"),
    ] {
        refused_in(&parameters(required, &[]), name);
    }
    let traffic = |replaced, new: &[u8]| changed("synchronizer-parameters-changed/", &[11, 2, 16], replaced, new);
    for (required, name) in [
        (3, "max_base_traffic_accumulation_duration"),
        (4, "read_vs_write_scaling_factor"),
        (5, "set_balance_request_submission_window_size"),
    ] {
        refused_in(&traffic(required, &[]), name);
    }
    for (number_of, name) in [(1, "max_base_traffic_amount"), (7, "base_event_cost")] {
        refused_in(&traffic(number_of, &number(number_of, 1 << 63)), name);
    }
    refused_in(&parameters(8, &number(8, 1 << 31)), "max_request_size");
}

/// A number that is zero is part of what is signed.
#[test]
fn zero_parameters_are_shown() {
    for (prepared, line) in [
        (parameters(8, &number(8, 0)), "Max request size: 0"),
        (parameters(8, &[]), "Max request size: 0"),
        (parameters(13, &bytes(13, &[])), "Confirmation requests max rate: 0"),
        (parameters(1, &bytes(1, &[])), "Confirmation response timeout: 0 s"),
        (parameters(1, &bytes(1, &duration(0, 1_500_000))), "Confirmation response timeout: 0.0015 s"),
        (changed("synchronizer-parameters-changed/", &[11, 2, 16], 6, &[]), "Enforce rate limiting: false"),
        (prepared("synchronizer-parameters/"), "Traffic control: none"),
    ] {
        let lines = text(&read(&prepared), &[]);
        assert!(lines.iter().any(|shown| shown.contains(line)), "{line} is not in\n{}", lines.join("\n"));
    }
}

#[test]
fn a_login_time_lies_between_the_years_1_and_9999() {
    let login = |micros: i64| changed("participant-permission-limited/", &[6], 5, &number(5, micros.cast_unsigned()));
    for micros in [-62_135_596_800_000_000, -1, 0, 253_402_300_799_999_999] {
        read(&login(micros));
    }
    for micros in [-62_135_596_800_000_001, 253_402_300_800_000_000, i64::MIN, i64::MAX] {
        refused_in(&login(micros), "login_after");
    }
}

#[test]
fn times_lie_between_the_years_1_and_9999() {
    let time = |seconds: i64, nanos| changed("upgrade-announcement/", &[17], 2, &bytes(2, &duration(seconds.cast_unsigned(), nanos)));
    for (seconds, nanos) in [(-62_135_596_800, 0), (0, 0), (253_402_300_799, 999_999_000)] {
        read(&time(seconds, nanos));
    }
    for (seconds, nanos) in [(-62_135_596_801, 0), (253_402_300_800, 0), (i64::MIN, 0), (i64::MAX, 0), (0, 1_000_000_000), (0, 1)] {
        refused_in(&time(seconds, nanos), "upgrade_time");
    }
}

#[test]
fn endpoints_are_hosts_that_canton_reads() {
    let endpoint = |url: &str| changed("sequencer-successor-plain/", &[18, 3], 1, &bytes(1, url.as_bytes()));
    for url in ["http://h:80", "http://10.0.0.1:5001", "http://[::1]:80", "http://a-b.example.com:1", "http://[2001:db8::1]:65535"] {
        read(&endpoint(url));
    }
    // `java.net.URI` finds no host in these.
    for url in [
        "http://a:b:80",
        "http://a]:80",
        "http://[a:80",
        "http://-:80",
        "http://-a:80",
        "http://a-:80",
        "http://h:+80",
        "http://a..b:80",
        "http://.a:80",
        "http://1.2.3.4.5:80",
        "http://999.1.1.1:80",
        "http://h.1x:80",
        "http://[x]:80",
        "http://[::1]x:80",
        "http://[]:80",
        "http://[::1:80",
        "http://:80",
        "ftp://h:80",
        "h:80",
        "",
    ] {
        refused_in(&endpoint(url), "endpoints");
    }
}

#[test]
fn physical_synchronizers_have_three_parts() {
    let successor = |id: &str| changed("upgrade-announcement/", &[17], 1, &bytes(1, id.as_bytes()));
    for id in ["s::n::35-0", "s::n::34-2147483647", "s:::n::35-3", "s::n::dev-0"] {
        read(&successor(id));
    }
    // Canton splits at every delimiter, from the left.
    for id in
        ["s::n:::35-0", "s::n::33-0", "s::n::35-2147483648", "s::n::x::35-0", "::n::35-0", "s::::35-0", "s::n::35--1", "s::n::0-0", "s::n"]
    {
        refused_in(&successor(id), "successor_physical_synchronizer_id");
    }
}

#[test]
fn thresholds_are_positive_and_at_most_the_members() {
    for (name, path, threshold, members) in
        [("mediator-state/", &[12][..], 3, 4), ("sequencer-state/", &[13], 2, 3), ("decentralized-three-owners/", &[3], 2, 3)]
    {
        for value in [0, 100, 1 << 31] {
            refused_in(&changed(name, path, threshold, &number(threshold, value)), "threshold");
        }
        // Without members no threshold is right.
        assert!(TopologyTransaction::decode(&changed(name, path, members, &[])).is_err(), "{name}");
    }
    for (name, path, threshold) in
        [("party-to-participant-local/", &[9][..], 2), ("party-to-participant-external-keys/", &[9, 6], 2), ("party-to-key-two/", &[16], 3)]
    {
        for value in [0, 1 << 31] {
            refused_in(&changed(name, path, threshold, &number(threshold, value)), "threshold");
        }
        // Canton reads a threshold that cannot be reached. It is shown.
        let transaction = read(&changed(name, path, threshold, &number(threshold, 100)));
        assert!(text(&transaction, &[]).iter().any(|line| line.trim() == "Threshold: 100"), "{name}");
    }
}

/// A key that may sign namespace delegations can give itself every other right.
#[test]
fn a_delegation_of_delegations_is_a_full_delegation() {
    let specific = |codes: &[u8]| changed("intermediate-specific/", &[1], 6, &bytes(6, &bytes(1, codes)));
    let full = |prepared: &[u8]| warnings(&read(prepared), &[]).iter().any(|warning| warning.reason.to_string() == "full-delegation");
    assert!(full(&specific(&[1])));
    assert!(full(&specific(&[4, 1])));
    assert!(!full(&specific(&[4])));
    // What is removed is not granted.
    let removed = with(&specific(&[1]), &[1], 1, &number(1, 2));
    assert!(!full(&removed));
    for codes in [&[][..], &[0], &[2], &[10], &[21]] {
        refused_in(&specific(codes), "can_sign_specific_mapings");
    }
}

/// The message with an unknown field at the end of each message in it, one at a time.
fn with_unknown_fields(message: &[u8], found: &mut Vec<Vec<u8>>, rebuild: &dyn Fn(&[u8]) -> Vec<u8>) {
    let Some(all) = fields(message) else { return };
    // Field 200: a number, then text.
    for unknown in [&[0xc0, 0x0c, 0x01][..], &[0xc2, 0x0c, 0x01, b'x']] {
        found.push(rebuild(&[message, unknown].concat()));
    }
    for (index, (number, _, content)) in all.iter().enumerate() {
        let Some(content) = content else { continue };
        with_unknown_fields(content, found, &|changed| {
            let replace = |(at, field): (usize, &Field<'_>)| if at == index { bytes(*number, changed) } else { field.1.to_vec() };
            rebuild(&all.iter().enumerate().map(replace).collect::<Vec<_>>().concat())
        });
    }
}

/// Text and bytes can look like a message. A change of them is shown.
#[test]
fn an_unknown_field_in_any_message_is_refused_or_shown() {
    let mut refused = 0;
    for item in items("topology") {
        let prepared = unbase64(field(item, "prep_b64"));
        let original = read(&prepared);
        let mut changed = Vec::new();
        with_unknown_fields(&prepared, &mut changed, &<[u8]>::to_vec);
        assert!(changed.len() >= 8, "{}", item["name"]);
        for changed in changed {
            match TopologyTransaction::decode(&changed) {
                Ok(transaction) => assert_ne!(transaction.fields(), original.fields(), "{}", item["name"]),
                Err(error) => refused += usize::from(error.fault == TopologyFault::UnknownField(200)),
            }
        }
    }
    assert!(refused > 600, "{refused}");
}

fn check_any(bytes: &[u8]) {
    if let Ok(transaction) = TopologyTransaction::decode(bytes) {
        let hash = Sha256::new().chain_update(11_u32.to_be_bytes()).chain_update(bytes).finalize();
        assert_eq!(transaction.hash().as_bytes()[2..], hash[..]);
        assert!(serde_json::to_value(transaction.description()).is_ok());
        let lines = text(&transaction, &[]);
        assert!(lines.iter().all(|line| !line.chars().any(char::is_control)), "{lines:?}");
    }
}

/// The first transaction of each kind: each prefix, and each byte with one bit flipped. `topology_vectors.rs` samples the other ones.
#[test]
fn any_prefix_and_any_changed_byte_is_refused_or_has_the_hash_of_its_bytes() {
    let mut kinds = Vec::new();
    for item in items("topology") {
        let kind = &item["description"]["mapping"];
        if kinds.contains(&kind) {
            continue;
        }
        kinds.push(kind);
        let prepared = unbase64(field(item, "prep_b64"));
        for length in 0..prepared.len() {
            check_any(&prepared[..length]);
        }
        for index in 0..prepared.len() {
            let mut changed = prepared.clone();
            changed[index] ^= 1 << (index % 8);
            check_any(&changed);
        }
    }
    assert_eq!(kinds.len(), 15, "{kinds:?}");
}

/// The longest inputs do not keep a thread for long.
#[test]
fn long_lists_are_read_in_time() {
    let many = |one: &dyn Fn(usize) -> Vec<u8>| {
        let mut list = Vec::new();
        for index in 0.. {
            let one = one(index);
            if list.len() + one.len() > 64_000 {
                return list;
            }
            list.extend_from_slice(&one);
        }
        list
    };
    let content = |message: Vec<u8>, number: u64| {
        fields(&message).unwrap().into_iter().find(|field| field.0 == number).and_then(|field| field.2).unwrap().to_vec()
    };
    // The target key.
    let key = [1, 3, 1, 2].into_iter().fold(prepared("root-delegation-ec-curve25519/"), content);
    for (what, prepared) in [
        ("mediators", changed("mediator-state/", &[12], 4, &many(&|index| bytes(4, format!("a{index}::n").as_bytes())))),
        ("packages", changed("vetted-packages/", &[8], 2, &many(&|index| bytes(2, format!("{index}").as_bytes())))),
        ("owners", changed("decentralized-three-owners/", &[3], 3, &many(&|index| bytes(3, format!("{index}").as_bytes())))),
        (
            "hosts",
            changed(
                "party-to-participant-local/",
                &[9],
                3,
                &many(&|index| bytes(3, &[bytes(1, format!("a{index}::n").as_bytes()), number(2, 1)].concat())),
            ),
        ),
        (
            "endpoints",
            changed("sequencer-successor-plain/", &[18, 3], 1, &many(&|index| bytes(1, format!("http://h{index}:1").as_bytes()))),
        ),
        ("keys", changed("party-to-key-two/", &[16], 4, &many(&|_| bytes(4, &key)))),
    ] {
        assert!(prepared.len() < 64 * 1024, "{what}");
        let start = Instant::now();
        check_any(&prepared);
        let taken = start.elapsed();
        assert!(taken < Duration::from_secs(5), "{what}: {taken:?}");
    }
}
