need /dev/nvme0n1; blockdev --rereadpt /dev/nvme0n1
