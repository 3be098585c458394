//! Client encodings: what PostgreSQL's conversions between UTF8 and an encoding of one byte a character do. Shards speak UTF8.

mod tables;

use std::sync::LazyLock;

use tables::TABLES;

/// A client's encoding.
#[derive(Debug)]
pub struct Encoding {
    name: &'static str,
    /// None: the bytes go through as they are (UTF8, SQL_ASCII).
    table: Option<Table>,
}

#[derive(Debug)]
struct Table {
    /// Characters of the bytes 128..=255.
    upper: Vec<Option<char>>,
    /// The same by character, sorted.
    bytes: Vec<(char, u8)>,
}

/// Why a name is no encoding to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    /// PostgreSQL knows it, and takes several bytes for a character.
    Unsupported,
    /// Nobody knows it.
    Unknown,
}

/// A character that has no equivalent on the other side: its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untranslatable(pub Vec<u8>);

static ENCODINGS: LazyLock<Vec<Encoding>> = LazyLock::new(|| {
    let plain = ["UTF8", "SQL_ASCII"].map(|name| Encoding { name, table: None });
    let latin1 = (128..=255_u8).map(|b| Some(char::from(b))).collect();
    let others = TABLES.iter().map(|(name, text)| {
        let upper = text.chars().map(|c| (c != '\u{fffd}').then_some(c));
        Encoding::of(name, upper.collect())
    });
    let single = [Encoding::of("LATIN1", latin1)].into_iter().chain(others);
    plain.into_iter().chain(single).collect()
});

/// Other names of the encodings, small letters and digits only (`pg_encname_tbl` in PostgreSQL's encnames.c).
const ALIASES: [(&str, &str); 29] = [
    ("abc", "WIN1258"),
    ("alt", "WIN866"),
    ("iso88591", "LATIN1"),
    ("iso885910", "LATIN6"),
    ("iso885913", "LATIN7"),
    ("iso885914", "LATIN8"),
    ("iso885915", "LATIN9"),
    ("iso885916", "LATIN10"),
    ("iso88592", "LATIN2"),
    ("iso88593", "LATIN3"),
    ("iso88594", "LATIN4"),
    ("iso88599", "LATIN5"),
    ("koi8", "KOI8R"),
    ("tcvn", "WIN1258"),
    ("tcvn5712", "WIN1258"),
    ("unicode", "UTF8"),
    ("vscii", "WIN1258"),
    ("win", "WIN1251"),
    ("windows1250", "WIN1250"),
    ("windows1251", "WIN1251"),
    ("windows1252", "WIN1252"),
    ("windows1253", "WIN1253"),
    ("windows1254", "WIN1254"),
    ("windows1255", "WIN1255"),
    ("windows1256", "WIN1256"),
    ("windows1257", "WIN1257"),
    ("windows1258", "WIN1258"),
    ("windows866", "WIN866"),
    ("windows874", "WIN874"),
];

/// Encodings of several bytes a character, which are not spoken.
const MULTIBYTE: [&str; 23] = [
    "big5",
    "euccn",
    "eucjis2004",
    "eucjp",
    "euckr",
    "euctw",
    "gb18030",
    "gbk",
    "johab",
    "mskanji",
    "muleinternal",
    "shiftjis",
    "shiftjis2004",
    "sjis",
    "uhc",
    "win932",
    "win936",
    "win949",
    "win950",
    "windows932",
    "windows936",
    "windows949",
    "windows950",
];

impl Encoding {
    fn of(name: &'static str, upper: Vec<Option<char>>) -> Self {
        let known = upper.iter().zip(128..=255_u8);
        let mut bytes: Vec<(char, u8)> = known.filter_map(|(c, b)| Some(((*c)?, b))).collect();
        bytes.sort_unstable();
        Self {
            name,
            table: Some(Table { upper, bytes }),
        }
    }

    /// The encoding of a name as clients spell it: case and anything but letters and digits do not matter.
    ///
    /// # Errors
    /// Why it cannot be spoken.
    pub fn named(name: &str) -> Result<&'static Self, Unusable> {
        let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        let plain = plain.to_ascii_lowercase();
        let alias = ALIASES.iter().find(|(alias, _)| *alias == plain);
        let is_meant = |e: &&Self| match alias {
            Some((_, name)) => e.name == *name,
            None => e
                .name
                .bytes()
                .filter(u8::is_ascii_alphanumeric)
                .map(|b| b.to_ascii_lowercase())
                .eq(plain.bytes()),
        };
        match ENCODINGS.iter().find(is_meant) {
            Some(encoding) => Ok(encoding),
            None if MULTIBYTE.contains(&plain.as_str()) => Err(Unusable::Unsupported),
            None => Err(Unusable::Unknown),
        }
    }

    /// As PostgreSQL spells it.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// True when bytes are other ones in UTF8.
    pub fn converts(&self) -> bool {
        self.table.is_some()
    }

    /// A client's text in UTF8.
    ///
    /// # Errors
    /// The first byte that means nothing.
    pub fn decode(&self, bytes: &[u8]) -> Result<Vec<u8>, Untranslatable> {
        let Some(table) = &self.table else {
            return Ok(bytes.to_vec());
        };
        let mut out = Vec::with_capacity(bytes.len() + 8);
        let mut utf8 = [0; 4];
        for byte in bytes {
            match byte.checked_sub(128) {
                None => out.push(*byte),
                Some(at) => match table.upper[usize::from(at)] {
                    Some(c) => out.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes()),
                    None => return Err(Untranslatable(vec![*byte])),
                },
            }
        }
        Ok(out)
    }

    /// A text in UTF8 as the client reads it, appended.
    ///
    /// # Errors
    /// The bytes of the first character that the client cannot read.
    pub fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), Untranslatable> {
        let Some(table) = self.table.as_ref().filter(|_| !text.is_ascii()) else {
            out.extend_from_slice(text);
            return Ok(());
        };
        for chunk in text.utf8_chunks() {
            for c in chunk.valid().chars() {
                match table.bytes.binary_search_by_key(&c, |(known, _)| *known) {
                    _ if c.is_ascii() => out.push(c as u8),
                    Ok(at) => out.push(table.bytes[at].1),
                    Err(_) => return Err(Untranslatable(c.to_string().into_bytes())),
                }
            }
            if !chunk.invalid().is_empty() {
                return Err(Untranslatable(chunk.invalid().to_vec()));
            }
        }
        Ok(())
    }

    /// As `encode`, with a question mark for what the client cannot read: for words that nobody computes with.
    pub fn encode_lossy(&self, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len());
        if self.encode(text, &mut out).is_ok() {
            return out;
        }
        out.clear();
        let mut utf8 = [0; 4];
        for c in String::from_utf8_lossy(text).chars() {
            if self
                .encode(c.encode_utf8(&mut utf8).as_bytes(), &mut out)
                .is_err()
            {
                out.push(b'?');
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> &'static Encoding {
        Encoding::named(name).unwrap()
    }

    #[test]
    fn names_are_read_as_clients_spell_them() {
        for (spelt, name) in [
            ("'utf-8'", "UTF8"),
            ("unicode", "UTF8"),
            ("latin-1", "LATIN1"),
            ("ISO_8859-15", "LATIN9"),
            ("iso_8859_5", "ISO_8859_5"),
            ("Windows-1252", "WIN1252"),
            ("sql_ascii", "SQL_ASCII"),
        ] {
            assert_eq!(named(spelt).name(), name);
        }
        assert_eq!(Encoding::named("SJIS").unwrap_err(), Unusable::Unsupported);
        assert_eq!(Encoding::named("utf9").unwrap_err(), Unusable::Unknown);
    }

    #[test]
    fn tables_are_whole_and_go_both_ways() {
        for encoding in ENCODINGS.iter().filter(|e| e.converts()) {
            let table = encoding.table.as_ref().unwrap();
            assert_eq!(table.upper.len(), 128, "{}", encoding.name);
            for byte in 0..=255_u8 {
                let Ok(text) = encoding.decode(&[byte]) else {
                    continue;
                };
                let mut back = Vec::new();
                encoding.encode(&text, &mut back).unwrap();
                assert_eq!(back, [byte], "{}", encoding.name);
            }
        }
    }

    #[test]
    fn what_has_no_equivalent_is_told() {
        let mut out = Vec::new();
        assert_eq!(named("WIN1252").decode(b"a\x80"), Ok("a€".into()));
        assert_eq!(
            named("WIN1252").decode(b"a\x81"),
            Err(Untranslatable(vec![0x81]))
        );
        assert_eq!(
            named("LATIN1").encode("ä€".as_bytes(), &mut out),
            Err(Untranslatable("€".into()))
        );
        assert_eq!(named("LATIN1").encode_lossy("ä€".as_bytes()), b"\xe4?");
        assert_eq!(
            named("SQL_ASCII").encode_lossy("ä".as_bytes()),
            "ä".as_bytes()
        );
    }
}
