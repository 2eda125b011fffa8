//! Making the socket: one owner, right permissions from the first moment, nothing left behind.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use nix::unistd::Group;

use super::place::candidates;
use crate::config::Config;

/// Who runs gnomon, and the group.
const MODE: u32 = 0o660;
/// What a socket's address has room for.
const LONGEST_PATH: usize = 107;

/// A socket that clients can connect to; removed when dropped.
#[derive(Debug)]
pub struct Listening {
    pub(super) listener: UnixListener,
    path: PathBuf,
    /// Device and inode, so that only this one is removed.
    identity: (u64, u64),
}

impl Listening {
    /// In the first place of a configuration that can be written.
    ///
    /// # Errors
    /// Another gnomon listens there, something else stands there, or none of the places can be written.
    pub fn open(config: &Config) -> Result<Self> {
        let group = config.control.group.as_deref().map(group_id).transpose()?;
        let places = candidates(config);
        let mut failure = None;
        for path in &places {
            match Self::bind(path, group) {
                Ok(listening) => return Ok(listening),
                Err(error) if is_unwritable(&error) => {
                    let error = error.context(format!("making the control socket {}", path.display()));
                    if let Some(earlier) = failure.replace(error) {
                        log::info!("{earlier:#}");
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(failure.unwrap_or_else(|| anyhow!("no place for the control socket"))).context(
            "write [control] socket = \"PATH\" with a path that can be written, or enabled = false to go without",
        )
    }

    /// At this path, for its owner and `group`.
    ///
    /// # Errors
    /// See [`Listening::open`].
    pub fn bind(path: &Path, group: Option<u32>) -> Result<Self> {
        let shown = path.display();
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        // Between looking whether somebody listens and taking the place nobody else may do the same.
        let turn = File::open(folder)?;
        turn.lock()?;
        clear(path)?;
        let fresh = folder.join(format!(".gnomon-{}.sock", std::process::id()));
        if fresh.as_os_str().len().max(path.as_os_str().len()) > LONGEST_PATH {
            bail!(
                "the path of the control socket is too long: {shown}; at most {LONGEST_PATH} bytes, and room for a temporary name in the folder"
            );
        }
        let _ = fs::remove_file(&fresh);
        let bound = UnixListener::bind(&fresh).map_err(anyhow::Error::from).and_then(|listener| {
            // Nobody finds it before it has its permissions and its name.
            fs::set_permissions(&fresh, fs::Permissions::from_mode(MODE))?;
            if let Some(group) = group {
                chown(&fresh, None, Some(group))
                    .with_context(|| format!("giving {shown} to the group of [control]"))?;
            }
            fs::rename(&fresh, path)?;
            let about = fs::symlink_metadata(path)?;
            Ok(Self { listener, path: path.to_owned(), identity: (about.dev(), about.ino()) })
        });
        if bound.is_err() {
            let _ = fs::remove_file(&fresh);
        }
        bound
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|about| (about.dev(), about.ino()) == self.identity);
        if ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes a socket that nobody listens on any more; anything else is somebody's.
fn clear(path: &Path) -> Result<()> {
    let shown = path.display();
    let about = match fs::symlink_metadata(path) {
        Ok(about) => about,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if !about.file_type().is_socket() {
        bail!("{shown} is there already and no socket: choose another path in [control] socket, or remove it");
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            log::info!("{shown} was left behind by a gnomon that did not end in order");
            Ok(fs::remove_file(path)?)
        }
        // It ended just now and removed it.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).context(format!("cannot tell whether another gnomon listens on {shown}")),
        Ok(_) => bail!(
            "another gnomon listens on {shown}: stop it, or give each its own eal.file_prefix or [control] socket"
        ),
    }
}

fn group_id(name: &str) -> Result<u32> {
    let found = Group::from_name(name).with_context(|| format!("looking up group `{name}`"))?;
    let group = found.with_context(|| {
        format!("[control] group = \"{name}\": there is no such group; make it (groupadd {name}) or leave it out")
    })?;
    Ok(group.gid.as_raw())
}

fn is_unwritable(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    matches!(kind, Some(ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::NotFound))
}
