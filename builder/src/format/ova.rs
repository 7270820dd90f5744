//! A virtual machine for VMware and VirtualBox: a tar archive of its descriptor, its disk as
//! [`super::vmdk`] writes it, and a manifest of both.
//!
//! Format: DMTF DSP0243, "Open Virtualization Format Specification" 1.1.0, which requires the order
//! of the files and the ustar format. The firmware is VMware's own extension, which other programs
//! may ignore.

use std::fs::File;

use adamant_contract::hex;
use sha2::{Digest, Sha256};

use super::pieces::Raw;
use super::stream::{Stream, read_back, write_at};
use super::{Facts, WrittenFile, tar, vmdk};
use crate::error::{Error, Result};

/// Size of the descriptor in bytes. It contains the size of the disk that follows it, so its own
/// size is fixed: line ends pad it.
const DESCRIPTOR: u64 = 8 << 10;
/// Offset of the disk in the archive, bytes.
const DISK: u64 = tar::BLOCK + DESCRIPTOR + tar::BLOCK;
/// Processors of the machine, unless the importing user chooses another number.
const CORES: u32 = 2;
/// Memory of the machine in MiB, likewise.
const MEMORY_MIB: u32 = 1024;

pub fn write(raw: Raw, facts: &Facts, out: &File, jobs: usize) -> Result<WrittenFile> {
    let stem = facts.stem();
    let names = ["ovf", "vmdk", "mf"].map(|kind| format!("{stem}.{kind}"));
    let disk = vmdk::write_to_stream(raw, facts, Stream::new(out, DISK), jobs)?;
    let mut descriptor = descriptor(raw.size, disk.size, facts).into_bytes();
    if descriptor.len() as u64 > DESCRIPTOR {
        return Err(Error::new(
            "the image's id and version are too long for the machine's descriptor",
        ));
    }
    descriptor.resize(DESCRIPTOR as usize, b'\n');
    write_at(out, &tar::ustar(&names[0], DESCRIPTOR, facts.epoch)?, 0)?;
    write_at(out, &descriptor, tar::BLOCK)?;
    write_at(
        out,
        &tar::ustar(&names[1], disk.size, facts.epoch)?,
        tar::BLOCK + DESCRIPTOR,
    )?;

    let manifest = format!(
        "SHA256({})= {}\nSHA256({})= {}\n",
        names[0],
        hex::encode(&Sha256::digest(&descriptor)),
        names[1],
        hex::encode(&disk.sha256)
    );
    let mut end = tar::ustar(&names[2], manifest.len() as u64, facts.epoch)?;
    end.extend_from_slice(manifest.as_bytes());
    // Padding, and the two blocks of zeros that end an archive.
    end.resize(
        end.len().next_multiple_of(tar::BLOCK as usize) + 2 * tar::BLOCK as usize,
        0,
    );
    write_at(out, &end, DISK + disk.size.next_multiple_of(tar::BLOCK))?;
    // The descriptor, which is first in the file, contains the size of the disk.
    read_back(out)
}

fn descriptor(capacity: u64, size: u64, facts: &Facts) -> String {
    let [stem, id, version] = [&facts.stem(), &facts.id, &facts.version].map(|text| escaped(text));
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData" xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData" xmlns:vmw="http://www.vmware.com/schema/ovf">
  <References>
    <File ovf:id="file1" ovf:href="{stem}.vmdk" ovf:size="{size}"/>
  </References>
  <DiskSection>
    <Info>The disk</Info>
    <Disk ovf:diskId="disk1" ovf:fileRef="file1" ovf:capacity="{capacity}" ovf:capacityAllocationUnits="byte" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>
  </DiskSection>
  <NetworkSection>
    <Info>The network</Info>
    <Network ovf:name="VM Network">
      <Description>The network</Description>
    </Network>
  </NetworkSection>
  <VirtualSystem ovf:id="{id}">
    <Info>A virtual machine</Info>
    <Name>{stem}</Name>
    <OperatingSystemSection ovf:id="101" vmw:osType="other3xLinux64Guest">
      <Info>Linux, 64 bit</Info>
      <Description>{id} {version}</Description>
    </OperatingSystemSection>
    <VirtualHardwareSection>
      <Info>Hardware</Info>
      <System>
        <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>
        <vssd:InstanceID>0</vssd:InstanceID>
        <vssd:VirtualSystemIdentifier>{id}</vssd:VirtualSystemIdentifier>
        <vssd:VirtualSystemType>vmx-13</vssd:VirtualSystemType>
      </System>
      <Item>
        <rasd:AllocationUnits>hertz * 10^6</rasd:AllocationUnits>
        <rasd:Description>Number of virtual CPUs</rasd:Description>
        <rasd:ElementName>{CORES} virtual CPUs</rasd:ElementName>
        <rasd:InstanceID>1</rasd:InstanceID>
        <rasd:ResourceType>3</rasd:ResourceType>
        <rasd:VirtualQuantity>{CORES}</rasd:VirtualQuantity>
      </Item>
      <Item>
        <rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits>
        <rasd:Description>Memory size</rasd:Description>
        <rasd:ElementName>{MEMORY_MIB} MiB of memory</rasd:ElementName>
        <rasd:InstanceID>2</rasd:InstanceID>
        <rasd:ResourceType>4</rasd:ResourceType>
        <rasd:VirtualQuantity>{MEMORY_MIB}</rasd:VirtualQuantity>
      </Item>
      <Item>
        <rasd:Address>0</rasd:Address>
        <rasd:Description>SATA controller</rasd:Description>
        <rasd:ElementName>SATA controller 0</rasd:ElementName>
        <rasd:InstanceID>3</rasd:InstanceID>
        <rasd:ResourceSubType>AHCI</rasd:ResourceSubType>
        <rasd:ResourceType>20</rasd:ResourceType>
      </Item>
      <Item>
        <rasd:AddressOnParent>0</rasd:AddressOnParent>
        <rasd:ElementName>Disk 1</rasd:ElementName>
        <rasd:HostResource>ovf:/disk/disk1</rasd:HostResource>
        <rasd:InstanceID>4</rasd:InstanceID>
        <rasd:Parent>3</rasd:Parent>
        <rasd:ResourceType>17</rasd:ResourceType>
      </Item>
      <Item>
        <rasd:AddressOnParent>7</rasd:AddressOnParent>
        <rasd:AutomaticAllocation>true</rasd:AutomaticAllocation>
        <rasd:Connection>VM Network</rasd:Connection>
        <rasd:ElementName>Ethernet 1</rasd:ElementName>
        <rasd:InstanceID>5</rasd:InstanceID>
        <rasd:ResourceSubType>VmxNet3</rasd:ResourceSubType>
        <rasd:ResourceType>10</rasd:ResourceType>
      </Item>
      <vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="efi"/>
    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
"#
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
