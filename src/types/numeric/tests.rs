//! Arithmetic against results of a PostgreSQL server, and against machine integers.

use proptest::prelude::*;

use super::*;

/// Reads plain decimal text.
fn numeric(text: &str) -> Numeric {
    match text {
        "NaN" => return Numeric::NaN,
        "Infinity" => return Numeric::Infinity { negative: false },
        "-Infinity" => return Numeric::Infinity { negative: true },
        _ => {}
    }
    let unsigned = text.trim_start_matches('-');
    let (whole, decimals) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let padding = (4 - whole.len() % 4) % 4;
    let mut all = "0".repeat(padding) + whole + decimals;
    all += &"0".repeat((4 - all.len() % 4) % 4);
    let digits = all.as_bytes().chunks(4);
    let digits = digits.map(|d| std::str::from_utf8(d).unwrap().parse().unwrap());
    let weight = ((padding + whole.len()) / 4) as i32 - 1;
    let negative = text.starts_with('-');
    let dscale = decimals.len() as i32;
    Numeric::Finite(Decimal::new(negative, weight, dscale, digits.collect()))
}

fn binary(value: &Numeric) -> BytesMut {
    let mut out = BytesMut::new();
    value.put_binary(&mut out).unwrap();
    out
}

// a, b, n, then a + b, a / n and the order of a and b on a PostgreSQL 15 server.
const CASES: &[(&str, &str, u64, &str, &str, i32)] = &[
    ("0", "0", 1, "0", "0.00000000000000000000", 0),
    ("0.00", "0.0", 3, "0.00", "0.00000000000000000000", 0),
    ("1", "-1.000", 7, "0.000", "0.14285714285714285714", 1),
    ("NaN", "1", 2, "NaN", "NaN", 1),
    ("Infinity", "-Infinity", 3, "NaN", "Infinity", 1),
    ("Infinity", "5", 3, "Infinity", "Infinity", 1),
    ("-Infinity", "0", 1, "-Infinity", "-Infinity", -1),
    (
        "9999.9999",
        "0.0001",
        9,
        "10000.0000",
        "1111.1111000000000000",
        1,
    ),
    (
        "99999999.99999999",
        "0.00000001",
        3,
        "100000000.00000000",
        "33333333.333333330000",
        1,
    ),
    ("0.5", "1.5", 10000, "2.0", "0.000050000000000000000000", -1),
    (
        "10000",
        "20000",
        10000,
        "30000",
        "1.00000000000000000000",
        -1,
    ),
    (
        "1",
        "2",
        9223372036854775807,
        "3",
        "0.000000000000000000108420217248550443",
        -1,
    ),
    (
        "123456789012345678901234567890",
        "-123456789012345678901234567890.00",
        3,
        "0.00",
        "41152263004115226300411522630",
        1,
    ),
    ("1", "1", 3, "2", "0.33333333333333333333", 0),
    ("2", "1", 3, "3", "0.66666666666666666667", 1),
    ("19999", "1", 2, "20000", "9999.5000000000000000", 1),
    (
        "0.00005",
        "0.00005",
        2,
        "0.00010",
        "0.000025000000000000000000",
        0,
    ),
    (
        "-635101840888888.5001805001805001800",
        "73674533946",
        473300758718129281,
        "-635028166354942.5001805001805001800",
        "-0.00134185679864316178",
        -1,
    ),
    (
        "3277356055555.6251460",
        "4620310000",
        10000,
        "3281976365555.6251460",
        "327735605.55556251",
        1,
    ),
    (
        "3315405744444444444444444.7927850",
        "-253.042580",
        17625,
        "3315405744444444444444191.7502050",
        "188108127344365642237.9826833",
        1,
    ),
    (
        "614546319999999999999999.5332615332610",
        "191933765826",
        37416,
        "614546320000191933765825.5332615332610",
        "16424693179388496899.7220315710267",
        1,
    ),
    (
        "-9805463805555.0",
        "0.000000000737940131007029",
        3128705410,
        "-9805463805554.999999999262059868992971",
        "-3134.0322979001720715",
        -1,
    ),
    (
        "-76817003.5812180",
        "-366.8401325",
        687981650060803329,
        "-76817370.4213505",
        "-0.0000000001116555994980810431",
        -1,
    ),
    (
        "-83877832333333333333333333.6735016735016735010",
        "933971898712",
        2919047933,
        "-83877832333332399361434621.6735016735016735010",
        "-28734653989435990.9893721274749282007",
        -1,
    ),
    (
        "880598042777777777777777.6297146297140",
        "-1.857",
        30925544319103881,
        "880598042777777777777775.7727146297140",
        "28474779.0917231806493",
        1,
    ),
    (
        "-5681594090000000000.7169757169750",
        "3088740000",
        82920,
        "-5681594086911260000.7169757169750",
        "-68518983236854.7998156895287",
        -1,
    ),
    (
        "857982413777.8601428601420",
        "3431000000",
        89022,
        "861413413777.8601428601420",
        "9637869.4455062809515",
        1,
    ),
    (
        "-4684842179999999999999999999.2070940",
        "0.000000000847818352703234",
        682481391456182017,
        "-4684842179999999999999999999.207093999152181647296766",
        "-6864424786.73909052",
        -1,
    ),
    (
        "3444154278888888888888888888.6030680",
        "-82.70",
        10000,
        "3444154278888888888888888805.9030680",
        "344415427888888888888888.8888603",
        1,
    ),
    (
        "8051432346666666666666666666.6607036607036607030",
        "991327978313",
        10000,
        "8051432346666667657994644979.6607036607036607030",
        "805143234666666666666666.6666660703660703661",
        1,
    ),
    (
        "-7295138177.2944092944090",
        "-369.50317848",
        39065,
        "-7295138546.7975877744090",
        "-186743.5857492489260",
        -1,
    ),
];

#[test]
fn arithmetic_is_postgresqls() {
    for &(a, b, count, sum, quotient, order) in CASES {
        let (a, b) = (numeric(a), numeric(b));
        assert_eq!(a.add(&b).to_text().unwrap(), sum);
        assert_eq!(b.add(&a).to_text().unwrap(), sum);
        assert_eq!(a.divide_by_count(count).to_text().unwrap(), quotient);
        assert_eq!(a.compare(&b) as i32, order);
        assert_eq!(b.compare(&a) as i32, -order);
    }
}

#[test]
fn too_large_a_value_overflows() {
    let mut digits = vec![0; 8];
    digits[0..2].copy_from_slice(&1_u16.to_be_bytes());
    digits[2..4].copy_from_slice(&i16::MAX.to_be_bytes());
    digits.extend_from_slice(&9999_u16.to_be_bytes());
    let large = Numeric::from_binary(&digits).unwrap();
    assert!(large.to_text().is_ok());
    let sum = large.add(&large);
    assert_eq!(sum.to_text(), Err(Overflow));
    assert_eq!(sum.put_binary(&mut BytesMut::new()), Err(Overflow));
}

#[test]
fn malformed_bytes_are_not_read() {
    for bytes in [
        &[0_u8; 7][..],
        &[0, 1, 0, 0, 0, 0, 0, 0],
        &[0, 1, 0, 0, 0, 0, 0, 0, 0x27, 0x10],
        &[0, 0, 0, 0, 0x12, 0x34, 0, 0],
    ] {
        assert_eq!(Numeric::from_binary(bytes), None);
    }
}

proptest! {
    #[test]
    fn sums_agree_with_integers(a in any::<i64>(), b in any::<i64>(), scale in 0_u32..12) {
        let decimal = |v: i128| {
            let unit = 10_i128.pow(scale);
            let sign = if v < 0 { "-" } else { "" };
            let (whole, rest) = (v.abs() / unit, v.abs() % unit);
            match scale {
                0 => format!("{sign}{whole}"),
                _ => format!("{sign}{whole}.{rest:0width$}", width = scale as usize),
            }
        };
        let (a, b) = (i128::from(a), i128::from(b));
        let sum = numeric(&decimal(a)).add(&numeric(&decimal(b)));
        prop_assert_eq!(sum.to_text().unwrap(), decimal(a + b));
        prop_assert_eq!(numeric(&decimal(a)).compare(&numeric(&decimal(b))), a.cmp(&b));
    }

    #[test]
    fn binary_form_is_read_back(value in any::<i64>()) {
        let value = Numeric::from(value);
        prop_assert_eq!(Numeric::from_binary(&binary(&value)), Some(value));
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let _ = Numeric::from_binary(&bytes);
    }
}
