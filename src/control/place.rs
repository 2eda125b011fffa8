//! Where the socket is.

use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::config::Config;

const FOLDER: &str = "/run/gnomon";
/// The name in the usual place; that of `eal.file_prefix` when several gnomons run on one machine.
const USUAL_PREFIX: &str = "gnomon";
const USUAL_NAME: &str = "control.sock";

/// Where the socket of a configuration may be, the first that can be used. One path when the file names it.
pub fn candidates(config: &Config) -> Vec<PathBuf> {
    if let Some(path) = &config.control.socket {
        return vec![path.clone()];
    }
    let prefix = &config.eal.file_prefix;
    let name = if prefix == USUAL_PREFIX { USUAL_NAME.to_owned() } else { format!("{prefix}.sock") };
    vec![Path::new(FOLDER).join(name), config.export.directory.join(USUAL_NAME)]
}

/// What a client was told of the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nothing: the only gnomon of the machine.
    Usual,
    Socket(PathBuf),
    /// Any of these, the first that is there.
    Any(Vec<PathBuf>),
}

impl Place {
    /// The path to connect to.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub(super) fn resolve(&self) -> Result<PathBuf, String> {
        match self {
            Place::Socket(path) => Ok(path.clone()),
            Place::Any(paths) => Ok(paths.iter().find(|path| path.exists()).unwrap_or(&paths[0]).clone()),
            Place::Usual => usual(Path::new(FOLDER)),
        }
    }
}

fn usual(folder: &Path) -> Result<PathBuf, String> {
    let usual = folder.join(USUAL_NAME);
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut sockets: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    sockets.retain(|path| path.extension().is_some_and(|extension| extension == "sock"));
    sockets.sort();
    if sockets.contains(&usual) || sockets.is_empty() {
        return Ok(usual);
    }
    if sockets.len() > 1 {
        // What a killed process left behind is nobody's.
        sockets.retain(|path| !is_refused(path));
    }
    if let [only] = &sockets[..] {
        return Ok(only.clone());
    }
    if sockets.is_empty() {
        return Err("nobody listens at the sockets that are there; is gnomon running?".into());
    }
    let listed = sockets.iter().map(|path| format!("\n  {}", path.display())).collect::<String>();
    Err(format!("several gnomons have a socket; say which with --socket or -c:{listed}"))
}

fn is_refused(path: &Path) -> bool {
    UnixStream::connect(path).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn sockets_of_the_dead_do_not_count_beside_one_that_answers() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let [dead, east, west] = ["dead.sock", "east.sock", "west.sock"].map(|name| folder.path().join(name));
        drop(UnixListener::bind(&dead).expect("bound"));
        assert_eq!(usual(folder.path()), Ok(dead), "the only one there is; connecting says what is wrong");
        let _east = UnixListener::bind(&east).expect("bound");
        assert_eq!(usual(folder.path()), Ok(east));
        let _west = UnixListener::bind(&west).expect("bound");
        let error = usual(folder.path()).expect_err("two that answer");
        assert!(error.contains("east.sock") && error.contains("west.sock") && !error.contains("dead.sock"), "{error}");
    }

    #[test]
    fn the_usual_place_depends_on_prefix_and_folder() {
        let mut config = Config::default_pair();
        config.export.directory = "/data".into();
        let shown = |config: &Config| candidates(config).iter().map(|p| p.display().to_string()).collect::<Vec<_>>();
        assert_eq!(shown(&config), ["/run/gnomon/control.sock", "/data/control.sock"]);
        config.eal.file_prefix = "east".into();
        assert_eq!(shown(&config), ["/run/gnomon/east.sock", "/data/control.sock"]);
        config.control.socket = Some("/tmp/x.sock".into());
        assert_eq!(shown(&config), ["/tmp/x.sock"]);
    }

    #[test]
    fn one_of_several_must_be_named() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let listen = |name: &str| UnixListener::bind(folder.path().join(name)).expect("bound");
        let at = |name: &str| Ok(folder.path().join(name));
        assert_eq!(usual(folder.path()), at("control.sock"), "to say that it is not there");
        let _east = listen("east.sock");
        std::fs::write(folder.path().join("notes.txt"), "").expect("written");
        assert_eq!(usual(folder.path()), at("east.sock"));
        let _west = listen("west.sock");
        assert!(usual(folder.path()).is_err_and(|text| text.contains("east.sock") && text.contains("west.sock")));
        let _usual = listen("control.sock");
        assert_eq!(usual(folder.path()), at("control.sock"));
    }
}
