//! Text forms of float4 and float8 as PostgreSQL prints them with `extra_float_digits` of 1 or more (its default): the fewest
//! digits that read back as the same value. Sessions that set it lower must not have floats printed here.

/// Exponents from which on PostgreSQL uses the form with `e`: the digits each type holds for sure.
const FLOAT4_DIGITS: i32 = 6;
const FLOAT8_DIGITS: i32 = 15;
/// Decimals behind a number's digits that move it by less than any two different roundings lie apart.
const NUDGE_DIGITS: usize = 60;

/// The text of a float8.
pub fn float8_text(value: f64) -> String {
    if let Some(text) = special(value) {
        return text;
    }
    let digits = Digits::shortest(
        &format!("{value:e}"),
        |n| format!("{value:.n$e}"),
        |text| text.parse::<f64>().is_ok_and(|v| v == value),
    );
    digits.text(value.is_sign_negative(), FLOAT8_DIGITS)
}

/// The text of a float4.
pub fn float4_text(value: f32) -> String {
    if let Some(text) = special(f64::from(value)) {
        return text;
    }
    let digits = Digits::shortest(
        &format!("{value:e}"),
        |n| format!("{value:.n$e}"),
        |text| text.parse::<f32>().is_ok_and(|v| v == value),
    );
    digits.text(value.is_sign_negative(), FLOAT4_DIGITS)
}

fn special(value: f64) -> Option<String> {
    let text = match value {
        v if v.is_nan() => "NaN",
        f64::INFINITY => "Infinity",
        f64::NEG_INFINITY => "-Infinity",
        v if v == 0.0 && v.is_sign_negative() => "-0",
        0.0 => "0",
        _ => return None,
    };
    Some(text.to_owned())
}

/// `d.ddd × 10^exponent`, without sign.
struct Digits {
    digits: String,
    exponent: i32,
}

impl Digits {
    /// Rust takes the shortest digits that read back, even when they lie just in the middle between two floats and only
    /// the rule for halves makes them this one (1e23). PostgreSQL wants them strictly inside, so more digits are tried then.
    fn shortest(
        first: &str,
        with_decimals: impl Fn(usize) -> String,
        reads_back: impl Fn(&str) -> bool,
    ) -> Self {
        let mut candidate = Self::parse(first);
        while candidate.digits.len() < 17 && !candidate.is_inside(first, &reads_back) {
            candidate = Self::parse(&with_decimals(candidate.digits.len()));
        }
        // Of two shortest ones that lie equally near, PostgreSQL takes the even one, as exact formatting does.
        let exact = Self::parse(&with_decimals(candidate.digits.len() - 1));
        if exact.is_inside(first, &reads_back) {
            candidate = exact;
        }
        let kept = candidate.digits.trim_end_matches('0').len().max(1);
        candidate.digits.truncate(kept);
        candidate
    }

    /// Reads `-d.ddde-7`.
    fn parse(text: &str) -> Self {
        let (digits, exponent) = text.split_once('e').unwrap_or((text, "0"));
        Self {
            digits: digits.chars().filter(char::is_ascii_digit).collect(),
            exponent: exponent.parse().unwrap_or(0),
        }
    }

    /// True when a little more and a little less still read back as the value.
    fn is_inside(&self, original: &str, reads_back: impl Fn(&str) -> bool) -> bool {
        let sign = if original.starts_with('-') { "-" } else { "" };
        let Ok(number) = self.digits.parse::<u64>() else {
            return true;
        };
        let exponent = self.exponent - (self.digits.len() as i32 - 1) - NUDGE_DIGITS as i32;
        let above = format!("{sign}{number}{:0>NUDGE_DIGITS$}e{exponent}", 1);
        let below = format!(
            "{sign}{}{:9>NUDGE_DIGITS$}e{exponent}",
            number.wrapping_sub(1),
            9
        );
        number == 0 || reads_back(&above) && reads_back(&below)
    }

    fn text(&self, negative: bool, type_digits: i32) -> String {
        let sign = if negative { "-" } else { "" };
        let (digits, exponent) = (&self.digits, self.exponent);
        if exponent < -4 || exponent >= type_digits {
            let (first, rest) = digits.split_at(1);
            let point = if rest.is_empty() { "" } else { "." };
            let exponent_sign = if exponent < 0 { '-' } else { '+' };
            return format!(
                "{sign}{first}{point}{rest}e{exponent_sign}{:02}",
                exponent.abs()
            );
        }
        if exponent < 0 {
            let zeros = "0".repeat((-exponent - 1) as usize);
            return format!("{sign}0.{zeros}{digits}");
        }
        let whole = exponent as usize + 1;
        if digits.len() <= whole {
            return format!("{sign}{digits:0<whole$}");
        }
        let (whole, decimals) = digits.split_at(whole);
        format!("{sign}{whole}.{decimals}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Text and float8send() of values on a PostgreSQL 15 server.
    #[test]
    fn float8_prints_as_postgresql_does() {
        for (bits, text) in [
            (0x0000_0000_0000_0000, "0"),
            (0x8000_0000_0000_0000, "-0"),
            (0x3ff0_0000_0000_0000, "1"),
            (0xbff8_0000_0000_0000, "-1.5"),
            (0x430c_6bf5_2634_0000, "1e+15"),
            (0x42d6_bcc4_1e90_0000, "100000000000000"),
            (0x4311_8b54_f22a_eb00, "1.234567890123456e+15"),
            (0x3f1a_36e2_eb1c_432d, "0.0001"),
            (0x3ee4_f8b5_88e3_68f1, "1e-05"),
            (0x44b5_2d02_c7e1_4af6, "9.999999999999999e+22"),
            (0x0000_0000_0000_0001, "5e-324"),
            (0x7fef_ffff_ffff_ffff, "1.7976931348623157e+308"),
            (0x3fd5_5555_5555_5555, "0.3333333333333333"),
            (0x44c5_2d02_c7e1_4af6, "1.9999999999999998e+23"),
            (0x447c_7e83_209e_90b2, "8.409999999999999e+21"),
            (0x44a5_2d02_c7e1_4af6, "4.9999999999999996e+22"),
            (0x4480_f0cf_064d_d592, "1e+22"),
            (0x419d_6f34_547d_f3b6, "123456789.123"),
            (0x7ff8_0000_0000_0000, "NaN"),
            (0xfff0_0000_0000_0000, "-Infinity"),
        ] {
            assert_eq!(float8_text(f64::from_bits(bits)), text);
        }
    }

    #[test]
    fn float4_prints_as_postgresql_does() {
        for (value, text) in [
            (1.0_f32, "1"),
            (1e6, "1e+06"),
            (123_456.0, "123456"),
            (1_234_567.0, "1.234567e+06"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (f32::MAX, "3.4028235e+38"),
            (f32::from_bits(1), "1e-45"),
            (16_777_216.0, "1.6777216e+07"),
        ] {
            assert_eq!(float4_text(value), text);
        }
    }
}
