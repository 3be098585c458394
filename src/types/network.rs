//! The order of inet and cidr (PostgreSQL, network.c): family, common network bits, length of the mask, whole address.

use std::cmp::Ordering;

/// An inet or cidr in its binary form: family, mask bits, a flag for cidr, length, address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Address<'a> {
    family: u8,
    mask_bits: u8,
    address: &'a [u8],
}

impl<'a> Address<'a> {
    pub(super) fn read(value: &'a [u8]) -> Option<Self> {
        let (&[family, mask_bits, _cidr, length], address) = value.split_first_chunk()?;
        let sound = address.len() == length as usize && mask_bits as usize <= address.len() * 8;
        sound.then_some(Self {
            family,
            mask_bits,
            address,
        })
    }

    /// Compares the first `bits` bits.
    fn compare_bits(&self, other: &Self, bits: u8) -> Ordering {
        let whole = (bits / 8) as usize;
        let (a, b) = (self.address, other.address);
        let bytes = a.get(..whole).cmp(&b.get(..whole));
        bytes.then_with(|| {
            let rest = |address: &[u8]| {
                let byte = address.get(whole).copied().unwrap_or(0);
                u16::from(byte) >> (8 - bits % 8)
            };
            rest(a).cmp(&rest(b))
        })
    }
}

impl PartialOrd for Address<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Address<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let common = self.mask_bits.min(other.mask_bits);
        self.family
            .cmp(&other.family)
            .then_with(|| self.compare_bits(other, common))
            .then_with(|| self.mask_bits.cmp(&other.mask_bits))
            .then_with(|| self.address.cmp(other.address))
    }
}
