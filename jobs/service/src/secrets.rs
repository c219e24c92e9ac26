//! Secrets that are none: printed in our examples, or the first that anybody tries.

/// Parts of the values that our examples print: each of them says of itself that it has to be replaced.
const PRINTED: [&str; 7] = ["change-me", "changeme", "change_me", "replace-me", "example", "placeholder", "not-a-secret"];
/// What is tried first.
const GUESSED: [&str; 11] = ["zaguan", "postgres", "redis", "password", "secret", "admin", "root", "test", "guest", "123456", "contraseña"];

/// A secret that production refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} holds a secret that is printed in our examples or easily guessed: make one with `openssl rand -base64 32`")]
pub struct PrintedSecret(pub &'static str);

/// Whether anybody knows this secret.
pub fn is_printed(secret: &str) -> bool {
    let secret = secret.to_lowercase();
    PRINTED.iter().any(|part| secret.contains(part))
        || GUESSED.contains(&secret.trim_end_matches(|c: char| c.is_ascii_digit() || c == '!'))
        || GUESSED.contains(&secret.as_str())
}

/// Refuses a URL with a password that anybody knows. One without a password is somebody else's business (sockets, certificates).
///
/// # Errors
/// [`PrintedSecret`] names the variable.
pub fn check_url(name: &'static str, url: &str) -> Result<(), PrintedSecret> {
    if password(url).is_some_and(is_printed) { Err(PrintedSecret(name)) } else { Ok(()) }
}

fn password(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?']).next()?;
    let (userinfo, _) = authority.rsplit_once('@')?;
    userinfo.split_once(':').map(|(_, password)| password).filter(|p| !p.is_empty())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn a_password_that_is_printed_or_guessed_is_refused_wherever_it_stands_in_a_url() {
        for bad in
            ["postgres://zaguan:change-me@db/zaguan", "redis://:ChangeMe1@r:6379", "postgres://u:postgres@db", "postgres://u:Zaguan123!@db"]
        {
            assert_eq!(check_url("DATABASE_URL", bad), Err(PrintedSecret("DATABASE_URL")), "{bad}");
        }
        for good in ["postgres://zaguan@db/zaguan", "redis://r:6379", "postgres://u:9f8a7c5e21@db/example", "postgres:///zaguan?host=/run"]
        {
            assert_eq!(check_url("DATABASE_URL", good), Ok(()), "{good}");
        }
    }

    /// What follows a name that says it is a secret, or stands in a URL before the `@`.
    fn secrets_in(text: &str) -> Vec<String> {
        let names = ["PASSWORD", "JWT_KEYS", "SECRET", "MASTER_KEY"];
        let mut found = Vec::new();
        for line in text.lines().filter(|l| !l.contains('$') && !l.contains('<')) {
            found.extend(line.split(['"', '\'', ' ', '`', '=']).filter_map(password).map(str::to_owned));
            if let Some((name, value)) = line.split_once(['=', ':']).filter(|(n, _)| names.iter().any(|s| n.trim().ends_with(s))) {
                let value = value.trim().trim_matches(['"', '\'', ',']);
                if value.len() > 3 && !value.contains([' ', '/', '{', '(']) && !name.trim_start().starts_with(['/', '#']) {
                    found.push(value.to_owned());
                }
            }
        }
        found
    }

    fn files(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() { files(&path, found) } else { found.push(path) }
        }
    }

    #[test]
    fn no_secret_that_our_examples_print_starts_a_service_in_production() {
        assert_eq!(
            secrets_in("DATABASE_URL=postgres://u:pw123456@db/x\nPOSTGRES_PASSWORD: hunter22\n"),
            ["pw123456", "hunter22"],
            "the search finds"
        );
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut all = vec![root.join("README.md"), root.join("README.es.md"), root.join("CONTRIBUTING.md")];
        files(&root.join("docs"), &mut all);
        files(&root.join("infra"), &mut all);
        for path in all {
            let Ok(text) = fs::read_to_string(&path) else { continue };
            for secret in secrets_in(&text) {
                assert!(is_printed(&secret), "{}: {secret} would be accepted in production", path.display());
            }
        }
    }
}
