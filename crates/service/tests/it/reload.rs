use std::os::unix::fs::symlink;
use std::path::Path;

use carillon_service::reload::{self, Reload};
use tokio_util::sync::CancellationToken;

use crate::wire::soon;

/// Puts another link in the place of one, as a ConfigMap mount does.
fn swap(folder: &Path, target: &str) {
    symlink(target, folder.join("..data_tmp")).unwrap();
    std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
}

fn version(folder: &Path, name: &str, text: &str) {
    std::fs::create_dir(folder.join(name)).unwrap();
    std::fs::write(folder.join(name).join("carillon.toml"), text).unwrap();
}

#[tokio::test]
async fn a_configmap_swap_is_one_request() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    version(folder, "..v1", "a = 1");
    swap(folder, "..v1");
    symlink("..data/carillon.toml", folder.join("carillon.toml")).unwrap();
    let shutdown = CancellationToken::new();
    let mut requests = reload::watch(folder.join("carillon.toml"), shutdown.clone()).unwrap();

    for (old, new) in [("..v1", "..v2"), ("..v2", "..v3")] {
        version(folder, new, new);
        swap(folder, new);
        std::fs::remove_dir_all(folder.join(old)).unwrap();
        assert_eq!(soon(requests.recv()).await, Some(Reload::Changed));
        assert!(requests.try_recv().is_err());
    }
    shutdown.cancel();
    assert_eq!(soon(requests.recv()).await, None);
}

#[tokio::test]
async fn a_file_that_is_replaced_or_written_is_told_and_one_that_is_the_same_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("carillon.toml");
    std::fs::write(&path, "a = 1").unwrap();
    let mut requests = reload::watch(&path, CancellationToken::new()).unwrap();

    // The same contents, and another file: the request that comes is about the last write alone.
    std::fs::write(&path, "a = 1").unwrap();
    std::fs::write(folder.path().join("other"), "x").unwrap();
    std::fs::write(folder.path().join("new"), "a = 2").unwrap();
    std::fs::rename(folder.path().join("new"), &path).unwrap();
    assert_eq!(soon(requests.recv()).await, Some(Reload::Changed));
    std::fs::write(&path, "a = 3").unwrap();
    assert_eq!(soon(requests.recv()).await, Some(Reload::Changed));
    assert!(requests.try_recv().is_err());
}

#[tokio::test]
async fn a_link_to_elsewhere_is_followed() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let target = elsewhere.path().join("real.toml");
    std::fs::write(&target, "a = 1").unwrap();
    symlink(&target, folder.path().join("carillon.toml")).unwrap();
    let mut requests = reload::watch(folder.path().join("carillon.toml"), CancellationToken::new()).unwrap();
    std::fs::write(&target, "a = 2").unwrap();
    assert_eq!(soon(requests.recv()).await, Some(Reload::Changed));
}
