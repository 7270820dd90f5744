//! BPF maps: arrays with one value, and ring buffers.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::libc;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use super::{BPF_OBJ_NAME_LEN, bpf, bpf_fd, object_name, raw};

// enum bpf_cmd
const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_GET_NEXT_ID: libc::c_int = 12;
const BPF_MAP_GET_FD_BY_ID: libc::c_int = 14;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_MAP_FREEZE: libc::c_int = 22;
// enum bpf_map_type
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_RINGBUF: u32 = 27;
// Flags of maps
const BPF_F_RDONLY: u32 = 1 << 3;
const BPF_F_RDONLY_PROG: u32 = 1 << 7;

// `union bpf_attr`: one structure for each command. The kernel takes missing bytes at the end as 0.

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; BPF_OBJ_NAME_LEN],
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct MapElement {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct MapFreeze {
    map_fd: u32,
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct GetId {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct GetInfo {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The used part of `struct bpf_map_info`.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct MapInfo {
    map_type: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    name: [u8; BPF_OBJ_NAME_LEN],
}

fn create(attributes: &mut MapCreate) -> io::Result<OwnedFd> {
    // SAFETY: these attributes contain no pointer, and BPF_MAP_CREATE returns a new descriptor.
    unsafe { bpf_fd(BPF_MAP_CREATE, attributes) }
}

/// Whether programs may write to a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgramAccess {
    /// They may only read.
    Read,
    /// They may read and write.
    ReadWrite,
}

/// An array map with a single value of type `T`.
pub struct ValueMap<T> {
    fd: OwnedFd,
    value: PhantomData<T>,
}

impl<T: FromBytes + IntoBytes + Immutable> ValueMap<T> {
    /// Creates the map. Its value is all zeros.
    pub fn create(name: &str, access: ProgramAccess) -> io::Result<ValueMap<T>> {
        let mut attributes = MapCreate {
            map_type: BPF_MAP_TYPE_ARRAY,
            key_size: size_of::<u32>() as u32,
            value_size: size_of::<T>() as u32,
            max_entries: 1,
            map_flags: match access {
                ProgramAccess::Read => BPF_F_RDONLY_PROG,
                ProgramAccess::ReadWrite => 0,
            },
            map_name: object_name(name),
            ..MapCreate::new_zeroed()
        };
        Ok(ValueMap {
            fd: create(&mut attributes)?,
            value: PhantomData,
        })
    }

    /// Opens an existing map by its name, for reading only. `None` if no map has this name.
    pub fn open(name: &str) -> io::Result<Option<ValueMap<T>>> {
        let Some(fd) = find(name, BPF_F_RDONLY)? else {
            return Ok(None);
        };
        let found = info(fd.as_fd())?;
        if found.map_type != BPF_MAP_TYPE_ARRAY
            || found.key_size as usize != size_of::<u32>()
            || found.value_size as usize != size_of::<T>()
        {
            return Err(io::Error::other(format!(
                "the map {name} has values of {} bytes instead of {}: another version of the agent made it",
                found.value_size,
                size_of::<T>()
            )));
        }
        Ok(Some(ValueMap {
            fd,
            value: PhantomData,
        }))
    }

    /// Writes the value.
    pub fn set(&self, value: &T) -> io::Result<()> {
        let key = 0u32;
        let mut attributes = MapElement {
            map_fd: raw(self.fd.as_fd()),
            key: &raw const key as u64,
            value: value.as_bytes().as_ptr() as u64,
            ..MapElement::new_zeroed()
        };
        // SAFETY: the kernel reads a key of 4 bytes and a value of the size of T: `create` and
        // `open` have made sure of both sizes. Both outlive the call.
        unsafe { bpf(BPF_MAP_UPDATE_ELEM, &mut attributes).map(drop) }
    }

    /// Reads the value.
    pub fn get(&self) -> io::Result<T> {
        let key = 0u32;
        let mut value = T::new_zeroed();
        let mut attributes = MapElement {
            map_fd: raw(self.fd.as_fd()),
            key: &raw const key as u64,
            value: &raw mut value as u64,
            ..MapElement::new_zeroed()
        };
        // SAFETY: the kernel reads a key of 4 bytes and writes a value of the size of T: `create`
        // and `open` have made sure of both sizes. Both outlive the call, and any bytes are a T.
        unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &mut attributes) }?;
        Ok(value)
    }

    /// Makes the map read-only for all system calls from now on.
    pub fn freeze(&self) -> io::Result<()> {
        let mut attributes = MapFreeze {
            map_fd: raw(self.fd.as_fd()),
        };
        // SAFETY: these attributes contain no pointer.
        unsafe { bpf(BPF_MAP_FREEZE, &mut attributes).map(drop) }
    }
}

impl<T> AsFd for ValueMap<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Creates a ring buffer of this many bytes, a power of two.
pub fn create_ring(name: &str, bytes: u32) -> io::Result<OwnedFd> {
    create(&mut MapCreate {
        map_type: BPF_MAP_TYPE_RINGBUF,
        max_entries: bytes,
        map_name: object_name(name),
        ..MapCreate::new_zeroed()
    })
}

/// Opens an existing ring buffer by its name, and gives its size in bytes. `None` where there is
/// none.
pub fn open_ring(name: &str) -> io::Result<Option<(OwnedFd, u32)>> {
    let Some(fd) = find(name, 0)? else {
        return Ok(None);
    };
    let found = info(fd.as_fd())?;
    if found.map_type != BPF_MAP_TYPE_RINGBUF {
        return Err(io::Error::other(format!("{name} is not a ring buffer")));
    }
    Ok(Some((fd, found.max_entries)))
}

fn info(map: BorrowedFd) -> io::Result<MapInfo> {
    let mut found = MapInfo::new_zeroed();
    let mut attributes = GetInfo {
        bpf_fd: raw(map),
        info_len: size_of::<MapInfo>() as u32,
        info: &raw mut found as u64,
    };
    // SAFETY: the kernel writes at most `info_len` bytes to `found`, which outlives the call, and
    // any bytes are a MapInfo.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes) }?;
    Ok(found)
}

/// The kernel's first map of this name. `None` if no map has this name.
fn find(name: &str, open_flags: u32) -> io::Result<Option<OwnedFd>> {
    let open = |id: u32, open_flags: u32| {
        let mut attributes = GetId {
            id,
            open_flags,
            ..GetId::new_zeroed()
        };
        // SAFETY: these attributes contain no pointer, and BPF_MAP_GET_FD_BY_ID returns a new
        // descriptor.
        unsafe { bpf_fd(BPF_MAP_GET_FD_BY_ID, &mut attributes) }
    };
    let mut id = 0;
    loop {
        let mut attributes = GetId {
            id,
            ..GetId::new_zeroed()
        };
        // SAFETY: these attributes contain no pointer.
        match unsafe { bpf(BPF_MAP_GET_NEXT_ID, &mut attributes) } {
            Ok(_) => id = attributes.next_id,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
        // A map that was removed meanwhile, or that this process must not open, is not the guard's.
        let Ok(map) = open(id, BPF_F_RDONLY) else {
            continue;
        };
        if info(map.as_fd()).is_ok_and(|found| found.name == object_name(name)) {
            return if open_flags == BPF_F_RDONLY {
                Ok(map)
            } else {
                open(id, open_flags)
            }
            .map(Some);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    #[test]
    fn attributes_have_the_offsets_of_the_kernels_header() {
        // As gcc's offsetof() gives them for <linux/bpf.h> of Linux 6.12.
        assert_eq!(offset_of!(MapCreate, map_name), 28);
        assert_eq!(offset_of!(MapElement, key), 8);
        assert_eq!(offset_of!(MapElement, flags), 24);
        assert_eq!(offset_of!(GetInfo, info), 8);
        assert_eq!(offset_of!(MapInfo, name), 24);
    }
}
