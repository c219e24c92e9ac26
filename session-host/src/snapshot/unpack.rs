//! From a file to a directory, once it is proved that the file is what was packed.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Component, Path},
};

use ring::digest::{Context, SHA256};
use service::seal::{Purpose, Sealer};

use super::pipes::Open;

/// Why a file cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// Its bytes are not those that were packed.
    #[error("a snapshot's bytes have changed")]
    Corrupt,
    /// It does not open: it is another session's, or its key is not the one that sealed it.
    #[error("a snapshot does not open")]
    Sealed,
    /// The file system refused; the snapshot may be good.
    #[error("a snapshot is not unpacked")]
    Io(#[from] io::Error),
}

/// Unpacks into a directory that is there and empty. Blocks.
///
/// # Errors
/// [`Unusable`]. What was unpacked until then is left to the caller.
pub fn unpack(file: &Path, digest: &[u8], sealer: &Sealer, session: &[u8; 16], key: &[u8], into: &Path) -> Result<(), Unusable> {
    if digest_of(file)? != digest {
        return Err(Unusable::Corrupt);
    }
    let opening = sealer.open_stream(Purpose::Snapshot, session, key).map_err(|_| Unusable::Sealed)?;
    // From here on the bytes are those that were packed: what is wrong in them is the key, or the file system we write to.
    let refused = |why: io::Error| if why.kind() == io::ErrorKind::InvalidData { Unusable::Sealed } else { Unusable::Io(why) };
    let mut plain = zstd::Decoder::new(Open::new(opening, File::open(file)?)).map_err(refused)?;
    let mut archive = tar::Archive::new(&mut plain);
    for entry in archive.entries().map_err(refused)? {
        write(entry.map_err(refused)?, into).map_err(refused)?;
    }
    // To the last piece: only that says that nothing is missing.
    io::copy(&mut plain, &mut io::sink()).map_err(refused)?;
    Ok(())
}

fn digest_of(file: &Path) -> io::Result<Vec<u8>> {
    let (mut file, mut digest, mut part) = (File::open(file)?, Context::new(&SHA256), vec![0; 64 * 1024]);
    loop {
        let read = file.read(&mut part)?;
        if read == 0 {
            return Ok(digest.finish().as_ref().to_vec());
        }
        digest.update(&part[..read]);
    }
}

/// Ours alone, whatever the archive says about rights; and nowhere else, whatever it says about places.
fn write(mut entry: tar::Entry<'_, impl Read>, into: &Path) -> io::Result<()> {
    let path = entry.path()?.into_owned();
    if path.components().any(|part| !matches!(part, Component::Normal(_))) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a place outside"));
    }
    let place = into.join(path);
    let directory = |at: &Path| DirBuilder::new().recursive(true).mode(0o700).create(at);
    match entry.header().entry_type() {
        tar::EntryType::Directory => directory(&place),
        tar::EntryType::Regular => {
            place.parent().map_or(Ok(()), directory)?;
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&place)?;
            io::copy(&mut entry, &mut file).map(drop)
        }
        _ => Ok(()),
    }
}
