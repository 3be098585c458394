//! The unix socket for clients of this machine: `.s.PGSQL.<port>` in a folder, where libpq looks for it. Its file goes with it.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};

/// Clients that the kernel lets wait to be accepted; it may have a lower limit of its own.
const BACKLOG: i32 = 1024;

/// A unix socket that listens.
pub struct LocalSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of its file: another one's file under the same name is left alone.
    identity: (u64, u64),
}

impl LocalSocket {
    /// Where the socket of this port is.
    pub fn path(folder: &Path, port: u16) -> PathBuf {
        folder.join(format!(".s.PGSQL.{port}"))
    }

    /// Listens there. A file that a process has left behind which has not ended well is replaced.
    ///
    /// # Errors
    /// Somebody listens there, or something else is there; the operating system's.
    pub fn bind(path: PathBuf, permissions: u32) -> io::Result<Self> {
        remove_stale(&path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(&path)?)?;
        // Before it listens: nobody connects who may not.
        let listens = fs::set_permissions(&path, Permissions::from_mode(permissions))
            .and_then(|()| identity(&path))
            .and_then(|identity| {
                socket.listen(BACKLOG)?;
                socket.set_nonblocking(true)?;
                let listener = UnixListener::from_std(net::UnixListener::from(socket))?;
                Ok((listener, identity))
            });
        match listens {
            Ok((listener, identity)) => Ok(Self {
                listener,
                path,
                identity,
            }),
            Err(error) => {
                // Nobody could connect to it.
                let _ = fs::remove_file(&path);
                Err(error)
            }
        }
    }

    /// The next client.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for LocalSocket {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            // What cannot be removed is replaced at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// A socket that nobody listens on is what a killed process has left.
fn remove_stale(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !metadata.file_type().is_socket() {
        let there = "something that is no socket is there";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, there));
    }
    match net::UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another process listens there",
        )),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn its_file_has_its_permissions_and_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = LocalSocket::path(folder.path(), 6432);
        assert!(path.ends_with(".s.PGSQL.6432"));
        let socket = LocalSocket::bind(path.clone(), 0o750).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o750);
        let connected = UnixStream::connect(&path);
        let (accepted, connected) = tokio::join!(socket.accept(), connected);
        accepted.and(connected).unwrap();
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_a_killed_process_left_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = LocalSocket::path(folder.path(), 1);
        drop(net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let socket = LocalSocket::bind(path.clone(), 0o777).unwrap();
        let second = LocalSocket::bind(path.clone(), 0o777).err().unwrap();
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
        // Somebody else's file under this name stays.
        fs::remove_file(&path).unwrap();
        let other = LocalSocket::bind(path.clone(), 0o777).unwrap();
        drop(socket);
        assert!(path.exists());
        drop(other);
        fs::write(&path, "a file").unwrap();
        let third = LocalSocket::bind(path.clone(), 0o777).err().unwrap();
        assert_eq!(third.kind(), io::ErrorKind::AlreadyExists);
    }
}
