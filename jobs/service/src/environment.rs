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
}
