//! The key of a privacy policy: what it makes of identifiers and paths, and where it is kept in this process.
//!
//! Everything is HMAC-SHA-256 (RFC 2104) under subkeys, one a purpose. A path is sealed by the SIV construction of Rogaway
//! and Shrimpton (2006): its HMAC is the nonce of a key stream of further HMACs and, on opening, the proof that key and text
//! belong together. Equal paths have equal seals, so that a run knows the files of the last one again.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::error::{Error, Result};
use crate::formats::files;

/// Where the key is looked for unless a policy says otherwise.
pub const KEY_VARIABLE: &str = "TORCULA_PRIVACY_KEY";

/// What a sealed path begins with.
const SEALED: &str = "sealed:";

/// Fewest bytes of a key: a shorter one can be guessed, and with it the names behind the hashes.
const MIN_KEY_BYTES: usize = 32;
/// Most bytes of a file with a key.
const MAX_KEY_BYTES: u64 = 4 << 10;
/// Paths are padded to multiples of this, so that a seal does not tell the length of a name.
const PAD: usize = 64;
/// Bytes of the nonce.
const NONCE: usize = 16;

/// Where a key is. Never the key itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KeySource {
    /// Environment variable that holds the key. Default: `TORCULA_PRIVACY_KEY`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
    /// File that holds the key and nothing else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
}

impl KeySource {
    /// What is wrong with it, if anything is: the field, and why. Never quotes a value, which may be the key by mistake.
    pub fn problem(&self) -> Option<(&'static str, &'static str)> {
        if self.env.is_some() && self.file.is_some() {
            return Some(("key", "a key is in the environment or in a file, not in both"));
        }
        let is_name = |name: &str| {
            name.len() <= 48
                && name.starts_with(|c: char| c.is_ascii_uppercase() || c == '_')
                && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
        };
        if self.env.as_deref().is_some_and(|name| !is_name(name)) {
            let why = "this is not the name of an environment variable (A–Z, 0–9, _); the key itself is never written here";
            return Some(("key.env", why));
        }
        None
    }

    fn text(&self) -> Result<Vec<u8>> {
        let hint = "make one with `openssl rand -hex 32`, keep it outside the registry and the catalog, and keep it: without it \
                    neither the pseudonyms nor the paths come again";
        if let Some(file) = &self.file {
            let bytes = files::read_bounded(file, MAX_KEY_BYTES);
            return bytes.map_err(|e| e.context("privacy.key.file").hint(hint));
        }
        let name = self.env.as_deref().unwrap_or(KEY_VARIABLE);
        match std::env::var_os(name) {
            Some(text) => Ok(text.into_encoded_bytes()),
            None => Err(Error::configuration(format!(
                "the privacy policy needs a key, and the environment has no {name}"
            ))
            .hint(hint)),
        }
    }
}

/// A secret key. Says nothing of itself in `Debug`, and is overwritten when it is dropped.
pub struct Key(Vec<u8>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(hidden)")
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.0.fill(0);
        // So that the write is not left out as one that nobody sees.
        std::hint::black_box(&self.0);
    }
}

impl Key {
    /// Reads the key that a source names.
    ///
    /// # Errors
    /// A configuration error where there is none or it has fewer than 32 bytes; an I/O error where its file cannot be read.
    /// None of them quotes it.
    pub fn read(source: &KeySource) -> Result<Self> {
        let text = source.text()?;
        Self::new(text.trim_ascii())
    }

    /// A key of these bytes.
    ///
    /// # Errors
    /// A configuration error where there are fewer than 32.
    pub fn new(bytes: &[u8]) -> Result<Self> {
        if bytes.len() < MIN_KEY_BYTES {
            return Err(Error::configuration(format!(
                "the privacy key has {} bytes, where at least {MIN_KEY_BYTES} are expected",
                bytes.len()
            ))
            .hint("make one with `openssl rand -hex 32`"));
        }
        Ok(Self(bytes.to_vec()))
    }

    /// HMAC-SHA-256 of the parts, each with its length before it, for one purpose.
    fn mac(&self, purpose: &str, parts: &[&[u8]]) -> [u8; 32] {
        // HMAC takes a key of any length, so this cannot fail.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return [0; 32] };
        for part in [b"torcula".as_slice(), purpose.as_bytes()].iter().chain(parts) {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    /// A pseudonym of `digits` hexadecimal digits (64 at most) for a text, other for every purpose.
    pub fn pseudonym(&self, purpose: &str, text: &str, digits: usize) -> String {
        let mac = self.mac(purpose, &[text.as_bytes()]);
        let mut hex: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        hex.truncate(digits);
        hex
    }

    /// A number for a text, other for every purpose.
    pub fn number(&self, purpose: &str, text: &str) -> u64 {
        let mac = self.mac(purpose, &[text.as_bytes()]);
        u64::from_le_bytes(*mac.first_chunk().unwrap_or(&[0; 8]))
    }

    /// Tells this key from others without telling it.
    pub fn id(&self) -> String {
        self.pseudonym("key", "", 16)
    }

    /// A path that only the holder of the key can read: `sealed:…`.
    pub fn seal(&self, path: &Path) -> String {
        let mut text = path.as_os_str().as_encoded_bytes().to_vec();
        text.resize((text.len() + 1).next_multiple_of(PAD), 0);
        let nonce = self.mac("path nonce", &[&text]);
        let nonce = &nonce[..NONCE];
        self.cross(nonce, &mut text);
        format!("{SEALED}{}", URL_SAFE_NO_PAD.encode([nonce, &text].concat()))
    }

    /// The path behind a seal, where it was made with this key.
    fn unseal(&self, uri: &str) -> Option<PathBuf> {
        let sealed = URL_SAFE_NO_PAD.decode(uri.strip_prefix(SEALED)?).ok()?;
        let (nonce, text) = sealed.split_at_checked(NONCE)?;
        let mut text = text.to_vec();
        self.cross(nonce, &mut text);
        if self.mac("path nonce", &[&text])[..NONCE] != *nonce {
            return None;
        }
        let end = text.iter().position(|&b| b == 0)?;
        String::from_utf8(text[..end].to_vec()).ok().map(PathBuf::from)
    }

    /// Adds the key stream of a nonce, modulo 2.
    fn cross(&self, nonce: &[u8], text: &mut [u8]) {
        for (count, block) in text.chunks_mut(32).enumerate() {
            let stream = self.mac("path stream", &[nonce, &(count as u64).to_le_bytes()]);
            block.iter_mut().zip(stream).for_each(|(byte, key)| *byte ^= key);
        }
    }
}

/// The keys that this process may open paths with.
static RING: RwLock<Vec<Arc<Key>>> = RwLock::new(Vec::new());

/// Lets this process open what the key sealed.
pub fn hold(key: &Arc<Key>) {
    let mut ring = RING.write().unwrap_or_else(PoisonError::into_inner);
    if !ring.iter().any(|held| held.0 == key.0) {
        ring.push(Arc::clone(key));
    }
}

/// Whether an address is a sealed path.
pub fn is_sealed(uri: &str) -> bool {
    uri.starts_with(SEALED)
}

/// The path behind a seal, by the keys that are held or, without one that fits, by the environment's.
///
/// # Errors
/// A configuration error where no key fits.
pub fn unseal(uri: &str) -> Result<PathBuf> {
    let held = RING.read().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(path) = held.iter().find_map(|key| key.unseal(uri)) {
        return Ok(path);
    }
    let other = Key::read(&KeySource::default()).ok().map(Arc::new);
    let found = other.as_ref().and_then(|key| key.unseal(uri));
    if let (Some(key), Some(_)) = (&other, &found) {
        hold(key);
    }
    found.ok_or_else(|| {
        Error::configuration("a path is sealed by a privacy policy, and no key at hand opens it").hint(
            format!("set {KEY_VARIABLE}, or run a pipeline whose ingest names the key it was sealed with"),
        )
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn key(fill: u8) -> Key {
        Key::new(&[fill; 32]).unwrap()
    }

    #[test]
    fn a_path_comes_back_with_its_key_only() {
        for path in ["/data/sub-Müller/dwi/a.nii.gz", "", "x", &"long/".repeat(50)] {
            let sealed = key(1).seal(Path::new(path));
            assert!(is_sealed(&sealed) && sealed == key(1).seal(Path::new(path)));
            assert_eq!(key(1).unseal(&sealed), Some(PathBuf::from(path)));
            assert_eq!(key(2).unseal(&sealed), None);
            let mut other = sealed.clone().into_bytes();
            let last = other.len() - 2;
            other[last] = if other[last] == b'A' { b'B' } else { b'A' };
            assert_eq!(key(1).unseal(&String::from_utf8(other).unwrap()), None);
        }
        assert_eq!(
            key(1).seal(Path::new("a")).len(),
            key(1).seal(Path::new(&"b".repeat(63))).len()
        );
        for odd in ["sealed:", "sealed:??", "sealed:AAAA", "plain"] {
            assert_eq!(key(1).unseal(odd), None);
        }
    }

    #[test]
    fn the_hash_is_hmac_sha_256() {
        // python3 -c 'import hmac,struct as s; p=[b"torcula",b"subject",b"sub-1"];
        // print(hmac.new(b"\1"*32, b"".join(s.pack("<Q",len(x))+x for x in p), "sha256").hexdigest()[:16])'
        assert_eq!(key(1).pseudonym("subject", "sub-1", 16), "65f61cdca2f6e181");
    }

    #[test]
    fn a_key_says_nothing_of_itself() {
        let secret = "correct-horse-battery-staple-0123456789";
        let key = Key::new(secret.as_bytes()).unwrap();
        assert_eq!(format!("{key:?}"), "Key(hidden)");
        let short = Key::new(b"horse").unwrap_err().to_string();
        assert!(!short.contains("horse") && short.contains("5 bytes"), "{short}");
        let env = KeySource { env: Some(secret.to_owned()), file: None };
        let (_, why) = env.problem().unwrap();
        assert!(!why.contains("horse"));
        assert!(KeySource { env: Some("MY_KEY".into()), file: None }.problem().is_none());
    }
}
