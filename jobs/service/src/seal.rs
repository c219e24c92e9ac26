//! What has to be kept and read again, but not by whoever reads the database: sealed with AES-256-GCM under the installation's master key.
//!
//! A sealed value is a byte that names its key, a nonce, and the ciphertext with its tag. What it is for and whose it is are authenticated, so
//! that a value moved to another row or column opens nowhere.

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest::{Context, SHA256},
    rand::{SecureRandom, SystemRandom},
};
use secrecy::{ExposeSecret, SecretSlice, SecretString};

use crate::{Environment, secrets::is_printed};

pub mod stream;

/// The master keys of a service that seals or opens.
#[derive(Debug, clap::Args)]
pub struct MasterKeys {
    /// Base64 of 32 random bytes (openssl rand -base64 32) under which webhooks' secrets lie in the database, and exports and snapshots of
    /// profiles in the object store; the same for API, hosts and worker.
    #[arg(long, env = "MASTER_KEY", hide_env_values = true)]
    pub master_key: SecretString,
    /// The master key of before, while it is being changed: it still opens, and seals nothing more.
    #[arg(long, env = "MASTER_KEY_PREVIOUS", hide_env_values = true)]
    pub master_key_previous: Option<SecretString>,
}

impl MasterKeys {
    /// What seals and opens with them. Production refuses keys that our examples print and such as were written by hand.
    ///
    /// # Errors
    /// [`BadMasterKey`] names the variable.
    pub fn sealer(&self, environment: Environment) -> Result<Sealer, BadMasterKey> {
        let read = |name, text: &SecretString| Key::read(name, text.expose_secret().trim(), environment.is_production());
        let current = read("MASTER_KEY", &self.master_key)?;
        // A variable that is there and empty is one that is not set: composed files cannot leave it out.
        let previous = self.master_key_previous.as_ref().filter(|text| !text.expose_secret().trim().is_empty());
        let previous = previous.map(|text| read("MASTER_KEY_PREVIOUS", text)).transpose()?;
        Ok(Sealer { keys: std::iter::once(current).chain(previous).collect() })
    }
}

/// A master key that does not do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMasterKey {
    /// Not a key.
    #[error("{0} must hold base64 of 32 random bytes (openssl rand -base64 32)")]
    Malformed(&'static str),
    /// A key that anybody can guess.
    #[error("{0} holds a key that is printed in our examples or was written by hand: make one with `openssl rand -base64 32`")]
    Weak(&'static str),
}

/// What a sealed value is for: it opens for nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A webhook's signing secret; the owner is the webhook.
    WebhookSecret,
    /// A webhook's headers of the tenant's own; the owner is the webhook.
    WebhookHeaders,
    /// An exported chat, and the key of its own that it is sealed under; the owner is the export.
    Export,
    /// A tenant's data key; the owner is the tenant.
    DataKey,
    /// A snapshot of a profile, and the key of its own that it is sealed under; the owner is the session.
    Snapshot,
}

impl Purpose {
    const fn name(self) -> &'static [u8] {
        match self {
            Self::WebhookSecret => b"webhook.secret",
            Self::WebhookHeaders => b"webhook.headers",
            Self::Export => b"export",
            Self::DataKey => b"data.key",
            Self::Snapshot => b"snapshot",
        }
    }

    /// No name ends in NUL or holds one, so no two pairs read the same.
    fn associated(self, owner: &[u8; 16]) -> Vec<u8> {
        [self.name(), &[0], owner].concat()
    }
}

/// It could not be sealed: the system has no randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nothing can be sealed: the system has no randomness")]
pub struct SealFailed;

/// It does not open. Which of the reasons it was (another key, another owner, changed bytes) helps only who changed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sealed value does not open")]
pub struct OpenFailed;

/// It could not be sealed anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotResealed {
    /// No key of ours opens it.
    #[error(transparent)]
    Open(#[from] OpenFailed),
    /// The system has no randomness.
    #[error(transparent)]
    Seal(#[from] SealFailed),
}

struct Key {
    /// What sealed values name it by. Two keys may share it: opening tries both.
    id: u8,
    aead: LessSafeKey,
}

impl Key {
    fn read(name: &'static str, text: &str, production: bool) -> Result<Self, BadMasterKey> {
        let malformed = BadMasterKey::Malformed(name);
        let bytes: [u8; 32] = STANDARD.decode(text).ok().and_then(|b| b.try_into().ok()).ok_or(malformed.clone())?;
        let by_hand = bytes.iter().all(|b| *b == bytes[0]) || bytes.iter().all(|b| b.is_ascii_graphic() || *b == b' ');
        if production && (by_hand || is_printed(text)) {
            return Err(BadMasterKey::Weak(name));
        }
        Self::new(&bytes).ok_or(malformed)
    }

    /// `None`: not 32 bytes.
    fn new(bytes: &[u8]) -> Option<Self> {
        let mut digest = Context::new(&SHA256);
        digest.update(b"zaguan master key");
        digest.update(bytes);
        let id = digest.finish().as_ref()[0];
        Some(Self { id, aead: LessSafeKey::new(UnboundKey::new(&AES_256_GCM, bytes).ok()?) })
    }

    fn open(&self, purpose: Purpose, owner: &[u8; 16], sealed: &[u8]) -> Option<SecretSlice<u8>> {
        let (id, rest) = sealed.split_first()?;
        let (nonce, cipher) = rest.split_first_chunk::<NONCE_LEN>()?;
        if *id != self.id {
            return None;
        }
        let mut bytes = cipher.to_vec();
        let aad = Aad::from(purpose.associated(owner));
        let length = self.aead.open_in_place(Nonce::assume_unique_for_key(*nonce), aad, &mut bytes).ok()?.len();
        bytes.truncate(length);
        Some(bytes.into())
    }
}

/// Seals and opens. Values sealed under the previous key open as well, until they are sealed anew ([`Sealer::reseal`]).
pub struct Sealer {
    /// The first seals, all open.
    keys: Vec<Key>,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer")
    }
}

impl Sealer {
    /// Seals a value for a purpose of an owner (the bytes of its id).
    ///
    /// # Errors
    /// [`SealFailed`].
    pub fn seal(&self, purpose: Purpose, owner: &[u8; 16], plain: &[u8]) -> Result<Vec<u8>, SealFailed> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| SealFailed)?;
        let key = self.keys.first().ok_or(SealFailed)?;
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + plain.len() + AES_256_GCM.tag_len());
        sealed.extend_from_slice(plain);
        let aad = Aad::from(purpose.associated(owner));
        key.aead.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed).map_err(|_| SealFailed)?;
        sealed.splice(..0, std::iter::once(key.id).chain(nonce));
        Ok(sealed)
    }

    /// Opens what was sealed for this purpose of this owner.
    ///
    /// # Errors
    /// [`OpenFailed`].
    pub fn open(&self, purpose: Purpose, owner: &[u8; 16], sealed: &[u8]) -> Result<SecretSlice<u8>, OpenFailed> {
        self.keys.iter().find_map(|key| key.open(purpose, owner, sealed)).ok_or(OpenFailed)
    }

    /// The value, sealed anew by the key that seals now. `None`: that one has sealed it. By trying, not by the key's name: two may share one.
    ///
    /// # Errors
    /// [`NotResealed`].
    pub fn reseal(&self, purpose: Purpose, owner: &[u8; 16], sealed: &[u8]) -> Result<Option<Vec<u8>>, NotResealed> {
        if self.keys.first().is_some_and(|current| current.open(purpose, owner, sealed).is_some()) {
            return Ok(None);
        }
        let plain = self.open(purpose, owner, sealed)?;
        Ok(Some(self.seal(purpose, owner, plain.expose_secret())?))
    }

    /// A new data key for a tenant: sealed, to be kept, and what seals and opens with it.
    ///
    /// # Errors
    /// [`SealFailed`].
    pub fn new_data_key(&self, tenant: &[u8; 16]) -> Result<Vec<u8>, SealFailed> {
        let mut key = [0; 32];
        SystemRandom::new().fill(&mut key).map_err(|_| SealFailed)?;
        self.seal(Purpose::DataKey, tenant, &key)
    }

    /// What seals and opens with a tenant's data key.
    ///
    /// # Errors
    /// [`OpenFailed`]: it is not this tenant's, or the master key that sealed it is gone.
    pub fn with_data_key(&self, tenant: &[u8; 16], sealed: &[u8]) -> Result<Self, OpenFailed> {
        let key = self.open(Purpose::DataKey, tenant, sealed)?;
        let key = Key::new(key.expose_secret()).ok_or(OpenFailed)?;
        Ok(Self { keys: vec![key] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: [u8; 16] = [7; 16];

    fn keys(current: &str, previous: Option<&str>) -> MasterKeys {
        MasterKeys { master_key: current.into(), master_key_previous: previous.map(Into::into) }
    }
    fn key(byte: u8) -> String {
        STANDARD.encode([&[byte; 31][..], &[200]].concat())
    }
    fn sealer(current: u8, previous: Option<u8>) -> Sealer {
        keys(&key(current), previous.map(key).as_deref()).sealer(Environment::Production).unwrap()
    }
    fn opened(sealer: &Sealer, sealed: &[u8]) -> Option<Vec<u8>> {
        sealer.open(Purpose::WebhookSecret, &OWNER, sealed).ok().map(|s| s.expose_secret().to_vec())
    }

    #[test]
    fn what_is_sealed_opens_for_its_purpose_and_owner_only_and_never_looks_the_same_twice() {
        let sealer = sealer(1, None);
        let [one, two] = [(); 2].map(|()| sealer.seal(Purpose::WebhookSecret, &OWNER, b"whsec").unwrap());
        assert_ne!(one, two);
        assert_eq!((opened(&sealer, &one), opened(&sealer, &two)), (Some(b"whsec".to_vec()), Some(b"whsec".to_vec())));
        assert!(!one.windows(5).any(|w| w == b"whsec"));
        let elsewhere = [
            sealer.open(Purpose::WebhookHeaders, &OWNER, &one),
            sealer.open(Purpose::WebhookSecret, &[8; 16], &one),
            self::sealer(2, None).open(Purpose::WebhookSecret, &OWNER, &one),
        ];
        assert!(elsewhere.into_iter().all(|o| o.is_err()));
    }

    #[test]
    fn a_value_that_was_changed_or_cut_anywhere_does_not_open() {
        let sealer = sealer(1, None);
        let sealed = sealer.seal(Purpose::WebhookSecret, &OWNER, b"whsec").unwrap();
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(opened(&sealer, &changed), None, "byte {at}");
            assert_eq!(opened(&sealer, &sealed[..at]), None, "the first {at}");
        }
    }

    #[test]
    fn the_previous_key_opens_and_seals_nothing_more() {
        let before = sealer(1, None).seal(Purpose::WebhookSecret, &OWNER, b"old").unwrap();
        let during = sealer(2, Some(1));
        assert_eq!(opened(&during, &before), Some(b"old".to_vec()));
        let after = during.seal(Purpose::WebhookSecret, &OWNER, b"new").unwrap();
        assert_eq!(during.reseal(Purpose::WebhookSecret, &OWNER, &after), Ok(None), "it is sealed by the current key");
        let moved = during.reseal(Purpose::WebhookSecret, &OWNER, &before).unwrap().unwrap();
        assert_eq!(opened(&sealer(2, None), &moved), Some(b"old".to_vec()));
        assert_eq!(sealer(2, None).reseal(Purpose::WebhookSecret, &OWNER, &before), Err(OpenFailed.into()));
        assert_eq!((opened(&sealer(2, None), &after), opened(&sealer(2, None), &before)), (Some(b"new".to_vec()), None));
    }

    #[test]
    fn keys_whose_names_are_alike_are_told_apart_by_trying() {
        let (first, twin) = (1..=255)
            .find_map(|a: u8| (0..a).find(|b| sealer(a, None).keys[0].id == sealer(*b, None).keys[0].id).map(|b| (a, b)))
            .expect("255 keys share a byte somewhere");
        let sealed = sealer(twin, None).seal(Purpose::WebhookSecret, &OWNER, b"x").unwrap();
        assert_eq!(opened(&sealer(first, Some(twin)), &sealed), Some(b"x".to_vec()));
        assert_eq!(opened(&sealer(first, None), &sealed), None);
        let moved = sealer(first, Some(twin)).reseal(Purpose::WebhookSecret, &OWNER, &sealed).unwrap().unwrap();
        assert_eq!(opened(&sealer(first, None), &moved), Some(b"x".to_vec()));
    }

    #[test]
    fn a_data_key_seals_for_its_tenant_only_and_outlives_the_master_key_that_made_it() {
        let kept = sealer(1, None).new_data_key(&OWNER).unwrap();
        let (key, mut sealing) = sealer(1, None).with_data_key(&OWNER, &kept).unwrap().stream(Purpose::Snapshot, &[9; 16]).unwrap();
        let mut sealed = Vec::new();
        sealing.write(b"an account's keys", &mut sealed).unwrap();
        sealing.finish(&mut sealed).unwrap();
        let kept = sealer(2, Some(1)).reseal(Purpose::DataKey, &OWNER, &kept).unwrap().unwrap();
        let open = |session: [u8; 16]| {
            let mut opening = sealer(2, None).with_data_key(&OWNER, &kept)?.open_stream(Purpose::Snapshot, &session, &key)?;
            let mut plain = Vec::new();
            opening.write(&sealed, &mut plain)?;
            opening.finish(&mut plain).map(|()| plain)
        };
        assert_eq!(open([9; 16]), Ok(b"an account's keys".to_vec()), "the key that made it is gone");
        assert_eq!(open([8; 16]), Err(OpenFailed), "another session's");
        assert!(sealer(2, None).with_data_key(&[8; 16], &kept).is_err(), "another tenant's");
        assert!(sealer(2, None).open_stream(Purpose::Snapshot, &[9; 16], &key).is_err(), "the master key itself opens no snapshot");
    }

    #[test]
    fn a_bad_master_key_is_named_and_never_shown() {
        let by_hand = STANDARD.encode("change-me-change-me-change-me-12");
        let refused = |keys: MasterKeys| keys.sealer(Environment::Production).map(|_| ()).unwrap_err().to_string();
        for bad in ["", "short", "c2hvcnQ=", &*by_hand, &*STANDARD.encode([0; 32])] {
            let why = refused(keys(bad, None));
            assert!(why.contains("MASTER_KEY") && (bad.is_empty() || !why.contains(bad)), "{why}");
        }
        assert!(refused(keys(&key(1), Some("c2hvcnQ="))).contains("MASTER_KEY_PREVIOUS"));
        assert!(keys(&by_hand, Some("")).sealer(Environment::Development).is_ok());
        assert_eq!(format!("{:?} {:?}", keys(&key(1), None), sealer(1, None)).matches(&key(1)).count(), 0);
    }
}
