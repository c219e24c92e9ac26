//! Sealing what is too large to be held: in pieces, under a key of its own. That key is sealed by the master key and lies in the database, so
//! that the bytes can be read by nobody once their row is gone, wherever copies of them are.
//!
//! A piece is sealed with its number and with whether it is the last, so pieces that are missing, repeated or in another order do not open.

use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SecureRandom, SystemRandom},
};
use secrecy::ExposeSecret;

use super::{OpenFailed, Purpose, SealFailed, Sealer};

/// Plain bytes of a piece; the last one may have fewer.
const PIECE: usize = 64 * 1024;
const TAG: usize = 16;

/// A key for one stream only: its nonces are numbers.
struct Pieces {
    key: LessSafeKey,
    associated: Vec<u8>,
    next: u64,
    /// What does not make a piece yet.
    rest: Vec<u8>,
}

impl Pieces {
    fn new(key: &[u8], associated: Vec<u8>) -> Option<Self> {
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).ok()?);
        Some(Self { key, associated, next: 0, rest: Vec::with_capacity(PIECE + TAG) })
    }

    fn nonce(&mut self, last: bool) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[..8].copy_from_slice(&self.next.to_be_bytes());
        nonce[NONCE_LEN - 1] = u8::from(last);
        self.next += 1;
        Nonce::assume_unique_for_key(nonce)
    }

    fn seal(&mut self, mut piece: Vec<u8>, last: bool, sealed: &mut Vec<u8>) -> Result<(), SealFailed> {
        let nonce = self.nonce(last);
        self.key.seal_in_place_append_tag(nonce, Aad::from(&self.associated), &mut piece).map_err(|_| SealFailed)?;
        sealed.append(&mut piece);
        Ok(())
    }

    fn open(&mut self, mut piece: Vec<u8>, last: bool, plain: &mut Vec<u8>) -> Result<(), OpenFailed> {
        let nonce = self.nonce(last);
        let opened = self.key.open_in_place(nonce, Aad::from(&self.associated), &mut piece).map_err(|_| OpenFailed)?;
        plain.extend_from_slice(opened);
        Ok(())
    }

    /// The next `size` bytes, where more than those are there: none of them is of the last piece.
    fn whole(&mut self, size: usize) -> Option<Vec<u8>> {
        (self.rest.len() > size).then(|| self.rest.drain(..size).collect())
    }
}

/// Seals a stream, from its first byte to its last.
pub struct Sealing(Pieces);

impl Sealing {
    /// Takes what comes next, and adds to `sealed` what can be written.
    ///
    /// # Errors
    /// [`SealFailed`].
    pub fn write(&mut self, plain: &[u8], sealed: &mut Vec<u8>) -> Result<(), SealFailed> {
        self.0.rest.extend_from_slice(plain);
        while let Some(piece) = self.0.whole(PIECE) {
            self.0.seal(piece, false, sealed)?;
        }
        Ok(())
    }

    /// Seals the last piece.
    ///
    /// # Errors
    /// [`SealFailed`].
    pub fn finish(mut self, sealed: &mut Vec<u8>) -> Result<(), SealFailed> {
        let rest = std::mem::take(&mut self.0.rest);
        self.0.seal(rest, true, sealed)
    }
}

/// Opens a stream, from its first byte to its last.
pub struct Opening(Pieces);

impl Opening {
    /// Takes what comes next, and adds to `plain` what is proved.
    ///
    /// # Errors
    /// [`OpenFailed`].
    pub fn write(&mut self, sealed: &[u8], plain: &mut Vec<u8>) -> Result<(), OpenFailed> {
        self.0.rest.extend_from_slice(sealed);
        while let Some(piece) = self.0.whole(PIECE + TAG) {
            self.0.open(piece, false, plain)?;
        }
        Ok(())
    }

    /// Opens the last piece: all is there.
    ///
    /// # Errors
    /// [`OpenFailed`], also where the stream was cut.
    pub fn finish(mut self, plain: &mut Vec<u8>) -> Result<(), OpenFailed> {
        let rest = std::mem::take(&mut self.0.rest);
        self.0.open(rest, true, plain)
    }
}

impl Sealer {
    /// What seals a stream for a purpose of an owner, under a fresh key; and that key, sealed, to be kept.
    ///
    /// # Errors
    /// [`SealFailed`].
    pub fn stream(&self, purpose: Purpose, owner: &[u8; 16]) -> Result<(Vec<u8>, Sealing), SealFailed> {
        let mut key = [0; 32];
        SystemRandom::new().fill(&mut key).map_err(|_| SealFailed)?;
        let sealed = self.seal(purpose, owner, &key)?;
        let pieces = Pieces::new(&key, purpose.associated(owner)).ok_or(SealFailed)?;
        Ok((sealed, Sealing(pieces)))
    }

    /// What opens the stream that was sealed under this key for this purpose of this owner.
    ///
    /// # Errors
    /// [`OpenFailed`].
    pub fn open_stream(&self, purpose: Purpose, owner: &[u8; 16], key: &[u8]) -> Result<Opening, OpenFailed> {
        let key = self.open(purpose, owner, key)?;
        Pieces::new(key.expose_secret(), purpose.associated(owner)).map(Opening).ok_or(OpenFailed)
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::STANDARD};

    use super::*;
    use crate::{Environment, seal::MasterKeys};

    const OWNER: [u8; 16] = [7; 16];

    fn sealer(byte: u8) -> Sealer {
        let key = STANDARD.encode([&[byte; 31][..], &[200]].concat());
        MasterKeys { master_key: key.into(), master_key_previous: None }.sealer(Environment::Production).unwrap()
    }
    fn sealed(sealer: &Sealer, plain: &[u8], at_once: usize) -> (Vec<u8>, Vec<u8>) {
        let (key, mut sealing) = sealer.stream(Purpose::Export, &OWNER).unwrap();
        let mut out = Vec::new();
        plain.chunks(at_once).for_each(|part| sealing.write(part, &mut out).unwrap());
        sealing.finish(&mut out).unwrap();
        (key, out)
    }
    fn opened(sealer: &Sealer, key: &[u8], sealed: &[u8], at_once: usize) -> Result<Vec<u8>, OpenFailed> {
        let mut opening = sealer.open_stream(Purpose::Export, &OWNER, key)?;
        let mut out = Vec::new();
        for part in sealed.chunks(at_once) {
            opening.write(part, &mut out)?;
        }
        opening.finish(&mut out)?;
        Ok(out)
    }

    #[test]
    fn a_stream_opens_as_it_was_sealed_however_it_is_cut_on_its_way() {
        let sealer = sealer(1);
        for size in [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 3 * PIECE + 5] {
            let plain: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
            let (key, bytes) = sealed(&sealer, &plain, 1000);
            assert_eq!(bytes.len(), size + size.div_ceil(PIECE).max(1) * TAG);
            for at_once in [7, PIECE + TAG, bytes.len().max(1)] {
                assert!(opened(&sealer, &key, &bytes, at_once).unwrap() == plain, "{size} by {at_once}");
            }
        }
    }

    #[test]
    fn a_stream_that_was_cut_turned_round_or_changed_does_not_open() {
        let sealer = sealer(1);
        let plain = vec![5; 2 * PIECE + 9];
        let (key, bytes) = sealed(&sealer, &plain, PIECE);
        let piece = PIECE + TAG;
        let (first, second) = (&bytes[..piece], &bytes[piece..2 * piece]);
        let mut changed = bytes.clone();
        changed[piece + 3] ^= 1;
        for bad in
            [&bytes[..2 * piece], &bytes[..piece], &bytes[..piece + 7], &[], &[second, first, &bytes[2 * piece..]].concat(), &changed]
        {
            assert_eq!(opened(&sealer, &key, bad, 4096).map(|_| ()), Err(OpenFailed));
        }
    }

    #[test]
    fn a_stream_opens_with_its_own_key_for_its_owner_only_and_shows_nothing() {
        let sealer = sealer(1);
        let (key, bytes) = sealed(&sealer, b"what was said", 4);
        let (other, again) = sealed(&sealer, b"what was said", 4);
        assert_ne!(bytes, again);
        assert!(opened(&sealer, &other, &bytes, 64).is_err() && opened(&self::sealer(2), &key, &bytes, 64).is_err());
        assert!(sealer.open_stream(Purpose::Export, &[8; 16], &key).is_err());
        assert!(sealer.open_stream(Purpose::WebhookSecret, &OWNER, &key).is_err());
        assert!(!bytes.windows(4).any(|w| w == b"said") && !key.windows(4).any(|w| w == b"said"));
    }
}
