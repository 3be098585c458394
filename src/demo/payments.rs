//! The demo's data: companies that pay each other. Every row is a function of its number, so that any worker can make any part
//! and two runs of the demo load the same rows.

use bytes::{BufMut, BytesMut};

/// Companies in the reference table; payers and beneficiaries are drawn from them, some far more often than others.
pub const COMPANIES: u64 = 30_000;

/// Tables without indexes: those are made when the rows are in.
pub const SCHEMA: &str = "
    create table companies (id int8 not null, name text not null, sector text, country text not null, founded date);
    create table transfers (month date not null, payer int8 not null, beneficiary int8 not null,
                            amount numeric(14,2), transactions int4 not null);";

/// What makes the loaded tables ready for queries.
pub const INDEXES: &[&str] = &[
    "alter table companies add primary key (id)",
    "create index on transfers (payer, month)",
    "vacuum (freeze, analyze) companies",
    "vacuum (freeze, analyze) transfers",
];

/// The text with which a binary COPY starts: signature, flags, no header extension.
pub const COPY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// And the one with which it ends.
pub const COPY_TRAILER: &[u8] = &[0xff, 0xff];

/// Days from 2000-01-01, PostgreSQL's epoch, to 2021-01-01.
const FIRST_MONTH: i32 = 7671;
const MONTH_DAYS: [i32; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
const SECTORS: [&str; 10] = [
    "agriculture",
    "mining",
    "energy",
    "retail",
    "transport",
    "finance",
    "health",
    "construction",
    "software",
    "food",
];
const COUNTRIES: [&str; 8] = ["BR", "BR", "BR", "BR", "AR", "CL", "UY", "PT"];
const NAMES: [&str; 8] = [
    "Alfa",
    "Beta",
    "Casa",
    "Engenho",
    "Horizonte",
    "Ipê",
    "Norte",
    "Ômega",
];

/// A month's payments from one company to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    /// First day of the month, days since 2000-01-01.
    pub month: i32,
    /// Paying company: the sharding key.
    pub payer: i64,
    /// Company that is paid.
    pub beneficiary: i64,
    /// NULL for one row in two hundred.
    pub cents: Option<i64>,
    /// Payments in that month.
    pub transactions: i32,
}

impl Transfer {
    /// The transfer with this number.
    pub fn nth(number: u64) -> Self {
        let part = |salt| unit(number, salt);
        let company = |skewed: f64| 1 + (skewed * COMPANIES as f64) as i64;
        let payer = company(part(1) * part(1));
        let drawn = company(part(2) * part(2).sqrt());
        Self {
            month: month((part(3) * 36.0) as i32),
            payer,
            // Nobody pays himself; the neighbour gets it.
            beneficiary: if drawn == payer {
                payer % COMPANIES as i64 + 1
            } else {
                drawn
            },
            cents: (!mix(number, 4).is_multiple_of(200))
                .then(|| ((part(5) * 9.0 + 2.0).exp() * 100.0) as i64),
            transactions: 1 + (part(6) * 40.0) as i32,
        }
    }

    /// Appends the row as binary COPY wants it.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_i16(5);
        out.put_i32(4);
        out.put_i32(self.month);
        out.put_i32(8);
        out.put_i64(self.payer);
        out.put_i32(8);
        out.put_i64(self.beneficiary);
        match self.cents {
            None => out.put_i32(-1),
            Some(cents) => put_numeric(cents, out),
        }
        out.put_i32(4);
        out.put_i32(self.transactions);
    }
}

/// Appends the companies as text COPY lines.
pub fn companies(out: &mut BytesMut) {
    use std::fmt::Write;
    for id in 1..=COMPANIES {
        let pick = |salt, of: usize| (mix(id, salt) % of as u64) as usize;
        let sector = match pick(11, 90) {
            0 => "\\N",
            n => SECTORS[n % SECTORS.len()],
        };
        let (name, country) = (
            NAMES[pick(12, NAMES.len())],
            COUNTRIES[pick(13, COUNTRIES.len())],
        );
        let (year, day) = (1950 + pick(14, 70), 1 + pick(15, 28));
        // Writing to a BytesMut cannot fail: it grows.
        let _ = writeln!(
            out,
            "{id}\t{name} {id}\t{sector}\t{country}\t{year}-06-{day:02}"
        );
    }
}

/// First day of the n-th month since January 2021, which saw no leap day before 2024.
fn month(n: i32) -> i32 {
    let days: i32 = MONTH_DAYS[..(n % 12) as usize].iter().sum();
    FIRST_MONTH + n / 12 * 365 + days
}

/// A numeric with two decimal places, with its length: digits to base 10,000, the first of them worth 10,000^weight.
fn put_numeric(cents: i64, out: &mut BytesMut) {
    let (mut whole, fraction) = (cents / 100, (cents % 100) as i16 * 100);
    let mut digits = [0i16; 6];
    let mut first = 5;
    digits[first] = fraction;
    while whole > 0 {
        first -= 1;
        digits[first] = (whole % 10_000) as i16;
        whole /= 10_000;
    }
    let weight = 4 - first as i16;
    let end = if fraction == 0 { 5 } else { 6 };
    let digits = &digits[first.min(end)..end];
    out.put_i32(8 + 2 * digits.len() as i32);
    out.put_i16(digits.len() as i16);
    out.put_i16(if digits.is_empty() { 0 } else { weight });
    out.put_i16(0);
    out.put_i16(2);
    digits.iter().for_each(|d| out.put_i16(*d));
}

/// A number in [0, 1) that belongs to `number` and `salt`.
fn unit(number: u64, salt: u64) -> f64 {
    (mix(number, salt) >> 11) as f64 / (1u64 << 53) as f64
}

/// SplitMix64's finisher: as good as chance for this purpose, the same everywhere.
fn mix(number: u64, salt: u64) -> u64 {
    let mut z = number
        .wrapping_mul(64)
        .wrapping_add(salt)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numeric(cents: i64) -> Vec<i16> {
        let mut out = BytesMut::new();
        put_numeric(cents, &mut out);
        assert_eq!(out.len() as u8, out[3] + 4);
        out[4..]
            .chunks(2)
            .map(|c| i16::from_be_bytes([c[0], c[1]]))
            .collect()
    }

    #[test]
    fn numeric_has_digits_weight_sign_and_scale_of_postgresql() {
        assert_eq!(numeric(0), [0, 0, 0, 2]);
        assert_eq!(numeric(5), [1, -1, 0, 2, 500]);
        assert_eq!(numeric(100), [1, 0, 0, 2, 1]);
        assert_eq!(numeric(123_456_789), [3, 1, 0, 2, 123, 4567, 8900]);
    }

    #[test]
    fn months_start_where_the_calendar_says() {
        assert_eq!(month(0), 7671);
        assert_eq!(month(35) - month(24), 334, "1 December 2023");
    }

    #[test]
    fn transfers_are_skewed_but_in_range() {
        let rows: Vec<_> = (0..10_000).map(Transfer::nth).collect();
        let companies = 1..=COMPANIES as i64;
        assert!(
            rows.iter()
                .all(|t| companies.contains(&t.payer) && companies.contains(&t.beneficiary))
        );
        assert!(rows.iter().all(|t| t.payer != t.beneficiary));
        let small = rows
            .iter()
            .filter(|t| t.payer <= COMPANIES as i64 / 4)
            .count();
        assert!(
            (4_000..6_000).contains(&small),
            "half of the rows belong to a quarter of the payers"
        );
    }
}
