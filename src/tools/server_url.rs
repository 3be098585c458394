//! Servers as libpq's connection strings name them: `postgres://user:password@host:5432/db?sslmode=require`, or `host=… user=…`.

use std::path::PathBuf;

use tokio_postgres::config::Host;

use crate::config::{Secret, Shard, SslMode};

const PORT: u16 = 5432;

/// Reads a connection string as the shard `name`.
///
/// # Errors
/// What is wrong with it, without its password.
pub fn parse(name: &str, text: &str) -> Result<Shard, String> {
    let (rest, own) = split(text);
    let parsed: tokio_postgres::Config = rest
        .parse()
        // The parser's own message might quote the password.
        .map_err(|_| {
            "is no connection string, such as postgres://user@host:5432/database".to_owned()
        })?;
    let host = match parsed.get_hosts() {
        [] => "127.0.0.1".to_owned(),
        [Host::Tcp(host)] => host.clone(),
        [Host::Unix(folder)] => folder.to_string_lossy().into_owned(),
        _ => return Err("names several hosts".to_owned()),
    };
    let user = parsed.get_user().ok_or("names no user")?.to_owned();
    let password = parsed.get_password().unwrap_or_default();
    let mut shard = Shard {
        name: name.to_owned(),
        host,
        port: parsed.get_ports().first().copied().unwrap_or(PORT),
        dbname: parsed.get_dbname().unwrap_or(&user).to_owned(),
        user,
        password: Secret::new(String::from_utf8_lossy(password)),
        sslmode: SslMode::Prefer,
        sslrootcert: None,
    };
    for (key, value) in own {
        match key.as_str() {
            "sslrootcert" => shard.sslrootcert = Some(PathBuf::from(value)),
            _ => shard.sslmode = sslmode(&value)?,
        }
    }
    Ok(shard)
}

fn sslmode(word: &str) -> Result<SslMode, String> {
    Ok(match word {
        "disable" => SslMode::Disable,
        "allow" | "prefer" => SslMode::Prefer,
        "require" => SslMode::Require,
        "verify-ca" => SslMode::VerifyCa,
        "verify-full" => SslMode::VerifyFull,
        _ => return Err(format!("sslmode is {word}")),
    })
}

/// As a configuration writes it; `None` for the default.
pub fn sslmode_word(mode: SslMode) -> Option<&'static str> {
    match mode {
        SslMode::Prefer => None,
        SslMode::Disable => Some("disable"),
        SslMode::Require => Some("require"),
        SslMode::VerifyCa => Some("verify-ca"),
        SslMode::VerifyFull => Some("verify-full"),
    }
}

/// Takes out what the driver does not know as libpq does.
fn split(text: &str) -> (String, Vec<(String, String)>) {
    let ours = |pair: &&str| pair.starts_with("sslmode=") || pair.starts_with("sslrootcert=");
    let own = |pairs: Vec<&str>| -> Vec<(String, String)> {
        let pairs = pairs.into_iter().filter_map(|p| p.split_once('='));
        pairs
            .map(|(k, v)| (k.to_owned(), v.replace("%2F", "/")))
            .collect()
    };
    match (text.contains("://"), text.split_once('?')) {
        (true, Some((base, query))) => {
            let (taken, left): (Vec<&str>, Vec<&str>) = query.split('&').partition(ours);
            let rest = match left.is_empty() {
                true => base.to_owned(),
                false => format!("{base}?{}", left.join("&")),
            };
            (rest, own(taken))
        }
        (true, None) => (text.to_owned(), Vec::new()),
        (false, _) => {
            let (taken, left): (Vec<&str>, Vec<&str>) = text.split_whitespace().partition(ours);
            (left.join(" "), own(taken))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let shard = parse(
            "s1",
            "postgres://app:p%40ss@db1:5433/shop?sslmode=verify-full&sslrootcert=/etc/ca.crt",
        )
        .expect("valid");
        assert_eq!(
            (&*shard.host, shard.port, &*shard.dbname, &*shard.user),
            ("db1", 5433, "shop", "app")
        );
        assert_eq!(shard.password.reveal(), "p@ss");
        assert_eq!(shard.sslmode, SslMode::VerifyFull);
        assert_eq!(shard.sslrootcert, Some(PathBuf::from("/etc/ca.crt")));
        let shard = parse("s1", "host=/run/postgresql user=app sslmode=disable").expect("valid");
        assert_eq!((&*shard.host, &*shard.dbname), ("/run/postgresql", "app"));
        assert_eq!(shard.sslmode, SslMode::Disable);
    }

    #[test]
    fn mistakes_do_not_show_the_password() {
        for text in [
            "postgres://app:secret@[::1",
            "postgres://app:secret@a,b/x",
            "nonsense secret",
        ] {
            let message = parse("s1", text).expect_err("invalid");
            assert!(!message.contains("secret"), "{message}");
        }
        assert!(parse("s1", "host=a").is_err(), "no user");
    }
}
