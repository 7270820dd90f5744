//! The volumes' partitions: finds them in the disk's partition table, changes the table, and
//! updates the kernel.

use std::fs::File;

use adamant_contract::gpt::{self, PartitionTable};
use adamant_contract::policy::Volume;

use crate::kernel::block::{Disk, KernelPartition};

/// A disk with its table.
pub struct Partitions<'a> {
    disk: &'a Disk,
    file: File,
    /// The table as it is on the disk.
    pub table: PartitionTable,
    /// Faults of one of the disk's two copies of the table.
    pub repairs: Vec<String>,
}

impl<'a> Partitions<'a> {
    /// Reads a disk's table.
    pub fn open(disk: &'a Disk) -> Result<Partitions<'a>, String> {
        let file = disk.open(true).map_err(|e| format!("opening it: {e}"))?;
        let found =
            gpt::disk::read_table(&file, disk.sector, disk.sectors).map_err(|e| e.to_string())?;
        Ok(Partitions {
            disk,
            file,
            table: found.table,
            repairs: found.repairs,
        })
    }

    /// The index of the volume's partition in the table: the one with its label and type.
    pub fn find_volume(&self, volume: &Volume) -> Result<usize, String> {
        let kind = gpt::volume_type(&volume.mount);
        let labelled = self
            .table
            .partitions
            .iter()
            .enumerate()
            .filter(|(_, p)| p.as_ref().is_some_and(|p| p.label == volume.name));
        let (found, others): (Vec<_>, Vec<_>) =
            labelled.partition(|(_, p)| p.as_ref().is_some_and(|p| p.kind == kind));
        let numbers = |list: &[(usize, &Option<gpt::Partition>)]| {
            list.iter()
                .map(|(index, _)| (index + 1).to_string())
                .collect::<Vec<_>>()
                .join(" and ")
        };
        match (found.as_slice(), others.as_slice()) {
            ([(index, _)], _) => Ok(*index),
            ([], []) => Err(format!("no partition has this label and type {kind}")),
            ([], others) => Err(format!(
                "partition {} has this label but not type {kind}",
                numbers(others)
            )),
            (several, _) => Err(format!(
                "partitions {} all have this label and type",
                numbers(several)
            )),
        }
    }

    /// Writes a changed table with its repairs, and updates the kernel's partitions of `volumes`
    /// (indexes).
    pub fn save(&mut self, table: PartitionTable, volumes: &[usize]) -> Result<(), String> {
        if table != self.table || !self.repairs.is_empty() {
            gpt::disk::write_table(&mut self.file, &table)
                .map_err(|e| format!("writing the partition table: {e}"))?;
            self.table = table;
            self.repairs.clear();
        }
        self.tell_kernel(volumes)
            .map_err(|e| format!("telling the kernel of a changed partition: {e}"))
    }

    /// Moved partitions are removed first, so that no old one overlaps a new one.
    fn tell_kernel(&self, volumes: &[usize]) -> std::io::Result<()> {
        let mut wanted = Vec::new();
        for &index in volumes {
            let (number, start, bytes) = self.place(index)?;
            let known = self.disk.partition(number)?;
            if known.as_ref().is_some_and(|p| p.start != start) {
                self.disk.remove_partition(number)?;
            }
            wanted.push((number, start, bytes, known.filter(|p| p.start == start)));
        }
        for (number, start, bytes, known) in &wanted {
            if known.as_ref().is_some_and(|p| p.bytes != *bytes) {
                self.disk.resize_partition(*number, *start, *bytes)?;
            }
        }
        for (number, start, bytes, known) in &wanted {
            if known.is_none() {
                self.disk.add_partition(*number, *start, *bytes)?;
            }
        }
        Ok(())
    }

    /// Number, first byte and length in bytes of a partition.
    fn place(&self, index: usize) -> std::io::Result<(u32, u64, u64)> {
        let partition = self
            .table
            .partitions
            .get(index)
            .and_then(Option::as_ref)
            .ok_or(std::io::ErrorKind::NotFound)?;
        let sector = u64::from(self.table.sector);
        // The table was checked to lie within the disk, so its byte offsets fit in 64 bits.
        Ok((
            index as u32 + 1,
            partition.first.saturating_mul(sector),
            partition.sectors().saturating_mul(sector),
        ))
    }

    /// The kernel's device for an index.
    pub fn device(&self, index: usize) -> Result<KernelPartition, String> {
        let found = self
            .disk
            .partition(index as u32 + 1)
            .map_err(|e| format!("looking for partition {} in /sys: {e}", index + 1))?;
        found.ok_or_else(|| format!("the kernel has no device for partition {}", index + 1))
    }
}
