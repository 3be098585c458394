//! PostgreSQL's extended hash functions as hash partitioning uses them, and Hive's `hash()`. A key's shard must be the one
//! that the servers computed when they stored the row, so every bit counts.

/// The seed of hash partitioning, the same on all servers (PostgreSQL, partition bounds).
pub const PARTITION_SEED: u64 = 0x7A5B_2236_7996_DCFD;

/// Bob Jenkins' lookup3 starts from this sum and the length.
const START: u32 = 0x9e37_79b9_u32.wrapping_add(3_923_095);

/// The three words of lookup3's state.
struct State {
    a: u32,
    b: u32,
    c: u32,
}

impl State {
    fn new(length: usize, seed: u64) -> Self {
        let start = START.wrapping_add(length as u32);
        let mut state = Self {
            a: start,
            b: start,
            c: start,
        };
        if seed != 0 {
            state.a = state.a.wrapping_add((seed >> 32) as u32);
            state.b = state.b.wrapping_add(seed as u32);
            state.mix();
        }
        state
    }

    fn mix(&mut self) {
        let Self { a, b, c } = self;
        for (first, second, third) in [(4, 6, 8), (16, 19, 4)] {
            *a = a.wrapping_sub(*c) ^ c.rotate_left(first);
            *c = c.wrapping_add(*b);
            *b = b.wrapping_sub(*a) ^ a.rotate_left(second);
            *a = a.wrapping_add(*c);
            *c = c.wrapping_sub(*b) ^ b.rotate_left(third);
            *b = b.wrapping_add(*a);
        }
    }

    fn finish(self) -> u64 {
        let Self {
            mut a,
            mut b,
            mut c,
        } = self;
        c = (c ^ b).wrapping_sub(b.rotate_left(14));
        a = (a ^ c).wrapping_sub(c.rotate_left(11));
        b = (b ^ a).wrapping_sub(a.rotate_left(25));
        c = (c ^ b).wrapping_sub(b.rotate_left(16));
        a = (a ^ c).wrapping_sub(c.rotate_left(4));
        b = (b ^ a).wrapping_sub(a.rotate_left(14));
        c = (c ^ b).wrapping_sub(b.rotate_left(24));
        u64::from(b) << 32 | u64::from(c)
    }
}

/// `hash_any_extended`: text under a deterministic collation, uuid, bytea.
pub fn hash_bytes(bytes: &[u8], seed: u64) -> u64 {
    let mut state = State::new(bytes.len(), seed);
    let mut chunks = bytes.chunks_exact(12);
    for chunk in &mut chunks {
        state.a = state.a.wrapping_add(little_endian(&chunk[0..4]));
        state.b = state.b.wrapping_add(little_endian(&chunk[4..8]));
        state.c = state.c.wrapping_add(little_endian(&chunk[8..12]));
        state.mix();
    }
    let tail = chunks.remainder();
    let word = |from: usize| little_endian(&tail[from.min(tail.len())..(from + 4).min(tail.len())]);
    state.a = state.a.wrapping_add(word(0));
    state.b = state.b.wrapping_add(word(4));
    // The lowest byte of c is left to the length.
    state.c = state.c.wrapping_add(word(8) << 8);
    state.finish()
}

fn little_endian(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .rev()
        .fold(0, |word, byte| word << 8 | u32::from(*byte))
}

/// `hashint4extended`, also of date.
pub fn hash_int4(value: i32, seed: u64) -> u64 {
    let mut state = State::new(4, seed);
    state.a = state.a.wrapping_add(value as u32);
    state.finish()
}

/// `hashint8extended`, which equals `hashint4extended` and `hashint2extended` for values those types hold.
pub fn hash_int8(value: i64, seed: u64) -> u64 {
    let high = (value >> 32) as u32;
    let folded = value as u32 ^ if value >= 0 { high } else { !high };
    hash_int4(folded as i32, seed)
}

/// `hash_combine64`: adds one key column's hash to a row's.
pub fn combine(row: u64, key: u64) -> u64 {
    row ^ key
        .wrapping_add(0x49a0_f4dd_15e5_a8e3)
        .wrapping_add(row << 54)
        .wrapping_add(row >> 7)
}

/// The remainder that PostgreSQL's hash partitioning gives to a row with one key column; `None` is NULL, which adds nothing.
pub fn partition_remainder(key: Option<u64>, modulus: u64) -> u64 {
    key.map_or(0, |hash| combine(0, hash)) % modulus
}

/// Hive's hash of a bigint; smaller integers are their own hash.
pub fn hive_bigint(value: i64) -> i32 {
    (value ^ ((value as u64) >> 32) as i64) as i32
}

/// Hive's hash of a string: Java's `hashCode` loop over the UTF-8 bytes, which are signed there.
pub fn hive_string(text: &str) -> i32 {
    text.bytes().fold(0, |hash: i32, byte| {
        hash.wrapping_mul(31).wrapping_add(i32::from(byte as i8))
    })
}

/// Days between Hive's epoch (1970) and PostgreSQL's (2000).
pub const HIVE_EPOCH_DAYS: i32 = 10_957;

/// Hive's bucket of a hash.
pub fn hive_bucket(hash: i32, buckets: usize) -> usize {
    (hash & i32::MAX) as usize % buckets
}

#[cfg(test)]
mod tests {
    use super::*;

    // Values from a PostgreSQL 15 server: hashint8extended(k, 8816678312871386365) and so on.
    #[test]
    fn integers_hash_as_postgresql_does() {
        for (key, hash) in [
            (0, -4403592609991167795),
            (1, 5968994663651403477),
            (-1, -5017072347659237694),
            (42, 7363975540656877951),
            (2147483648, 4938542303000433043),
            (-2147483649, -6050265599104649060),
            (i64::MAX, 4938542303000433043),
            (i64::MIN, -6050265599104649060),
        ] {
            assert_eq!(hash_int8(key, PARTITION_SEED) as i64, hash, "{key}");
        }
        assert_eq!(hash_int8(5, 0) as i64, -9138765687874534020);
    }

    #[test]
    fn small_integers_hash_alike_in_every_width() {
        for key in [0, 1, -1, 42, i32::MIN, i32::MAX] {
            assert_eq!(hash_int4(key, 7), hash_int8(i64::from(key), 7));
        }
    }

    #[test]
    fn strings_hash_as_postgresql_does() {
        for (key, hash) in [
            ("", -5700645584453517373),
            ("a", -6705225459120232837),
            ("abcdefgh", -7754745184861941070),
            ("abcdefghijk", -2046435308545367432),
            ("abcdefghijkl", -7876791541613377658),
            ("abcdefghijklm", -6785754114725280077),
            ("Grüße", 4311899274824463033),
            (
                "the quick brown fox jumps over the lazy dog",
                -760430510495933589_i64,
            ),
        ] {
            assert_eq!(
                hash_bytes(key.as_bytes(), PARTITION_SEED) as i64,
                hash,
                "{key}"
            );
        }
        assert_eq!(hash_bytes(b"abc", 0) as i64, -6747756470228489321);
    }

    #[test]
    fn uuids_hash_as_postgresql_does() {
        assert_eq!(
            hash_bytes(&[0; 16], PARTITION_SEED) as i64,
            -5281082146396728638
        );
        let uuid = 0x1234_5678_9abc_def0_1234_5678_9abc_def0_u128.to_be_bytes();
        assert_eq!(hash_bytes(&uuid, PARTITION_SEED) as i64, -58212433439088119);
    }

    #[test]
    fn hive_hashes_as_java_does() {
        assert_eq!(hive_string("hello"), 99162322);
        // Two bytes, 0xC3 and 0xBC, both negative in Java.
        assert_eq!(hive_string("ü"), -61 * 31 - 68);
        assert_eq!(hive_bigint(1 << 32), 1);
        assert_eq!(hive_bigint(-1), 0);
        assert_eq!(hive_bucket(-1, 3), (i32::MAX % 3) as usize);
    }
}
