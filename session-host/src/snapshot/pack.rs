//! From a directory to a file. Only of a browser that has closed: a copy of one that writes can be an empty database (measured).

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use service::seal::{Purpose, Sealer};

use super::{pipes::Seal, scratch::Scratch};

/// Measured: more costs more time than it saves bytes.
const LEVEL: i32 = 3;

/// What Chromium makes anew by itself, and what says who uses the directory. By name, at any depth: no site chooses these names.
const LEFT_OUT: [&str; 33] = [
    "Cache",
    "Code Cache",
    "GPUCache",
    "DawnCache",
    "DawnGraphiteCache",
    "DawnWebGPUCache",
    "GrShaderCache",
    "GraphiteDawnCache",
    "ShaderCache",
    "GPUPersistentCache",
    "Shared Dictionary",
    "CacheStorage",
    "ScriptCache",
    "blob_storage",
    "component_crx_cache",
    "extensions_crx_cache",
    "BrowserMetrics",
    "Crashpad",
    "Crash Reports",
    "Safe Browsing",
    "segmentation_platform",
    "optimization_guide_model_store",
    "OptimizationHints",
    "Subresource Filter",
    "VideoDecodeStats",
    "WebrtcVideoStats",
    "Feature Engagement Tracker",
    "SingletonLock",
    "SingletonCookie",
    "SingletonSocket",
    "DevToolsActivePort",
    "zaguan-closed",
    "LOCK",
];

/// A packed profile. The file goes with it.
#[derive(Debug)]
pub struct Packed {
    file: Scratch,
    /// SHA-256 of the file.
    pub digest: [u8; 32],
    /// The file's size.
    pub size: u64,
    /// How large the packed files were.
    pub plain: u64,
    /// The file's own key, sealed.
    pub key: Vec<u8>,
}

impl Packed {
    /// Where it lies.
    pub fn file(&self) -> &Path {
        self.file.path()
    }
}

/// Packs and seals `directory` into `file`. Blocks.
///
/// # Errors
/// The file system's. Nothing is left behind then.
pub fn pack(directory: &Path, file: Scratch, sealer: &Sealer, session: &[u8; 16]) -> io::Result<Packed> {
    let (key, sealing) = sealer.stream(Purpose::Snapshot, session).map_err(io::Error::other)?;
    let out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file.path())?;
    let mut packed = Packed { file, digest: [0; 32], size: 0, plain: 0, key };
    let mut archive = tar::Builder::new(zstd::Encoder::new(Seal::new(sealing, BufWriter::new(out)), LEVEL)?);
    packed.plain = add(&mut archive, directory, Path::new(""))?;
    let (mut out, digest, size) = archive.into_inner()?.finish()?.finish()?;
    out.flush()?;
    packed.size = size;
    packed.digest.copy_from_slice(digest.as_ref());
    Ok(packed)
}

/// Adds what lies below `at`. Only directories and files: Chromium's links name who uses it.
fn add<W: Write>(archive: &mut tar::Builder<W>, directory: &Path, at: &Path) -> io::Result<u64> {
    let mut size = 0;
    let mut entries = fs::read_dir(directory.join(at))?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        let kind = entry.file_type()?;
        if name.to_str().is_some_and(|name| LEFT_OUT.contains(&name)) {
            continue;
        }
        let path = at.join(name);
        let mut header = tar::Header::new_gnu();
        if kind.is_dir() {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_size(0);
            archive.append_data(&mut header, &path, io::empty())?;
            size += add(archive, directory, &path)?;
        } else if kind.is_file() {
            let file = File::open(entry.path())?;
            let length = file.metadata()?.len();
            header.set_entry_type(tar::EntryType::Regular);
            header.set_size(length);
            archive.append_data(&mut header, &path, file)?;
            size += length;
        }
    }
    Ok(size)
}
