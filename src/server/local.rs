//! The unix socket for clients of this machine: `.s.PGSQL.<port>` in a folder, where libpq looks for it. Its file goes with it.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use std::task::{Context, Poll};

use tokio::net::{UnixListener, UnixStream};

/// Clients that the kernel lets wait to be accepted; it may have a lower limit of its own.
const BACKLOG: i32 = 1024;

/// A unix socket that listens.
pub struct LocalSocket {
    listener: UnixListener,
    file: SocketFile,
}

/// Removed when dropped.
struct SocketFile {
    path: PathBuf,
    /// Device and inode of its file: another one's file under the same name is left alone.
    identity: (u64, u64),
}

impl LocalSocket {
    /// Where the socket of this port is.
    pub fn path(folder: &Path, port: u16) -> PathBuf {
        folder.join(format!(".s.PGSQL.{port}"))
    }

    /// Listens there. A file that a process has left behind which has not ended well is replaced, and with `take_over` also that of one
    /// which still listens: it serves those who are connected to it, and new ones come here.
    ///
    /// # Errors
    /// Somebody listens there, or something else is there; the operating system's.
    pub fn bind(path: PathBuf, permissions: u32, take_over: bool) -> io::Result<Self> {
        let taken = !find_free(&path)?;
        if taken && !take_over {
            let there = "another process listens there";
            return Err(io::Error::new(io::ErrorKind::AddrInUse, there));
        }
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // Put in the other one's place when it listens: at no moment is there none.
        let made = match taken {
            true => path.with_extension(format!("{}.new", std::process::id())),
            false => path.clone(),
        };
        socket.bind(&SockAddr::unix(&made)?)?;
        // Before it listens: nobody connects who may not.
        let listens = fs::set_permissions(&made, Permissions::from_mode(permissions))
            .and_then(|()| identity(&made))
            .and_then(|identity| {
                socket.listen(BACKLOG)?;
                socket.set_nonblocking(true)?;
                let listener = UnixListener::from_std(net::UnixListener::from(socket))?;
                if taken {
                    fs::rename(&made, &path)?;
                }
                Ok((listener, identity))
            });
        match listens {
            Ok((listener, identity)) => Ok(Self {
                listener,
                file: SocketFile { path, identity },
            }),
            Err(error) => {
                // Nobody could connect to it.
                let _ = fs::remove_file(&made);
                Err(error)
            }
        }
    }

    /// Its file.
    pub fn file(&self) -> &Path {
        &self.file.path
    }

    /// The next client.
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<UnixStream>> {
        self.listener.poll_accept(cx).map_ok(|(stream, _)| stream)
    }

    /// Ends listening; those whom the kernel has let in already are `accepted`.
    ///
    /// # Errors
    /// The operating system's.
    pub fn close(self, mut accepted: impl FnMut(UnixStream)) -> io::Result<()> {
        let Self { listener, file } = self;
        // From here on nobody finds it.
        drop(file);
        let listener = listener.into_std()?;
        while let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(true)?;
            accepted(UnixStream::from_std(stream)?);
        }
        Ok(())
    }
}

impl Drop for SocketFile {
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

/// False where somebody listens. A socket that nobody listens on is what a killed process has left, and is removed.
fn find_free(path: &Path) -> io::Result<bool> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        found => found?,
    };
    if !metadata.file_type().is_socket() {
        let there = "something that is no socket is there";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, there));
    }
    match net::UnixStream::connect(path) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map(|()| true)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    #[tokio::test]
    async fn its_file_has_its_permissions_and_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = LocalSocket::path(folder.path(), 6432);
        assert!(path.ends_with(".s.PGSQL.6432"));
        let socket = LocalSocket::bind(path.clone(), 0o750, false).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o750);
        let connected = UnixStream::connect(&path);
        let accepted = poll_fn(|cx| socket.poll_accept(cx));
        let (accepted, connected) = tokio::join!(accepted, connected);
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
        let socket = LocalSocket::bind(path.clone(), 0o777, false).unwrap();
        let second = LocalSocket::bind(path.clone(), 0o777, false).err().unwrap();
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
        // Somebody else's file under this name stays.
        fs::remove_file(&path).unwrap();
        let other = LocalSocket::bind(path.clone(), 0o777, false).unwrap();
        drop(socket);
        assert!(path.exists());
        drop(other);
        fs::write(&path, "a file").unwrap();
        let third = LocalSocket::bind(path.clone(), 0o777, true).err().unwrap();
        assert_eq!(third.kind(), io::ErrorKind::AlreadyExists);
    }

    #[tokio::test]
    async fn one_that_takes_over_gets_who_comes_and_the_old_one_keeps_who_came() {
        let folder = tempfile::tempdir().unwrap();
        let path = LocalSocket::path(folder.path(), 1);
        let old = LocalSocket::bind(path.clone(), 0o777, false).unwrap();
        let early = net::UnixStream::connect(&path).unwrap();
        let new = LocalSocket::bind(path.clone(), 0o777, true).unwrap();
        let _late = net::UnixStream::connect(&path).unwrap();
        let mut kept = Vec::new();
        old.close(|stream| kept.push(stream)).unwrap();
        // One is the other's look whether somebody listens.
        assert_eq!(kept.len(), 2, "{early:?} is lost or the late one here");
        poll_fn(|cx| new.poll_accept(cx)).await.unwrap();
        assert!(path.exists());
        let names = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(names, 1, "nothing but the socket is left");
    }
}
