//! Where large things lie: a directory, or a bucket of S3. What may be used of it is decided by rows in Postgres: an object is written whole
//! before its row, never overwritten, and listed only to find what no row names any more.

use std::{
    path::{Path as FilePath, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    ObjectStore, ObjectStoreExt, WriteMultipart, aws::AmazonS3Builder, local::LocalFileSystem, path::Path, prefix::PrefixStore,
};
use url::Url;

/// What is sent to the store at once.
const PART: usize = 8 * 1024 * 1024;
/// Parts that are on their way beside one another: what an upload holds in memory is as much, and the part that is being filled.
const PARTS_AT_ONCE: usize = 2;

/// Where objects lie (`OBJECTS_URL`).
#[derive(Debug, clap::Args)]
pub struct ObjectsAt {
    /// Where exports and snapshots of profiles lie: file:///a/directory that API, hosts and workers share, or s3://bucket/prefix, whose region
    /// and credentials are AWS's usual variables (AWS_REGION, AWS_ACCESS_KEY_ID, …) or the machine's own.
    #[arg(long, env = "OBJECTS_URL", default_value = "file:///var/lib/zaguan/objects")]
    pub objects_url: Url,
}

/// `OBJECTS_URL` leads nowhere.
#[derive(Debug, thiserror::Error)]
pub enum BadObjectsUrl {
    /// Neither a directory nor a bucket.
    #[error("OBJECTS_URL must be file:///a/directory or s3://bucket/prefix")]
    Unknown,
    /// What the variables of S3 say does not do.
    #[error("OBJECTS_URL: {0}")]
    Bucket(#[source] object_store::Error),
}

/// The store did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[error("object store: {0}")]
pub struct ObjectsError(#[from] object_store::Error);

impl ObjectsError {
    /// Whether there is no such object.
    pub const fn is_missing(&self) -> bool {
        matches!(self.0, object_store::Error::NotFound { .. })
    }
}

impl From<std::io::Error> for ObjectsError {
    fn from(why: std::io::Error) -> Self {
        Self(object_store::Error::Generic { store: "directory", source: why.into() })
    }
}

type Result<T, E = ObjectsError> = std::result::Result<T, E>;

/// The store. A directory is made when something is first written to it: who only reads may start before.
#[derive(Debug, Clone)]
pub struct Objects(Place);

#[derive(Debug, Clone)]
enum Place {
    Directory(PathBuf),
    Bucket(Arc<dyn ObjectStore>),
}

impl ObjectsAt {
    /// Opens it, asking nothing of it yet.
    ///
    /// # Errors
    /// [`BadObjectsUrl`].
    pub fn open(&self) -> Result<Objects, BadObjectsUrl> {
        let url = &self.objects_url;
        match url.scheme() {
            "file" => Ok(Objects::directory(url.to_file_path().map_err(|()| BadObjectsUrl::Unknown)?)),
            "s3" if url.has_host() => self.bucket(AmazonS3Builder::from_env()),
            _ => Err(BadObjectsUrl::Unknown),
        }
    }

    /// Opens the bucket that it names, with all else that S3 needs to know from `told`.
    ///
    /// # Errors
    /// [`BadObjectsUrl`].
    pub fn bucket(&self, told: AmazonS3Builder) -> Result<Objects, BadObjectsUrl> {
        let bucket = told.with_url(self.objects_url.as_str()).build().map_err(BadObjectsUrl::Bucket)?;
        let prefix = Path::parse(self.objects_url.path().trim_matches('/')).map_err(|why| BadObjectsUrl::Bucket(why.into()))?;
        Ok(Objects(Place::Bucket(Arc::new(PrefixStore::new(bucket, prefix)))))
    }
}

/// An object that is being written. It is there once [`Upload::finish`] said so, and never in part.
pub struct Upload(WriteMultipart);

impl Upload {
    /// Takes what comes next; waits while the store is slower than we are.
    ///
    /// # Errors
    /// [`ObjectsError`].
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.wait_for_capacity(PARTS_AT_ONCE).await?;
        self.0.write(bytes);
        Ok(())
    }

    /// Makes it an object.
    ///
    /// # Errors
    /// [`ObjectsError`].
    pub async fn finish(self) -> Result<()> {
        self.0.finish().await?;
        Ok(())
    }

    /// Takes back what has been sent.
    pub async fn abort(self) {
        if let Err(why) = self.0.abort().await {
            tracing::debug!(cause = %why, "an upload was not taken back: the store forgets it by itself");
        }
    }
}

impl Objects {
    /// Those of a directory.
    pub const fn directory(at: PathBuf) -> Self {
        Self(Place::Directory(at))
    }

    fn store(&self) -> Result<Arc<dyn ObjectStore>> {
        match &self.0 {
            Place::Directory(at) => Ok(Arc::new(LocalFileSystem::new_with_prefix(at)?.with_fsync(true))),
            Place::Bucket(store) => Ok(store.clone()),
        }
    }

    /// Begins to write an object under a name that was never used.
    ///
    /// # Errors
    /// [`ObjectsError`].
    pub async fn create(&self, name: &str) -> Result<Upload> {
        if let Place::Directory(at) = &self.0 {
            tokio::fs::create_dir_all(at).await?;
        }
        let upload = self.store()?.put_multipart(&Path::from(name)).await?;
        Ok(Upload(WriteMultipart::new_with_chunk_size(upload, PART)))
    }

    /// An object's bytes, as they come.
    ///
    /// # Errors
    /// [`ObjectsError`].
    pub async fn read(&self, name: &str) -> Result<BoxStream<'static, Result<Bytes>>> {
        let found = self.store()?.get(&Path::from(name)).await?;
        Ok(found.into_stream().map_err(ObjectsError).boxed())
    }

    /// Removes an object. One that is not there is as good as removed.
    ///
    /// # Errors
    /// [`ObjectsError`].
    pub async fn remove(&self, name: &str) -> Result<()> {
        match self.store()?.delete(&Path::from(name)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(why) => Err(why.into()),
        }
    }

    /// Names of what lies under a folder and was written before `before`, as they come.
    ///
    /// # Errors
    /// [`ObjectsError`], in the stream too.
    pub fn older(&self, folder: &str, before: DateTime<Utc>) -> Result<BoxStream<'static, Result<String>>> {
        let store = match &self.0 {
            // Nothing was ever written.
            Place::Directory(at) if !at.exists() => return Ok(futures::stream::empty().boxed()),
            Place::Directory(_) | Place::Bucket(_) => self.store()?,
        };
        let old = move |meta: &object_store::ObjectMeta| std::future::ready(meta.last_modified < before);
        Ok(store.list(Some(&Path::from(folder))).map_err(ObjectsError).try_filter(old).map_ok(|meta| meta.location.into()).boxed())
    }

    /// Removes what uploads that were cut off have left in a directory for so long. A bucket forgets them by a rule of its own.
    ///
    /// # Errors
    /// The file system's.
    pub async fn sweep_uploads(&self, folder: &str, age: Duration) -> Result<u64> {
        let Place::Directory(at) = &self.0 else { return Ok(0) };
        let (folder, mut swept) = (at.join(folder), 0);
        if !folder.exists() {
            return Ok(0);
        }
        let mut folders = vec![folder];
        while let Some(folder) = folders.pop() {
            let mut entries = tokio::fs::read_dir(&folder).await?;
            while let Some(entry) = entries.next_entry().await? {
                let about = entry.metadata().await?;
                if about.is_dir() {
                    folders.push(entry.path());
                } else if is_upload(&entry.path()) && is_older(about.modified()?, age) {
                    tokio::fs::remove_file(entry.path()).await?;
                    swept += 1;
                }
            }
        }
        Ok(swept)
    }
}

/// As the library names them: the object's name, `#`, and a number.
fn is_upload(path: &FilePath) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.rsplit_once('#').is_some_and(|(_, n)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

fn is_older(modified: SystemTime, age: Duration) -> bool {
    modified.elapsed().is_ok_and(|elapsed| elapsed >= age)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);
    impl Folder {
        fn new(name: &str) -> (Self, Objects) {
            let at = std::env::temp_dir().join(format!("zaguan-objects-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&at);
            (Self(at.clone()), Objects::directory(at))
        }
    }
    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
    fn at(url: &str) -> Result<Objects, BadObjectsUrl> {
        ObjectsAt { objects_url: url.parse().unwrap() }.open()
    }
    async fn names(objects: &Objects, before: DateTime<Utc>) -> Vec<String> {
        objects.older("exports", before).unwrap().try_collect().await.unwrap()
    }
    fn later() -> DateTime<Utc> {
        DateTime::from_timestamp(4_000_000_000, 0).unwrap()
    }

    #[test]
    fn a_url_that_leads_nowhere_is_refused_with_its_name() {
        for bad in ["http://x/y", "s3:bucket", "file://elsewhere/x"] {
            assert!(at(bad).unwrap_err().to_string().contains("OBJECTS_URL"), "{bad}");
        }
        assert!(at("file:///var/lib/zaguan/objects").is_ok());
    }

    #[tokio::test]
    async fn an_object_is_there_once_it_is_whole_and_reads_back() {
        let (folder, objects) = Folder::new("whole");
        assert!(names(&objects, later()).await.is_empty(), "nothing was ever written");
        let large = vec![9; PART * 3 + 17];
        let mut upload = objects.create("exports/a/b").await.unwrap();
        for part in large.chunks(1 << 20) {
            upload.write(part).await.unwrap();
        }
        assert!(names(&objects, later()).await.is_empty() && objects.read("exports/a/b").await.is_err_and(|why| why.is_missing()));
        upload.finish().await.unwrap();
        let parts: Vec<Bytes> = objects.read("exports/a/b").await.unwrap().try_collect().await.unwrap();
        assert!(parts.concat() == large);
        assert_eq!(names(&objects, later()).await, ["exports/a/b"]);
        assert!(names(&objects, DateTime::UNIX_EPOCH).await.is_empty(), "it is young");
        objects.remove("exports/a/b").await.unwrap();
        objects.remove("exports/a/b").await.unwrap();
        assert!(names(&objects, later()).await.is_empty());
        drop(folder);
    }

    #[tokio::test]
    async fn what_an_upload_left_that_was_cut_off_goes_and_objects_stay() {
        let (folder, objects) = Folder::new("cut");
        let whole = objects.create("exports/a/whole").await.unwrap();
        whole.finish().await.unwrap();
        std::fs::write(folder.0.join("exports/a/cut#1"), "x").unwrap();
        assert_eq!(objects.sweep_uploads("exports", Duration::from_secs(3600)).await.unwrap(), 0);
        assert_eq!(objects.sweep_uploads("exports", Duration::ZERO).await.unwrap(), 1);
        assert_eq!(names(&objects, later()).await, ["exports/a/whole"]);
        assert!(!folder.0.join("exports/a/cut#1").exists());
    }
}
