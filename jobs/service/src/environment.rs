/// What our examples write where a secret belongs.
const PLACEHOLDER: &str = "change-me";

/// A secret that anybody can read in our examples.
#[derive(Debug, thiserror::Error)]
#[error("{0} holds the placeholder of an example: production does not start with it")]
pub struct Placeholder(&'static str);

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

    /// Production does not start with the secrets of our examples.
    ///
    /// # Errors
    /// [`Placeholder`] names the variable.
    pub fn refuse_placeholders(self, secrets: &[(&'static str, &str)]) -> Result<(), Placeholder> {
        match secrets.iter().find(|(_, secret)| self.is_production() && secret.contains(PLACEHOLDER)) {
            Some((name, _)) => Err(Placeholder(name)),
            None => Ok(()),
        }
    }
}
