//! The files of the tables, on the disk before they have their names.
//!
//! The file store of `object_store` syncs nothing: after a power loss a commit, a checkpoint or a data file may have its name
//! and half its bytes. This one writes under a staging name (`NAME#N`, which listings leave out), syncs the file, gives
//! it its name, and syncs the folder. So whatever has a name is whole, a commit is on the disk when it returns, and what
//! it names was there before it. Reading is the store's own.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};

use async_trait::async_trait;
use bytes::Bytes;
use deltalake_core::logstore::object_store::local::LocalFileSystem;
use deltalake_core::logstore::object_store::path::Path as Location;
use deltalake_core::logstore::object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    UploadPart,
};
use deltalake_core::logstore::{
    ObjectStoreFactory, ObjectStoreRef, StorageConfig, object_store_factories,
};
use deltalake_core::{DeltaResult, DeltaTableError};
use futures::FutureExt;
use futures::stream::BoxStream;
use url::Url;

use crate::formats::files::{make_folder, sync_folder};

/// Makes every table on a local disk use this store; done once a process.
pub(super) fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if let Ok(scheme) = Url::parse("file://") {
            object_store_factories().insert(scheme, Arc::new(Factory));
        }
    });
}

struct Factory;

impl ObjectStoreFactory for Factory {
    fn parse_url_opts(
        &self,
        url: &Url,
        _: &StorageConfig,
    ) -> DeltaResult<(ObjectStoreRef, Location)> {
        let location = Location::from_url_path(url.path())
            .map_err(|error| DeltaTableError::generic(error.to_string()))?;
        Ok((Arc::new(Durable { files: LocalFileSystem::new() }), location))
    }
}

/// Local files, written as the module says.
#[derive(Debug)]
struct Durable {
    files: LocalFileSystem,
}

impl fmt::Display for Durable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("synced local files")
    }
}

#[async_trait]
impl ObjectStore for Durable {
    async fn put_opts(
        &self,
        location: &Location,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let create = match options.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => return self.files.put_opts(location, payload, options).await,
        };
        let path = self.files.path_to_filesystem(location)?;
        aside(move || {
            let staged = Staged::beside(path)?;
            payload.iter().try_for_each(|block| staged.writing((&staged.file).write_all(block)))?;
            staged.publish(create)
        })
        .await
    }

    async fn put_multipart_opts(
        &self,
        location: &Location,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let path = self.files.path_to_filesystem(location)?;
        let staged = aside(move || Staged::beside(path)).await?;
        Ok(Box::new(Upload { staged: Some(Arc::new(staged)), offset: 0 }))
    }

    async fn get_opts(&self, location: &Location, options: GetOptions) -> Result<GetResult> {
        self.files.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Location, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.files.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Location>>,
    ) -> BoxStream<'static, Result<Location>> {
        self.files.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Location>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Location>,
        offset: &Location,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Location>) -> Result<ListResult> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Location, to: &Location, options: CopyOptions) -> Result<()> {
        self.files.copy_opts(from, to, options).await?;
        let path = self.files.path_to_filesystem(to)?;
        aside(move || sync_folder(&path).map_err(|error| failed(&path, "synced", error))).await
    }
}

/// A file that has no name yet. Dropped before it is published, it goes.
#[derive(Debug)]
struct Staged {
    file: File,
    path: PathBuf,
    target: PathBuf,
}

impl Staged {
    fn beside(target: PathBuf) -> Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        if let Some(folder) = target.parent() {
            make_folder(folder).map_err(|error| failed(folder, "made", error))?;
        }
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let mut path = target.clone().into_os_string();
            path.push(format!("#{}{count:06}", process::id()));
            let path = PathBuf::from(path);
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok(Self { file, path, target }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed(&target, "written", error)),
            }
        }
    }

    fn writing(&self, result: io::Result<()>) -> Result<()> {
        result.map_err(|error| failed(&self.target, "written", error))
    }

    /// Gives the file its name; `create` refuses where the name is taken.
    fn publish(&self, create: bool) -> Result<PutResult> {
        self.writing(self.file.sync_all())?;
        if create {
            fs::hard_link(&self.path, &self.target).map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => Error::AlreadyExists {
                    path: self.target.display().to_string(),
                    source: error.into(),
                },
                _ => failed(&self.target, "written", error),
            })?;
        } else {
            self.writing(fs::rename(&self.path, &self.target))?;
        }
        if let Err(error) = sync_folder(&self.target) {
            // Whoever is told that it failed must not find it later.
            if create {
                let _ = fs::remove_file(&self.target);
            }
            return Err(failed(&self.target, "synced", error));
        }
        Ok(PutResult { e_tag: None, version: None })
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Renamed away, there is nothing by this name; otherwise a failed removal leaves what the sweep finds.
        let _ = fs::remove_file(&self.path);
    }
}

#[derive(Debug)]
struct Upload {
    staged: Option<Arc<Staged>>,
    offset: u64,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (staged, mut offset) = (self.staged.clone(), self.offset);
        self.offset += data.content_length() as u64;
        aside(move || {
            let staged = staged.ok_or_else(ended)?;
            for block in data {
                staged.writing(staged.file.write_all_at(&block, offset))?;
                offset += block.len() as u64;
            }
            Ok(())
        })
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let staged = self.staged.take().ok_or_else(ended)?;
        aside(move || staged.publish(false)).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.staged.take();
        Ok(())
    }
}

fn ended() -> Error {
    let source = "the upload has ended".into();
    Error::Generic { store: "local file", source }
}

fn failed(path: &Path, what: &str, error: io::Error) -> Error {
    let told = format!("{} cannot be {what}: {error}", path.display());
    // The kind is kept: a full disk is told apart.
    let source = Box::new(io::Error::new(error.kind(), told));
    Error::Generic { store: "local file", source }
}

/// Off the scheduler's threads, since it waits for the disk.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::Generic { store: "local file", source: error.into() }),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use deltalake_core::logstore::object_store::ObjectStoreExt;

    use super::*;

    fn location(folder: &Path, name: &str) -> Location {
        Location::from_absolute_path(folder.join(name)).unwrap()
    }

    #[tokio::test]
    async fn a_commit_is_made_once_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Durable { files: LocalFileSystem::new() };
        let to = location(folder.path(), "log/1.json");
        let create = || PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        store.put_opts(&to, "first".into(), create()).await.unwrap();
        let again = store.put_opts(&to, "second".into(), create()).await.unwrap_err();
        assert!(matches!(again, Error::AlreadyExists { .. }), "{again}");
        assert_eq!(store.get(&to).await.unwrap().bytes().await.unwrap(), "first");
        store.put_opts(&to, "third".into(), PutOptions::default()).await.unwrap();
        assert_eq!(store.get(&to).await.unwrap().bytes().await.unwrap(), "third");
        assert_eq!(fs::read_dir(folder.path().join("log")).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn parts_make_one_file_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let store = Durable { files: LocalFileSystem::new() };
        let to = location(folder.path(), "data.parquet");
        let mut upload = store.put_multipart(&to).await.unwrap();
        let (second, first) = (vec![7_u8; 10], vec![3_u8; 5]);
        let one = upload.put_part(first.into());
        let two = upload.put_part(second.into());
        two.await.unwrap();
        one.await.unwrap();
        assert!(!folder.path().join("data.parquet").exists());
        upload.complete().await.unwrap();
        let bytes = fs::read(folder.path().join("data.parquet")).unwrap();
        assert_eq!(bytes, [[3; 5].as_slice(), &[7; 10]].concat());
        let mut given_up = store.put_multipart(&location(folder.path(), "other")).await.unwrap();
        given_up.put_part(vec![1].into()).await.unwrap();
        given_up.abort().await.unwrap();
        assert!(given_up.complete().await.is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_full_disk_is_told_apart() {
        let error = failed(Path::new("x"), "written", io::ErrorKind::StorageFull.into());
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        let mut kinds = Vec::new();
        while let Some(inner) = cause {
            kinds.extend(inner.downcast_ref::<io::Error>().map(io::Error::kind));
            cause = inner.source();
        }
        assert_eq!(kinds, [io::ErrorKind::StorageFull]);
    }
}
