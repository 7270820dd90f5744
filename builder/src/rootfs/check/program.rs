//! Whether the kernel (execve(2)) and the dynamic loader (ld.so(8)) can start a program of the
//! image.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::elf::{self, Elf, ElfMachine};
use super::fault::{Fault, MissingLibrary};
use super::libraries::Search;
use super::script::{self, FirstLine};
use super::{Image, PATH};
use crate::tree::{Content, Kind, NodeId, ResolveError, parts, show};

/// Maximum depth of nested interpreters in the kernel (exec_binprm).
const NESTED: usize = 5;
/// Maximum number of objects checked for one program, a bound for hostile images.
const OBJECTS: usize = 4096;

/// Checks the programs of an image and remembers the results.
pub struct Programs<'a> {
    image: &'a Image<'a>,
    search: Search,
    parsed: RefCell<BTreeMap<NodeId, Rc<Result<Elf, elf::Malformed>>>>,
    judged: RefCell<BTreeMap<NodeId, Option<Fault>>>,
}

/// A file with its resolved path.
#[derive(Debug, Clone)]
pub struct FoundFile {
    /// The path without symbolic links.
    pub path: String,
    /// The file.
    pub id: NodeId,
}

impl<'a> Programs<'a> {
    pub fn new(image: &'a Image<'a>) -> Programs<'a> {
        Programs {
            image,
            search: Search::new(image),
            parsed: RefCell::default(),
            judged: RefCell::default(),
        }
    }

    /// Why the program at this path cannot be started on a running machine; `None` if it can.
    pub fn fault(&self, path: &str) -> Option<Fault> {
        self.fault_at(path, 0)
    }

    /// Resolves a path.
    pub fn find(&self, path: &str) -> Result<FoundFile, Fault> {
        let mut links = Vec::new();
        let end = self.image.tree.follow(parts(path.as_bytes()), &mut |link| {
            if let Kind::Symlink(target) = &self.image.tree.node(link.id).kind {
                links.push((format!("/{}", show(&link.path())), show(target)));
            }
            crate::tree::LinkPolicy::Follow
        });
        let end = end.map_err(|stop| match stop {
            ResolveError::Loop => Fault::LinkLoop,
            ResolveError::Refused(_) => Fault::Missing,
        })?;
        let Some(id) = end.node() else {
            let dangling = links
                .into_iter()
                .find(|(link, _)| self.image.tree.resolve(link.as_bytes()).is_none());
            return Err(dangling.map_or(Fault::Missing, |(link, target)| {
                Fault::Dangling(link, target)
            }));
        };
        Ok(FoundFile {
            path: format!("/{}", show(&end.path())),
            id,
        })
    }

    fn fault_at(&self, path: &str, depth: usize) -> Option<Fault> {
        let found = match self.find(path) {
            Ok(found) => found,
            Err(fault) => return Some(fault),
        };
        if let Some(fault) = self.place_fault(&found.path) {
            return Some(fault);
        }
        if let Some(known) = self.judged.borrow().get(&found.id) {
            return known.clone();
        }
        let fault = self.file_fault(&found, depth);
        // A result that depends on the depth is not stored for the file.
        if fault != Some(Fault::TooDeep) && depth == 0 {
            self.judged.borrow_mut().insert(found.id, fault.clone());
        }
        fault
    }

    /// The file system that is mounted over a path before init starts.
    fn place_fault(&self, path: &str) -> Option<Fault> {
        let below = |place: &str| path == place || adamant_contract::policy::is_below(path, place);
        let definition = self.image.definition;
        let volume = definition
            .volumes
            .iter()
            .map(|volume| &volume.policy)
            .filter(|volume| below(&volume.mount))
            .max_by_key(|volume| volume.mount.len());
        match volume {
            Some(volume) if definition.seal.allow.execute.contains(&volume.name) => None,
            Some(volume) => Some(Fault::OnVolume(volume.mount.clone())),
            None => super::MOUNTED_OVER
                .into_iter()
                .find(|place| below(place))
                .map(|place| Fault::Hidden(place.to_owned())),
        }
    }

    fn file_fault(&self, found: &FoundFile, depth: usize) -> Option<Fault> {
        let node = self.image.tree.node(found.id);
        let Kind::File(content) = &node.kind else {
            return Some(Fault::NotAFile);
        };
        if node.meta.mode & 0o111 == 0 {
            return Some(Fault::NotExecutable);
        }
        if content.is_empty() {
            return Some(Fault::Empty);
        }
        let Ok(head) = head(content) else {
            return Some(Fault::Malformed("it cannot be read"));
        };
        if elf::is_elf(&head) {
            return self.elf_fault(found, content);
        }
        match script::first_line(&head, content.len() < script::HEAD as u64) {
            FirstLine::Other => Some(Fault::NoProgram),
            FirstLine::ByteOrderMark => Some(Fault::ByteOrderMark),
            FirstLine::NoInterpreter | FirstLine::TooLong => Some(Fault::NoInterpreter),
            FirstLine::CarriageReturn(name) => Some(Fault::CarriageReturn(show(&name))),
            FirstLine::Script { .. } if depth == NESTED => Some(Fault::TooDeep),
            FirstLine::Script {
                interpreter,
                argument,
            } => {
                // A relative path starts at the working directory, which is / for init and
                // services.
                let path = format!("/{}", show(&interpreter).trim_start_matches('/'));
                match self.fault_at(&path, depth + 1) {
                    Some(Fault::TooDeep) => Some(Fault::TooDeep),
                    Some(fault) => Some(Fault::Interpreter(path, Box::new(fault))),
                    None => self.env_fault(&path, argument.as_deref()),
                }
            }
        }
    }

    /// `#!/usr/bin/env NAME`: env searches PATH for the name.
    fn env_fault(&self, interpreter: &str, argument: Option<&[u8]>) -> Option<Fault> {
        let name = argument
            .filter(|_| interpreter.ends_with("/env"))
            .and_then(|name| std::str::from_utf8(name).ok())?;
        let is_name = !name.starts_with('-') && !name.contains(['=', ' ', '\t', '/', '$']);
        let is_found = || {
            PATH.iter()
                .any(|folder| self.find(&format!("{folder}/{name}")).is_ok())
        };
        (is_name && !is_found()).then(|| Fault::EnvProgram(name.to_owned()))
    }

    fn elf_fault(&self, found: &FoundFile, content: &Content) -> Option<Fault> {
        let parsed = self.parse(found.id, content);
        let elf = match &*parsed {
            Ok(elf) => elf,
            Err(why) => return Some(Fault::Malformed(why)),
        };
        if let ElfMachine::Other(name, number) = elf.machine {
            return Some(Fault::OtherMachine(if name.is_empty() {
                format!("machine {number} of ELF")
            } else {
                name.to_owned()
            }));
        }
        let loader = elf.loader.as_deref()?;
        let path = show(loader);
        if let Some(fault) = self.loader_fault(&path) {
            return Some(Fault::Loader(path, Box::new(fault)));
        }
        let loader = self.find(&path).ok()?;
        self.library_fault(found, elf, &loader)
    }

    /// The kernel loads the dynamic loader itself: it must be an executable ELF file for this
    /// machine.
    fn loader_fault(&self, path: &str) -> Option<Fault> {
        let found = match self.find(path) {
            Ok(found) => found,
            Err(fault) => return Some(fault),
        };
        if let Some(fault) = self.place_fault(&found.path) {
            return Some(fault);
        }
        let node = self.image.tree.node(found.id);
        let Kind::File(content) = &node.kind else {
            return Some(Fault::NotAFile);
        };
        if node.meta.mode & 0o111 == 0 {
            return Some(Fault::NotExecutable);
        }
        match head(content) {
            Ok(head) if elf::is_elf(&head) => {}
            _ => return Some(Fault::Malformed("it is not an ELF file")),
        }
        match &*self.parse(found.id, content) {
            Ok(Elf {
                machine: ElfMachine::Other(name, _),
                ..
            }) => Some(Fault::OtherMachine((*name).to_owned())),
            Ok(_) => None,
            Err(why) => Some(Fault::Malformed(why)),
        }
    }

    /// The first library, in the loader's order, that the loader does not find.
    fn library_fault(&self, program: &FoundFile, elf: &Elf, loader: &FoundFile) -> Option<Fault> {
        struct Object {
            path: Option<String>,
            needed: Vec<Vec<u8>>,
            folders: Rc<Vec<String>>,
            inherited: Rc<Vec<String>>,
        }
        let object = |path: Option<String>, at: &str, elf: &Elf, inherited: &[String]| {
            let (folders, inherited) = self.search.own_folders(at, elf, inherited);
            Object {
                path,
                needed: elf.needed.clone(),
                folders: Rc::new(folders),
                inherited: Rc::new(inherited),
            }
        };
        let mut loaded: BTreeSet<Vec<u8>> = BTreeSet::new();
        let mut objects = vec![object(None, &program.path, elf, &[])];
        let mut at = 0;
        while at < objects.len() && objects.len() < OBJECTS {
            let (path, folders, inherited) = (
                objects[at].path.clone(),
                objects[at].folders.clone(),
                objects[at].inherited.clone(),
            );
            for name in std::mem::take(&mut objects[at].needed) {
                if !loaded.insert(name.clone()) || self.search.is_loader_itself(&name, loader) {
                    continue;
                }
                let text = show(&name);
                let usable = |path: &str| self.library(path, elf.machine);
                let Some((found, parsed)) = self
                    .search
                    .candidates(&text, &folders, loader)
                    .into_iter()
                    .find_map(|path| usable(&path))
                else {
                    let elsewhere = self.search.elsewhere(self.image, &name);
                    return Some(Fault::Library(MissingLibrary {
                        name: text,
                        needed_by: path,
                        elsewhere,
                    }));
                };
                if found.id == loader.id {
                    continue;
                }
                if let Some(fault) = self.place_fault(&found.path) {
                    return Some(Fault::UnusableLibrary(found.path, Box::new(fault)));
                }
                if let Ok(library) = &*parsed {
                    if library
                        .soname
                        .as_ref()
                        .is_some_and(|soname| *soname != name && !loaded.insert(soname.clone()))
                    {
                        continue;
                    }
                    objects.push(object(
                        Some(found.path.clone()),
                        &found.path,
                        library,
                        &inherited,
                    ));
                }
            }
            at += 1;
        }
        None
    }

    /// A library for the right machine; the loader skips others.
    fn library(
        &self,
        path: &str,
        machine: ElfMachine,
    ) -> Option<(FoundFile, Rc<Result<Elf, elf::Malformed>>)> {
        let found = self.find(path).ok()?;
        let Kind::File(content) = &self.image.tree.node(found.id).kind else {
            return None;
        };
        let parsed = self.parse(found.id, content);
        let is_usable = head(content).is_ok_and(|head| elf::is_elf(&head))
            && parsed
                .as_ref()
                .as_ref()
                .is_ok_and(|elf| elf.machine == machine);
        is_usable.then_some((found, parsed))
    }

    fn parse(&self, id: NodeId, content: &Content) -> Rc<Result<Elf, elf::Malformed>> {
        self.parsed
            .borrow_mut()
            .entry(id)
            .or_insert_with(|| Rc::new(elf::read(content)))
            .clone()
    }
}

/// The magic bytes by which the kernel detects the type of a file.
pub fn head(content: &Content) -> std::io::Result<Vec<u8>> {
    let mut head = vec![0; content.len().min(script::HEAD as u64) as usize];
    content.read_exact_at(0, &mut head)?;
    Ok(head)
}
