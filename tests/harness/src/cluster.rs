//! A Postgres cluster to start from, with this repository's migrations in it: made by the first test of a build that wants one, copied by all.
//! Making one takes a second of a processor, and hundreds of tests want one.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::process::Signal;

use crate::{Error, Folder, User, postgres, process::Process, services::built_programs};

/// Where it lies, beside the programs: named by all that it is made of, so that one that is there is the right one.
///
/// # Errors
/// The file system's.
pub async fn template(user: User, bin: &Path) -> Result<PathBuf, Error> {
    let lies = built_programs()?.join(format!("cluster-{:016x}", key(user, bin)?));
    if !lies.exists() {
        make(user, bin, &lies).await?;
        forget_others(&lies)?;
    }
    Ok(lies)
}

/// A copy of `from`, with its owners.
///
/// # Errors
/// The file system's.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(from).arg(to)).map(drop)
}

/// Where the migrations lie.
pub fn migrations() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations")
}

fn key(user: User, bin: &Path) -> io::Result<u64> {
    let mut files: Vec<_> = fs::read_dir(migrations())?.collect::<io::Result<Vec<_>>>()?.iter().map(fs::DirEntry::path).collect();
    files.sort();
    let mut key = DefaultHasher::new();
    for file in files {
        (file.file_name(), fs::read(&file)?).hash(&mut key);
    }
    // Partitions are made for the days to come.
    let day = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?.as_secs() / 86_400;
    let server = fs::metadata(bin.join("postgres"))?;
    (bin, server.len(), server.modified().ok(), user, day).hash(&mut key);
    Ok(key.finish())
}

/// Made aside and put there whole: of two who make it at once the first one's stays.
async fn make(user: User, bin: &Path, lies: &Path) -> Result<(), Error> {
    let folder = Folder::new(user)?;
    let data = folder.path().join("postgres");
    run(user
        .command(bin.join("initdb"))
        .args(["--auth=trust", "--username=zaguan", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8", "-D"])
        .arg(&data)
        .current_dir(folder.path()))?;
    let port = crate::free_port();
    let mut server = postgres::run(user, bin, &data, folder.path(), port)?;
    postgres::ready(port).await;
    let mut connection = postgres::connect(port, "postgres").await?;
    sqlx::query("create database zaguan").execute(&mut connection).await?;
    sqlx::migrate::Migrator::new(migrations()).await?.run(&mut postgres::connect(port, "zaguan").await?).await?;
    drop(connection);
    stop(&mut server).await?;
    let aside = lies.with_extension(crate::random_word(8));
    copy(&data, &aside)?;
    if fs::rename(&aside, lies).is_err() {
        fs::remove_dir_all(&aside)?;
    }
    Ok(())
}

/// Those of former days and migrations; not of today, which somebody may be copying.
fn forget_others(than: &Path) -> io::Result<()> {
    const DAY: Duration = Duration::from_secs(86_400);
    let beside = than.parent().unwrap_or(than);
    for entry in fs::read_dir(beside)?.flatten() {
        let old = entry.metadata().and_then(|meta| meta.modified()).is_ok_and(|at| at.elapsed().is_ok_and(|age| age > DAY));
        if old && entry.path() != than && entry.file_name().to_string_lossy().starts_with("cluster-") {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// In order, so that what it did is in its files.
async fn stop(server: &mut Process) -> Result<(), Error> {
    server.signal(Signal::INT);
    server.wait(Duration::from_secs(20)).await.ok_or("Postgres does not stop")?;
    Ok(())
}

fn run(command: &mut Command) -> io::Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{:?}: {}", command.get_program(), String::from_utf8_lossy(&output.stderr))))
}
