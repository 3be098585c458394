//! PostgreSQL's numeric: exact decimals of any size, NaN and the infinities, with its own rules for scales.
//!
//! Digits are base 10,000 as on the wire. A value is kept without zero digits at its ends; `dscale` says how many decimals
//! it shows (PostgreSQL, numeric.c: NumericVar).

use std::cmp::Ordering;

use bytes::{BufMut, BytesMut};

const BASE: u32 = 10_000;
const DECIMALS_PER_DIGIT: i32 = 4;
const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const POSITIVE_INFINITY: u16 = 0xD000;
const NEGATIVE_INFINITY: u16 = 0xF000;
/// The highest base-10,000 exponent that a stored value may have.
const WEIGHT_MAX: i32 = i16::MAX as i32;
/// Decimals that a quotient has at least, counted from its first digit.
const SIGNIFICANT_DECIMALS_MIN: i32 = 16;
const DISPLAY_SCALE_MAX: i32 = 1000;

/// A numeric value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Numeric {
    /// Not a number: equal to itself, above all others.
    NaN,
    /// `Infinity` or `-Infinity`.
    Infinity {
        /// True for `-Infinity`.
        negative: bool,
    },
    /// Anything else.
    Finite(Decimal),
}

/// A finite numeric: `± 0.d1 d2 d3… × 10000^(weight + 1)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decimal {
    negative: bool,
    /// Exponent of the first digit.
    weight: i32,
    /// Decimals shown.
    dscale: i32,
    /// Neither the first nor the last one is 0; none at all for zero.
    digits: Vec<u16>,
}

/// The result has more digits than PostgreSQL stores (22003).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("value overflows numeric format")]
pub struct Overflow;

impl Numeric {
    /// Reads the binary form; `None` when it is malformed.
    pub fn from_binary(bytes: &[u8]) -> Option<Self> {
        let header = bytes.first_chunk::<8>()?;
        let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let digits = bytes[8..].chunks_exact(2);
        let digits: Vec<u16> = digits.map(|d| u16::from_be_bytes([d[0], d[1]])).collect();
        let sound = bytes.len() == 8 + 2 * word(0) as usize;
        if !sound || digits.iter().any(|d| u32::from(*d) >= BASE) {
            return None;
        }
        Some(match word(4) {
            NAN => Self::NaN,
            POSITIVE_INFINITY => Self::Infinity { negative: false },
            NEGATIVE_INFINITY => Self::Infinity { negative: true },
            sign @ (0 | NEGATIVE) => Self::Finite(Decimal::new(
                sign == NEGATIVE,
                i32::from(word(2) as i16),
                i32::from(word(6)),
                digits,
            )),
            _ => return None,
        })
    }

    /// Appends the binary form.
    ///
    /// # Errors
    /// `Overflow` as PostgreSQL would say when it stores the value.
    pub fn put_binary(&self, out: &mut BytesMut) -> Result<(), Overflow> {
        let special = |sign: u16, out: &mut BytesMut| {
            // PostgreSQL sends a bit of its own header as the infinities' scale.
            let scale = if sign == NAN { 0 } else { 0x20 };
            for word in [0, 0, sign, scale] {
                out.put_u16(word);
            }
        };
        match self {
            Self::NaN => special(NAN, out),
            Self::Infinity { negative: false } => special(POSITIVE_INFINITY, out),
            Self::Infinity { negative: true } => special(NEGATIVE_INFINITY, out),
            Self::Finite(decimal) => {
                decimal.check()?;
                out.put_u16(decimal.digits.len() as u16);
                out.put_i16(decimal.weight as i16);
                out.put_u16(if decimal.negative { NEGATIVE } else { 0 });
                out.put_u16(decimal.dscale as u16);
                decimal.digits.iter().for_each(|d| out.put_u16(*d));
            }
        }
        Ok(())
    }

    /// The text form.
    ///
    /// # Errors
    /// `Overflow` as PostgreSQL would say when it stores the value.
    pub fn to_text(&self) -> Result<String, Overflow> {
        Ok(match self {
            Self::NaN => "NaN".to_owned(),
            Self::Infinity { negative: false } => "Infinity".to_owned(),
            Self::Infinity { negative: true } => "-Infinity".to_owned(),
            Self::Finite(decimal) => {
                decimal.check()?;
                decimal.text()
            }
        })
    }

    /// Compares values, whatever their scales (`==` tells 1.0 and 1.00 apart): NaN is above all.
    pub fn compare(&self, other: &Self) -> Ordering {
        let class = |n: &Self| match n {
            Self::Infinity { negative: true } => 0,
            Self::Finite(_) => 1,
            Self::Infinity { negative: false } => 2,
            Self::NaN => 3,
        };
        match (self, other) {
            (Self::Finite(a), Self::Finite(b)) => a.compare(b),
            _ => class(self).cmp(&class(other)),
        }
    }

    /// The sum; it shows as many decimals as the operand that shows more.
    #[must_use]
    pub fn add(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Finite(a), Self::Finite(b)) => Self::Finite(a.add(b)),
            (Self::NaN, _) | (_, Self::NaN) => Self::NaN,
            (Self::Infinity { negative: a }, Self::Infinity { negative: b }) if a != b => Self::NaN,
            (infinity @ Self::Infinity { .. }, _) | (_, infinity) => infinity.clone(),
        }
    }

    /// The quotient by a count above 0, with as many decimals as PostgreSQL's division gives it.
    #[must_use]
    pub fn divide_by_count(&self, count: u64) -> Self {
        match self {
            Self::Finite(decimal) => Self::Finite(decimal.divide_by_count(count)),
            special => special.clone(),
        }
    }
}

impl From<i64> for Numeric {
    fn from(value: i64) -> Self {
        let mut rest = value.unsigned_abs();
        let mut digits = Vec::with_capacity(5);
        while rest > 0 {
            digits.push((rest % u64::from(BASE)) as u16);
            rest /= u64::from(BASE);
        }
        digits.reverse();
        let weight = digits.len() as i32 - 1;
        Self::Finite(Decimal::new(value < 0, weight, 0, digits))
    }
}

impl Decimal {
    /// Takes zero digits off both ends.
    fn new(negative: bool, weight: i32, dscale: i32, mut digits: Vec<u16>) -> Self {
        while digits.last() == Some(&0) {
            digits.pop();
        }
        let zeros = digits.iter().take_while(|d| **d == 0).count();
        digits.drain(..zeros);
        let zero = digits.is_empty();
        Self {
            negative: negative && !zero,
            weight: if zero { 0 } else { weight - zeros as i32 },
            dscale,
            digits,
        }
    }

    fn check(&self) -> Result<(), Overflow> {
        if self.weight > WEIGHT_MAX {
            return Err(Overflow);
        }
        Ok(())
    }

    /// The digit that counts 10000^`exponent`.
    fn digit(&self, exponent: i32) -> u16 {
        usize::try_from(self.weight - exponent)
            .ok()
            .and_then(|i| self.digits.get(i))
            .copied()
            .unwrap_or(0)
    }

    /// Exponent of the last digit.
    fn lowest(&self) -> i32 {
        self.weight - self.digits.len() as i32 + 1
    }

    fn compare(&self, other: &Self) -> Ordering {
        match (self.negative, other.negative) {
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
            (false, false) => self.compare_magnitude(other),
            (true, true) => other.compare_magnitude(self),
        }
    }

    fn compare_magnitude(&self, other: &Self) -> Ordering {
        match (self.digits.is_empty(), other.digits.is_empty()) {
            (true, true) => return Ordering::Equal,
            (true, false) => return Ordering::Less,
            (false, true) => return Ordering::Greater,
            (false, false) => {}
        }
        // Without zeros at the end, the longer one of two that begin alike is greater: as slices compare.
        let weights = self.weight.cmp(&other.weight);
        weights.then_with(|| self.digits.cmp(&other.digits))
    }

    fn add(&self, other: &Self) -> Self {
        let dscale = self.dscale.max(other.dscale);
        if self.digits.is_empty() || other.digits.is_empty() {
            let mut sum = if self.digits.is_empty() { other } else { self }.clone();
            sum.dscale = dscale;
            return sum;
        }
        let (large, small) = if self.compare_magnitude(other) == Ordering::Less {
            (other, self)
        } else {
            (self, other)
        };
        let subtract = self.negative != other.negative;
        // One digit more for the carry.
        let weight = large.weight + 1;
        let lowest = large.lowest().min(small.lowest());
        let mut digits = vec![0; (weight - lowest + 1) as usize];
        let mut carry = 0_i32;
        for exponent in lowest..=weight {
            let (a, b) = (large.digit(exponent), small.digit(exponent));
            let b = if subtract { -i32::from(b) } else { b.into() };
            let sum = i32::from(a) + b + carry;
            carry = sum.div_euclid(BASE as i32);
            digits[(weight - exponent) as usize] = sum.rem_euclid(BASE as i32) as u16;
        }
        Self::new(large.negative, weight, dscale, digits)
    }

    fn divide_by_count(&self, count: u64) -> Self {
        let scale = self.quotient_scale(count);
        // One digit beyond the last decimal that stays tells how to round.
        let lowest = -(scale / DECIMALS_PER_DIGIT) - 1;
        let mut digits = Vec::new();
        let mut rest: u128 = 0;
        for exponent in (lowest..=self.weight.max(0)).rev() {
            rest = rest * u128::from(BASE) + u128::from(self.digit(exponent));
            digits.push((rest / u128::from(count)) as u16);
            rest %= u128::from(count);
        }
        let mut quotient = Self {
            negative: self.negative,
            weight: self.weight.max(0),
            dscale: scale,
            digits,
        };
        quotient.round();
        Self::new(quotient.negative, quotient.weight, scale, quotient.digits)
    }

    /// Decimals of a quotient: enough for 16 significant ones, and no fewer than the dividend shows (select_div_scale).
    fn quotient_scale(&self, count: u64) -> i32 {
        let first = self.digits.first().copied().unwrap_or(0);
        let (mut divisor_first, mut divisor_weight) = (count, 0);
        while divisor_first >= u64::from(BASE) {
            divisor_first /= u64::from(BASE);
            divisor_weight += 1;
        }
        let mut weight = self.weight - divisor_weight;
        if u64::from(first) <= divisor_first {
            weight -= 1;
        }
        (SIGNIFICANT_DECIMALS_MIN - weight * DECIMALS_PER_DIGIT)
            .max(self.dscale)
            .clamp(0, DISPLAY_SCALE_MAX)
    }

    /// Rounds to `dscale` decimals, halves away from zero. The digits reach one beyond the last decimal.
    fn round(&mut self) {
        let kept_decimals = self.dscale % DECIMALS_PER_DIGIT;
        let last = self.digits.len() - 1;
        let unit = 10_u16.pow((DECIMALS_PER_DIGIT - kept_decimals) as u32);
        let cut = self.digits[last] % unit;
        self.digits[last] -= cut;
        if cut < unit / 2 {
            return;
        }
        let mut carry = unit;
        for digit in self.digits.iter_mut().rev() {
            *digit += carry;
            carry = u16::from(u32::from(*digit) >= BASE);
            *digit %= BASE as u16;
            if carry == 0 {
                return;
            }
        }
        self.digits.insert(0, carry);
        self.weight += 1;
    }

    fn text(&self) -> String {
        use std::fmt::Write;
        let mut text = String::new();
        if self.negative {
            text.push('-');
        }
        let whole = text.len();
        for exponent in (0..=self.weight.max(0)).rev() {
            let digit = self.digit(exponent);
            if text.len() > whole || exponent == 0 && digit == 0 {
                let width = if text.len() > whole { 4 } else { 1 };
                let _ = write!(text, "{digit:0width$}");
            } else if digit > 0 {
                let _ = write!(text, "{digit}");
            }
        }
        if self.dscale > 0 {
            text.push('.');
            let end = text.len() + self.dscale as usize;
            let mut exponent = -1;
            while text.len() < end {
                let _ = write!(text, "{:04}", self.digit(exponent));
                exponent -= 1;
            }
            text.truncate(end);
        }
        text
    }
}

#[cfg(test)]
mod tests;
