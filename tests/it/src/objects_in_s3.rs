//! What lies in a bucket: the client against an S3 that is not ours.

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use harness::{Folder, User, s3::S3};
use object_store::aws::AmazonS3Builder;
use service::objects::{Objects, ObjectsAt};

/// A bucket's part, as a service has it whose variables name this server.
fn objects(s3: &S3, url: &str) -> Objects {
    let told = AmazonS3Builder::new().with_endpoint(s3.url()).with_allow_http(true).with_region("eu-central-1");
    let told = told.with_access_key_id("key").with_secret_access_key("secret");
    ObjectsAt { objects_url: url.parse().expect("a URL") }.bucket(told).expect("a bucket")
}

async fn read(objects: &Objects, name: &str) -> Option<Vec<u8>> {
    match objects.read(name).await {
        Ok(parts) => Some(parts.try_collect::<Vec<_>>().await.expect("it comes whole").concat()),
        Err(why) => {
            assert!(why.is_missing(), "{why}");
            None
        }
    }
}

async fn names(objects: &Objects, before: DateTime<Utc>) -> Vec<String> {
    let mut names: Vec<String> = objects.older("snapshots", before).expect("a list").try_collect().await.expect("it is listed");
    names.sort();
    names
}

#[tokio::test]
async fn a_snapshot_in_s3_is_there_once_it_is_whole_reads_back_is_missing_where_it_never_was_and_is_swept() {
    let folder = Folder::new(User::find().unwrap()).unwrap();
    let s3 = S3::start(folder.path(), &["profiles"]).await.unwrap();
    let (ours, beside) = (objects(&s3, "s3://profiles/zaguan/one"), objects(&s3, "s3://profiles/zaguan/two"));
    let (later, name) = (DateTime::from_timestamp(4_000_000_000, 0).unwrap(), "snapshots/ten/ses/1-a");
    assert!(names(&ours, later).await.is_empty());
    assert_eq!(read(&ours, name).await, None);

    // More than one part of S3, none of them alike.
    let large: Vec<u8> = (0..20_000_000_u32).map(|n| (n % 251) as u8).collect();
    let mut upload = ours.create(name).await.unwrap();
    for part in large.chunks(1 << 20) {
        upload.write(part).await.unwrap();
    }
    assert_eq!((read(&ours, name).await, names(&ours, later).await), (None, Vec::new()), "not before it is whole");
    upload.finish().await.unwrap();
    assert!(read(&ours, name).await.is_some_and(|read| read == large));

    // Cut off, it leaves nothing that could be taken for a snapshot; a small one is one part.
    let mut cut = ours.create("snapshots/ten/ses/2-b").await.unwrap();
    cut.write(&large[..9_000_000]).await.unwrap();
    cut.abort().await;
    assert_eq!(read(&ours, "snapshots/ten/ses/2-b").await, None);
    let mut small = ours.create("snapshots/ten/ses/3-c").await.unwrap();
    small.write(b"sealed").await.unwrap();
    small.finish().await.unwrap();
    assert_eq!(read(&ours, "snapshots/ten/ses/3-c").await.as_deref(), Some(&b"sealed"[..]));

    // What is swept is found by age, below its own prefix only.
    assert_eq!(names(&ours, later).await, [name, "snapshots/ten/ses/3-c"]);
    assert!(names(&ours, DateTime::UNIX_EPOCH).await.is_empty(), "they are young");
    assert!(names(&beside, later).await.is_empty() && read(&beside, name).await.is_none(), "another installation's");
    for _ in 0..2 {
        ours.remove(name).await.unwrap();
    }
    assert_eq!((read(&ours, name).await, names(&ours, later).await), (None, vec!["snapshots/ten/ses/3-c".to_owned()]));
}
