use crate::secrets::{PrintedSecret, check_url};

/// What kind of installation a service is part of (`ZAGUAN_ENV`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Environment {
    /// Refuses to start without secrets, or with settings that weaken it.
    Production,
    /// Loopback set-ups for tests and trials: makes what is missing, and says so.
    Development,
}

impl Environment {
    /// Whether nothing is forgiven.
    pub fn is_production(self) -> bool {
        self == Self::Production
    }

    /// Production does not start with secrets that our examples print, in these URLs.
    ///
    /// # Errors
    /// [`PrintedSecret`] names the variable.
    pub fn refuse_printed(self, urls: &[(&'static str, &str)]) -> Result<(), PrintedSecret> {
        if !self.is_production() {
            return Ok(());
        }
        urls.iter().try_for_each(|(name, url)| check_url(name, url))
    }
}
