//! The library search of the dynamic loaders of glibc and musl (ld.so(8), musl's ldso/dynlink.c).

use super::Image;
use super::elf::Elf;
use super::program::FoundFile;
use crate::tree::{Kind, parts, show};

/// Directories that glibc's loader searches without a cache, in Debian and other distributions. A
/// directory that a distribution's loader does not search is empty there.
const FOLDERS: [&str; 8] = [
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib/i386-linux-gnu",
    "/usr/lib/i386-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
];
/// The search path of musl, unless /etc/ld-musl-x86_64.path exists.
const MUSL_FOLDERS: [&str; 3] = ["/lib", "/usr/local/lib", "/usr/lib"];
/// Libraries that musl's loader itself provides: the name between `lib` and the first dot.
const MUSL_ITSELF: [&[u8]; 7] = [b"c", b"pthread", b"rt", b"m", b"dl", b"util", b"xnet"];
/// Maximum size of the cache, bytes; a large system has 200 KB.
const CACHE_LIMIT: u64 = 16 << 20;

/// The search path of the loader, without the paths of the programs.
pub struct Search {
    /// Paths that /etc/ld.so.cache lists, by name.
    cached: std::collections::BTreeMap<Vec<u8>, Vec<String>>,
    musl: Vec<String>,
}

impl Search {
    pub fn new(image: &Image) -> Search {
        let mut cached: std::collections::BTreeMap<Vec<u8>, Vec<String>> =
            std::collections::BTreeMap::new();
        let cache = image.tree.resolve(b"/etc/ld.so.cache").and_then(|id| {
            match &image.tree.node(id).kind {
                Kind::File(content) => content.to_vec(CACHE_LIMIT).ok(),
                _ => None,
            }
        });
        // Both cache formats end with a table of strings: paths, each terminated by a NUL.
        for text in cache
            .unwrap_or_default()
            .split(|b| *b == 0)
            .filter(|text| text.starts_with(b"/"))
        {
            let name = parts(text).last().unwrap_or_default();
            cached.entry(name.to_vec()).or_default().push(show(text));
        }
        let musl = image.text("/etc/ld-musl-x86_64.path");
        let musl = musl.map(|text| {
            text.split([':', '\n'])
                .map(str::trim)
                .filter(|folder| !folder.is_empty())
                .map(str::to_owned)
                .collect()
        });
        Search {
            cached,
            musl: musl.unwrap_or_else(|| MUSL_FOLDERS.map(str::to_owned).into()),
        }
    }

    /// The search directories of one object, and those that its libraries inherit. `at` is the path
    /// of the object; `inherited` are the directories of the objects that loaded it.
    pub fn own_folders(
        &self,
        at: &str,
        elf: &Elf,
        inherited: &[String],
    ) -> (Vec<String>, Vec<String>) {
        let expand = |list: &Option<Vec<u8>>| {
            list.iter()
                .flat_map(|list| expanded(&show(list), at))
                .collect::<Vec<_>>()
        };
        let inherits = match elf.runpath {
            // DT_RUNPATH overrides DT_RPATH.
            Some(_) => inherited.to_vec(),
            None => expand(&elf.rpath)
                .into_iter()
                .chain(inherited.iter().cloned())
                .collect(),
        };
        let own = if elf.runpath.is_some() {
            expand(&elf.runpath)
        } else {
            inherits.clone()
        };
        (own, inherits)
    }

    /// Candidate paths in the loader's order.
    pub fn candidates(&self, name: &str, own: &[String], loader: &FoundFile) -> Vec<String> {
        if name.contains('/') {
            return vec![format!("/{}", name.trim_start_matches('/'))];
        }
        let in_folder = |folder: &String| format!("{folder}/{name}");
        let mut paths: Vec<String> = own.iter().map(in_folder).collect();
        if is_musl(loader) {
            paths.extend(self.musl.iter().map(in_folder));
            return paths;
        }
        paths.extend(
            self.cached
                .get(name.as_bytes())
                .into_iter()
                .flatten()
                .cloned(),
        );
        // A loader built for another prefix, such as Nix's, searches its own directory.
        let beside = loader
            .path
            .rsplit_once('/')
            .map_or(String::new(), |(folder, _)| folder.to_owned());
        paths.extend(
            FOLDERS
                .map(str::to_owned)
                .iter()
                .chain([&beside])
                .map(in_folder),
        );
        paths
    }

    /// Whether this name is the C library itself: musl's loader provides it under each of its old
    /// names.
    pub fn is_loader_itself(&self, name: &[u8], loader: &FoundFile) -> bool {
        let stem = name
            .strip_prefix(b"lib")
            .and_then(|rest| rest.split(|b| *b == b'.').next());
        is_musl(loader) && stem.is_some_and(|stem| MUSL_ITSELF.contains(&stem))
    }

    /// Any file with this name.
    pub fn elsewhere(&self, image: &Image, name: &[u8]) -> Option<String> {
        let mut found = None;
        image.tree.visit(&mut |path, _| {
            if found.is_none() && parts(path).last() == Some(name) {
                found = Some(show(path));
            }
        });
        found
    }
}

fn is_musl(loader: &FoundFile) -> bool {
    // /lib/ld-musl-x86_64.so.1 is the file itself, or a link to libc.so.
    loader.path.contains("/ld-musl-")
        || loader.path.ends_with("/libc.so")
        || loader.path.contains("/libc.musl-")
}

/// Splits a list of directories and expands `$ORIGIN` and `$LIB`. Directories with the name of the
/// platform are left out.
fn expanded(list: &str, object: &str) -> Vec<String> {
    let origin = object.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut folders = Vec::new();
    for folder in list.split(':').filter(|folder| !folder.is_empty()) {
        let folder = folder
            .replace("${ORIGIN}", origin)
            .replace("$ORIGIN", origin)
            .replace("${LIB}", "$LIB");
        match folder.contains("$LIB") {
            true => folders.extend(
                ["lib/x86_64-linux-gnu", "lib64", "lib"].map(|lib| folder.replace("$LIB", lib)),
            ),
            false if folder.contains('$') => {}
            false => folders.push(folder),
        }
    }
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expands_search_paths_from_the_directory_of_the_object() {
        assert_eq!(
            expanded("$ORIGIN/../lib:/opt/${LIB}", "/opt/app/bin/x"),
            [
                "/opt/app/bin/../lib",
                "/opt/lib/x86_64-linux-gnu",
                "/opt/lib64",
                "/opt/lib"
            ]
        );
        assert_eq!(expanded("${ORIGIN}:$PLATFORM/x::/a", "/x"), ["", "/a"]);
    }
}
