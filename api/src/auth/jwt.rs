//! Access tokens: EdDSA over `ring`, which TLS brings anyway.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use chrono::{DateTime, Utc};
use contract::{TenantId, UserId};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation,
    crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils},
    errors::{Error, ErrorKind},
    jwk::{Jwk, JwkSet, PublicKeyUse, ThumbprintHash},
    signature::{self, Signer, Verifier},
};
use ring::{
    digest::{SHA256, digest},
    hmac,
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How long an access token lives, in seconds.
pub const LIFETIME: i64 = 600;

/// What a token is for: audience and type tell it from every other token that the same keys sign.
pub(super) struct Purpose {
    audience: &'static str,
    kind: &'static str,
}

/// RFC 9068.
const ACCESS: Purpose = Purpose { audience: "zaguan-api", kind: "at+jwt" };
/// Opens one stream.
pub(super) const TICKET: Purpose = Purpose { audience: "zaguan-stream", kind: "ticket+jwt" };

/// What an access token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Who.
    #[serde(rename = "userId")]
    pub user: UserId,
    /// `ADMIN` or `EMPLEADO`.
    pub rol: String,
    /// Whose.
    #[serde(rename = "adminId")]
    pub tenant: TenantId,
    /// This installation.
    pub iss: String,
    /// What the token is for.
    pub aud: String,
    /// When its time is over, Unix seconds.
    pub exp: i64,
    /// When it was made, Unix seconds.
    pub iat: i64,
    /// Its own id.
    pub jti: Uuid,
    /// The login it came from: logging out voids it.
    pub sid: Uuid,
    /// Of a ticket: what its buyer showed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<super::Credential>,
}

/// The configured keys do not do.
#[derive(Debug, thiserror::Error)]
pub enum BadKeys {
    /// Not one seed.
    #[error("JWT_KEYS must hold comma-separated base64 of 32 random bytes each; the first signs")]
    Seed,
    /// A seed that anybody can guess, or that was written by hand.
    #[error("JWT_KEYS holds a seed whose bytes are all alike or text: take random ones (openssl rand -base64 32)")]
    Weak,
    /// The signer refuses it.
    #[error("JWT_KEYS: the signer refuses a seed")]
    Signer(#[from] Error),
}

/// The token does not count. Which of the reasons it was helps only a forger.
#[derive(Debug, thiserror::Error)]
#[error("the access token does not count")]
pub struct BadToken;

struct Key {
    id: String,
    signing: EncodingKey,
    checking: DecodingKey,
    jwk: Jwk,
    successors: hmac::Key,
}

/// Signs and checks. The first key signs, all check; a `kid` only selects among them.
pub struct Tokens {
    issuer: String,
    validation: Validation,
    signing: Key,
    older: Vec<Key>,
}

impl Tokens {
    /// Reads `JWT_KEYS`. `production`: guessable seeds are refused.
    ///
    /// # Errors
    /// [`BadKeys`].
    pub fn read(keys: &str, issuer: String, production: bool) -> Result<Self, BadKeys> {
        let mut all = keys.split(',').map(|text| {
            let seed: [u8; 32] = STANDARD.decode(text.trim()).ok().and_then(|b| b.try_into().ok()).ok_or(BadKeys::Seed)?;
            let by_hand = seed.iter().all(|b| *b == seed[0]) || seed.iter().all(|b| b.is_ascii_graphic() || *b == b' ');
            if production && by_hand { Err(BadKeys::Weak) } else { Key::new(&seed) }
        });
        let signing = all.next().ok_or(BadKeys::Seed)??;
        let mut validation = Validation::new(Algorithm::EdDSA);
        // Each purpose has an audience of its own: `open` compares it.
        validation.validate_aud = false;
        validation.set_issuer(&[&issuer]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        // By the caller, against the database's clock.
        validation.validate_exp = false;
        Ok(Self { issuer, validation, signing, older: all.collect::<Result<_, _>>()? })
    }

    fn keys(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.signing).chain(&self.older)
    }

    /// Makes a token for a login.
    ///
    /// # Errors
    /// Where the signer fails; it has no reason to.
    pub fn sign(&self, tenant: TenantId, user: UserId, rol: &str, sid: Uuid, now: DateTime<Utc>) -> Result<String, Error> {
        let iat = now.timestamp();
        let claims = Claims {
            user,
            rol: rol.to_owned(),
            tenant,
            iss: self.issuer.clone(),
            aud: ACCESS.audience.to_owned(),
            exp: iat + LIFETIME,
            iat,
            jti: Uuid::now_v7(),
            sid,
            of: None,
        };
        self.seal(&ACCESS, &claims)
    }

    pub(super) fn seal(&self, purpose: &Purpose, claims: &Claims) -> Result<String, Error> {
        let claims = Claims { iss: self.issuer.clone(), aud: purpose.audience.to_owned(), ..claims.clone() };
        let header = Header { typ: Some(purpose.kind.to_owned()), kid: Some(self.signing.id.clone()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, &claims, &self.signing.signing)
    }

    /// How callers reach this installation.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Checks signature, type, issuer and audience. The lifetime is judged by the caller against the database's clock.
    ///
    /// # Errors
    /// [`BadToken`].
    pub fn check(&self, token: &str) -> Result<Claims, BadToken> {
        self.open(&ACCESS, token)
    }

    pub(super) fn open(&self, purpose: &Purpose, token: &str) -> Result<Claims, BadToken> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| BadToken)?;
        if header.typ.as_deref() != Some(purpose.kind) || header.alg != Algorithm::EdDSA {
            return Err(BadToken);
        }
        let key = self.keys().find(|k| Some(&k.id) == header.kid.as_ref()).ok_or(BadToken)?;
        let claims = jsonwebtoken::decode::<Claims>(token, &key.checking, &self.validation).map_err(|_| BadToken)?.claims;
        if claims.aud == purpose.audience { Ok(claims) } else { Err(BadToken) }
    }

    /// The public keys, for whoever checks our tokens.
    pub fn jwks(&self) -> JwkSet {
        JwkSet { keys: self.keys().map(|k| k.jwk.clone()).collect() }
    }

    /// What a refresh token is rotated into: derived, so that a repeated rotation answers the same without anything being stored. One
    /// candidate for each key, the signing key's first.
    pub fn successors(&self, token: &str) -> impl Iterator<Item = [u8; 32]> {
        self.keys().map(move |k| {
            let mut out = [0; 32];
            out.copy_from_slice(hmac::sign(&k.successors, token.as_bytes()).as_ref());
            out
        })
    }
}

impl Key {
    fn new(seed: &[u8; 32]) -> Result<Self, BadKeys> {
        let signing = EncodingKey::from_ed_der(&pkcs8(seed));
        let mut jwk = Jwk::from_encoding_key(&signing, Algorithm::EdDSA)?;
        let id = jwk.thumbprint(ThumbprintHash::SHA256)?;
        jwk.common.key_id = Some(id.clone());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        // A key of its own for each purpose, all from one seed.
        let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, seed), b"zaguan refresh successor");
        let successors = hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref());
        Ok(Self { id, checking: DecodingKey::from_jwk(&jwk)?, signing, jwk, successors })
    }
}

/// Base64 of 32 bytes that nobody can guess: a seed as `JWT_KEYS` takes it, or another key.
pub fn random_key() -> Option<String> {
    random().map(|seed| STANDARD.encode(seed))
}

/// 32 bytes that nobody can guess; `None` where the system has none.
pub(super) fn random() -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes).ok()?;
    Some(bytes)
}

/// How secrets are written in tokens.
pub(super) fn encode(secret: &[u8; 32]) -> String {
    URL_SAFE_NO_PAD.encode(secret)
}

struct Sign(Ed25519KeyPair);
struct Verify(Vec<u8>);

impl Signer<Vec<u8>> for Sign {
    fn try_sign(&self, msg: &[u8]) -> Result<Vec<u8>, signature::Error> {
        Ok(self.0.sign(msg).as_ref().to_vec())
    }
}
impl JwtSigner for Sign {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}
impl Verifier<Vec<u8>> for Verify {
    fn verify(&self, msg: &[u8], sig: &Vec<u8>) -> Result<(), signature::Error> {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(msg, sig).map_err(|_| signature::Error::new())
    }
}
impl JwtVerifier for Verify {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}

fn pair(pkcs8: &[u8]) -> Result<Ed25519KeyPair, Error> {
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).map_err(|_| ErrorKind::InvalidEddsaKey.into())
}

static RING: CryptoProvider = CryptoProvider {
    signer_factory: |alg, key| match alg {
        Algorithm::EdDSA => Ok(Box::new(Sign(pair(key.as_bytes())?))),
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    },
    verifier_factory: |alg, key| match alg {
        Algorithm::EdDSA => Ok(Box::new(Verify(key.try_get_as_bytes()?.to_vec()))),
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    },
    key_utils: KeyUtils {
        ed_pub_components_from_private_key: |der, _| Ok(pair(der)?.public_key().as_ref().to_vec()),
        compute_digest: |data, h| match h {
            ThumbprintHash::SHA256 => Ok(digest(&SHA256, data).as_ref().to_vec()),
            _ => Err(ErrorKind::InvalidAlgorithm.into()),
        },
        ..KeyUtils::new_unimplemented()
    },
};

/// Once a process (and test binary), before the first token.
pub fn install() {
    // An error says that it has been done before.
    let _ = RING.install_default();
}

/// Keys are kept as 32-byte seeds. `Jwk::from_encoding_key` knows only this 48-byte form, not the longer one that ring generates.
fn pkcs8(seed: &[u8; 32]) -> Vec<u8> {
    [b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20".as_slice(), seed].concat()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn tokens(seeds: &[u8]) -> Tokens {
        install();
        let keys: Vec<_> = seeds.iter().map(|b| STANDARD.encode([*b; 32])).collect();
        Tokens::read(&keys.join(","), "http://z.test".into(), false).unwrap()
    }
    fn token(tokens: &Tokens) -> String {
        tokens.sign(TenantId::new(), UserId::new(), "ADMIN", Uuid::now_v7(), DateTime::from_timestamp(1_790_000_000, 0).unwrap()).unwrap()
    }
    /// A token of ours with another header, signed by `sign` over the same claims.
    fn forged(tokens: &Tokens, header: &Value, sign: impl Fn(&str) -> Vec<u8>) -> String {
        let claims = token(tokens).split('.').nth(1).unwrap().to_owned();
        let message = format!("{}.{claims}", URL_SAFE_NO_PAD.encode(header.to_string()));
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(sign(&message)))
    }

    #[test]
    fn a_token_of_an_older_key_counts_until_the_key_is_gone() {
        let old = token(&tokens(&[7]));
        assert_eq!(tokens(&[8, 7]).check(&old).unwrap().exp, 1_790_000_600);
        assert!(tokens(&[8]).check(&old).is_err());
    }

    #[test]
    fn forged_tokens_are_refused() {
        let ours = tokens(&[7]);
        let kid = ours.signing.id.clone();
        let public = ours.jwks();
        let x = serde_json::to_value(&public).unwrap()["keys"][0]["x"].as_str().unwrap().to_owned();
        let raw = URL_SAFE_NO_PAD.decode(&x).unwrap();
        let hs = |key: Vec<u8>| move |m: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), m.as_bytes()).as_ref().to_vec();
        let ed = |seed: [u8; 32]| move |m: &str| pair(&pkcs8(&seed)).unwrap().sign(m.as_bytes()).as_ref().to_vec();
        let good = json!({"alg": "EdDSA", "typ": "at+jwt", "kid": kid});
        assert!(ours.check(&forged(&ours, &good, ed([7; 32]))).is_ok(), "the forger's tools work");
        let attacks = [
            forged(&ours, &json!({"alg": "none", "typ": "at+jwt", "kid": kid}), |_| vec![]),
            forged(&ours, &json!({"alg": "HS256", "typ": "at+jwt", "kid": kid}), hs(raw)),
            forged(&ours, &json!({"alg": "HS256", "typ": "at+jwt", "kid": kid}), hs(x.into_bytes())),
            forged(&ours, &json!({"alg": "EdDSA", "typ": "at+jwt", "kid": "../../dev/null"}), ed([9; 32])),
            forged(&ours, &json!({"alg": "EdDSA", "typ": "at+jwt", "jwk": tokens(&[9]).jwks().keys[0]}), ed([9; 32])),
            forged(&ours, &json!({"alg": "EdDSA", "typ": "at+jwt", "kid": kid, "jwk": tokens(&[9]).jwks().keys[0]}), ed([9; 32])),
            forged(&ours, &json!({"alg": "EdDSA", "typ": "JWT", "kid": kid}), ed([7; 32])),
            token(&Tokens::read(&STANDARD.encode([7; 32]), "http://other.test".into(), false).unwrap()),
            format!("{}A", token(&ours)),
            String::new(),
        ];
        for attack in attacks {
            assert!(ours.check(&attack).is_err(), "{attack}");
        }
    }

    #[test]
    fn guessable_and_malformed_keys_are_refused_by_name() {
        install();
        for (keys, production) in [("", false), ("c2hvcnQ=", false), (&*STANDARD.encode([0; 32]), true)] {
            let why = Tokens::read(keys, "x".into(), production).map(|_| ()).unwrap_err();
            assert!(why.to_string().contains("JWT_KEYS"), "{why}");
        }
        assert!(Tokens::read(&random_key().unwrap(), "x".into(), true).is_ok());
    }

    #[test]
    fn a_rotation_repeated_leads_to_the_same_successor_and_the_token_does_not_tell_which() {
        let ours = tokens(&[7, 8]);
        let first: Vec<_> = ours.successors("zgr_a").collect();
        assert_eq!(first, ours.successors("zgr_a").collect::<Vec<_>>());
        assert_eq!(first[1], tokens(&[8]).successors("zgr_a").next().unwrap());
        assert_ne!(first[0], ours.successors("zgr_b").next().unwrap());
    }
}
