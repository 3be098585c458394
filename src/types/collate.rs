//! Text in the order of a C library locale, as PostgreSQL's libc collations have it. The one module with `unsafe` code:
//! the C library's `strcoll_l` is the order, and only C offers it.
#![allow(unsafe_code)] // newlocale, strcoll_l and gnu_get_libc_version have no safe form.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;

/// A locale of this machine's C library. Lives as long as the program.
#[derive(Debug, Clone)]
pub struct Locale {
    name: Arc<str>,
    handle: Handle,
}

#[derive(Debug, Clone, Copy)]
struct Handle(libc::locale_t);

// SAFETY: a locale_t is never modified after newlocale made it, and the *_l functions may use it from any thread (POSIX).
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

/// Locales asked for so far; names come from the shards' catalogs, so there are few, and no more than this are kept.
const LOCALES_MAX: usize = 256;
static LOCALES: LazyLock<Mutex<HashMap<String, Option<Locale>>>> = LazyLock::new(Mutex::default);

thread_local! {
    /// Two strings with a NUL behind each, as C wants them.
    static TERMINATED: RefCell<(Vec<u8>, Vec<u8>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

impl Locale {
    /// The locale that PostgreSQL records under this name (`en_US.UTF-8`, `de_DE.utf8`); `None` where it is not installed.
    pub fn named(name: &str) -> Option<Self> {
        let mut locales = LOCALES.lock();
        if let Some(known) = locales.get(name) {
            return known.clone();
        }
        if locales.len() >= LOCALES_MAX {
            return None;
        }
        let made = Self::open(name);
        locales.insert(name.to_owned(), made.clone());
        made
    }

    fn open(name: &str) -> Option<Self> {
        let terminated = CString::new(name).ok()?;
        let mask = libc::LC_COLLATE_MASK | libc::LC_CTYPE_MASK;
        // SAFETY: the name is NUL-terminated and outlives the call; a null base asks for a new locale.
        let handle = unsafe { libc::newlocale(mask, terminated.as_ptr(), std::ptr::null_mut()) };
        (!handle.is_null()).then(|| Self {
            name: Arc::from(name),
            handle: Handle(handle),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Compares as PostgreSQL does under a deterministic libc collation: `strcoll_l`, and bytes where that finds no difference
    /// (varlena.c, varstr_cmp). Strings of PostgreSQL hold no NUL; of any others, what follows one is not looked at first.
    pub fn compare(&self, a: &[u8], b: &[u8]) -> Ordering {
        if a == b {
            return Ordering::Equal;
        }
        let order = TERMINATED.with_borrow_mut(|(first, second)| {
            terminate(a, first);
            terminate(b, second);
            // SAFETY: both strings end with NUL and live until the call returns; the handle came from newlocale and is
            // never freed.
            unsafe { strcoll_l(first.as_ptr().cast(), second.as_ptr().cast(), self.handle.0) }
        });
        order.cmp(&0).then_with(|| a.cmp(b))
    }

    /// True when these strings, in the order a shard sorted them, are in order here too.
    pub fn agrees_with(&self, sorted: &[String]) -> bool {
        sorted
            .windows(2)
            .all(|pair| self.compare(pair[0].as_bytes(), pair[1].as_bytes()) != Ordering::Greater)
    }
}

unsafe extern "C" {
    /// POSIX; the libc crate does not declare it.
    fn strcoll_l(
        a: *const libc::c_char,
        b: *const libc::c_char,
        locale: libc::locale_t,
    ) -> libc::c_int;
}

fn terminate(text: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(text);
    out.push(0);
}

/// The version of this machine's C library, which is what PostgreSQL records as the version of libc collations
/// (`collversion`, `datcollversion`). `None` where it has none to give.
pub fn c_library_version() -> Option<&'static str> {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: returns a constant NUL-terminated string.
        let version = unsafe { std::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) };
        version.to_str().ok()
    }
    #[cfg(not(target_env = "gnu"))]
    None
}

/// Strings whose order differs between locales and versions of them: a shard sorts them once, [`Locale::agrees_with`] looks.
pub const SELF_TEST: &[&str] = &[
    "",
    " ",
    "  ",
    "-",
    "--",
    "_",
    "a",
    "A",
    "a-b",
    "a b",
    "ab",
    "aB",
    "Ab",
    "AB",
    "a_b",
    "a.b",
    "a1",
    "a10",
    "a2",
    "1-1",
    "11",
    "1.1",
    "\"b\"",
    "b",
    "$a",
    "co-op",
    "coop",
    "CO-OP",
    "cote",
    "coté",
    "côte",
    "côté",
    "ß",
    "ss",
    "SS",
    "ä",
    "ae",
    "Ä",
    "z",
    "å",
    "ø",
    "o",
    "é",
    "e\u{301}",
    "ﬁ",
    "fi",
    "Ⅷ",
    "Ж",
    "ж",
    "α",
    "Ω",
    "あ",
    "ア",
    "漢",
    "字",
    "한",
    "א",
    "ب",
    "🙂",
    "🙃",
    "\u{200b}a",
    "\u{ad}a",
    "i",
    "ı",
    "İ",
    "ǆ",
    "½",
    "²",
    "2",
    "²2",
    "٣",
    "3",
    "#x",
    "x#",
    "(x)",
    "~",
    "^",
    "\t",
    "a\tb",
    "x'y",
    "x’y",
    "naïve",
    "naive",
    "résumé",
    "resume",
    "Resume",
    "Résumé",
    "\u{a0}a",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_sort_by_locale_and_not_by_bytes() {
        // Machines without the locale cannot run this.
        let Some(locale) = Locale::named("en_US.UTF-8") else {
            return;
        };
        let words = ["a", "A", "b", "B"];
        for pair in words.windows(2) {
            let (a, b) = (pair[0].as_bytes(), pair[1].as_bytes());
            assert_eq!(locale.compare(a, b), Ordering::Less);
        }
        assert_eq!(locale.compare(b"same", b"same"), Ordering::Equal);
        assert!(locale.agrees_with(&words.map(String::from)));
        assert!(!locale.agrees_with(&["B".to_owned(), "a".to_owned()]));
    }

    #[test]
    fn an_unknown_locale_is_none() {
        assert!(Locale::named("xx_XX.nothing").is_none());
        assert!(Locale::named("a\0b").is_none());
    }

    #[test]
    fn order_is_total() {
        let Some(locale) = Locale::named("en_US.UTF-8") else {
            return;
        };
        for a in SELF_TEST {
            for b in SELF_TEST {
                let order = locale.compare(a.as_bytes(), b.as_bytes());
                assert_eq!(order == Ordering::Equal, a == b);
                assert_eq!(order, locale.compare(b.as_bytes(), a.as_bytes()).reverse());
            }
        }
    }
}
