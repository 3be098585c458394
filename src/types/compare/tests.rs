//! Orders that a PostgreSQL server gave.

use super::*;

/// Values of a type in binary form (hexadecimal) with their dense_rank() on a PostgreSQL 15 server, strings under "C".
const CASES: &[(u32, &str)] = &[
    (oid::BOOL, "00:1 01:2"),
    (oid::CHAR, "20:1 41:2 61:3 7a:4"),
    (oid::INT2, "8000:1 ffff:2 0000:3 0001:4 7fff:5"),
    (
        oid::INT4,
        "80000000:1 ffffffff:2 00000000:3 00000001:4 00000100:5 7fffffff:6",
    ),
    (
        oid::INT8,
        "8000000000000000:1 ffffffffffffffff:2 0000000000000000:3 0000000000000001:4 0000000100000000:5 7fffffffffffffff:6",
    ),
    (oid::OID, "00000000:1 00000001:2 80000000:3 ffffffff:4"),
    (
        oid::XID8,
        "0000000000000000:1 0000000000000001:2 8000000000000000:3 ffffffffffffffff:4",
    ),
    (
        oid::PG_LSN,
        "0000000000000000:1 0000000000000001:2 8000000000000000:3 ffffffffffffffff:4",
    ),
    (
        oid::MONEY,
        "ffffffffffffff6a:1 0000000000000000:2 7fffffffffffffff:3",
    ),
    (
        oid::FLOAT4,
        "ff800000:1 bf800000:2 800116c2:3 00000000:4 80000000:4 000116c2:5 3f800000:6 7f7fc99e:7 7f800000:8 7fc00000:9",
    ),
    (
        oid::FLOAT8,
        "fff0000000000000:1 fe37e43c8800759c:2 bff0000000000000:3 0000000000000000:4 8000000000000000:4 000012688b70e62b:5 3ff0000000000000:6 3ff8000000000000:7 7e37e43c8800759c:8 7ff0000000000000:9 7ff8000000000000:10",
    ),
    (
        oid::NUMERIC,
        "00000000f0000020:1 0001000c400000000064:2 000200004000000400010001:3 00010000400000000001:4 0000000000000000:5 0000000000000002:5 0001fff3000000320064:6 00010000000000000001:7 00010000000000010001:7 000200000000000400010001:8 0003000000000008000100010001:9 0002000000000004270f270f:10 00010001000000000001:11 0001000c000000000064:12 00000000d0000020:13 00000000c0000000:14",
    ),
    (
        oid::DATE,
        "80000000:1 ffda97cd:2 ffffffff:3 00000000:4 7fffffff:5",
    ),
    (
        oid::TIME,
        "0000000000000000:1 0000000a8be62608:2 000000141dd76000:3",
    ),
    (
        oid::TIMETZ,
        "0000000000000000ffff3b20:1 0000000a0eebb000fffff1f0:2 0000000ae57f5400fffff1f0:3 0000000a0eebb00000000000:4 0000000938580c0000000e10:5 000000141dd760000000c4e0:6",
    ),
    (
        oid::TIMESTAMP,
        "8000000000000000:1 ffffffffffffffff:2 0000000000000000:3 7fffffffffffffff:4",
    ),
    (
        oid::TIMESTAMPTZ,
        "0000000000000000:1 0000000000000000:1 7fffffffffffffff:2",
    ),
    (
        oid::INTERVAL,
        "00000000000000000000000080af3a00:1 000000000000000000000000ffffffff:2 00000000000000000000000000000000:3 00000000000000000000001d00000000:4 00000000000000000000000000000001:5 00000000000000000000001e00000000:5 0000025b7f3d40000000000000000000:5 0000025b7f3d40010000000000000000:6 00000000000000000000001f00000000:7 0000000000000000000000000000000c:8 00000000000000000000016800000000:8 0000000000000000000000007f50c600:9",
    ),
    (
        oid::UUID,
        "00000000000000000000000000000000:1 00000000000000000000000000000001:2 ffffffff000000000000000000000000:3",
    ),
    (
        oid::BYTEA,
        ":1 00:2 0000:3 6162636465666768:4 61626364656667686970:5 61626364656667686971:6 ff:7",
    ),
    (
        oid::INET,
        "0200000400000000:1 0220000409ffffff:2 020800040a000000:3 020800040a000001:4 020900040a010203:5 021000040a000000:6 022000040a000001:7 020900040a800000:8 0300001000000000000000000000000000000000:9 0380001000000000000000000000000000000001:10 03400010fe800000000000000000000000000001:11",
    ),
    (
        oid::CIDR,
        "020801040a000000:1 021001040a000000:2 022001040a000000:3 0300011000000000000000000000000000000000:4 0320011020010db8000000000000000000000000:5",
    ),
    (oid::MACADDR, "000000000001:1 000001000000:2 ff0000000000:3"),
    (
        oid::MACADDR8,
        "0000000000000001:1 0000000080000000:2 ff00000000000000:3",
    ),
    (
        oid::VARBIT,
        "00000000:1 0000000100:2 0000000200:3 0000000180:4 0000000280:5 000000098000:6 0000000a8040:7 00000008ff:8",
    ),
    (
        oid::TEXT,
        ":1 41:2 61:3 612062:4 6162:5 6162636465666768:6 616263646566676869:7 61626364656667686a:8 c3a4:9",
    ),
    (oid::NAME, ":1 41:2 61:3 6162:4 70675f636c617373:5"),
    (
        oid::BPCHAR,
        ":1 2020:1 61:2 612020:2 610962:3 6162:4 6162636465666768:5 6162636465666768202020:5",
    ),
];

/// Strings ordered by "en_US" on a PostgreSQL 15 server with glibc 2.36.
const EN_US: &[&str] = &[
    "", " ", "-", "--", "_", "🙂", "1-1", "11", "½", "2", "²", "3", "a", "A", "å", "ä", "a1",
    "a10", "a2", "a b", "a-b", "a_b", "ab", "aB", "Ab", "AB", "ae", "co-op", "coop", "CO-OP",
    "cote", "coté", "côte", "côté", "fi", "ﬁ", "o", "ø", "resume", "Resume", "résumé", "ss", "SS",
    "ß", "#x", "x#", "z", "α", "ж", "Ж", "漢",
];

fn value(hex: &str) -> Vec<u8> {
    let digits = |i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digits).collect()
}

fn order(order: &KeyOrder, a: Option<&[u8]>, b: Option<&[u8]>) -> Ordering {
    let ranks = order.rank(a).unwrap().cmp(&order.rank(b).unwrap());
    if ranks == Ordering::Equal && !order.rank_decides() {
        return order.compare(a, b);
    }
    ranks
}

#[test]
fn every_type_orders_as_postgresql_does() {
    for (type_oid, line) in CASES {
        let comparator = Comparator::new(*type_oid, TextOrder::Bytes, None).unwrap();
        let values: Vec<(Vec<u8>, u32)> = line
            .split(' ')
            .map(|v| v.split_once(':').unwrap())
            .map(|(hex, rank)| (value(hex), rank.parse().unwrap()))
            .collect();
        let up = KeyOrder::new(comparator.clone(), false, false);
        let down = KeyOrder::new(comparator, true, false);
        for (a, a_rank) in &values {
            for (b, b_rank) in &values {
                let expected = a_rank.cmp(b_rank);
                let (a, b) = (Some(&a[..]), Some(&b[..]));
                assert_eq!(order(&up, a, b), expected, "{type_oid}: {a:x?} {b:x?}");
                assert_eq!(order(&down, a, b), expected.reverse());
            }
        }
    }
}

#[test]
fn nulls_stand_where_they_were_asked_for() {
    for descending in [false, true] {
        let first = KeyOrder::new(Comparator::Int4, descending, true);
        let last = KeyOrder::new(Comparator::Int4, descending, false);
        for value in [i32::MIN, 0, i32::MAX] {
            let value = value.to_be_bytes();
            assert_eq!(order(&first, None, Some(&value)), Ordering::Less);
            assert_eq!(order(&last, None, Some(&value)), Ordering::Greater);
        }
        assert_eq!(order(&first, None, None), Ordering::Equal);
    }
}

#[test]
fn locale_order_is_the_servers() {
    let version = c_library_version();
    // What another version of the C library says proves nothing about the one that sorted these.
    if version != Some("2.36") {
        return;
    }
    for locale in ["en_US.UTF-8", "en_US.utf8"] {
        let text = TextOrder::Libc { locale, version };
        let Some(comparator) = Comparator::new(oid::TEXT, text, None) else {
            return;
        };
        for pair in EN_US.windows(2) {
            let order = comparator.compare(pair[0].as_bytes(), pair[1].as_bytes());
            assert_eq!(order, Ordering::Less, "{pair:?}");
        }
    }
}

#[test]
fn a_locale_of_another_version_is_not_compared() {
    for version in [None, Some("1.0")] {
        let text = TextOrder::Libc {
            locale: "en_US.UTF-8",
            version,
        };
        assert!(Comparator::new(oid::TEXT, text, None).is_none());
    }
    assert!(Comparator::new(oid::TEXT, TextOrder::Unknown, None).is_none());
    assert!(Comparator::new(oid::JSONB, TextOrder::Bytes, None).is_none());
}

#[test]
fn enums_order_by_position() {
    let labels = ["sad", "ok", "happy"].map(String::from);
    let comparator = Comparator::new(99_999, TextOrder::Unknown, Some(&labels)).unwrap();
    let key = KeyOrder::new(comparator, false, false);
    assert_eq!(order(&key, Some(b"sad"), Some(b"happy")), Ordering::Less);
    assert_eq!(order(&key, Some(b"ok"), Some(b"happy")), Ordering::Less);
    assert_eq!(key.rank(Some(b"new label")), None);
}

#[test]
fn bytes_of_another_length_are_no_value() {
    for (comparator, value) in [
        (Comparator::Int8, &[0_u8; 4][..]),
        (Comparator::Int4, &[0; 8]),
        (Comparator::Byte, &[]),
        (Comparator::Float8, &[0; 7]),
        (Comparator::Interval, &[0; 15]),
        (Comparator::Numeric, &[0; 3]),
        (Comparator::Network, &[2, 33, 0, 4, 1, 1, 1, 1]),
        (Comparator::Bits, &[0; 3]),
    ] {
        assert!(!comparator.accepts(value), "{comparator:?}");
    }
}
